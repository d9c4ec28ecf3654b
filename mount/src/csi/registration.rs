//! Kubelet's plugin registration, served by ourselves instead of by a sidecar container.

use tonic::{Request, Response, Status};

use super::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server::Registration,
};

#[derive(Clone, Debug)]
pub struct RegistrationService {
    pub driver_name: String,
    /// The CSI socket as kubelet sees it.
    pub socket: String,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.socket.clone(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    /// Kubelet tries again by itself after a failure, so this only tells the log.
    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!(driver = %self.driver_name, "registered with kubelet");
        } else {
            tracing::error!(driver = %self.driver_name, error = %status.error, "kubelet refused the registration");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
