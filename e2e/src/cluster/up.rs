//! Brings a cluster up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client};
use penstock_testkit::control_plane::{ControlPlane, ControlPlaneOptions, User};
use penstock_testkit::process::log_tail;
use penstock_testkit::tools::{self, KubePart};

use super::process::Process;
use super::state::{self, NodeState, State};
use super::{ClusterOptions, config, network, node};
use crate::image;

/// All steps of `up`; the caller holds the lock and takes down what a failure leaves.
///
/// When this is cancelled, threads may still be making things: they are done once nobody else holds `busy`.
pub(super) async fn create(options: &ClusterOptions, busy: &Arc<()>) -> Result<State> {
    check(options)?;
    tokio::task::spawn_blocking(install_tools).await??;
    let mut state = record(options)?;
    state.save()?;
    network::create().context("making the cluster's network")?;
    let images = [vec![pause_image().await?], options.images.clone()].concat();
    let users: Vec<User> = state.nodes.iter().map(|node| User::kubelet(&node.name)).chain([proxy_user()]).collect();
    // The nodes' container runtimes start while the API server does.
    let preparing = plans(&state).into_iter().map(|plan| {
        let (images, busy) = (images.clone(), busy.clone());
        tokio::task::spawn_blocking(move || {
            let init = prepare(&plan, &images).with_context(|| format!("starting {}", plan.name))?;
            drop(busy);
            anyhow::Ok((plan, init))
        })
    });
    let preparing: Vec<_> = preparing.collect();
    let plane = start_control_plane(options, users).await;
    // All of them end before any failure is looked at: nothing may be made while `down` removes.
    let prepared = futures::future::join_all(preparing).await;
    let mut nodes = Vec::new();
    for (index, task) in prepared.into_iter().enumerate() {
        let (plan, init) = task??;
        state.nodes[index].init = Some(init.clone());
        nodes.push((plan, init));
    }
    state.save()?;
    let plane = plane.context("starting the control plane")?;
    let client = plane.client();
    for (name, pid) in plane.release() {
        state.control_plane.push(Process::record(&name, pid)?);
    }
    state.save()?;
    for (plan, init) in nodes {
        tokio::task::spawn_blocking(move || node::start_kubelet(&plan, &init)).await??;
    }
    network::route_services(state.nodes[0].address)?;
    wait_ready(&client, &state).await?;
    state.complete = true;
    state.save()?;
    Ok(state)
}

fn check(options: &ClusterOptions) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a cluster needs root (for namespaces, mounts and cgroups)");
    ensure!((1..=16).contains(&options.nodes), "nodes: {} is not from 1 to 16", options.nodes);
    Ok(())
}

fn install_tools() -> Result<()> {
    for part in [KubePart::ApiServer, KubePart::Kubelet] {
        tools::kube(part)?;
    }
    for (program, package) in [("conntrack", "conntrack"), ("iptables", "iptables"), ("socat", "socat")] {
        tools::debian(program, package)?;
    }
    tools::etcd()?;
    tools::containerd()?;
    tools::cni_plugins()?;
    tools::pause()?;
    Ok(())
}

fn record(options: &ClusterOptions) -> Result<State> {
    let nodes = (1..=options.nodes).map(|number| NodeState {
        name: format!("node{number}"),
        address: network::node_address(number),
        init: None,
    });
    Ok(State {
        owner: Process::record("owner", std::process::id())?,
        detached: options.detached,
        nodes: nodes.collect(),
        control_plane: Vec::new(),
        complete: false,
    })
}

/// The user that the default role binding `system:node-proxier` names.
fn proxy_user() -> User {
    User::new("system:kube-proxy", &[])
}

pub(super) fn control_plane_folder() -> PathBuf {
    state::folder().join("control-plane")
}

fn plans(state: &State) -> Vec<node::Plan> {
    let url = format!("https://{}:{}", network::HOST, network::API_PORT);
    let ca = control_plane_folder().join("certs/apiserver.crt");
    let kubeconfig = |user: &User| penstock_testkit::control_plane::kubeconfig(&url, &ca, user);
    let plan = |node: &NodeState| node::Plan {
        name: node.name.clone(),
        address: node.address,
        detached: state.detached,
        kubelet: kubeconfig(&User::kubelet(&node.name)),
        proxy: kubeconfig(&proxy_user()),
    };
    state.nodes.iter().map(plan).collect()
}

/// The node's first process; its container runtime stands.
fn prepare(plan: &node::Plan, images: &[PathBuf]) -> Result<Process> {
    let init = node::create(plan)?;
    node::start_containerd(plan, &init, images)?;
    Ok(init)
}

async fn start_control_plane(options: &ClusterOptions, users: Vec<User>) -> Result<ControlPlane> {
    ControlPlane::start_with(ControlPlaneOptions {
        controller_manager: true,
        scheduler: true,
        address: network::HOST.into(),
        port: network::API_PORT,
        service_range: network::SERVICES.into(),
        users,
        folder: Some(control_plane_folder()),
        detached: options.detached,
    })
    .await
}

async fn pause_image() -> Result<PathBuf> {
    let path = state::folder().join("images/pause.tar");
    let archive = path.clone();
    tokio::task::spawn_blocking(move || {
        image::Image::new(config::PAUSE_IMAGE).file(&tools::pause()?, "/pause")?.entrypoint(&["/pause"]).write(&archive)
    })
    .await??;
    Ok(path)
}

/// Every node Ready and the default service account there, so that pods can be created.
async fn wait_ready(client: &Client, state: &State) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let ready = nodes.list(&kube::api::ListParams::default()).await?;
        let ready: Vec<_> =
            ready.iter().filter(|node| is_ready(node)).filter_map(|node| node.metadata.name.as_deref()).collect();
        let missing = state.nodes.iter().find(|node| !ready.contains(&node.name.as_str()));
        if missing.is_none() && accounts.get_opt("default").await?.is_some() {
            return Ok(());
        }
        for node in &state.nodes {
            node::ensure_running(&node.name)?;
        }
        if Instant::now() > deadline {
            let name = missing.map_or("node1", |node| node.name.as_str());
            let log = log_tail(&kubelet_log(name), 20);
            bail!(
                "not ready after 90 s: {}; end of the kubelet's log:\n{log}",
                missing.map_or("service account", |_| name)
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn kubelet_log(node: &str) -> PathBuf {
    state::node_folder(node).join(Path::new("logs/kubelet.log"))
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
