//! The cache worker's process.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use penstock_worker::{Options, run};
use tikv_jemallocator::Jemalloc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

// Buffers of megabytes come and go on many threads: the system's allocator keeps them, this one reuses them sooner and gives
// back the rest within a second (`.cargo/config.toml`; docs/performance.md, "Allocators").
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Serves one Dataset's extents and metadata from its tiers, and fetches what it lacks.
#[derive(Parser)]
#[command(name = "penstock-worker", version)]
struct Args {
    /// Directory with worker.json, members.json, the keys and secret options.
    #[arg(long)]
    config_dir: PathBuf,
    /// This worker's name in member lists: its pod's name.
    #[arg(long)]
    id: String,
    /// Address of the wire protocol.
    #[arg(long, default_value = "[::]:9440")]
    listen: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "[::]:9441")]
    http: String,
    /// Directory for worker.sock, by which the node's mounts get descriptors of cached files.
    #[arg(long)]
    socket_dir: Option<PathBuf>,
    /// Seconds that it may go on after SIGTERM to hand over what it has, if it is taken off the member list.
    #[arg(long, env = "PENSTOCK_HAND_OVER_SECONDS", default_value_t = 0)]
    hand_over_seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Args { config_dir, id, listen, http, socket_dir, hand_over_seconds } = Args::parse();
    let hand_over = Duration::from_secs(hand_over_seconds);
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(run(Options { config_dir, id, listen, http, socket_dir, hand_over }, shutdown).await?)
}
