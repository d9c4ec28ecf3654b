//! Staging: one FUSE mount and its serving process per volume, at kubelet's staging path.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tonic::{Code, Status};

use super::{
    abort,
    connections::Connection,
    daemon::{Daemon, DaemonError},
    mounts::{self, MountEntry, MountError},
    proto::csi::{NodeStageVolumeRequest, NodeUnstageVolumeRequest},
    request::{self, RequestError, Source},
    state::{StagedRecord, StateError},
    volumes::{Staged, Volumes},
};
use crate::{
    fuse::{Options, point},
    spec::MountSpec,
};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{} is already the staging path of volume {volume_id}", path.display())]
    OtherVolume { path: PathBuf, volume_id: String },
    #[error("a file system that is not ours ({fs_type}) is mounted at {}: unmount it", path.display())]
    Foreign { path: PathBuf, fs_type: String },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<StageError> for Status {
    fn from(error: StageError) -> Self {
        let code = match &error {
            StageError::Request(_) => Code::InvalidArgument,
            StageError::OtherVolume { .. } => Code::AlreadyExists,
            StageError::Foreign { .. } => Code::FailedPrecondition,
            StageError::Daemon(DaemonError::Slow) => Code::DeadlineExceeded,
            StageError::Mount(_) | StageError::Daemon(_) | StageError::State(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UnstageError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<UnstageError> for Status {
    fn from(error: UnstageError) -> Self {
        let code = match &error {
            UnstageError::Request(_) => Code::InvalidArgument,
            UnstageError::Mount(_) | UnstageError::State(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

/// What stands at a staging path.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    Nothing,
    /// Ours, and its process runs.
    Live,
    /// Ours, but nobody serves it.
    Dead,
    Foreign(String),
}

/// Decides what stands at a path from what is mounted there and whether we know a running process for it.
pub fn standing(mounted: Option<&MountEntry>, served: bool) -> Standing {
    match mounted {
        None => Standing::Nothing,
        Some(entry) if entry.fs_type != mounts::FS_TYPE => Standing::Foreign(entry.fs_type.clone()),
        Some(_) if served => Standing::Live,
        Some(_) => Standing::Dead,
    }
}

impl Volumes {
    pub async fn stage(self: &Arc<Self>, request: NodeStageVolumeRequest) -> Result<(), StageError> {
        let volume_id = request::required("volume_id", &request.volume_id)?;
        request::required("staging_target_path", &request.staging_target_path)?;
        request::check_capability(request.volume_capability.as_ref())?;
        let staging = request::resolve("staging_target_path", &request.staging_target_path, self.kubelet_dir())?;
        if request::is_ephemeral(&request.volume_context) {
            return Err(RequestError::Ephemeral.into());
        }
        let source = Source::parse(&request.volume_context, &request.secrets)?;
        let spec = source.spec(&self.state).ok_or(RequestError::MissingKey)?;
        let _guard = self.locks.lock(volume_id).await;
        self.ensure_mounted(volume_id, &staging, spec).await
    }

    /// Makes sure that a live mount stands at `staging`: keeps one, replaces a dead one. The volume's lock is held.
    pub async fn ensure_mounted(
        self: &Arc<Self>,
        volume_id: &str,
        staging: &Path,
        spec: MountSpec,
    ) -> Result<(), StageError> {
        let known = self.staged.lock().get(staging).cloned();
        if let Some(other) = known.as_ref().filter(|known| known.record.volume_id != volume_id) {
            let volume_id = other.record.volume_id.clone();
            return Err(StageError::OtherVolume { path: staging.to_owned(), volume_id });
        }
        match standing(mounts::at(staging)?.as_ref(), known.is_some_and(|k| k.is_served())) {
            Standing::Live => return Ok(()),
            Standing::Foreign(fs_type) => return Err(StageError::Foreign { path: staging.to_owned(), fs_type }),
            Standing::Dead if self.revive(staging).await => return Ok(()),
            Standing::Dead => {
                tracing::warn!(volume_id, staging = %staging.display(), "replacing a dead mount");
                self.tear_down(staging).await?;
            }
            Standing::Nothing => self.tear_down(staging).await?,
        }
        self.mount(volume_id, staging, spec).await
    }

    async fn mount(self: &Arc<Self>, volume_id: &str, staging: &Path, spec: MountSpec) -> Result<(), StageError> {
        let begun = std::time::Instant::now();
        let mut record = StagedRecord {
            volume_id: volume_id.to_owned(),
            staging_path: staging.to_owned(),
            dataset: spec.dataset.clone(),
            endpoints: spec.endpoints.clone(),
            process: None,
        };
        // The record goes first, so that a plugin killed in between cleans up at its next start.
        self.state.save(&record)?;
        mounts::create_dir(staging)?;
        let daemon = match self.serve(staging, &spec).await {
            Ok(daemon) => daemon,
            Err(error) => {
                self.tear_down(staging).await.ok();
                self.state.remove::<StagedRecord>(staging).ok();
                return Err(error);
            }
        };
        record.process = Some(daemon.id);
        let saved = self.state.save(&record);
        let pid = daemon.id.pid;
        let staged = Arc::new(Staged { record, spec: Some(spec), daemon: Some(daemon) });
        self.staged.lock().insert(staging.to_owned(), staged.clone());
        tokio::spawn(Arc::clone(self).supervise(staged));
        let millis = begun.elapsed().as_millis() as u64;
        tracing::info!(volume_id, staging = %staging.display(), pid, millis, "staged");
        Ok(saved?)
    }

    async fn serve(&self, staging: &Path, spec: &MountSpec) -> Result<Daemon, StageError> {
        let connection = Connection::new(spec.clone()).map_err(|source| MountError::Device { source })?;
        let options =
            Options { dataset: spec.dataset.clone(), allow_other: true, passthrough: spec.tuning.passthrough };
        point::mount(&connection.fuse, staging, &options, true).map_err(|source| MountError::Mount {
            dataset: spec.dataset.clone(),
            path: staging.to_owned(),
            source,
        })?;
        let connection = Arc::new(connection);
        self.connections.hold(staging, connection.clone());
        let daemon = Daemon::start(&self.program, &connection).await?;
        self.connections.settled().await;
        Ok(daemon)
    }

    pub async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<(), UnstageError> {
        let volume_id = request::required("volume_id", &request.volume_id)?;
        let staging = request::resolve("staging_target_path", &request.staging_target_path, self.kubelet_dir())?;
        let _guard = self.locks.lock(volume_id).await;
        if self.staged.lock().get(&staging).is_some_and(|known| known.record.volume_id != volume_id) {
            return Ok(());
        }
        self.tear_down(&staging).await?;
        self.staged.lock().remove(&staging);
        self.state.remove::<StagedRecord>(&staging)?;
        tracing::info!(volume_id, staging = %staging.display(), "unstaged");
        Ok(())
    }

    /// Ends mount and process at `staging`, whatever state they are in. Mounts that are not ours stay.
    pub async fn tear_down(&self, staging: &Path) -> Result<(), MountError> {
        let known = self.staged.lock().get(staging).cloned();
        let daemon = known.as_ref().and_then(|known| known.daemon.as_ref());
        while let Some(entry) = mounts::at(staging)?.filter(|entry| entry.fs_type == mounts::FS_TYPE) {
            let answers = daemon.is_some_and(Daemon::is_alive) && mounts::probe(staging).await.is_some();
            if answers {
                mounts::unmount_all(staging).await?;
            } else {
                // Nobody serves it, or it hangs: unmounting would wait for an answer that never comes.
                self.abort(entry.device.1, staging, daemon).await;
                mounts::detach(staging).await?;
            }
        }
        self.connections.forget(staging);
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
        Ok(())
    }

    async fn abort(&self, connection: u32, staging: &Path, daemon: Option<&Daemon>) {
        self.connections.forget(staging);
        if let Some(daemon) = daemon.filter(|daemon| daemon.is_alive()) {
            tracing::warn!(staging = %staging.display(), pid = daemon.id.pid, "the mount hangs: its process is killed");
            daemon.kill().await;
        }
        if let Err(error) = abort::abort(connection, &self.state_dir) {
            tracing::warn!(staging = %staging.display(), connection, %error, "the FUSE connection cannot be aborted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fs_type: &str) -> MountEntry {
        mounts::parse(format!("40 22 0:33 / /s rw - {fs_type} src rw").as_bytes()).remove(0)
    }

    #[test]
    fn what_stands_is_decided_by_mount_and_process() {
        let ours = entry(mounts::FS_TYPE);
        assert_eq!(standing(None, false), Standing::Nothing);
        assert_eq!(standing(None, true), Standing::Nothing);
        assert_eq!(standing(Some(&ours), true), Standing::Live);
        assert_eq!(standing(Some(&ours), false), Standing::Dead);
        assert_eq!(standing(Some(&entry("ext4")), true), Standing::Foreign("ext4".into()));
    }
}
