//! `cargo xtask bench [--suite NAME]`: figures, measured on real servers with release builds.
//!
//! It measures the programs beside it, which the same build has made.

mod bare;
mod cold;
mod control;
mod cost;
mod csi;
mod direct;
mod elastic;
mod evict;
mod figures;
mod fleet;
mod hundred;
mod load;
mod local;
mod metadata;
mod peers;
mod process;
mod remote;
mod scale;
mod scratch;
mod soak;
mod source;

use std::{fs, path::PathBuf, pin::pin, process::ExitCode};

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use penstock_testkit::tools;
use tokio::{runtime::Runtime, signal::ctrl_c};

use self::figures::Case;

/// Folder of other ready-built programs, to compare builds.
const PROGRAMS: &str = "PENSTOCK_BENCH_PROGRAMS";

/// Figures, measured on real servers; written to target/bench/SUITE.json.
#[derive(Parser)]
#[command(name = "cargo xtask bench", disable_version_flag = true)]
struct Options {
    /// Only this one; without it all of them, one after the other.
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Fewer runs.
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    /// The operator and the node plugin: how soon a Dataset can be mounted.
    Control,
    /// Warm reads with the worker on the reader's node.
    Local,
    /// Warm reads with the worker on another node.
    Remote,
    /// First reads, from a store behind a narrow link.
    Cold,
    /// Throughput by the number of workers.
    Scale,
    /// Up to a hundred readers that start together.
    Hundred,
    /// Loads, and sizes that follow what is asked for.
    Elastic,
    /// Hit ratios of a tier that is smaller than what is read.
    Evict,
    /// Names and attributes of a tree of many objects.
    Metadata,
    /// Memory and processors' time.
    Cost,
    /// Half an hour of reads while files are replaced and a worker dies: wrong bytes, and what grows.
    Soak,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = Runtime::new().context("the runtime").and_then(|runtime| runtime.block_on(run_all(&options)));
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Runs the suites. One that fails does not keep the others from running.
async fn run_all(options: &Options) -> anyhow::Result<()> {
    let suites = options.suite.map_or_else(|| Suite::value_variants().to_vec(), |suite| vec![suite]);
    let mut failed = Vec::new();
    // One for all, asked first: what comes while a suite blocks is seen before the next one begins.
    let mut interrupted = pin!(ctrl_c());
    for suite in suites {
        let name = suite.name();
        // What a suite has made ends when its future is dropped.
        let measured = tokio::select! {
            biased;
            _ = &mut interrupted => bail!("interrupted"),
            measured = suite.run(options.quick) => measured,
        };
        if let Err(error) = measured.and_then(|cases| publish(&name, &cases)) {
            eprintln!("{name}: {error:?}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

impl Suite {
    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    async fn run(self, quick: bool) -> anyhow::Result<Vec<Case>> {
        match self {
            Self::Control => control::run(quick).await,
            Self::Local => local::run(quick).await,
            Self::Remote => remote::run(quick).await,
            Self::Cold => cold::run(quick).await,
            Self::Scale => scale::run(quick).await,
            Self::Hundred => hundred::run(quick).await,
            Self::Elastic => elastic::run(quick).await,
            Self::Evict => blocking(|| evict::run(quick)),
            Self::Metadata => metadata::run(quick).await,
            Self::Cost => cost::run(quick).await,
            Self::Soak => soak::run(quick).await,
        }
    }
}

/// To the suite's file, and as a table.
fn publish(suite: &str, cases: &[Case]) -> anyhow::Result<()> {
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{suite}.json")), serde_json::to_vec_pretty(cases)?)?;
    figures::print(cases);
    eprintln!("figures: target/bench/{suite}.json");
    Ok(())
}

fn program(name: &str) -> PathBuf {
    programs().join(name)
}

/// The folder of what is measured.
fn programs() -> PathBuf {
    let ours = || std::env::current_exe().ok()?.parent().map(PathBuf::from);
    std::env::var_os(PROGRAMS).map(PathBuf::from).or_else(ours).unwrap_or_default()
}

/// The workspace's root folder.
fn root() -> PathBuf {
    tools::workspace_root()
}

/// Runs what blocks on this thread, while others go on.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
