//! The CSI identity and node services, and kubelet's plugin registration: what the `DaemonSet` runs on every node.
//!
//! A staged volume is one FUSE mount served by a process of its own ([`daemon`]); a published volume is a bind mount of
//! it. Calls are idempotent, and each one looks at what is really mounted ([`mounts`]) before it believes the records
//! in the state directory ([`state`]).

pub mod abort;
pub mod authority;
pub mod connections;
pub mod daemon;
pub mod events;
pub mod identity;
pub mod link;
pub mod locks;
pub mod metrics;
pub mod mounts;
pub mod node;
pub mod publish;
pub mod registration;
pub mod request;
pub mod restore;
pub mod server;
pub mod sockets;
pub mod stage;
pub mod state;
pub mod stats;
pub mod supervise;
pub mod volumes;

use std::path::PathBuf;

pub use node::NodeService;
pub use server::{run, run_until};

/// The generated messages and services of the two interfaces.
pub mod proto {
    #![allow(clippy::pedantic, unreachable_pub, missing_docs)]

    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
}

/// How the node plugin is told about its node.
#[derive(Clone, Debug, clap::Args)]
pub struct CsiOptions {
    /// Where to serve the CSI services.
    #[arg(long, default_value = "unix:///csi/csi.sock")]
    pub endpoint: String,
    /// Kubelet's directory of plugin registration sockets; without it the plugin does not register itself.
    #[arg(long)]
    pub registration_dir: Option<PathBuf>,
    /// Kubelet's directory. Paths outside of it are refused.
    #[arg(long)]
    pub kubelet_dir: Option<PathBuf>,
    /// The CSI socket as kubelet sees it. Default: the endpoint where it lies in the kubelet directory, else
    /// `plugins/DRIVER/csi.sock` in there.
    #[arg(long)]
    pub kubelet_registration_path: Option<PathBuf>,
    /// The name of this node.
    #[arg(long, env = "NODE_NAME")]
    pub node_id: String,
    /// What must outlive this process: which volumes are mounted, the workers' sockets, and the keeper's socket
    /// (`keeper/keeper.sock`), where one runs.
    #[arg(long, default_value = "/var/lib/penstock")]
    pub state_dir: PathBuf,
    /// The port of `/metrics` and `/healthz`, on all addresses; nowhere without it.
    #[arg(long)]
    pub http_port: Option<u16>,
    #[arg(long, default_value = "csi.penstock.dev")]
    pub driver_name: String,
    /// The program whose `serve` command serves a mount. Default: this one.
    #[arg(long, hide = true)]
    pub mount_program: Option<PathBuf>,
}
