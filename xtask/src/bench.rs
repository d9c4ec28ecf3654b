//! `cargo xtask bench --suite NAME`: figures, measured on real servers with release builds.

mod bare;
mod control;
mod csi;
mod evict;
mod link;
mod load;
mod local;
mod node;
mod peers;
mod remote;
mod soak;

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

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
    /// Hit ratios of a tier that is smaller than what is read.
    Evict,
    /// Half an hour of reads while files are replaced and a worker dies: wrong bytes, and what grows.
    Soak,
}

/// One figure in `target/bench/SUITE.json`.
#[derive(Debug, Serialize)]
struct Case {
    #[serde(rename = "case")]
    name: &'static str,
    unit: &'static str,
    ours: f64,
    /// What the machine allows, measured in the same run; null where that means nothing.
    limit: Option<f64>,
    /// The same, done by others in the same run.
    peers: BTreeMap<&'static str, f64>,
    better: Better,
    /// What we set out to reach.
    #[serde(skip)]
    goal: Goal,
}

/// All that is given must hold.
#[derive(Clone, Copy, Debug, Default)]
struct Goal {
    at_least: Option<f64>,
    at_most: Option<f64>,
    /// At least this part of the limit.
    of_limit: Option<f64>,
    /// At most so many times the limit.
    times_limit: Option<f64>,
    /// At least so many times the best peer.
    of_best_peer: Option<f64>,
}

impl Goal {
    fn is_met(&self, case: &Case) -> bool {
        let limit = case.limit.zip(self.of_limit).is_none_or(|(limit, part)| case.ours >= limit * part);
        let best = case.peers.values().copied().max_by(f64::total_cmp);
        let peers = best.zip(self.of_best_peer).is_none_or(|(best, times)| case.ours >= best * times);
        let times = case.limit.zip(self.times_limit).is_none_or(|(limit, times)| case.ours <= limit * times);
        let least = self.at_least.is_none_or(|least| case.ours >= least);
        self.at_most.is_none_or(|most| case.ours <= most) && least && limit && times && peers
    }

    fn text(&self) -> String {
        let at_least = self.at_least.map(|least| format!(">= {least}"));
        let at_most = self.at_most.map(|most| format!("<= {most}"));
        let of_limit = self.of_limit.map(|part| format!(">= {part} limit"));
        let times_limit = self.times_limit.map(|times| format!("<= {times} limit"));
        let of_best_peer = self.of_best_peer.map(|times| format!(">= {times} best peer"));
        [at_least, at_most, of_limit, times_limit, of_best_peer].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    Lower,
    Higher,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (name, cases) = match options.suite {
        Suite::Control => ("control", runtime.block_on(control::run(options.quick))?),
        Suite::Local => ("local", runtime.block_on(local::run(options.quick))?),
        Suite::Remote => ("remote", runtime.block_on(remote::run(options.quick))?),
        Suite::Evict => ("evict", evict::run(options.quick)?),
        Suite::Soak => ("soak", runtime.block_on(soak::run(options.quick))?),
    };
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&cases)?)?;
    print(&cases);
    eprintln!("figures: target/bench/{name}.json");
    Ok(())
}

fn print(cases: &[Case]) {
    let ratio = |other: f64, ours: f64| format!("{other:.3} (x{:.2})", ours / other);
    println!("{:<16} {:>8} {:>10}  {:<28} {:<20} PEERS", "CASE", "UNIT", "OURS", "GOAL", "LIMIT");
    for case in cases {
        let limit = case.limit.map_or_else(|| "-".to_owned(), |limit| ratio(limit, case.ours));
        let peers: Vec<_> =
            case.peers.iter().map(|(name, value)| format!("{name} {}", ratio(*value, case.ours))).collect();
        let goal = format!("{}{}", case.goal.text(), if case.goal.is_met(case) { "" } else { " MISSED" });
        let (name, unit, ours) = (case.name, case.unit, case.ours);
        println!("{name:<16} {unit:>8} {ours:>10.3}  {goal:<28} {limit:<20} {}", peers.join(", "));
    }
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
