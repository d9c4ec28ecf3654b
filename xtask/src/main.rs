//! The developer's commands: `cargo xtask COMMAND`.
//!
//! It links little, so that it starts soon on a fresh clone. What a command needs is built by one call of Cargo
//! ([`build`]) and run from there.

mod build;
mod check;
mod run;
mod test;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use build::Program;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Penstock's developer commands", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job on one machine: cache, mount, read, scale, lose a worker; every byte checked.
    #[command(disable_help_flag = true)]
    Demo(Passed),
    /// Formatting, lints, generated files, chart, licences.
    Check,
    /// All tests, the real cluster's included; installs what they need.
    Test(test::Options),
    /// Only the tests on the real cluster (or on your own, with `PENSTOCK_E2E_KUBECONFIG`).
    E2e(test::E2eOptions),
    /// A real multi-node Kubernetes on this machine, for use by hand.
    #[command(disable_help_flag = true)]
    Cluster(Passed),
    /// Figures, measured on real servers with release builds; written to target/bench/SUITE.json.
    #[command(disable_help_flag = true)]
    Bench(Passed),
    /// Write crds/ and the chart's copy of it from the types in crates/api.
    Crds,
}

/// Options of the program behind a command, which knows them; see its `--help`.
#[derive(Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(passed) => Program::DEMO.run(&passed.arguments),
        Command::Check => check::run(),
        Command::Test(options) => test::run(&options),
        Command::E2e(options) => test::e2e(&options),
        Command::Cluster(passed) => Program::CLUSTER.run(&passed.arguments),
        Command::Bench(passed) => Program::BENCH.run(&passed.arguments),
        Command::Crds => Program::CRDS.run(&[]),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Not by returning it: with `RUST_BACKTRACE` that would print a backtrace of this program.
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
