//! What all tests share: the cluster, Penstock on it, and an S3 server that its pods reach.

use std::fs::File;
use std::net::IpAddr;

use anyhow::{Context, Result};
use kube::Client;
use penstock_testkit::tools;
use tempfile::TempDir;

use super::{Release, blocking, install};
use crate::cluster::{Cluster, ClusterOptions, KUBECONFIG_VARIABLE};
use crate::s3::SeaweedFs;

/// With a cluster of one's own: this machine's address as its pods reach it.
const ADDRESS_VARIABLE: &str = "PENSTOCK_E2E_HOST_ADDRESS";

/// Ends in this order: the S3 server, the cluster, our turn.
pub struct Env {
    pub s3: SeaweedFs,
    pub cluster: Cluster,
    /// Of the programs.
    digest: String,
    theirs: bool,
    _folder: TempDir,
    _turn: File,
}

impl Env {
    /// Brings up what is not there yet.
    pub(super) async fn start() -> Result<Self> {
        let turn = tokio::task::spawn_blocking(turn).await??;
        let folder = tempfile::Builder::new().prefix("penstock-e2e.").tempdir()?;
        let theirs = std::env::var_os(KUBECONFIG_VARIABLE).is_some();
        let (images, digest) = if theirs {
            (Vec::new(), "given".to_owned())
        } else {
            let images = blocking(|| install::images(folder.path()))?;
            (images.archives, images.digest)
        };
        let cluster = Cluster::for_tests(ClusterOptions { images, ..ClusterOptions::default() }).await?;
        if theirs {
            blocking(|| install::ensure_absent(cluster.kubeconfig()))?;
        }
        let s3 = SeaweedFs::start(host_address(&cluster)?).await?;
        install::install(&cluster, &digest, Release::Present).await?;
        Ok(Self { s3, cluster, digest, theirs, _folder: folder, _turn: turn })
    }

    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Where operator and node plugins run.
    pub fn system_namespace(&self) -> &'static str {
        install::NAMESPACE
    }

    /// Installs Penstock again, after [`Self::uninstall`], or brings it to another release.
    pub async fn install(&self, release: Release) -> Result<()> {
        install::install(&self.cluster, &self.digest, release).await
    }

    /// Removes Penstock, as `helm uninstall` does. Blocks.
    pub fn uninstall(&self) -> Result<()> {
        install::uninstall(self.cluster.kubeconfig())
    }

    /// Takes everything down; on somebody's own cluster, what was installed.
    pub(super) fn stop(self) {
        if self.theirs
            && let Err(error) = blocking(|| install::uninstall(self.cluster.kubeconfig()))
        {
            eprintln!("uninstalling: {error:#}");
        }
        blocking(move || drop(self));
    }
}

/// Waits until no other test run is under way on this machine: there is one cluster.
fn turn() -> Result<File> {
    let folder = tools::cache_dir();
    std::fs::create_dir_all(&folder)?;
    let file = File::create(folder.join("e2e.lock"))?;
    if file.try_lock().is_err() {
        println!("waiting for another run of these tests to end");
        file.lock()?;
    }
    Ok(file)
}

fn host_address(cluster: &Cluster) -> Result<IpAddr> {
    if let Some(address) = cluster.host_address() {
        return Ok(address);
    }
    let text = std::env::var(ADDRESS_VARIABLE).with_context(|| {
        format!("{ADDRESS_VARIABLE} must say at which address the cluster's pods reach this machine")
    })?;
    text.parse().with_context(|| format!("{ADDRESS_VARIABLE}: {text} is no IP address"))
}
