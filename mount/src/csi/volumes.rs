//! What the steps of the node service share.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    connections::Connections,
    daemon::Daemon,
    events::Events,
    locks::Locks,
    metrics::Metrics,
    state::{StagedRecord, StateDir},
};
use crate::spec::MountSpec;

/// The volumes of this node.
#[derive(Debug)]
pub struct Volumes {
    pub(super) node_id: String,
    pub(super) kubelet_dir: Option<PathBuf>,
    pub(super) state_dir: PathBuf,
    pub(super) program: PathBuf,
    pub(super) state: StateDir,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: Metrics,
    pub(super) events: Events,
    /// By staging path.
    pub(super) staged: Mutex<HashMap<PathBuf, Arc<Staged>>>,
    /// By volume id: calls about one volume come one after the other.
    pub(super) locks: Locks,
}

impl Volumes {
    pub(super) fn kubelet_dir(&self) -> Option<&Path> {
        self.kubelet_dir.as_deref()
    }
}

/// A staged volume as this plugin knows it.
#[derive(Debug)]
pub struct Staged {
    pub record: StagedRecord,
    /// With the key; unknown after a restart of the plugin without a keeper.
    pub spec: Option<MountSpec>,
    pub daemon: Option<Daemon>,
}

impl Staged {
    pub fn is_served(&self) -> bool {
        self.daemon.as_ref().is_some_and(Daemon::is_alive)
    }
}
