//! The CSI node service: the border between gRPC and the steps.

use std::{collections::HashMap, future::Future, io, path::Path, sync::Arc};

use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use super::{
    CsiOptions, abort,
    daemon::Daemon,
    locks::Locks,
    mounts,
    proto::csi::{
        NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
        NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
        NodeServiceCapability, NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
        NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
        node_server::Node,
        node_service_capability::{Rpc, Type as Capability, rpc::Type},
    },
    state::{StagedRecord, StateDir},
    volumes::{Staged, Volumes},
};

/// The node service. Clones share their state.
#[derive(Clone, Debug)]
pub struct NodeService {
    inner: Arc<Volumes>,
}

impl NodeService {
    /// Reads back what an earlier plugin left: adopts mounts whose processes still run, ends dead ones.
    pub async fn restore(options: &CsiOptions) -> io::Result<Self> {
        std::fs::create_dir_all(&options.state_dir)?;
        let state_dir = options.state_dir.canonicalize()?;
        let program = options.mount_program.clone().map_or_else(std::env::current_exe, Ok)?;
        let state = StateDir::new(state_dir.clone());
        let mut staged = HashMap::new();
        for record in state.load_all::<StagedRecord>() {
            let daemon = adopt(&record, &state_dir).await;
            staged.insert(record.staging_path.clone(), Arc::new(Staged { record, spec: None, daemon }));
        }
        let inner = Volumes {
            node_id: options.node_id.clone(),
            kubelet_dir: options.kubelet_dir.clone(),
            state_dir,
            program,
            state,
            keeper: Arc::default(),
            staged: Mutex::new(staged),
            locks: Locks::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs a step to its end even if the caller hangs up meanwhile, and tells the log of every error: kubelet shows
    /// them only in events.
    async fn step<T, E, F>(&self, rpc: &'static str, volume_id: &str, step: F) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        E: Into<Status> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let done = tokio::spawn(step).await;
        let result = done
            .map_err(|error| Status::internal(format!("{rpc} broke off: {error}")))
            .and_then(|r| r.map_err(Into::into));
        result.map(Response::new).inspect_err(|status| {
            tracing::error!(rpc, volume_id, code = ?status.code(), error = status.message(), "request failed");
        })
    }
}

/// The process of a recorded mount, if both are alive; a mount without its process is removed.
async fn adopt(record: &StagedRecord, state_dir: &Path) -> Option<Daemon> {
    let staging = &record.staging_path;
    let mounted = mounts::at(staging).ok().flatten().filter(|entry| entry.fs_type == mounts::FS_TYPE)?;
    let adopted = record.process.and_then(|id| Daemon::adopt(id, record.dataset.clone()));
    if let Some(daemon) = adopted {
        tracing::info!(volume_id = record.volume_id, pid = daemon.id.pid, "adopted a mount that is still served");
        return Some(daemon);
    }
    tracing::warn!(volume_id = record.volume_id, staging = %staging.display(), "removing a mount that nobody serves");
    if let Err(error) = abort::abort(mounted.device.1, state_dir) {
        tracing::warn!(%error, "the FUSE connection cannot be aborted");
    }
    if let Err(error) = mounts::detach(staging).await {
        tracing::warn!(%error, "a dead mount stays");
    }
    None
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let (request, inner) = (request.into_inner(), Arc::clone(&self.inner));
        let volume_id = request.volume_id.clone();
        let step = async move { inner.stage(request).await.map(|()| NodeStageVolumeResponse {}) };
        self.step("NodeStageVolume", &volume_id, step).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let (request, inner) = (request.into_inner(), Arc::clone(&self.inner));
        let volume_id = request.volume_id.clone();
        let step = async move { inner.unstage(request).await.map(|()| NodeUnstageVolumeResponse {}) };
        self.step("NodeUnstageVolume", &volume_id, step).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let (request, inner) = (request.into_inner(), Arc::clone(&self.inner));
        let volume_id = request.volume_id.clone();
        let step = async move { inner.publish(request).await.map(|()| NodePublishVolumeResponse {}) };
        self.step("NodePublishVolume", &volume_id, step).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let (request, inner) = (request.into_inner(), Arc::clone(&self.inner));
        let volume_id = request.volume_id.clone();
        let step = async move { inner.unpublish(request).await.map(|()| NodeUnpublishVolumeResponse {}) };
        self.step("NodeUnpublishVolume", &volume_id, step).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let (request, inner) = (request.into_inner(), Arc::clone(&self.inner));
        let volume_id = request.volume_id.clone();
        let step = async move { inner.stats(request).await };
        self.step("NodeGetVolumeStats", &volume_id, step).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let offered = [Type::StageUnstageVolume, Type::GetVolumeStats, Type::VolumeCondition];
        let capability =
            |offer: Type| NodeServiceCapability { r#type: Some(Capability::Rpc(Rpc { r#type: offer.into() })) };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: offered.map(capability).to_vec() }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        let node_id = self.inner.node_id.clone();
        Ok(Response::new(NodeGetInfoResponse { node_id, ..Default::default() }))
    }
}
