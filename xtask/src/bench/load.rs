//! What is read, and how fast that went.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, ensure};
use penstock_testkit::tools;
use serde_json::Value;

/// One large file, and many small ones in a folder beside it.
pub(super) struct Shape {
    pub(super) large: u64,
    pub(super) small_files: usize,
    pub(super) small: usize,
}

pub(super) const LARGE: &str = "large.bin";
pub(super) const SMALL: &str = "small";

impl Shape {
    /// Writes the data, which no compression and no deduplication shrinks.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder.join(SMALL))?;
        let mut noise = fs::File::open("/dev/urandom")?;
        std::io::copy(&mut (&mut noise).take(self.large), &mut fs::File::create(folder.join(LARGE))?)?;
        for index in 0..self.small_files {
            let mut data = vec![0; self.small];
            noise.read_exact(&mut data)?;
            fs::write(folder.join(small_name(index)), data)?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.large + (self.small_files * self.small) as u64
    }
}

fn small_name(index: usize) -> PathBuf {
    Path::new(SMALL).join(format!("{index:06}.bin"))
}

/// Page cache, dentries and inodes of the whole machine.
pub(super) fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache takes root")
}

/// Gigabytes per second of one pass over `file` in 1 MiB reads, page cache dropped.
pub(super) fn sequential(file: &Path) -> anyhow::Result<f64> {
    let job = fio(file, &["--rw=read", "--bs=1M"])?;
    Ok(job["bw_bytes"].as_f64().context("fio told no bandwidth")? / 1e9)
}

/// Random 4 KiB reads per second, one after the other, page cache dropped.
pub(super) fn random(file: &Path, seconds: u32) -> anyhow::Result<f64> {
    random_job(file, seconds)?["iops"].as_f64().context("fio told no rate")
}

/// As [`random`]: microseconds that one read takes, the median.
pub(super) fn latency(file: &Path, seconds: u32) -> anyhow::Result<f64> {
    let job = random_job(file, seconds)?;
    Ok(job["clat_ns"]["percentile"]["50.000000"].as_f64().context("fio told no latency")? / 1e3)
}

fn random_job(file: &Path, seconds: u32) -> anyhow::Result<Value> {
    let runtime = format!("--runtime={seconds}");
    fio(file, &["--rw=randread", "--bs=4k", "--time_based", &runtime, "--norandommap"])
}

fn fio(file: &Path, args: &[&str]) -> anyhow::Result<Value> {
    drop_caches()?;
    let base = ["--name=read", "--readonly", "--ioengine=psync", "--iodepth=1", "--output-format=json"];
    let mut command = Command::new(tools::debian("fio", "fio")?);
    command.args(base).args(args).arg(format!("--filename={}", file.display()));
    let mut answer: Value = serde_json::from_str(&tools::output(&mut command)?).context("fio's answer")?;
    let job = answer["jobs"][0].take();
    ensure!(job["error"] == 0, "fio failed with error {}", job["error"]);
    Ok(job["read"].clone())
}

/// Small files opened, read and closed per second, one after the other, page and dentry cache dropped.
pub(super) fn small(folder: &Path, shape: &Shape) -> anyhow::Result<f64> {
    drop_caches()?;
    let mut data = Vec::with_capacity(shape.small);
    let begun = Instant::now();
    for index in 0..shape.small_files {
        data.clear();
        fs::File::open(folder.join(small_name(index)))?.read_to_end(&mut data)?;
        ensure!(data.len() == shape.small, "{} has {} bytes", small_name(index).display(), data.len());
    }
    Ok(shape.small_files as f64 / begun.elapsed().as_secs_f64())
}
