//! `cargo xtask bench --suite NAME`: figures, measured on real servers with release builds.

mod control;
mod csi;

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
    goal: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    Lower,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (name, cases) = match options.suite {
        Suite::Control => ("control", runtime.block_on(control::run(options.quick))?),
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
    println!("{:<16} {:>5} {:>10} {:>8}  {:<20} PEERS", "CASE", "UNIT", "OURS", "GOAL", "LIMIT");
    for case in cases {
        let limit = case.limit.map_or_else(|| "-".to_owned(), |limit| ratio(limit, case.ours));
        let peers: Vec<_> =
            case.peers.iter().map(|(name, value)| format!("{name} {}", ratio(*value, case.ours))).collect();
        let met = if case.ours <= case.goal { "" } else { "  misses its goal" };
        println!(
            "{:<16} {:>5} {:>10.3} {:>8}  {limit:<20} {}{met}",
            case.name,
            case.unit,
            case.ours,
            case.goal,
            peers.join(", ")
        );
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
    std::env::var_os(PROGRAMS).map_or_else(|| root().join("target/release"), PathBuf::from).join(name)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
