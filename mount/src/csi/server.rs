//! Serving both sockets until told to stop.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::{
    CsiOptions, NodeService, authority,
    identity::IdentityService,
    link, metrics,
    proto::{
        csi::{identity_server::IdentityServer, node_server::NodeServer},
        registration::registration_server::RegistrationServer,
    },
    registration::RegistrationService,
};
use crate::keeper;

/// Runs the node plugin until SIGTERM or SIGINT. Mounts and their processes stay.
pub async fn run(options: CsiOptions) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        told.cancel();
    });
    run_until(options, stop).await
}

/// Runs the node plugin until `stop`; calls that are under way are finished first, and the keeper has all mounts then.
pub async fn run_until(options: CsiOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let socket = socket_path(&options.endpoint)?;
    let node = NodeService::restore(&options).await.context("cannot read back the state directory")?;
    if let Some(port) = options.http_port {
        tokio::spawn(metrics::serve(metrics::listen(port).await?, node.volumes()));
    }
    let volumes = node.volumes();
    let identity = IdentityService { driver_name: options.driver_name.clone() };
    let listener = listen(&socket)?;
    tracing::info!(endpoint = %socket.display(), driver = %options.driver_name, "serving");
    let csi = Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(NodeServer::new(node))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.clone().cancelled_owned());
    // Kubelet calls as soon as it is told of us, so the registration comes second.
    let served = tokio::try_join!(
        async { csi.await.context("the CSI server failed") },
        register(&options, &socket, stop.clone()),
    );
    fs::remove_file(&socket).ok();
    link::entrust(&volumes.connections, &keeper::socket_in(&volumes.state_dir)).await;
    served.map(|_| ())
}

async fn register(options: &CsiOptions, socket: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(dir) = &options.registration_dir else {
        return Ok(());
    };
    let own = dir.join(format!("{}-reg.sock", options.driver_name));
    let seen = seen_by_kubelet(options, socket);
    let service = RegistrationService { driver_name: options.driver_name.clone(), socket: seen.display().to_string() };
    let connections = UnixListenerStream::new(listen(&own)?).map(|stream| stream.map(authority::mended));
    let served = Server::builder()
        .add_service(RegistrationServer::new(service))
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    fs::remove_file(&own).ok();
    served.context("the registration server failed")
}

/// The CSI socket's path on the host.
fn seen_by_kubelet(options: &CsiOptions, socket: &Path) -> PathBuf {
    let kubelet = options.kubelet_dir.as_deref().unwrap_or(Path::new("/var/lib/kubelet"));
    match &options.kubelet_registration_path {
        Some(path) => path.clone(),
        None if socket.starts_with(kubelet) => socket.to_owned(),
        None => kubelet.join("plugins").join(&options.driver_name).join("csi.sock"),
    }
}

fn socket_path(endpoint: &str) -> anyhow::Result<PathBuf> {
    let path =
        PathBuf::from(endpoint.strip_prefix("unix:").map_or(endpoint, |rest| rest.strip_prefix("//").unwrap_or(rest)));
    anyhow::ensure!(path.is_absolute(), "--endpoint {endpoint:?} must be unix:///PATH");
    Ok(path)
}

/// Binds a socket for root only, in place of one that an earlier process left.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let bind = || -> io::Result<UnixListener> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    };
    bind().with_context(|| format!("cannot listen on {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: &str) -> CsiOptions {
        CsiOptions {
            endpoint: endpoint.to_owned(),
            registration_dir: None,
            kubelet_dir: Some("/var/lib/kubelet".into()),
            kubelet_registration_path: None,
            node_id: "n".into(),
            state_dir: "/s".into(),
            http_port: None,
            driver_name: "csi.penstock.dev".into(),
            mount_program: None,
        }
    }

    #[test]
    fn endpoints_are_absolute_unix_paths() {
        for endpoint in ["unix:///a/csi.sock", "unix:/a/csi.sock", "/a/csi.sock"] {
            assert_eq!(socket_path(endpoint).unwrap(), Path::new("/a/csi.sock"));
        }
        for endpoint in ["tcp://h:1", "unix://a/csi.sock", ""] {
            assert!(socket_path(endpoint).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn kubelet_is_told_the_path_on_the_host() {
        let seen = |endpoint: &str| seen_by_kubelet(&options(endpoint), Path::new(endpoint));
        let usual = Path::new("/var/lib/kubelet/plugins/csi.penstock.dev/csi.sock");
        assert_eq!(seen("/csi/csi.sock"), usual);
        assert_eq!(seen("/var/lib/kubelet/plugins/x/csi.sock"), Path::new("/var/lib/kubelet/plugins/x/csi.sock"));
        let told = CsiOptions { kubelet_registration_path: Some("/k/s".into()), ..options("/csi/csi.sock") };
        assert_eq!(seen_by_kubelet(&told, Path::new("/csi/csi.sock")), Path::new("/k/s"));
    }
}
