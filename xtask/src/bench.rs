//! `cargo xtask bench [--suite NAME]`: figures, measured on real servers with release builds.

mod bare;
mod cold;
mod control;
mod cost;
mod csi;
mod direct;
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

use std::{fs, path::PathBuf};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use self::figures::Case;
use crate::run::{cargo, root};

/// Folder of ready-built programs, to compare builds; without it Cargo builds them.
const PROGRAMS: &str = "PENSTOCK_BENCH_PROGRAMS";

#[derive(Args)]
pub(crate) struct Options {
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
    /// Hit ratios of a tier that is smaller than what is read.
    Evict,
    /// Names and attributes of a tree of many objects.
    Metadata,
    /// Memory and processors' time.
    Cost,
    /// Half an hour of reads while files are replaced and a worker dies: wrong bytes, and what grows.
    Soak,
}

/// Runs the suites. One that fails does not keep the others from running.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let suites = options.suite.map_or_else(|| Suite::value_variants().to_vec(), |suite| vec![suite]);
    let mut failed = Vec::new();
    for suite in suites {
        let name = suite.name();
        let done = suite.run(&runtime, options.quick).and_then(|cases| publish(&name, &cases));
        if let Err(error) = done {
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

    fn run(self, runtime: &Runtime, quick: bool) -> anyhow::Result<Vec<Case>> {
        match self {
            Self::Control => runtime.block_on(control::run(quick)),
            Self::Local => runtime.block_on(local::run(quick)),
            Self::Remote => runtime.block_on(remote::run(quick)),
            Self::Cold => runtime.block_on(cold::run(quick)),
            Self::Scale => runtime.block_on(scale::run(quick)),
            Self::Hundred => runtime.block_on(hundred::run(quick)),
            Self::Evict => evict::run(quick),
            Self::Metadata => runtime.block_on(metadata::run(quick)),
            Self::Cost => runtime.block_on(cost::run(quick)),
            Self::Soak => runtime.block_on(soak::run(quick)),
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

/// Builds what is measured, unless it is given.
fn build(packages: &[&str]) -> anyhow::Result<()> {
    if std::env::var_os(PROGRAMS).is_some() {
        return Ok(());
    }
    let packages: Vec<&str> = packages.iter().flat_map(|package| ["--package", package]).collect();
    cargo("build", &[&["build", "--release"], &packages[..]].concat())
}

fn program(name: &str) -> PathBuf {
    programs().join(name)
}

/// The folder of what is measured.
fn programs() -> PathBuf {
    std::env::var_os(PROGRAMS).map_or_else(|| root().join("target/release"), PathBuf::from)
}

/// Runs what blocks on this thread, while others go on.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
