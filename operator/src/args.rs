//! The command line.

use std::net::SocketAddr;

use clap::Parser;

/// Looks after Datasets and CacheRuntimes.
#[derive(Clone, Debug, Parser)]
#[command(name = "penstock-operator", version)]
pub struct Args {
    /// Image of workers whose CacheRuntime names none.
    #[arg(long, env = "PENSTOCK_WORKER_IMAGE")]
    pub worker_image: String,

    /// The operator's own namespace, where its Lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "penstock-system")]
    pub namespace: String,

    /// Name of the Lease by which one operator of several is chosen.
    #[arg(long, default_value = "penstock-operator")]
    pub lease_name: String,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,

    /// Look after this namespace alone; all when absent.
    #[arg(long)]
    pub watch_namespace: Option<String>,

    /// Who this process is in the election; a random name is added, so that a restart is another candidate.
    #[arg(long, env = "POD_NAME", default_value = "penstock-operator")]
    pub identity: String,
}
