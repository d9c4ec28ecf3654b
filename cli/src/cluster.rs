//! The cluster that the kubeconfig names, or that this program runs in.

use kube::Client;

/// # Errors
/// When neither is there, or cannot be read.
pub(crate) async fn client() -> kube::Result<Client> {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_default().await
}
