//! `penstock-operator`

use anyhow::Context;
use penstock_operator::{app, args::Command, telemetry, uninstall};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    telemetry::init();
    // Another provider may be compiled in through someone else's features; this one is meant.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = match command {
        Command::Operate(args) => args,
        Command::Uninstall(options) => {
            let client = kube::Client::try_default().await.context("the cluster's address and credentials")?;
            return Ok(uninstall::run(client, &options).await?);
        }
    };
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).context("SIGTERM")?, signal(SignalKind::interrupt()).context("SIGINT")?);
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopper.cancel();
    });
    app::run(args, stop).await.inspect_err(|error| tracing::error!(%error, "the operator ends"))?;
    Ok(())
}
