//! What a cluster has made on this machine, written down before it is made.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::process::Process;

/// The record of a cluster. Names of namespaces, links and cgroups follow from the node names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    /// The process that brought it up; the cluster ends with it unless `detached`.
    pub(super) owner: Process,
    pub(super) detached: bool,
    pub(super) nodes: Vec<NodeState>,
    /// Control plane, in the order in which to stop it.
    pub(super) control_plane: Vec<Process>,
    /// All steps of `up` are done.
    pub(super) complete: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NodeState {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// First process of the node's PID namespace: all others of the node end with it.
    pub(super) init: Option<Process>,
}

impl State {
    pub(super) fn load() -> Result<Option<Self>> {
        let path = state_file();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(super) fn save(&self) -> Result<()> {
        fs::create_dir_all(folder())?;
        let path = state_file();
        let partial = path.with_extension("new");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, &path).with_context(|| path.display().to_string())
    }

    /// The cluster is whole and somebody still wants it.
    pub(super) fn is_running(&self) -> bool {
        let processes = self.nodes.iter().flat_map(|node| &node.init).chain(&self.control_plane);
        self.complete && (self.detached || self.owner.is_alive()) && processes.into_iter().all(Process::is_alive)
    }
}

/// `$XDG_STATE_HOME/penstock-e2e/cluster` (default `~/.local/state/penstock-e2e/cluster`): everything of the cluster on
/// disk. Local mode takes each folder of `penstock` beside it for a Dataset's.
pub(super) fn folder() -> PathBuf {
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".local/state");
    base.unwrap_or_else(home).join("penstock-e2e/cluster")
}

fn state_file() -> PathBuf {
    folder().join("state.json")
}

pub(super) fn node_folder(node: &str) -> PathBuf {
    folder().join("nodes").join(node)
}

/// Held while a cluster is brought up or taken down.
pub(super) fn lock() -> Result<File> {
    let parent = folder().parent().map(Path::to_owned).unwrap_or_default();
    fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
    let file = File::create(parent.join("cluster.lock"))?;
    file.lock().context("waiting for another `cluster up` or `cluster down`")?;
    Ok(file)
}
