//! Memory and descriptors of processes over time.

use std::fs;

use anyhow::Context;

use crate::figures::median;

/// One process, and what it took at each look.
pub(super) struct Vitals {
    name: String,
    pid: i32,
    /// Anonymous memory, KiB.
    memory: Vec<f64>,
    descriptors: Vec<f64>,
}

impl Vitals {
    pub(super) fn new(name: &str, pid: i32) -> Self {
        Self { name: name.into(), pid, memory: Vec::new(), descriptors: Vec::new() }
    }

    /// An error when the process has ended.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.with_context(|| format!("{} has ended", self.name))?;
        self.memory.push(anonymous(&status).with_context(|| format!("{} tells no memory", self.name))?);
        self.descriptors.push(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count() as f64);
        Ok(())
    }

    /// Percent.
    pub(super) fn memory_growth(&self) -> f64 {
        growth(&self.memory)
    }

    /// Percent.
    pub(super) fn descriptor_growth(&self) -> f64 {
        growth(&self.descriptors)
    }

    /// In words.
    pub(super) fn tell(&self) -> String {
        let (memory, descriptors) = (median(self.memory.clone()) / 1024.0, median(self.descriptors.clone()));
        format!(
            "{}: {memory:.1} MiB ({:+.1} %), {descriptors:.0} descriptors ({:+.1} %)",
            self.name,
            self.memory_growth(),
            self.descriptor_growth()
        )
    }
}

/// `RssAnon` of proc(5), KiB: files in memory, which tiers are, do not count.
fn anonymous(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// By how much the median of the last third is above that of the first, percent.
fn growth(series: &[f64]) -> f64 {
    let third = series.len() / 3;
    let (first, last) = (median(series[..third].to_vec()), median(series[series.len() - third..].to_vec()));
    (last / first - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_compares_thirds_and_no_peaks() {
        let steady: Vec<f64> = (0..90).map(|at| if at % 10 == 0 { 900.0 } else { 100.0 }).collect();
        assert!(growth(&steady).abs() < 1e-9);
        let rising: Vec<f64> = (0..90).map(|at| 100.0 + f64::from(at)).collect();
        assert!((growth(&rising) - 60.0 / 115.0 * 100.0).abs() < 1e-9);
    }

    #[test]
    fn anonymous_memory_is_found() {
        assert_eq!(anonymous("Name:\tx\nRssAnon:\t    1234 kB\nRssFile:\t 5 kB\n"), Some(1234.0));
        assert_eq!(anonymous("Name:\tx\n"), None);
    }
}
