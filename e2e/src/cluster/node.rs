//! One node: namespaces, containerd, kubelet and kube-proxy. All functions block.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use penstock_testkit::process::{Spawn, log_tail};
use penstock_testkit::tools::{self, KubePart};

use super::process::Process;
use super::{cgroup, config, network, state};

/// What a node needs to know before it starts.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) detached: bool,
    /// Texts of the kubeconfigs.
    pub(super) kubelet: String,
    pub(super) proxy: String,
}

impl Plan {
    fn folder(&self) -> PathBuf {
        state::node_folder(&self.name)
    }

    fn etc(&self) -> PathBuf {
        self.folder().join("etc")
    }

    fn log(&self, program: &str) -> PathBuf {
        self.folder().join("logs").join(format!("{program}.log"))
    }
}

/// Folders, files, network and cgroups of the node, and its first process.
pub(super) fn create(plan: &Plan) -> Result<Process> {
    write_files(plan).context("writing the node's files")?;
    network::create_node(&plan.name, plan.address).context("making the node's network")?;
    cgroup::create(&plan.name)?;
    start_init(plan)
}

fn write_files(plan: &Plan) -> Result<()> {
    let (folder, etc) = (plan.folder(), plan.etc());
    fs::create_dir_all(folder.join("lib"))?;
    fs::create_dir_all(folder.join("log"))?;
    fs::create_dir_all(etc.join("cni"))?;
    fs::write(etc.join("containerd.toml"), config::containerd(&tools::cni_plugins()?, &etc))?;
    fs::write(etc.join("cni/10-pods.conflist"), config::cni(plan.address))?;
    fs::write(etc.join("kubelet.json"), config::kubelet(&plan.name, &etc))?;
    fs::write(etc.join("kubelet.kubeconfig"), &plan.kubelet)?;
    fs::write(etc.join("proxy.kubeconfig"), &plan.proxy)?;
    fs::write(etc.join("proxy.json"), config::proxy(&plan.name, &etc.join("proxy.kubeconfig")))?;
    // Pods get no name server: there is none, and the host's is nobody's business here.
    fs::write(etc.join("resolv.conf"), "")?;
    Ok(())
}

fn start_init(plan: &Plan) -> Result<Process> {
    let unshare = ["--mount", "--uts", "--pid", "--fork", "--kill-child=SIGKILL", "--propagation", "private", "--"];
    let guard = Spawn::new(tools::debian("nsenter", "util-linux")?, plan.log("init"))
        .arg(format!("--net=/run/netns/{}", network::namespace(&plan.name)))
        .arg(tools::debian("unshare", "util-linux")?)
        .args(unshare)
        .args(["sh", "-c", config::SETUP, "setup"])
        .arg(plan.folder())
        .arg(&plan.name)
        .arg(tools::pause()?)
        .detached(plan.detached)
        .start()?;
    let parent = Process::record("unshare", guard.pid())?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !plan.folder().join("ready").exists() {
        if !parent.is_alive() || Instant::now() > deadline {
            bail!("node {} cannot set up its namespaces: {}", plan.name, log_tail(guard.log(), 5));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let child = first_child(parent.pid).context("the node's first process has ended")?;
    let init = Process::record("init", child)?;
    guard.release();
    Ok(init)
}

fn first_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// containerd, with `images` loaded.
pub(super) fn start_containerd(plan: &Plan, init: &Process, images: &[PathBuf]) -> Result<()> {
    let program = tools::containerd()?;
    spawn(plan, init, &program, &["--config".into(), plan.etc().join("containerd.toml").display().to_string()])?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = exec(init, &["ctr", "version"]) {
        if Instant::now() > deadline {
            bail!("containerd of {} does not answer ({error}):\n{}", plan.name, log_tail(&plan.log("containerd"), 15));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    images.iter().try_for_each(|image| load_image(init, image))
}

/// kubelet and kube-proxy.
pub(super) fn start_kubelet(plan: &Plan, init: &Process) -> Result<()> {
    let etc = plan.etc();
    let kubelet = [
        format!("--config={}", etc.join("kubelet.json").display()),
        format!("--kubeconfig={}", etc.join("kubelet.kubeconfig").display()),
        format!("--hostname-override={}", plan.name),
        format!("--node-ip={}", plan.address),
    ];
    spawn(plan, init, &tools::kube(KubePart::Kubelet)?, &kubelet)?;
    let proxy = [format!("--config={}", etc.join("proxy.json").display())];
    spawn(plan, init, &tools::kube(KubePart::Proxy)?, &proxy)
}

/// An error with the end of its log when a program of the node has ended.
pub(super) fn ensure_running(node: &str) -> Result<()> {
    let logs = state::node_folder(node).join("logs");
    match Process::noted_in(&logs).iter().find(|process| !process.is_alive()) {
        None => Ok(()),
        Some(process) => {
            let log = log_tail(&logs.join(format!("{}.log", process.name)), 20);
            bail!("{} of {node} has ended:\n{log}", process.name)
        }
    }
}

/// Starts a program inside the node; it ends with the node's first process.
fn spawn(plan: &Plan, init: &Process, program: &Path, args: &[String]) -> Result<()> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let guard = Spawn::new(tools::debian("nsenter", "util-linux")?, plan.log(&name))
        .args(enter(init))
        .arg(program)
        .args(args)
        .detached(plan.detached)
        .start()?;
    guard.release();
    Ok(())
}

/// Arguments of nsenter(1) for all of the node's namespaces.
fn enter(init: &Process) -> [String; 7] {
    let target = init.pid.to_string();
    ["--target", &target, "--mount", "--uts", "--net", "--pid", "--"].map(ToOwned::to_owned)
}

/// Runs a command inside the node to its end and returns what it printed.
pub(super) fn exec(init: &Process, command: &[&str]) -> Result<String> {
    if !init.is_alive() {
        bail!("the node does not run");
    }
    tools::output(Command::new(tools::debian("nsenter", "util-linux")?).args(enter(init)).args(command))
}

/// Imports a docker-archive into the node's containerd, for pods.
pub(super) fn load_image(init: &Process, archive: &Path) -> Result<()> {
    let archive = archive.to_str().context("the archive's path is not UTF-8")?;
    exec(init, &["ctr", "--namespace", "k8s.io", "images", "import", archive]).map(drop)
}
