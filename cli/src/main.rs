//! `penstock`: Penstock without Kubernetes. Also found as `kubectl penstock`.

use clap::{Parser, Subcommand};
use penstock_cli::local;

#[derive(Parser)]
#[command(name = "penstock", version, about = "Elastic dataset caching")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a Dataset and its workers on this machine, from the manifests that a cluster takes.
    #[command(subcommand)]
    Local(local::Command),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Local(command) => command.run().await,
    }
}
