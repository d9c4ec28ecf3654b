//! What a mount process is told: one JSON document on its standard input, so that the key is on no command line.

use std::{fmt, fs, path::PathBuf};

use penstock_model::EXTENT;
use penstock_wire::{Access, Caller, Credential, CredentialError, PublicKey};
use serde::{Deserialize, Serialize};

const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const LEAST_WINDOW: u64 = 48 << 20;
const MOST_WINDOW: u64 = 64 << 20;

/// Everything that one mounted Dataset needs. A session may be taken over by a process of another release: fields that it
/// does not know are ignored, those that are missing have defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountSpec {
    /// `namespace/name`.
    pub dataset: String,
    /// First contacts, `host:port`: the `ClusterIP` service, or any workers. The member list is learnt from them.
    pub endpoints: Vec<String>,
    pub client_key: KeyHex,
    /// By what workers are known: the public half of their key pair, 32 bytes in hex.
    pub peer_public: String,
    /// Holds `POD_UID/worker.sock` for each worker of this Dataset on this node.
    #[serde(default)]
    pub socket_dir: Option<PathBuf>,
    #[serde(default = "yes")]
    pub read_only: bool,
    /// Whether users other than the one who mounted may look inside. (An option of the mount itself: who opens
    /// `/dev/fuse` passes it to mount(2).)
    #[serde(default = "yes")]
    pub allow_other: bool,
    #[serde(default)]
    pub tuning: Tuning,
}

impl MountSpec {
    /// Whom workers see.
    pub fn caller(&self) -> Result<Caller, CredentialError> {
        let key = Credential::from_hex(&self.client_key.0)?;
        let access = Access::Client { key, peers: PublicKey::from_hex(&self.peer_public)? };
        let name = fs::read_to_string(HOSTNAME).unwrap_or_default().trim().to_owned();
        Ok(Caller { dataset: self.dataset.clone(), name, access })
    }
}

/// Knobs that have good defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// The most bytes that readahead keeps for one open file; by default as [`Tuning::readahead`] says.
    pub readahead_bytes: Option<u64>,
    /// The most bytes that readahead keeps for all open files together.
    pub readahead_total_bytes: u64,
    /// How long a request is tried again while workers cannot be reached, milliseconds; then EIO.
    pub patience_ms: u64,
    /// How long an answer may take before the worker is asked for a sign of life, milliseconds.
    pub probe_after_ms: u64,
    pub passthrough: Passthrough,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            readahead_bytes: None,
            readahead_total_bytes: 256 << 20,
            patience_ms: 60_000,
            probe_after_ms: 3_000,
            passthrough: Passthrough::Auto,
        }
    }
}

impl Tuning {
    /// Bytes of readahead for one open file of a Dataset with so many workers: enough that readers who go through a file
    /// side by side keep most of the workers busy, though neighbouring extents may lie on the same one.
    pub fn readahead(&self, workers: usize) -> u64 {
        self.readahead_bytes.unwrap_or((workers as u64).saturating_mul(2 * EXTENT).clamp(LEAST_WINDOW, MOST_WINDOW))
    }
}

/// Whether complete local files are read by the kernel without this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Passthrough {
    /// Where kernel and rights allow it.
    #[default]
    Auto,
    Off,
}

/// The client key, 32 bytes in hex. Its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHex(pub String);

impl fmt::Debug for KeyHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHex(..)")
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_document_is_enough_and_the_key_stays_out_of_debug_output() {
        let spec: MountSpec = serde_json::from_str(
            r#"{"dataset":"ns/d","endpoints":["198.18.0.1:9440"],"clientKey":"00ff","peerPublic":"11"}"#,
        )
        .unwrap();
        assert!(spec.read_only && spec.allow_other);
        assert_eq!(spec.tuning, Tuning::default());
        assert!(!format!("{spec:?}").contains("00ff"));
        let again: MountSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }
}
