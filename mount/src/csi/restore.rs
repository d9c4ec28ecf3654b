//! The beginning of a plugin: what an earlier one left goes on.
//!
//! A mount that nobody serves answers nobody, so nothing here touches the inside of one: the mount table, the records and
//! the keeper say what is there.

use std::{collections::HashMap, io, path::Path, sync::Arc};

use futures::{StreamExt, stream};
use parking_lot::Mutex;

use super::{
    CsiOptions, abort,
    connections::{Connection, Connections},
    daemon::Daemon,
    events::Events,
    link, mounts,
    mounts::MountEntry,
    state::{StagedRecord, StateDir},
    volumes::{Staged, Volumes},
};
use crate::keeper;

/// Takeovers at once.
const AT_ONCE: usize = 8;

impl Volumes {
    /// Adopts mounts whose processes still run, has new processes take over those that the keeper holds, and ends dead ones.
    pub async fn restore(options: &CsiOptions) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(&options.state_dir)?;
        let state_dir = options.state_dir.canonicalize()?;
        let socket = keeper::socket_in(&state_dir);
        let volumes = Arc::new(Self {
            node_id: options.node_id.clone(),
            kubelet_dir: options.kubelet_dir.clone(),
            program: options.mount_program.clone().map_or_else(std::env::current_exe, Ok)?,
            state: StateDir::new(state_dir.clone()),
            state_dir,
            connections: Arc::new(Connections::new()?),
            metrics: super::metrics::Metrics::default(),
            events: Events::connect(&options.node_id).await,
            staged: Mutex::new(HashMap::new()),
            locks: super::locks::Locks::default(),
        });
        let asked = socket.clone();
        let mut kept = tokio::task::spawn_blocking(move || link::kept(&asked)).await?;
        let records = volumes.state.load_all::<StagedRecord>();
        let found = records.into_iter().map(|record| (kept.remove(&record.staging_path), record));
        let found: Vec<_> = found.collect();
        stream::iter(found).for_each_concurrent(AT_ONCE, |(kept, record)| volumes.go_on(record, kept)).await;
        // What nobody has a record of is let go, also by the keeper: it is not among the connections that it is told of.
        drop(kept);
        link::start(&volumes.connections, socket)?;
        Ok(volumes)
    }

    /// Goes on with one recorded volume.
    async fn go_on(self: &Arc<Self>, record: StagedRecord, kept: Option<Connection>) {
        let staging = record.staging_path.clone();
        let mounted = mounts::at(&staging).ok().flatten().filter(|entry| entry.fs_type == mounts::FS_TYPE);
        let kept = kept.filter(|kept| mounted.as_ref().is_some_and(|entry| is_of(kept, entry)));
        let running = record.process.filter(|_| mounted.is_some());
        let daemon = running.and_then(|id| Daemon::adopt(id, record.dataset.clone()));
        if let Some(daemon) = &daemon {
            tracing::info!(volume_id = record.volume_id, pid = daemon.id.pid, "adopted a mount that is still served");
        }
        let (adopted, known) = (daemon.is_some(), kept.is_some());
        let spec = kept.as_ref().map(|kept| kept.spec.clone());
        let (volume_id, dataset) = (record.volume_id.clone(), record.dataset.clone());
        let staged = Arc::new(Staged { record, spec, daemon });
        self.staged.lock().insert(staging.clone(), staged);
        if let Some(kept) = kept {
            self.connections.hold(&staging, Arc::new(kept));
        }
        if !adopted && let Some(entry) = mounted {
            if !known {
                tracing::error!(volume_id, staging = %staging.display(), "neither a process nor the keeper has this mount: it is removed, pods that use it must be started again");
                self.tell_lost(&staging, &dataset, "the node's plugin and its keeper ended at the same time");
            }
            if !known || !self.revive(&staging).await {
                return self.remove_dead(&staging, &entry).await;
            }
        }
        if let Some(staged) = self.staged.lock().get(&staging).filter(|_| known).cloned() {
            tokio::spawn(Arc::clone(self).supervise(staged));
        }
    }

    async fn remove_dead(&self, staging: &Path, entry: &MountEntry) {
        self.connections.forget(staging);
        if let Err(error) = abort::abort(entry.device.1, &self.state_dir) {
            tracing::warn!(%error, "the FUSE connection cannot be aborted");
        }
        if let Err(error) = mounts::detach(staging).await {
            tracing::warn!(%error, "a dead mount stays");
        }
    }
}

/// Whether this is the connection that is mounted there. A kernel that does not show it is believed.
fn is_of(connection: &Connection, entry: &MountEntry) -> bool {
    connection.number().is_none_or(|number| number == entry.device.1)
}
