//! The developer's commands: `cargo xtask COMMAND`.

mod bench;
mod check;
mod cluster;
mod crds;
mod demo;
mod run;
mod test;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Penstock's developer commands", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job on one machine: cache, mount, read, scale, lose a worker; every byte checked.
    Demo(demo::Options),
    /// Formatting, lints, generated files, chart, licences.
    Check,
    /// All tests, the real cluster's included; installs what they need.
    Test(test::Options),
    /// Only the tests on the real cluster (or on your own, with `PENSTOCK_E2E_KUBECONFIG`).
    E2e(test::E2eOptions),
    /// A real multi-node Kubernetes on this machine, for use by hand.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Figures, measured on real servers with release builds; written to target/bench/SUITE.json.
    Bench(bench::Options),
    /// Write crds/ and the chart's copy of it from the types in crates/api.
    Crds,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Check => check::run(),
        Command::Test(options) => test::run(&options),
        Command::E2e(options) => test::e2e(&options),
        Command::Cluster(command) => cluster::run(&command),
        Command::Bench(options) => bench::run(&options),
        Command::Crds => crds::write(),
    }
}
