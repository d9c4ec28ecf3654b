//! `cargo xtask bench --suite NAME`: figures, measured on real servers with release builds.

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

use clap::{Args, ValueEnum};

use crate::run::{cargo, root};

/// Folder of ready-built programs, to compare builds; without it Cargo builds them.
const PROGRAMS: &str = "PENSTOCK_BENCH_PROGRAMS";

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, value_enum)]
    suite: Suite,
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

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (name, cases) = match options.suite {
        Suite::Control => ("control", runtime.block_on(control::run(options.quick))?),
        Suite::Local => ("local", runtime.block_on(local::run(options.quick))?),
        Suite::Remote => ("remote", runtime.block_on(remote::run(options.quick))?),
        Suite::Cold => ("cold", runtime.block_on(cold::run(options.quick))?),
        Suite::Scale => ("scale", runtime.block_on(scale::run(options.quick))?),
        Suite::Hundred => ("hundred", runtime.block_on(hundred::run(options.quick))?),
        Suite::Evict => ("evict", evict::run(options.quick)?),
        Suite::Metadata => ("metadata", runtime.block_on(metadata::run(options.quick))?),
        Suite::Cost => ("cost", runtime.block_on(cost::run(options.quick))?),
        Suite::Soak => ("soak", runtime.block_on(soak::run(options.quick))?),
    };
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&cases)?)?;
    figures::print(&cases);
    eprintln!("figures: target/bench/{name}.json");
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
