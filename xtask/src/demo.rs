//! `cargo xtask demo`: the main job on one machine, with everything it needs.
//!
//! A bucket of market data is served by an S3 server inside this process, cached by three workers, mounted by FUSE and
//! read: cold, warm, after scaling to five, and while a worker dies. Every byte is checked each time.

pub(crate) mod data;
mod reading;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{HumanBytes, HumanDuration};
use penstock_cli::local::{Fleet, UpOptions};
use penstock_testkit::s3::{S3Options, S3Server};
use serde::Serialize;

use crate::run::{cargo, root};
use data::MarketData;

const BUCKET: &str = "market-data";

#[derive(Args)]
pub(crate) struct Options {
    /// Readers at once.
    #[arg(long, default_value_t = 4)]
    readers: usize,
    /// Data to make, in MiB; never less than fits the shape.
    #[arg(long, default_value_t = 1088)]
    mebibytes: u64,
}

/// `target/demo/report.json`.
#[derive(Serialize)]
struct Report {
    files: usize,
    bytes: u64,
    /// Over all phases.
    mismatched_files: usize,
    phases: Vec<Phase>,
}

#[derive(Serialize)]
struct Phase {
    name: &'static str,
    seconds: f64,
    /// Bodies that the S3 server sent meanwhile, by its own count.
    ufs_bytes: u64,
    workers: usize,
    #[serde(skip)]
    mismatched: usize,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    cargo(
        "build",
        &["build", "--package", "penstock-worker", "--package", "penstock-mount", "--package", "penstock-cli"],
    )?;
    let server = S3Server::start_on_own_threads(S3Options::default())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = play(options, &server) => report,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    });
    // Whatever happened: nothing of the demo stays.
    let swept = sweep();
    let report = report?;
    swept?;
    let file = root().join("target/demo/report.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    print(&report);
    eprintln!("report: target/demo/report.json");
    ensure!(report.mismatched_files == 0, "{} files differ from what was written", report.mismatched_files);
    Ok(())
}

fn state_dir() -> PathBuf {
    root().join("target/demo/state")
}

/// Ends a fleet that this or an earlier run left behind.
fn sweep() -> anyhow::Result<()> {
    if state_dir().is_dir() {
        if let Ok(fleet) = Fleet::find(&state_dir(), None) {
            fleet.down()?;
        }
        fs::remove_dir_all(state_dir())?;
    }
    Ok(())
}

async fn play(options: &Options, server: &S3Server) -> anyhow::Result<Report> {
    sweep()?;
    fs::create_dir_all(state_dir())?;
    let data = data::fill(server, BUCKET, options.mebibytes << 20)?;
    let mut fleet = up(server).await?;
    let stage = Stage { server, data: &data, readers: options.readers };
    let mut phases = vec![stage.read("cold", &fleet)?, stage.read("warm", &fleet)?];
    fleet.scale(5).await?;
    phases.push(stage.read("scaled", &fleet)?);
    phases.push(stage.lose_a_worker(&fleet)?);
    fleet.down()?;
    let mismatched_files = phases.iter().map(|phase| phase.mismatched).sum();
    Ok(Report { files: data.files.len(), bytes: data.bytes(), mismatched_files, phases })
}

async fn up(server: &S3Server) -> anyhow::Result<Fleet> {
    let file = state_dir().parent().context("target/demo")?.join("dataset.yaml");
    fs::write(&file, manifest(server))?;
    let begin = Instant::now();
    let fleet = Fleet::up(&UpOptions { file, mount: None, base: state_dir(), programs: None }).await?;
    eprintln!("three workers and a mount are up after {:.1} s", begin.elapsed().as_secs_f64());
    Ok(fleet)
}

fn manifest(server: &S3Server) -> String {
    include_str!("demo/dataset.yaml")
        .replace("ENDPOINT", &server.endpoint())
        .replace("BUCKET", BUCKET)
        .replace("ACCESS_KEY", server.access_key())
        .replace("SECRET_KEY", server.secret_key())
}

/// What every phase reads, and from where.
struct Stage<'a> {
    server: &'a S3Server,
    data: &'a MarketData,
    readers: usize,
}

impl Stage<'_> {
    fn read(&self, name: &'static str, fleet: &Fleet) -> anyhow::Result<Phase> {
        self.read_while(name, fleet, |_| ())
    }

    /// Reads everything; a quarter of the way a worker is killed without warning.
    fn lose_a_worker(&self, fleet: &Fleet) -> anyhow::Result<Phase> {
        // The first worker has most that nobody else holds.
        let (id, victim) = fleet.processes().into_iter().next().context("the fleet has workers")?;
        let mut kill = Some(victim);
        let threshold = self.data.files.len() / 4;
        self.read_while("worker_lost", fleet, move |done| {
            if done >= threshold
                && let Some(victim) = kill.take()
            {
                victim.kill();
                eprintln!("killed {id}");
            }
        })
    }

    /// Reads and checks every file through the mount, calling `during` with the number of files read so far.
    fn read_while(&self, name: &'static str, fleet: &Fleet, during: impl FnMut(usize) + Send) -> anyhow::Result<Phase> {
        let dir = fleet.mount_dir().context("the Dataset is mounted")?;
        self.server.reset_counts();
        let (begin, files, readers) = (Instant::now(), &self.data.files, self.readers);
        let mismatched = tokio::task::block_in_place(|| reading::check_all(name, dir, files, readers, during))?;
        let workers = fleet.processes().iter().filter(|(_, process)| process.is_alive()).count();
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Phase { name, seconds, ufs_bytes: self.server.sent_bytes(), workers, mismatched })
    }
}

fn print(report: &Report) {
    println!("\n{} files, {}", report.files, HumanBytes(report.bytes));
    println!(
        "{:<12} {:>8} {:>10} {:>12} {:>14} {:>11}",
        "PHASE", "WORKERS", "SECONDS", "THROUGHPUT", "FROM S3", "MISMATCHED"
    );
    for phase in &report.phases {
        let rate = HumanBytes((report.bytes as f64 / phase.seconds) as u64);
        println!(
            "{:<12} {:>8} {:>10.2} {:>10}/s {:>14} {:>11}",
            phase.name,
            phase.workers,
            phase.seconds,
            rate.to_string(),
            HumanBytes(phase.ufs_bytes).to_string(),
            phase.mismatched
        );
    }
    let total: f64 = report.phases.iter().map(|phase| phase.seconds).sum();
    println!("read and checked four times in {}", HumanDuration(std::time::Duration::from_secs_f64(total)));
}
