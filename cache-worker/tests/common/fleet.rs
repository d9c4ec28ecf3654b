//! Several real workers in this process, over a real S3 server, scaled as the operator does it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use penstock_model::{Medium, TierConfig};
use penstock_placement::{Member, MemberList};
use penstock_testkit::{
    process::{ChildGuard, Spawn},
    proxy::{CountingProxy, Gate},
    s3::{S3Options, S3Server},
};
use penstock_wire::{
    Access, Address, Caller, Keys, Pool,
    config::{CLIENT_KEY_FILE, MEMBERS_FILE, MountConfig, PEER_KEY_FILE, WORKER_FILE, WorkerConfig},
    message::{Request, Response, Stats},
};
use penstock_worker::{Options, run};
use rustix::process::Signal;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

static FLEETS: AtomicU8 = AtomicU8::new(1);
pub const DATASET: &str = "quant/bars";
/// Where each worker has its sockets, in a directory of its own.
pub const SOCKETS: &str = "sockets";

/// What all workers of a fleet have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Medium and quota in bytes of each worker's tiers, the highest first.
    pub tiers: Vec<(Medium, u64)>,
    pub revalidate_ms: Option<u64>,
    /// Whether members and mounts reach the workers by way of proxies.
    pub proxied: bool,
    /// How long a worker may hand over when it is stopped.
    pub hand_over: Duration,
    /// Bytes per second of a worker that hands over.
    pub hand_over_bandwidth: Option<u64>,
    /// Whether workers are processes of their own, which can be killed, or tasks of this one.
    pub processes: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            tiers: vec![(Medium::Mem, 256 << 20)],
            revalidate_ms: None,
            proxied: false,
            hand_over: Duration::ZERO,
            hand_over_bandwidth: None,
            processes: false,
        }
    }
}

pub struct Worker {
    pub member: Member,
    pub options: Options,
    /// Stands at the member's address, if the plan wants it.
    pub proxy: Option<CountingProxy>,
    is_process: bool,
    running: Option<Running>,
}

enum Running {
    Task(CancellationToken, JoinHandle<()>),
    Process(ChildGuard),
}

/// Has the options of a worker that this program shall be, as JSON in the order of [`Worker::process`].
const WORKER: &str = "PENSTOCK_TEST_WORKER";

#[test]
#[ignore = "is not a test: runs as a worker of the other ones"]
fn stands_in_for_a_worker() {
    let Ok(text) = std::env::var(WORKER) else { return };
    let (config_dir, id, listen, http, socket_dir) = serde_json::from_str(&text).unwrap();
    let options = Options { config_dir, id, listen, http, socket_dir, hand_over: Duration::ZERO };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(options, CancellationToken::new())).unwrap();
}

impl Worker {
    pub fn start(&mut self) {
        self.running = Some(if self.is_process { Running::Process(self.process()) } else { self.task() });
    }

    fn task(&self) -> Running {
        let stop = CancellationToken::new();
        let (options, stopped) = (self.options.clone(), stop.clone());
        Running::Task(stop, tokio::spawn(async move { run(options, stopped).await.unwrap() }))
    }

    /// This program once more, as the worker.
    fn process(&self) -> ChildGuard {
        let Options { config_dir, id, listen, http, socket_dir, .. } = &self.options;
        let options = serde_json::to_string(&(config_dir, id, listen, http, socket_dir)).unwrap();
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!("{module}::stands_in_for_a_worker");
        let args = ["--ignored", "--exact", &name, "--nocapture"];
        let spawn = Spawn::new(std::env::current_exe().unwrap(), config_dir.with_extension("log"));
        spawn.args(args).env(WORKER, options).start().unwrap()
    }

    /// Without a word, in the middle of whatever it does. Only of a fleet of processes.
    pub fn kill(&mut self) {
        let Some(Running::Process(mut process)) = self.running.take() else {
            panic!("{} is no process", self.member.id)
        };
        process.kill();
    }

    pub async fn stop(&mut self) {
        self.terminate();
        self.ended().await;
    }

    /// As by SIGTERM.
    pub fn terminate(&self) {
        match self.running.as_ref().unwrap() {
            Running::Task(stop, _) => stop.cancel(),
            Running::Process(process) => process.signal(Signal::TERM),
        }
    }

    pub async fn ended(&mut self) {
        match self.running.take().unwrap() {
            Running::Task(_, task) => task.await.unwrap(),
            Running::Process(process) => tokio::task::spawn_blocking(|| drop(process)).await.unwrap(),
        }
    }

    /// Where it listens itself.
    pub fn address(&self) -> Address {
        Address::Tcp(self.options.listen.clone())
    }

    pub fn gate(&self, gate: Gate) {
        self.proxy.iter().for_each(|proxy| proxy.set(gate));
    }
}

pub struct Fleet {
    pub dir: PathBuf,
    pub s3: S3Server,
    pub workers: Vec<Worker>,
    pub list: MemberList,
    pub mounts: Vec<MountConfig>,
    /// What the mounts would hold.
    pub client: Pool,
    pub operator: Pool,
    pub keys: Keys,
    plan: Plan,
    /// The first three bytes of its workers' loopback addresses: no other test meets their ports.
    host: String,
    _dir: Option<tempfile::TempDir>,
}

impl Fleet {
    pub async fn new(workers: usize) -> Self {
        Self::with(workers, Plan::default()).await
    }

    pub async fn with(workers: usize, plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fleet = Self::planned(workers, plan, dir.path()).await;
        Self { _dir: Some(dir), ..fleet }
    }

    /// All files of the fleet lie in `dir`, which is the caller's. With no workers it waits for [`Self::scale`].
    pub async fn planned(workers: usize, plan: Plan, dir: &Path) -> Self {
        let s3 = S3Server::start(S3Options::default()).await.unwrap();
        let keys = Keys::generate().unwrap();
        let caller = |access| Caller { dataset: DATASET.into(), name: "test".into(), access };
        let mut fleet = Self {
            dir: dir.into(),
            mounts: vec![mount(&s3, "")],
            s3,
            workers: Vec::new(),
            list: MemberList::default(),
            client: Pool::new(caller(keys.for_clients())),
            operator: Pool::new(caller(Access::Peer(keys.peer.clone()))),
            keys,
            plan,
            host: format!("127.{}.{}", 1 + std::process::id() % 250, FLEETS.fetch_add(1, Ordering::Relaxed)),
            _dir: None,
        };
        if workers > 0 {
            fleet.scale(workers).await;
        }
        fleet
    }

    pub fn config_dir(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    pub fn tier_dir(&self, id: &str, tier: usize) -> PathBuf {
        self.dir.join(format!("{id}-tier-{tier}"))
    }

    pub fn write_config(&self, id: &str) {
        let tier = |(at, (medium, quota)): (usize, &(Medium, u64))| TierConfig {
            medium: *medium,
            dir: self.tier_dir(id, at),
            quota: *quota,
            high: 0.95,
            low: 0.9,
        };
        let config = WorkerConfig {
            dataset: DATASET.into(),
            mounts: self.mounts.clone(),
            tiers: self.plan.tiers.iter().enumerate().map(tier).collect(),
            revalidate_ms: self.plan.revalidate_ms,
            uid: 0,
            gid: 0,
            hand_over_bandwidth: self.plan.hand_over_bandwidth,
        };
        let dir = self.config_dir(id);
        fs::write(dir.join(WORKER_FILE), serde_json::to_vec(&config).unwrap()).unwrap();
        fs::write(dir.join(MEMBERS_FILE), serde_json::to_vec(&self.list).unwrap()).unwrap();
        fs::write(dir.join(CLIENT_KEY_FILE), self.keys.client.to_hex()).unwrap();
        fs::write(dir.join(PEER_KEY_FILE), self.keys.peer.to_hex()).unwrap();
        fs::write(dir.join("ufs-0-secret-key"), self.s3.secret_key()).unwrap();
    }

    async fn add_worker(&mut self) {
        let id = format!("bars-worker-{}", self.workers.len());
        let (config_dir, sockets) = (self.config_dir(&id), self.dir.join(SOCKETS).join(&id));
        let tiers = (0..self.plan.tiers.len()).map(|tier| self.tier_dir(&id, tier));
        for dir in [config_dir.clone(), sockets.clone()].into_iter().chain(tiers) {
            fs::create_dir_all(dir).unwrap();
        }
        self.write_config(&id);
        let local = |port| format!("{}.{}:{port}", self.host, self.workers.len() + 1);
        let listen = local(9440);
        let proxy = if self.plan.proxied {
            Some(CountingProxy::start("127.0.0.1:0", listen.parse().unwrap()).await.unwrap())
        } else {
            None
        };
        let addr = proxy.as_ref().map_or(listen.clone(), |proxy| proxy.address().to_string());
        let weight = self.plan.tiers.iter().map(|(_, quota)| quota).sum();
        let member = Member { id: id.clone(), addr, weight };
        let (http, socket_dir, hand_over) = (local(9441), Some(sockets), self.plan.hand_over);
        let options = Options { config_dir, id, listen, http, socket_dir, hand_over };
        let mut worker = Worker { member, options, proxy, is_process: self.plan.processes, running: None };
        worker.start();
        self.workers.push(worker);
    }

    /// As the operator does: new workers first, then the list, then hand-over by those who leave, then they go.
    pub async fn scale(&mut self, to: usize) {
        while self.workers.len() < to {
            self.add_worker().await;
        }
        for worker in &self.workers {
            self.ready(worker).await;
        }
        let members = self.workers[..to].iter().map(|worker| worker.member.clone()).collect();
        self.list = self.list.next(members).unwrap();
        self.write_list();
        self.send_list().await;
        for mut leaving in self.workers.split_off(to) {
            self.drain(&leaving).await;
            leaving.stop().await;
        }
    }

    pub fn write_list(&self) {
        for worker in &self.workers {
            let list = serde_json::to_vec(&self.list).unwrap();
            fs::write(worker.options.config_dir.join(MEMBERS_FILE), list).unwrap();
        }
    }

    pub async fn send_list(&self) {
        for worker in &self.workers {
            self.operator.call(&worker.address(), Request::SetMembers(self.list.clone())).await.unwrap();
        }
    }

    pub async fn drain(&self, worker: &Worker) {
        eventually("hand-over", async || {
            self.operator.call(&worker.address(), Request::Drain).await.unwrap();
            let handover = self.stats(worker).await.handover;
            !handover.running && handover.finished_epoch == self.list.epoch && handover.left_bytes == 0
        })
        .await;
    }

    pub async fn ready(&self, worker: &Worker) {
        eventually("ready", async || self.operator.call(&worker.address(), Request::Describe).await.is_ok()).await;
    }

    pub async fn stats(&self, worker: &Worker) -> Stats {
        match self.operator.call(&worker.address(), Request::Stats).await.unwrap() {
            Response::Stats(stats) => *stats,
            other => panic!("{other:?}"),
        }
    }
}

pub fn mount(s3: &S3Server, path: &str) -> MountConfig {
    let options = [("endpoint", s3.endpoint()), ("access-key", s3.access_key().into()), ("region", "us-east-1".into())];
    MountConfig {
        source: "s3://data".into(),
        path: path.into(),
        options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        secret_options: BTreeMap::from([("secret-key".to_owned(), "ufs-0-secret-key".into())]),
    }
}

pub fn noise(seed: usize, len: usize) -> Bytes {
    (0..len).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>().into()
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        sleep(Duration::from_millis(20)).await;
    }
}
