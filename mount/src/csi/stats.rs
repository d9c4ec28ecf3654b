//! How full a volume is, and whether it works.

use std::path::PathBuf;

use rustix::{fs::StatVfs, io::Errno};
use tonic::{Code, Status};

use super::{
    mounts::{self, MountError},
    proto::csi::{
        NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage, volume_usage::Unit,
    },
    request::{self, RequestError},
    state::{PublishedRecord, StagedRecord},
    volumes::Volumes,
};

#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("volume {volume_id} is not at {path:?} on this node")]
    NotFound { volume_id: String, path: String },
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl From<StatsError> for Status {
    fn from(error: StatsError) -> Self {
        let code = match &error {
            StatsError::Request(_) => Code::InvalidArgument,
            StatsError::NotFound { .. } => Code::NotFound,
            StatsError::Mount(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

impl Volumes {
    pub async fn stats(&self, request: NodeGetVolumeStatsRequest) -> Result<NodeGetVolumeStatsResponse, StatsError> {
        let volume_id = request::required("volume_id", &request.volume_id)?;
        request::required("volume_path", &request.volume_path)?;
        let path = self.find(volume_id, &request.volume_path).ok_or_else(|| StatsError::NotFound {
            volume_id: volume_id.to_owned(),
            path: request.volume_path.clone(),
        })?;
        if mounts::at(&path)?.is_none() {
            return Ok(abnormal("nothing is mounted there any more"));
        }
        Ok(match mounts::probe(&path).await {
            Some(Ok(stat)) => healthy(&stat),
            Some(Err(error)) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
                abnormal("the process that served the mount has died")
            }
            Some(Err(error)) => abnormal(&error.to_string()),
            None => abnormal("the mount does not answer"),
        })
    }

    /// The path, if this volume was staged or published there.
    fn find(&self, volume_id: &str, raw: &str) -> Option<PathBuf> {
        let path = request::resolve("volume_path", raw, self.kubelet_dir()).ok()?;
        let published = self.state.load::<PublishedRecord>(&path).map(|record| record.volume_id);
        let owner = published.or_else(|| self.state.load::<StagedRecord>(&path).map(|record| record.volume_id))?;
        (owner == volume_id).then_some(path)
    }
}

fn healthy(stat: &StatVfs) -> NodeGetVolumeStatsResponse {
    let usage = |unit: Unit, total: u64, free: u64, available: u64| VolumeUsage {
        available: available as i64,
        total: total as i64,
        used: total.saturating_sub(free) as i64,
        unit: unit.into(),
    };
    let block = stat.f_frsize.max(1);
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    NodeGetVolumeStatsResponse {
        usage: vec![
            usage(Unit::Bytes, bytes(stat.f_blocks), bytes(stat.f_bfree), bytes(stat.f_bavail)),
            usage(Unit::Inodes, stat.f_files, stat.f_ffree, stat.f_favail),
        ],
        volume_condition: Some(VolumeCondition { abnormal: false, message: "the mount answers".to_owned() }),
    }
}

/// Without figures: they could only be made up.
fn abnormal(message: &str) -> NodeGetVolumeStatsResponse {
    let message = message.to_owned();
    NodeGetVolumeStatsResponse {
        usage: Vec::new(),
        volume_condition: Some(VolumeCondition { abnormal: true, message }),
    }
}
