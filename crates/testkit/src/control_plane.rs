//! A real Kubernetes control plane: etcd and kube-apiserver, and on demand the controller manager and the scheduler.

mod args;
mod files;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Config};
use tempfile::TempDir;

use crate::process::{ChildGuard, free_port};
use crate::tools::{self, KubePart};

pub use files::{User, kubeconfig};

/// Where a control plane listens and what it runs.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    pub controller_manager: bool,
    pub scheduler: bool,
    /// Address that the API server binds and advertises; etcd stays on loopback.
    pub address: IpAddr,
    /// The API server's port; 0 takes a free one.
    pub port: u16,
    /// Range of the `ClusterIPs`, as a CIDR.
    pub service_range: String,
    /// Users besides `admin`, such as one per kubelet.
    pub users: Vec<User>,
    /// Folder for data, keys and logs; a temporary one that goes with the control plane when absent.
    pub folder: Option<PathBuf>,
    /// The processes outlive this one; see [`ControlPlane::release`].
    pub detached: bool,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            controller_manager: false,
            scheduler: false,
            address: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            service_range: "198.19.0.0/17".into(),
            users: Vec::new(),
            folder: None,
            detached: false,
        }
    }
}

/// A running control plane; everything it started ends when it is dropped.
///
/// Pods get no service account tokens unless the controller manager runs: without it that admission plug-in is off, so
/// that pods can be created at all.
pub struct ControlPlane {
    // Dropped in this order: whoever uses the API server first, etcd last.
    controllers: Vec<ChildGuard>,
    api_server: Option<ChildGuard>,
    etcd: ChildGuard,
    settings: args::Settings,
    client: Client,
    _temporary: Option<TempDir>,
}

impl ControlPlane {
    /// etcd and an API server on free ports of 127.0.0.1, ready to use.
    pub async fn start() -> Result<Self> {
        Self::start_with(ControlPlaneOptions::default()).await
    }

    pub async fn start_with(options: ControlPlaneOptions) -> Result<Self> {
        let (etcd_program, _) =
            tokio::task::spawn_blocking(|| anyhow::Ok((tools::etcd()?, tools::kube(KubePart::ApiServer)?)))
                .await
                .context("looking for the tools")??;
        let temporary = match &options.folder {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("penstock-control-plane.").tempdir()?),
        };
        let folder = match (&options.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => bail!("no folder for the control plane"),
        };
        let settings = args::Settings::new(&options, folder, [free_port()?, free_port()?, free_port()?]);
        files::write(&settings, &options.users).context("writing keys and users of the control plane")?;
        let etcd = settings.spawn("etcd", etcd_program).args(args::etcd(&settings)).start()?;
        let api_server = Some(start_api_server(&settings)?);
        let client = client_without_ca(&settings)?;
        let mut plane = Self { controllers: Vec::new(), api_server, etcd, settings, client, _temporary: temporary };
        plane.wait_ready().await?;
        plane.client = client_from(&plane.settings.admin_kubeconfig()).await?;
        plane.start_controllers(&options)?;
        Ok(plane)
    }

    /// A client of `admin` (group `system:masters`).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A file for `KUBECONFIG`, user `admin`.
    pub fn kubeconfig(&self) -> &Path {
        &self.settings.kubeconfig
    }

    /// The kubeconfig of one of [`ControlPlaneOptions::users`], as text.
    pub fn kubeconfig_of(&self, user: &User) -> String {
        kubeconfig(&self.url(), &self.settings.ca_file(), user)
    }

    /// The kubeconfig, as text, of `admin` acting as another user, such as `system:serviceaccount:NAMESPACE:NAME`, with no
    /// more rights than that one has.
    pub fn kubeconfig_acting_as(&self, user: &str) -> String {
        files::kubeconfig_acting_as(&self.url(), &self.settings.ca_file(), &self.settings.admin, user)
    }

    /// `https://ADDRESS:PORT`
    pub fn url(&self) -> String {
        self.settings.url()
    }

    /// Folder of data, keys and logs.
    pub fn folder(&self) -> &Path {
        &self.settings.folder
    }

    /// Ends the API server at once, as a crash would; etcd keeps the objects.
    pub fn stop_api_server(&mut self) {
        if let Some(mut server) = self.api_server.take() {
            server.kill();
        }
    }

    /// Starts the API server again on the same port and waits until it is ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            self.api_server = Some(start_api_server(&self.settings)?);
        }
        self.wait_ready().await
    }

    /// The process that serves the API, if it runs now.
    pub fn api_server_pid(&self) -> Option<u32> {
        self.api_server.as_ref().map(ChildGuard::pid)
    }

    /// Applies every `CustomResourceDefinition` in the folder's `*.yaml` files and waits until each is established.
    pub async fn install_crds(&self, folder: impl AsRef<Path>) -> Result<()> {
        install_crds(self.client(), folder.as_ref()).await
    }

    /// Gives all processes up: returns their names and ids, whose process groups the caller stops in this order.
    pub fn release(self) -> Vec<(String, u32)> {
        let guards = self.controllers.into_iter().chain(self.api_server).chain([self.etcd]);
        guards.map(|guard| (guard.name().to_owned(), guard.release())).collect()
    }

    fn start_controllers(&mut self, options: &ControlPlaneOptions) -> Result<()> {
        if options.controller_manager {
            let program = tools::kube(KubePart::ControllerManager)?;
            let spawn = self.settings.spawn("kube-controller-manager", program);
            self.controllers.push(spawn.args(args::controller_manager(&self.settings)).start()?);
        }
        if options.scheduler {
            let program = tools::kube(KubePart::Scheduler)?;
            let spawn = self.settings.spawn("kube-scheduler", program);
            self.controllers.push(spawn.args(args::scheduler(&self.settings)).start()?);
        }
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            self.etcd.ensure_running()?;
            if let Some(server) = &mut self.api_server {
                server.ensure_running()?;
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let Err(failure) = self.client.request_text(request).await else { return Ok(()) };
            if tokio::time::Instant::now() > deadline {
                bail!("the API server is not ready after 60 s: {failure}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("url", &self.url()).finish_non_exhaustive()
    }
}

fn start_api_server(settings: &args::Settings) -> Result<ChildGuard> {
    let program = tools::kube(KubePart::ApiServer)?;
    settings.spawn("kube-apiserver", program).args(args::api_server(settings)).start()
}

/// Makes TLS work whichever providers are compiled in.
fn choose_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the time before the server has written its certificate.
fn client_without_ca(settings: &args::Settings) -> Result<Client> {
    choose_tls_provider();
    let mut config = Config::new(settings.url().parse()?);
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(settings.admin.token.clone().into());
    Ok(Client::try_from(config)?)
}

/// A client from the text of a kubeconfig.
pub async fn client_from(kubeconfig: &str) -> Result<Client> {
    choose_tls_provider();
    let parsed = Kubeconfig::from_yaml(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// As [`ControlPlane::install_crds`], on any cluster.
pub async fn install_crds(client: Client, folder: &Path) -> Result<()> {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
    let crds: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut names = Vec::new();
    for file in files::yaml_files(folder)? {
        let text = std::fs::read_to_string(&file)?;
        for crd in serde_saphyr::from_multiple::<DynamicObject>(&text).with_context(|| file.display().to_string())? {
            let name = crd.metadata.name.clone().with_context(|| format!("{}: no name", file.display()))?;
            let params = PatchParams::apply("penstock-testkit").force();
            crds.patch(&name, &params, &Patch::Apply(&crd)).await.with_context(|| format!("applying {name}"))?;
            names.push(name);
        }
    }
    for name in names {
        wait_established(&crds, &name).await?;
    }
    Ok(())
}

async fn wait_established(crds: &Api<DynamicObject>, name: &str) -> Result<()> {
    for _ in 0..600 {
        let crd = crds.get(name).await?;
        let conditions = crd.data.pointer("/status/conditions").and_then(|value| value.as_array());
        let established =
            |condition: &serde_json::Value| condition["type"] == "Established" && condition["status"] == "True";
        if conditions.is_some_and(|conditions| conditions.iter().any(established)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("CustomResourceDefinition {name} is not established after 30 s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;

    #[tokio::test]
    async fn an_api_server_starts_serves_and_survives_an_outage() {
        let begun = std::time::Instant::now();
        let mut plane = ControlPlane::start().await.unwrap();
        eprintln!("ready in {:?}", begun.elapsed());
        let namespaces: Api<Namespace> = Api::all(plane.client());
        namespaces.get("default").await.unwrap();
        plane.stop_api_server();
        assert!(namespaces.get("default").await.is_err());
        plane.start_api_server().await.unwrap();
        namespaces.get("kube-system").await.unwrap();
        let folder = plane.folder().to_owned();
        drop(plane);
        assert!(!folder.exists());
    }
}
