//! Penstock itself on the cluster: its programs in one image, its chart by Helm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use penstock_testkit::tools;
use sha2::{Digest, Sha256};

use crate::cluster::Cluster;
use crate::{image, pods};

pub(super) const RELEASE: &str = "penstock";
pub(super) const NAMESPACE: &str = "penstock-system";
/// Folder of ready-built programs; Cargo builds them when it is not set.
const PROGRAMS_VARIABLE: &str = "PENSTOCK_E2E_PROGRAMS";
const PROGRAMS: [&str; 4] = ["penstock-operator", "penstock-worker", "penstock-mount", "penstock-keeper"];
/// The program of pods that read and check all the while.
const READER: &str = "penstock-e2e-reader";
const DIGEST: &str = "penstock.dev/e2e-digest";

/// A chart and the image of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The chart that was released first, with the programs of this build: no binaries are kept.
    First,
    /// This build.
    Present,
    /// This build under another tag.
    Next,
}

impl Release {
    fn chart(self) -> PathBuf {
        tools::workspace_root().join(match self {
            Self::First => "e2e/testdata/first-release",
            Self::Present | Self::Next => "charts/penstock",
        })
    }

    fn image(self) -> String {
        match self {
            Self::First | Self::Present => image::penstock_name(),
            Self::Next => image::PENSTOCK_NEXT.into(),
        }
    }
}

/// Images to load into nodes, and what tells one build of Penstock from another.
pub(super) struct Images {
    pub(super) archives: Vec<PathBuf>,
    pub(super) digest: String,
}

/// Builds the programs and packs them. Blocks.
pub(super) fn images(folder: &Path) -> Result<Images> {
    let programs = programs()?;
    let mut hash = Sha256::new();
    for program in &programs {
        hash.update(std::fs::read(program)?);
    }
    let digest = image::hex(&hash.finalize());
    let (penstock, toolbox) = (folder.join("penstock.tar"), folder.join("toolbox.tar"));
    image::penstock(&penstock, &programs)?;
    image::toolbox(&toolbox, &[own_folder()?.join(READER)])?;
    Ok(Images { archives: vec![penstock, toolbox], digest: digest[..16].to_owned() })
}

fn programs() -> Result<Vec<PathBuf>> {
    let folder = match std::env::var_os(PROGRAMS_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => build()?,
    };
    let programs: Vec<PathBuf> = PROGRAMS.iter().map(|name| folder.join(name)).collect();
    for program in &programs {
        ensure!(program.is_file(), "{} is missing: run `cargo build --workspace`", program.display());
    }
    Ok(programs)
}

/// The folder that this test program's own build went to.
fn own_folder() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test program is in target/PROFILE/deps")?;
    Ok(folder.to_owned())
}

/// Builds the programs; the folder that they are in.
fn build() -> Result<PathBuf> {
    let folder = own_folder()?;
    let mut cargo = tools::cargo()?;
    // As the tests are built: otherwise dependencies would have other features, and be built once more.
    cargo.args(["test", "--quiet", "--workspace", "--no-run"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    tools::run(&mut cargo)?;
    Ok(folder)
}

/// Installs the release, or brings an installed one to it. Returns when operator and node plugins are ready.
pub(super) async fn install(cluster: &Cluster, digest: &str, release: Release) -> Result<()> {
    super::blocking(|| {
        let mut helm = helm(cluster.kubeconfig())?;
        helm.args(["upgrade", "--install", RELEASE]).arg(release.chart());
        // An earlier release of the chart left CRDs that are no release's.
        helm.args(["--create-namespace", "--take-ownership", "--wait", "--timeout", "3m"]);
        for part in ["operator", "worker", "mount"] {
            helm.arg("--set-string").arg(format!("{part}.image={}", release.image()));
        }
        // A new image under the old name changes no pod: this does.
        helm.arg("--set-string").arg(format!("podAnnotations.{}={digest}", DIGEST.replace('.', "\\.")));
        tools::run(&mut helm).context("installing the chart")
    })?;
    replace_old_keepers(cluster, digest).await
}

/// Somebody's own cluster may have Penstock in use: these tests must neither change nor remove that. Blocks.
pub(super) fn ensure_absent(kubeconfig: &Path) -> Result<()> {
    let status = helm(kubeconfig)?.args(["status", RELEASE]).output()?;
    ensure!(
        !status.status.success(),
        "the cluster has Helm release {RELEASE} in namespace {NAMESPACE} already; if it is not in use (but left by a run \
         that was cut off), remove it: helm uninstall --namespace {NAMESPACE} {RELEASE}"
    );
    Ok(())
}

/// Helm's release goes; the CRDs stay. Blocks.
pub(super) fn uninstall(kubeconfig: &Path) -> Result<()> {
    tools::run(helm(kubeconfig)?.args(["uninstall", RELEASE, "--wait", "--timeout", "5m"]))
}

fn helm(kubeconfig: &Path) -> Result<Command> {
    let mut helm = Command::new(tools::helm()?);
    let home = tools::cache_dir().join("helm");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, &home);
    }
    helm.env("NO_PROXY", "*").env("no_proxy", "*");
    helm.arg("--kubeconfig").arg(kubeconfig).args(["--namespace", NAMESPACE]);
    Ok(helm)
}

/// Their DaemonSet replaces its pods only when they are deleted. Helm has waited for the plugins, which hold the mounts.
async fn replace_old_keepers(cluster: &Cluster, digest: &str) -> Result<()> {
    let (api, selector): (Api<Pod>, _) =
        (Api::namespaced(cluster.client(), NAMESPACE), "app.kubernetes.io/component=keeper");
    for pod in api.list(&ListParams::default().labels(selector)).await? {
        if pod.annotations().get(DIGEST).map(String::as_str) != Some(digest) {
            pods::kill(&cluster.client(), NAMESPACE, &pod.name_any()).await?;
        }
    }
    let (nodes, limit) = (cluster.nodes().len(), std::time::Duration::from_mins(2));
    pods::wait_ready_count(&cluster.client(), NAMESPACE, selector, nodes, limit).await?;
    Ok(())
}
