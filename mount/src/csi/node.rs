//! The CSI node service: the border between gRPC and the steps.

use std::{future::Future, io, sync::Arc};

use tonic::{Request, Response, Status};

use super::{
    CsiOptions,
    proto::csi::{
        NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
        NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
        NodeServiceCapability, NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
        NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
        node_server::Node,
        node_service_capability::{Rpc, Type as Capability, rpc::Type},
    },
    volumes::Volumes,
};

/// The node service. Clones share their state.
#[derive(Clone, Debug)]
pub struct NodeService {
    inner: Arc<Volumes>,
}

impl NodeService {
    /// Reads back what an earlier plugin left ([`super::restore`]).
    pub async fn restore(options: &CsiOptions) -> io::Result<Self> {
        Ok(Self { inner: Volumes::restore(options).await? })
    }

    pub(super) fn volumes(&self) -> Arc<Volumes> {
        self.inner.clone()
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
