//! The cluster that the kubeconfig names, or that this program runs in.

use kube::Client;

#[derive(Debug, thiserror::Error)]
#[error("cannot find a cluster: {0}")]
pub struct NoCluster(#[from] kube::Error);

pub(crate) async fn client() -> Result<Client, NoCluster> {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(Client::try_default().await?)
}
