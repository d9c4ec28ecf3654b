//! What is read, and how fast that went.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Barrier,
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow, ensure};
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
        write_noise(&folder.join(LARGE), self.large)?;
        let mut noise = fs::File::open("/dev/urandom")?;
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

/// Writes a file of `bytes` random bytes.
pub(super) fn write_noise(file: &Path, bytes: u64) -> anyhow::Result<()> {
    std::io::copy(&mut fs::File::open("/dev/urandom")?.take(bytes), &mut fs::File::create(file)?)?;
    Ok(())
}

/// Bytes that the files below a folder take on their medium.
pub(super) fn allocated(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { allocated(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn small_name(index: usize) -> PathBuf {
    Path::new(SMALL).join(format!("{index:06}.bin"))
}

/// Page cache, dentries and inodes of the whole machine.
pub(super) fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache takes root")
}

/// Dentries and inodes of the whole machine.
pub(super) fn drop_dentries() -> anyhow::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "2").context("dropping dentries takes root")
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

/// As [`random`], with `reads` of them or as many as go in `seconds`, at the same places for whoever reads: how many, and
/// their rate.
pub(super) fn random_count(file: &Path, reads: u64, seconds: u32) -> anyhow::Result<(u64, f64)> {
    let (bytes, runtime) = (format!("--io_size={}", reads * 4096), format!("--runtime={seconds}"));
    let job = fio(file, &["--rw=randread", "--bs=4k", &bytes, &runtime, "--norandommap"])?;
    let field = |name: &str| job[name].as_f64().with_context(|| format!("fio told no {name}"));
    Ok((field("total_ios")? as u64, field("iops")?))
}

/// Reads a file to its end in 1 MiB reads; its bytes.
pub(super) fn pass(file: &Path) -> anyhow::Result<u64> {
    pass_while(file, || true)
}

/// As [`pass`], but no further than `until`; the bytes read so far.
pub(super) fn pass_until(file: &Path, until: Instant) -> anyhow::Result<u64> {
    pass_while(file, || Instant::now() < until)
}

fn pass_while(file: &Path, go_on: impl Fn() -> bool) -> anyhow::Result<u64> {
    let (mut file, mut buffer, mut bytes) = (fs::File::open(file)?, vec![0; 1 << 20], 0);
    while go_on() {
        match file.read(&mut buffer)? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    Ok(bytes)
}

/// Starts `readers` threads at the same moment; what each came to, and the seconds from the start to its end.
pub(super) fn together<T: Send>(
    readers: usize,
    read: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<(T, f64)>> {
    let start = Barrier::new(readers);
    let one = |reader| {
        start.wait();
        let begun = Instant::now();
        anyhow::Ok((read(reader)?, begun.elapsed().as_secs_f64()))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..readers).map(|reader| scope.spawn(move || one(reader))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a reader panicked"))?).collect()
    })
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
