//! `cargo xtask demo`: the main job on one machine, with everything it needs.
//!
//! A bucket of market data is served by a throttled S3 server inside this process. It is read straight from there, then
//! cached by three workers, mounted by FUSE and read: cold, warm, after scaling to five, and while a worker dies. Every
//! byte is checked each time.

mod data;
mod direct;
mod reading;
mod report;

use std::{fs, io::Read, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use indicatif::HumanBytes;
use penstock_cli::local::{Fleet, UpOptions};
use penstock_testkit::{
    s3::{S3Options, S3Server},
    tools,
};

use data::{MarketData, MarketFile};
use report::{Phase, Report};

const BUCKET: &str = "market-data";

/// The main job on one machine: cache, mount, read, scale, lose a worker; every byte checked.
#[derive(Parser)]
#[command(name = "cargo xtask demo", disable_version_flag = true)]
struct Options {
    /// Readers at once.
    #[arg(long, default_value_t = 4)]
    readers: usize,
    /// Data to make, in MiB; never less than fits the shape.
    #[arg(long, default_value_t = 1088)]
    mebibytes: u64,
    /// What the S3 server gives to all its readers together, in MiB per second.
    #[arg(long, default_value_t = 64)]
    throttle: u64,
}

fn main() -> ExitCode {
    let Err(error) = run(&Options::parse()) else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn run(options: &Options) -> anyhow::Result<()> {
    // Anonymous readers are served, so that any HTTP client can read straight from it.
    let server = S3Server::start_on_own_threads(S3Options { anonymous: true, ..S3Options::default() })?;
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
    report.write(&folder().join("report.json"))?;
    report.print();
    eprintln!("report: target/demo/report.json");
    ensure!(report.mismatched_files == 0, "{} files differ from what was written", report.mismatched_files);
    Ok(())
}

fn folder() -> PathBuf {
    tools::workspace_root().join("target/demo")
}

fn state_dir() -> PathBuf {
    folder().join("state")
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
    eprintln!("==> fill a bucket with {} MiB", options.mebibytes);
    let data = data::fill(server, BUCKET, options.mebibytes << 20)?;
    let bytes_per_second = options.throttle << 20;
    server.faults(|faults| faults.bytes_per_second = Some(bytes_per_second));
    eprintln!("the S3 server is throttled: it gives {}/s to all its readers together", HumanBytes(bytes_per_second));
    let stage = Stage { server, data: &data, readers: options.readers };
    let mut phases = vec![stage.read_straight()?];
    let mut fleet = up(server).await?;
    phases.extend([stage.read("cold", &fleet)?, stage.read("warm", &fleet)?]);
    fleet.scale(5).await?;
    phases.push(stage.read("scaled", &fleet)?);
    phases.push(stage.lose_a_worker(&fleet)?);
    fleet.down()?;
    let mismatched_files = phases.iter().map(|phase| phase.mismatched).sum();
    Ok(Report { files: data.files.len(), bytes: data.bytes(), mismatched_files, bytes_per_second, phases })
}

async fn up(server: &S3Server) -> anyhow::Result<Fleet> {
    let file = folder().join("dataset.yaml");
    fs::write(&file, manifest(server))?;
    let begin = Instant::now();
    let fleet = Fleet::up(&UpOptions { file, mount: None, base: state_dir(), programs: None }).await?;
    eprintln!("three workers and a mount are up after {:.1} s", begin.elapsed().as_secs_f64());
    Ok(fleet)
}

fn manifest(server: &S3Server) -> String {
    include_str!("dataset.yaml")
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
    /// Reads everything from the S3 server, with nothing of Penstock between.
    fn read_straight(&self) -> anyhow::Result<Phase> {
        let address = self.server.endpoint().trim_start_matches("http://").to_owned();
        self.measure("direct", || 0, |file| direct::open(&address, BUCKET, &file.path), |_| ())
    }

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
        let workers = || fleet.processes().iter().filter(|(_, process)| process.is_alive()).count();
        self.measure(name, workers, |file| reading::open(&dir.join(&file.path)), during)
    }

    /// Reads and checks every file by `open`; `workers` counts those that are left in the end.
    fn measure<R: Read>(
        &self,
        name: &'static str,
        workers: impl FnOnce() -> usize,
        open: impl Fn(&MarketFile) -> anyhow::Result<R> + Sync,
        during: impl FnMut(usize) + Send,
    ) -> anyhow::Result<Phase> {
        eprintln!("==> {name}");
        self.server.reset_counts();
        let (begin, files, readers) = (Instant::now(), &self.data.files, self.readers);
        let mismatched = tokio::task::block_in_place(|| reading::check_all(name, files, readers, open, during))?;
        let (seconds, workers) = (begin.elapsed().as_secs_f64(), workers());
        Ok(Phase { name, seconds, ufs_bytes: self.server.sent_bytes(), workers, mismatched })
    }
}
