//! A cluster on this machine: one control plane and several nodes with real kubelets, each in namespaces of its own.
//!
//! Only one at a time; `e2e/cluster` holds the sources of its programs. Needs root.

mod cgroup;
mod config;
mod down;
mod network;
mod node;
mod process;
mod state;
mod up;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use penstock_testkit::control_plane::client_from;
use penstock_testkit::process::Spawn;
use rustix::process::Signal;

use process::Process;
use state::State;

/// The variable that names a kubeconfig of a cluster to test on.
pub const KUBECONFIG_VARIABLE: &str = "PENSTOCK_E2E_KUBECONFIG";

/// What to bring up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Number of nodes, 1 to 16.
    pub nodes: u8,
    /// The cluster outlives this process (`cargo xtask cluster up`) until [`down`].
    pub detached: bool,
    /// docker-archive files to load into every node.
    pub images: Vec<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 3, detached: false, images: Vec::new() }
    }
}

/// A cluster to test on. One that this process brought up is taken down when dropped.
pub struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
    nodes: Vec<String>,
    /// Absent on a cluster of somebody else's: then nodes cannot be entered.
    state: Option<Mutex<State>>,
    owned: bool,
}

/// Brings a cluster up that stays until [`down`]; returns the path of its kubeconfig.
pub async fn up(options: ClusterOptions) -> Result<PathBuf> {
    let cluster = Cluster::up(ClusterOptions { detached: true, ..options }).await?;
    Ok(cluster.kubeconfig().to_owned())
}

/// Takes the cluster down, also one of another process, also what a failed `up` left. No cluster is no error.
pub fn down() -> Result<()> {
    let _lock = state::lock()?;
    down::remove_all()
}

impl Cluster {
    /// Brings a cluster up; when that fails, takes down what there is of it.
    pub async fn up(options: ClusterOptions) -> Result<Self> {
        let lock = tokio::task::spawn_blocking(state::lock).await??;
        if State::load().ok().flatten().is_some_and(|state| state.is_running()) {
            bail!("a cluster is up already: use it, or take it down with `cargo xtask cluster down`");
        }
        down::remove_all().context("removing what an earlier cluster left")?;
        let busy = Arc::new(());
        let made = async {
            let state = up::create(&options, &busy).await?;
            Self::of(state, !options.detached).await
        };
        let result = tokio::select! {
            result = made => result,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        if result.is_err() {
            while Arc::strong_count(&busy) > 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if let Err(error) = down::remove_all() {
                eprintln!("after the failed start: {error:#}");
            }
        }
        drop(lock);
        result
    }

    /// The cluster that `cargo xtask cluster up` left running, if there is one.
    pub async fn running() -> Result<Option<Self>> {
        match State::load()?.filter(State::is_running) {
            Some(state) => Ok(Some(Self::of(state, false).await?)),
            None => Ok(None),
        }
    }

    /// Somebody's own cluster.
    pub async fn existing(kubeconfig: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        let client = client_from(&text).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await.context("listing the cluster's nodes")?;
        let nodes = nodes.into_iter().filter_map(|node| node.metadata.name).collect();
        Ok(Self { client, kubeconfig: kubeconfig.to_owned(), nodes, state: None, owned: false })
    }

    /// The cluster for a test: the user's own (`PENSTOCK_E2E_KUBECONFIG`), else the running one, else a new one.
    pub async fn for_tests(options: ClusterOptions) -> Result<Self> {
        if let Some(path) = std::env::var_os(KUBECONFIG_VARIABLE) {
            return Self::existing(Path::new(&path)).await;
        }
        match Self::running().await? {
            Some(cluster) => {
                options.images.iter().try_for_each(|image| cluster.load_image(image))?;
                Ok(cluster)
            }
            None => Self::up(options).await,
        }
    }

    async fn of(state: State, owned: bool) -> Result<Self> {
        let kubeconfig = up::control_plane_folder().join("kubeconfig");
        let client = client_from(&std::fs::read_to_string(&kubeconfig)?).await?;
        let nodes = state.nodes.iter().map(|node| node.name.clone()).collect();
        Ok(Self { client, kubeconfig, nodes, state: Some(Mutex::new(state)), owned })
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Why this cluster cannot do what needs its nodes or its control plane; tests print it and skip.
    pub fn node_access(&self) -> Result<(), &'static str> {
        match self.state {
            Some(_) => Ok(()),
            None => Err("a cluster given by PENSTOCK_E2E_KUBECONFIG offers no access to its nodes"),
        }
    }

    /// This machine's address that pods reach.
    pub fn host_address(&self) -> Option<IpAddr> {
        self.state.as_ref().map(|_| network::HOST.into())
    }

    /// A node's address.
    pub fn node_address(&self, node: &str) -> Result<Ipv4Addr> {
        let state = self.state()?.lock();
        state.nodes.iter().find(|other| other.name == node).map(|node| node.address).with_context(|| no_node(node))
    }

    /// Loads a docker-archive into every node. Blocks.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let inits: Vec<Process> = self.state()?.lock().nodes.iter().filter_map(|node| node.init.clone()).collect();
        std::thread::scope(|scope| {
            let loads: Vec<_> = inits.iter().map(|init| scope.spawn(|| node::load_image(init, archive))).collect();
            loads.into_iter().try_for_each(|load| load.join().unwrap_or_else(|_| bail!("loading an image panicked")))
        })
    }

    /// Runs a command in a node's namespaces and returns what it printed. Blocks.
    pub fn node_exec(&self, node: &str, command: &[&str]) -> Result<String> {
        let init =
            self.state()?.lock().nodes.iter().find(|other| other.name == node).and_then(|node| node.init.clone());
        node::exec(&init.with_context(|| no_node(node))?, command)
    }

    /// Limits a node's link to this many Mbit/s in both directions; `None` frees it.
    pub fn shape(&self, node: &str, mbit: Option<u32>) -> Result<()> {
        self.node_address(node)?;
        network::shape(node, mbit)
    }

    /// Kills a container's first process, as the kernel's out-of-memory killer would. `id` as in a pod's status
    /// (`containerd://…`).
    pub fn kill_container(&self, node: &str, id: &str) -> Result<()> {
        let id = id.strip_prefix("containerd://").unwrap_or(id);
        let tasks = self.node_exec(node, &["ctr", "--namespace", "k8s.io", "tasks", "list"])?;
        let pid = tasks.lines().find(|line| line.starts_with(id)).and_then(|line| line.split_whitespace().nth(1));
        let pid = pid.with_context(|| format!("no container {id} on {node}"))?;
        self.node_exec(node, &["kill", "-KILL", pid]).map(drop)
    }

    /// Stops the API server's process for good; connections are refused until [`Cluster::start_api_server`].
    pub fn stop_api_server(&self) -> Result<StoppedApiServer> {
        let state = self.state()?.lock();
        let server = api_server(&state)?;
        let command = server.command_line()?;
        server.kill();
        Ok(StoppedApiServer { command })
    }

    /// Starts the API server again and waits until it answers.
    pub async fn start_api_server(&self, stopped: StoppedApiServer) -> Result<()> {
        self.restart(&stopped)?;
        for _ in 0..600 {
            let request = kube_request("/readyz")?;
            if self.client.request_text(request).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the API server is not ready 60 s after its restart")
    }

    /// Freezes the API server's process for a time: connections stay and nothing is answered.
    pub async fn freeze_api_server(&self, time: Duration) -> Result<()> {
        let server = api_server(&self.state()?.lock())?.clone();
        server.signal(Signal::STOP);
        tokio::time::sleep(time).await;
        server.signal(Signal::CONT);
        Ok(())
    }

    /// Takes the cluster down and says what failed; dropping it does the same without saying so.
    pub fn down(mut self) -> Result<()> {
        ensure!(self.owned, "this process did not bring the cluster up");
        self.owned = false;
        down()
    }

    fn restart(&self, stopped: &StoppedApiServer) -> Result<()> {
        let mut state = self.state()?.lock();
        let (program, args) = stopped.command.split_first().context("the API server had no command line")?;
        let log = up::control_plane_folder().join("logs/kube-apiserver.log");
        let pid = Spawn::new(program, log).args(args).detached(state.detached).start()?.release();
        let place = state.control_plane.iter_mut().find(|process| process.name == "kube-apiserver");
        *place.context("no API server is recorded")? = Process::record("kube-apiserver", pid)?;
        state.save()
    }

    fn state(&self) -> Result<&Mutex<State>> {
        self.node_access().map_err(anyhow::Error::msg)?;
        self.state.as_ref().context("no state")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = down()
        {
            eprintln!("taking the cluster down: {error:#}");
        }
    }
}

/// The API server between [`Cluster::stop_api_server`] and [`Cluster::start_api_server`].
#[derive(Debug)]
pub struct StoppedApiServer {
    command: Vec<String>,
}

fn api_server(state: &State) -> Result<&Process> {
    state.control_plane.iter().find(|process| process.name == "kube-apiserver").context("no API server is recorded")
}

fn no_node(node: &str) -> String {
    format!("the cluster has no node {node}")
}

fn kube_request(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
