//! The files a worker reads: written by the operator into a volume, or by local mode into a directory.
//!
//! | file | content |
//! |---|---|
//! | `worker.json` | [`WorkerConfig`]; re-read when it changes |
//! | `members.json` | the member list to start with; later ones come by [`crate::message::Request::SetMembers`] |
//! | `client.key`, `peer.key` | the runtime's two secrets, 32 random bytes in hex each: see [`crate::Credential`] |
//! | `ufs-N-OPTION` | one secret option of mount N, the raw value |
//!
//! Mounts are given `client.key` and `peer.pub`: the public half of the peer key, in hex.

use std::collections::BTreeMap;

use penstock_model::TierConfig;
use serde::{Deserialize, Serialize};

pub const WORKER_FILE: &str = "worker.json";
pub const MEMBERS_FILE: &str = "members.json";
pub const CLIENT_KEY_FILE: &str = "client.key";
pub const PEER_KEY_FILE: &str = "peer.key";
pub const PEER_PUBLIC_FILE: &str = "peer.pub";

/// Ports of a worker in Kubernetes; local mode chooses free ones.
pub const WIRE_PORT: u16 = 9440;
/// `/healthz`, `/readyz`, `/metrics`: plain HTTP, read-only.
pub const HTTP_PORT: u16 = 9441;
/// Name of the worker's unix socket inside its socket directory.
pub const SOCKET_FILE: &str = "worker.sock";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerConfig {
    /// `namespace/name`.
    pub dataset: String,
    pub mounts: Vec<MountConfig>,
    pub tiers: Vec<TierConfig>,
    /// Milliseconds that metadata stays good; `None` for a static Dataset.
    pub revalidate_ms: Option<u64>,
    pub uid: u32,
    pub gid: u32,
    /// The most bytes per second that the worker hands over when it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_over_bandwidth: Option<u64>,
}

/// One UFS in the Dataset's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountConfig {
    /// `mountPoint` as written: `s3://bucket/prefix`, `local:///path`.
    pub source: String,
    /// Where it appears in the Dataset: no leading or trailing slash, empty for the root.
    pub path: String,
    pub options: BTreeMap<String, String>,
    /// Option name to the file (inside the configuration directory) that holds its value.
    pub secret_options: BTreeMap<String, String>,
}
