//! What the demo has seen.

use std::{fs, path::Path, time::Duration};

use indicatif::{HumanBytes, HumanDuration};
use serde::Serialize;

/// `target/demo/report.json`.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) files: usize,
    pub(super) bytes: u64,
    /// Over all phases.
    pub(super) mismatched_files: usize,
    /// What the S3 server gives to all its readers together.
    pub(super) bytes_per_second: u64,
    /// The first reads straight from the S3 server, and the others do the same by the mount.
    pub(super) phases: Vec<Phase>,
}

#[derive(Serialize)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) seconds: f64,
    /// Bodies that the S3 server sent meanwhile, by its own count.
    pub(super) ufs_bytes: u64,
    pub(super) workers: usize,
    #[serde(skip)]
    pub(super) mismatched: usize,
}

impl Report {
    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        Ok(fs::write(file, serde_json::to_vec_pretty(self)?)?)
    }

    pub(super) fn print(&self) {
        println!("\n{} files, {}, read and checked {} times", self.files, HumanBytes(self.bytes), self.phases.len());
        println!(
            "{:<12} {:>8} {:>10} {:>12} {:>10} {:>14} {:>11}",
            "PHASE", "WORKERS", "SECONDS", "THROUGHPUT", "BY DIRECT", "FROM S3", "MISMATCHED"
        );
        let direct = self.phases.first().map_or(0.0, |phase| phase.seconds);
        for phase in &self.phases {
            println!(
                "{:<12} {:>8} {:>10.2} {:>10}/s {:>9.1}x {:>14} {:>11}",
                phase.name,
                phase.workers,
                phase.seconds,
                HumanBytes((self.bytes as f64 / phase.seconds) as u64).to_string(),
                direct / phase.seconds,
                HumanBytes(phase.ufs_bytes).to_string(),
                phase.mismatched
            );
        }
        let total: f64 = self.phases.iter().map(|phase| phase.seconds).sum();
        println!(
            "direct is read straight from the S3 server, which gives {}/s to all its readers together; the others are read \
             through Penstock. All took {}.",
            HumanBytes(self.bytes_per_second),
            HumanDuration(Duration::from_secs_f64(total))
        );
    }
}
