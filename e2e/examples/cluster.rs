//! `cargo xtask cluster`: a real multi-node Kubernetes on this machine, for use by hand.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use penstock_e2e::cluster::{self, ClusterOptions};

/// A real multi-node Kubernetes on this machine.
#[derive(Parser)]
#[command(name = "cargo xtask cluster", disable_version_flag = true)]
enum Command {
    /// Control plane and nodes; prints the kubeconfig to use.
    Up {
        #[arg(long, default_value_t = 3)]
        nodes: u8,
    },
    /// End all of it, also after an `up` that failed.
    Down,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Up { nodes } => up(nodes),
        Command::Down => cluster::down(),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn up(nodes: u8) -> Result<()> {
    let options = ClusterOptions { nodes, ..ClusterOptions::default() };
    let kubeconfig = tokio::runtime::Runtime::new().context("the runtime")?.block_on(cluster::up(options))?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    Ok(())
}
