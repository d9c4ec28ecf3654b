//! `penstock`: Penstock without Kubernetes, and what `kubectl` does not show. Also found as `kubectl penstock`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use penstock_cli::{explain::Explain, load::Load, local};

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
    /// Give a DataLoad to the cluster, and show how far it is.
    Load(Load),
    /// Why something on the cluster is as it is.
    #[command(subcommand)]
    Explain(Explain),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();
    let result = match Cli::parse().command {
        Command::Local(command) => command.run().await,
        Command::Explain(explain) => explain.run().await.map_err(Into::into),
        Command::Load(load) => load.run().await.map_err(Into::into),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Not by returning it: with `RUST_BACKTRACE` that would print a backtrace under a plain sentence.
    eprintln!("Error: {error:#}");
    ExitCode::FAILURE
}
