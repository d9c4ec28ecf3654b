//! Publishing: at the pod's target path a bind mount of a staged Dataset, or the directory of a worker's socket.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::mount::MountFlags;
use tonic::{Code, Status};

use super::{
    mounts::{self, MountEntry, MountError},
    proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest},
    request::{self, RequestError, Source},
    sockets::{self, SocketDirError},
    stage::StageError,
    state::{PodRef, Published, PublishedRecord, StateError},
    volumes::Volumes,
};

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("nothing live is mounted at the staging path {} and the key to mount it anew is not known: stage the volume again, or name the client's Secret in nodePublishSecretRef", .0.display())]
    NotStaged(PathBuf),
    #[error("cannot mount the Dataset again: {0}")]
    Stage(#[from] StageError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    SocketDir(#[from] SocketDirError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<PublishError> for Status {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Stage(inner) => return inner.into(),
            PublishError::Request(_) => Code::InvalidArgument,
            PublishError::NotStaged(_) => Code::FailedPrecondition,
            PublishError::Mount(_) | PublishError::SocketDir(_) | PublishError::State(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UnpublishError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    SocketDir(#[from] SocketDirError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<UnpublishError> for Status {
    fn from(error: UnpublishError) -> Self {
        let code = match &error {
            UnpublishError::Request(_) => Code::InvalidArgument,
            UnpublishError::Mount(_) | UnpublishError::SocketDir(_) | UnpublishError::State(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

/// Whether the target already shows `wanted` (the mount at the staging path). A target that shows anything else, for
/// example a mount that died since, must be replaced.
pub fn shows(target: Option<&MountEntry>, wanted: Option<&MountEntry>) -> bool {
    target.zip(wanted).is_some_and(|(target, wanted)| target.device == wanted.device && target.root == wanted.root)
}

impl Volumes {
    pub async fn publish(self: &Arc<Self>, request: NodePublishVolumeRequest) -> Result<(), PublishError> {
        let volume_id = request::required("volume_id", &request.volume_id)?;
        request::required("target_path", &request.target_path)?;
        request::check_capability(request.volume_capability.as_ref())?;
        let target = request::resolve("target_path", &request.target_path, self.kubelet_dir())?;
        if request::is_ephemeral(&request.volume_context) {
            let directory = self.state.sockets().join(request::worker_socket(&request.volume_context)?);
            let _guard = self.locks.lock(volume_id).await;
            return self.publish_socket(volume_id, &target, directory).await;
        }
        let staging = request::resolve("staging_target_path", &request.staging_target_path, self.kubelet_dir())?;
        let source = Source::parse(&request.volume_context, &request.secrets)?;
        let _guard = self.locks.lock(volume_id).await;
        self.ensure_staged(volume_id, &staging, &source).await?;
        // Read-only also where the caller would allow writes: so is the file system.
        self.publish_dataset(volume_id, &target, &staging, request::pod(&request.volume_context)).await
    }

    /// Brings a staged volume back whose process died, if the key is known.
    async fn ensure_staged(
        self: &Arc<Self>,
        volume_id: &str,
        staging: &Path,
        source: &Source,
    ) -> Result<(), PublishError> {
        let known = self.staged.lock().get(staging).cloned();
        let spec = source.spec(&self.state).or_else(|| known.as_ref().and_then(|known| known.spec.clone()));
        match spec {
            Some(spec) => Ok(self.ensure_mounted(volume_id, staging, spec).await?),
            // After a restart of the plugin the key is unknown, but the process may still run.
            None if known.is_some_and(|known| known.is_served()) && mounts::at(staging)?.is_some() => Ok(()),
            None => Err(PublishError::NotStaged(staging.to_owned())),
        }
    }

    async fn publish_dataset(
        &self,
        volume_id: &str,
        target: &Path,
        staging: &Path,
        pod: Option<PodRef>,
    ) -> Result<(), PublishError> {
        if shows(mounts::at(target)?.as_ref(), mounts::at(staging)?.as_ref()) {
            return Ok(());
        }
        let what = Published::Dataset { staging_path: staging.to_owned() };
        self.clear(volume_id, target, what, pod).await?;
        mounts::bind(staging, target, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)?;
        tracing::info!(volume_id, target = %target.display(), "published");
        Ok(())
    }

    async fn publish_socket(&self, volume_id: &str, target: &Path, directory: PathBuf) -> Result<(), PublishError> {
        let what = Published::Socket { directory: directory.clone() };
        let known = self.state.load::<PublishedRecord>(target).is_some_and(|record| record.what == what);
        if known && sockets::leads_to(&directory, target) && mounts::at(target)?.is_some() {
            return Ok(());
        }
        self.clear(volume_id, target, what, None).await?;
        mounts::memory(target, sockets::OPTIONS)?;
        sockets::link(&self.state.sockets(), &directory, target)?;
        tracing::info!(volume_id, target = %target.display(), "published the directory of a worker's socket");
        Ok(())
    }

    /// Notes what the target will be, and makes it an empty directory.
    async fn clear(
        &self,
        volume_id: &str,
        target: &Path,
        what: Published,
        pod: Option<PodRef>,
    ) -> Result<(), PublishError> {
        let (volume_id, target_path) = (volume_id.to_owned(), target.to_owned());
        let record = PublishedRecord { volume_id, target_path, what, pod };
        self.state.save(&record)?;
        mounts::unmount_all(target).await?;
        Ok(mounts::create_dir(target)?)
    }

    pub async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), UnpublishError> {
        let volume_id = request::required("volume_id", &request.volume_id)?;
        let target = request::resolve("target_path", &request.target_path, self.kubelet_dir())?;
        let _guard = self.locks.lock(volume_id).await;
        mounts::unmount_all(&target).await?;
        mounts::remove_dir(&target)?;
        let record = self.state.load::<PublishedRecord>(&target);
        if let Some(PublishedRecord { what: Published::Socket { directory }, .. }) = record {
            sockets::remove(&self.state.sockets(), &directory)?;
        }
        self.state.remove::<PublishedRecord>(&target)?;
        tracing::info!(volume_id, target = %target.display(), "unpublished");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_shows_the_staged_mount_only_with_the_same_device_and_root() {
        let table = b"1 1 0:33 / /s rw - fuse.penstock a rw\n2 1 0:34 / /t rw - fuse.penstock a rw\n\
            3 1 0:33 / /u rw - fuse.penstock a rw\n4 1 0:33 /x /v rw - fuse.penstock a rw\n";
        let entries = mounts::parse(table);
        let shown: Vec<bool> = entries.iter().map(|entry| shows(Some(entry), Some(&entries[0]))).collect();
        assert_eq!(shown, [true, false, true, false]);
        assert!(!shows(None, Some(&entries[0])) && !shows(None, None));
    }
}
