use clap::{Parser, Subcommand};
use penstock_mount::{csi, serve};
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;

// Buffers of megabytes come and go on many threads: the system's allocator keeps them, this one reuses them sooner and gives
// back the rest within a second (`.cargo/config.toml`; docs/performance.md, "Allocators").
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Penstock on a node: the CSI plugin, and the processes that serve mounted Datasets.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The CSI identity and node services
    Csi(csi::CsiOptions),
    /// One mount, made by the CSI services
    Serve(serve::ServeOptions),
    /// One mount in the foreground, without Kubernetes
    Mount(serve::MountOptions),
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).with_env_filter(filter).init();
    match Cli::parse().command {
        Command::Csi(options) => tokio::runtime::Runtime::new()?.block_on(csi::run(options)),
        Command::Serve(options) => serve::serve(&options),
        Command::Mount(options) => serve::mount(options),
    }
}
