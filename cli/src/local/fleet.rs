//! The workers and the mount of one Dataset on this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use penstock_plan::{scaling::WorkerSeen, validate::Invalid};
use penstock_wire::{Access, Caller, config::PEER_KEY_FILE, message::LoadOrder};
use serde::Serialize;

use super::{
    blueprint::Blueprint,
    process::Process,
    state::{Folder, Mount, State, Worker},
    worker::{self, AskError, Asker},
};
use crate::{
    manifest::{Manifest, ManifestError},
    plan,
};

/// How long a hand-over may take before a leaving worker is ended all the same.
const DRAIN: Duration = Duration::from_mins(10);
/// How often a worker that ends before it answers is started.
const STARTS: u32 = 3;
/// How long a process may take to end by itself.
const STOP: Duration = Duration::from_secs(10);
/// How long a mount may take to appear.
const MOUNT: Duration = Duration::from_secs(15);

pub struct UpOptions {
    pub file: PathBuf,
    /// Where to mount; `mnt` in the state folder when `None`.
    pub mount: Option<PathBuf>,
    /// Holds one folder of state per Dataset.
    pub base: PathBuf,
    /// Where the programs of workers and mount are; beside this one when `None`.
    pub programs: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Plan(#[from] Invalid),
    #[error("no Dataset is up in {0}: start one with `penstock local up -f FILE`")]
    NoneUp(String),
    #[error("more than one Dataset is up ({0}): name one")]
    Ambiguous(String),
    #[error("worker {id}: {source} (its log: {log})")]
    Worker { id: String, source: AskError, log: String },
    #[error("the mount at {dir} did not come up: see {log}")]
    Mount { dir: String, log: String },
    #[error("failed to {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> FleetError {
    move |source| FleetError::Io { what, source }
}

/// One Dataset that is up.
pub struct Fleet {
    folder: Folder,
    blueprint: Blueprint,
    asker: Asker,
    state: State,
    programs: Option<PathBuf>,
}

/// What [`Fleet::report`] tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub dataset: String,
    pub epoch: u64,
    pub mount: Option<String>,
    pub workers: Vec<WorkerReport>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerReport {
    pub id: String,
    pub addr: String,
    pub pid: i32,
    /// `serving`, `silent` (alive without answering) or `dead`.
    pub state: &'static str,
    pub cached_bytes: u64,
    pub capacity_bytes: u64,
    /// Share of the served bytes that were cached, in percent.
    pub hit_percent: Option<u64>,
    pub ufs_bytes: u64,
    pub trouble: Vec<String>,
}

impl Fleet {
    /// Starts what the manifest asks for; what already runs stays.
    pub async fn up(options: &UpOptions) -> Result<Self, FleetError> {
        let manifest = Manifest::read(&options.file)?;
        let folder = Folder::new(&options.base, &manifest.dataset_id());
        let keys = Blueprint::keys(&folder).map_err(io_error("read the keys"))?;
        let plan = plan::plan(&manifest, &keys)?;
        let replicas = plan.replicas;
        let blueprint = Blueprint::new(plan);
        blueprint.save(&folder).map_err(io_error("keep the plan"))?;
        let state = folder.load().map_err(io_error("read the state"))?;
        let mut fleet = Self { programs: options.programs.clone(), ..Self::open(folder, blueprint, state)? };
        fleet.refresh_config()?;
        fleet.revive().await?;
        fleet.scale(replicas).await?;
        let dir = options.mount.clone().unwrap_or_else(|| fleet.folder.path().join("mnt"));
        fleet.mount(&dir)?;
        Ok(fleet)
    }

    /// The Dataset `NAMESPACE/NAME` or `NAME` that is up, or the only one.
    pub fn find(base: &Path, dataset: Option<&str>) -> Result<Self, FleetError> {
        let wanted = dataset.map(|d| if d.contains('/') { d.replace('/', ".") } else { format!("default.{d}") });
        let folders = fs::read_dir(base).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        // As `Folder::new` names them.
        let mut up: Vec<String> = names.filter(|name| name.contains('.')).collect();
        up.retain(|name| wanted.as_ref().is_none_or(|wanted| wanted == name));
        match up.as_slice() {
            [] => Err(FleetError::NoneUp(base.display().to_string())),
            [one] => {
                let folder = Folder::new(base, one);
                let blueprint = Blueprint::load(&folder).map_err(io_error("read the plan"))?;
                let state = folder.load().map_err(io_error("read the state"))?;
                Self::open(folder, blueprint, state)
            }
            _ => Err(FleetError::Ambiguous(up.join(", "))),
        }
    }

    fn open(folder: Folder, blueprint: Blueprint, state: State) -> Result<Self, FleetError> {
        let key = blueprint.key(PEER_KEY_FILE).map_err(io_error("read the keys"))?;
        let (dataset, access) = (blueprint.dataset.clone(), Access::Peer(key));
        let asker = Asker(Caller { dataset, name: "penstock local".to_owned(), access });
        Ok(Self { folder, blueprint, asker, state, programs: None })
    }

    pub fn mount_dir(&self) -> Option<&Path> {
        self.state.mount.as_ref().map(|mount| mount.dir.as_path())
    }

    pub fn mount_process(&self) -> Option<&Process> {
        self.state.mount.as_ref().map(|mount| &mount.process)
    }

    /// `NAMESPACE/NAME`.
    pub(super) fn dataset(&self) -> &str {
        &self.blueprint.dataset
    }

    /// Number of the member list in force.
    pub(super) fn epoch(&self) -> u64 {
        self.state.members.epoch
    }

    /// The workers as plans see them.
    pub(super) async fn seen(&self) -> Vec<WorkerSeen> {
        let seen = self.state.workers.iter().enumerate().map(async |(ordinal, worker)| {
            let stats = self.asker.stats(worker).await.ok();
            let (ordinal, addr, ready) = (ordinal as u32, Some(worker.addr.clone()), stats.is_some());
            WorkerSeen { ordinal, addr, ready, stats }
        });
        futures::future::join_all(seen).await
    }

    /// Has every worker work on these loads and no others.
    pub(super) async fn tell_loads(&self, orders: &[LoadOrder]) -> Result<(), FleetError> {
        for worker in &self.state.workers {
            self.asker.set_loads(worker, orders).await.map_err(|source| self.worker_error(worker, source))?;
        }
        Ok(())
    }

    /// Ids and processes of the workers, in order.
    pub fn processes(&self) -> Vec<(String, Process)> {
        self.state.workers.iter().map(|worker| (worker.id.clone(), worker.process.clone())).collect()
    }

    /// Grows or shrinks to `replicas` workers. Leaving workers hand over what they hold before they end.
    pub async fn scale(&mut self, replicas: u32) -> Result<(), FleetError> {
        let have = self.state.workers.len();
        for ordinal in have..replicas as usize {
            self.add_worker(ordinal).await?;
        }
        let leaving = self.state.workers.split_off((replicas as usize).min(self.state.workers.len()));
        self.publish(&leaving).await?;
        self.hand_over(&leaving).await?;
        for worker in &leaving {
            worker.process.stop(STOP);
            worker::remove(&self.folder, &worker.id).map_err(io_error("drop a worker's files"))?;
        }
        Ok(())
    }

    async fn add_worker(&mut self, ordinal: usize) -> Result<(), FleetError> {
        let id = format!("{}-{ordinal}", self.blueprint.worker);
        let worker = self.start_worker(&id)?;
        self.state.workers.push(worker);
        self.until_ready(ordinal).await
    }

    /// Waits until a worker that was just started answers. It is started again where it has ended: a program that came
    /// first may have got its port.
    async fn until_ready(&mut self, index: usize) -> Result<(), FleetError> {
        for left in (0..STARTS).rev() {
            self.save()?;
            let worker = &self.state.workers[index];
            match self.asker.wait_ready(worker).await {
                Ok(_) => break,
                Err(_) if left > 0 && !worker.process.is_alive() => {
                    self.state.workers[index] = self.start_worker(&worker.id)?;
                }
                Err(source) => return Err(self.worker_error(worker, source)),
            }
        }
        Ok(())
    }

    fn start_worker(&self, id: &str) -> Result<Worker, FleetError> {
        let program = self.program("penstock-worker").map_err(io_error("find the worker's program"))?;
        worker::start(&program, &self.folder, id, &self.blueprint, &self.state.members)
            .map_err(io_error("start a worker"))
    }

    fn program(&self, name: &str) -> io::Result<PathBuf> {
        self.programs.as_ref().map_or_else(|| worker::sibling(name), |folder| Ok(folder.join(name)))
    }

    /// Starts again what died, under its old name: what its tiers hold is found again.
    async fn revive(&mut self) -> Result<(), FleetError> {
        for index in 0..self.state.workers.len() {
            if self.state.workers[index].process.is_alive() {
                continue;
            }
            self.state.workers[index] = self.start_worker(&self.state.workers[index].id)?;
            self.until_ready(index).await?;
        }
        Ok(())
    }

    /// Numbers the present workers and tells everyone, also those that are leaving.
    async fn publish(&mut self, leaving: &[Worker]) -> Result<(), FleetError> {
        let members = self.state.workers.iter().map(|w| worker::member(w, &self.blueprint.config)).collect();
        if let Some(next) = self.state.members.next(members) {
            self.state.members = next;
        }
        self.save()?;
        for worker in self.state.workers.iter().chain(leaving) {
            worker::write_members(&self.folder, &worker.id, &self.state.members)
                .map_err(io_error("write the member list"))?;
            if let Err(error) = self.asker.set_members(worker, &self.state.members).await
                && worker.process.is_alive()
            {
                return Err(self.worker_error(worker, error));
            }
        }
        Ok(())
    }

    async fn hand_over(&self, leaving: &[Worker]) -> Result<(), FleetError> {
        if self.state.workers.is_empty() {
            return Ok(());
        }
        for worker in leaving {
            if self.asker.drain(worker).await.is_ok() {
                self.wait_handed_over(worker).await;
            }
        }
        Ok(())
    }

    async fn wait_handed_over(&self, worker: &Worker) {
        let deadline = Instant::now() + DRAIN;
        while Instant::now() < deadline {
            match self.asker.stats(worker).await {
                Ok(stats) if stats.handover.finished_epoch < self.state.members.epoch => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return,
            }
        }
    }

    fn mount(&mut self, dir: &Path) -> Result<(), FleetError> {
        if let Some(mount) = &self.state.mount {
            if mount.process.is_alive() && mount.dir == dir {
                return Ok(());
            }
            mount.process.stop(STOP);
        }
        fs::create_dir_all(dir).map_err(io_error("make the mount's folder"))?;
        let dir = dir.canonicalize().map_err(io_error("find the mount's folder"))?;
        let process = self.start_mount(&dir).map_err(io_error("start the mount"))?;
        self.state.mount = Some(Mount { dir: dir.clone(), process });
        self.save()?;
        self.wait_mounted(&dir)
    }

    fn start_mount(&self, dir: &Path) -> io::Result<Process> {
        let endpoints: Vec<_> = self.state.workers.iter().map(|worker| worker.addr.as_str()).collect();
        let mut command = Command::new(self.program("penstock-mount")?);
        command.args(["mount", "--dataset", &self.blueprint.dataset, "--endpoint", &endpoints.join(",")]);
        command.arg("--key-dir").arg(self.folder.path());
        command.arg("--socket-dir").arg(self.folder.sockets()).arg(dir);
        Process::spawn(&mut command, &self.folder.path().join("mount.log"))
    }

    fn wait_mounted(&self, dir: &Path) -> Result<(), FleetError> {
        let deadline = Instant::now() + MOUNT;
        let outside = |path: &Path| path.parent().and_then(|parent| fs::metadata(parent).ok());
        loop {
            let (inner, outer) = (fs::metadata(dir), outside(dir));
            if let (Ok(inner), Some(outer)) = (&inner, &outer)
                && std::os::unix::fs::MetadataExt::dev(inner) != std::os::unix::fs::MetadataExt::dev(outer)
            {
                return Ok(());
            }
            let alive = self.state.mount.as_ref().is_some_and(|mount| mount.process.is_alive());
            if !alive || Instant::now() > deadline {
                let log = self.folder.path().join("mount.log").display().to_string();
                return Err(FleetError::Mount { dir: dir.display().to_string(), log });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Unmounts, ends all processes and drops all state.
    pub fn down(self) -> Result<(), FleetError> {
        if let Some(mount) = &self.state.mount {
            mount.process.stop(STOP);
        }
        for worker in &self.state.workers {
            worker.process.stop(STOP);
            worker::remove(&self.folder, &worker.id).map_err(io_error("drop a worker's files"))?;
        }
        // The folder of all memory tiers of this Dataset; another one's lies beside it.
        let memory = self.folder.memory("");
        if memory.exists() {
            fs::remove_dir_all(&memory).map_err(io_error("drop the memory tiers"))?;
            // Stays while another Dataset has memory tiers.
            let _ = memory.parent().map(fs::remove_dir);
        }
        fs::remove_dir_all(self.folder.path()).map_err(io_error("drop the state"))
    }

    pub async fn report(&self) -> Report {
        let mut workers = Vec::new();
        for worker in &self.state.workers {
            workers.push(self.report_worker(worker).await);
        }
        Report {
            dataset: self.blueprint.dataset.clone(),
            epoch: self.state.members.epoch,
            mount: self.mount_dir().map(|dir| dir.display().to_string()),
            workers,
        }
    }

    async fn report_worker(&self, worker: &Worker) -> WorkerReport {
        let alive = worker.process.is_alive();
        let answer = if alive { self.asker.stats(worker).await.ok() } else { None };
        let stats = answer.clone().unwrap_or_default();
        let tiers = stats.tiers.iter().filter_map(|t| Some(format!("{} tier: {}", t.medium, t.trouble.as_ref()?)));
        let mounts = stats.mounts.iter().filter_map(|m| Some(format!("mount {}: {}", m.source, m.trouble()?)));
        let asked = stats.hit_bytes + stats.miss_bytes;
        WorkerReport {
            id: worker.id.clone(),
            addr: worker.addr.clone(),
            pid: worker.process.pid,
            state: match (alive, answer.is_some()) {
                (true, true) => "serving",
                (true, false) => "silent",
                (false, _) => "dead",
            },
            cached_bytes: stats.cached_bytes,
            capacity_bytes: stats.tiers.iter().map(|tier| tier.quota_bytes).sum(),
            hit_percent: (asked > 0).then(|| stats.hit_bytes * 100 / asked),
            ufs_bytes: stats.ufs_bytes,
            trouble: tiers.chain(mounts).collect(),
        }
    }

    fn refresh_config(&self) -> Result<(), FleetError> {
        for worker in &self.state.workers {
            worker::write_config(&self.folder, &worker.id, &self.blueprint, &self.state.members)
                .map_err(io_error("write a worker's configuration"))?;
        }
        Ok(())
    }

    fn save(&self) -> Result<(), FleetError> {
        self.folder.save(&self.state).map_err(io_error("keep the state"))
    }

    fn worker_error(&self, worker: &Worker, source: AskError) -> FleetError {
        let log = self.folder.worker(&worker.id).join("log").display().to_string();
        FleetError::Worker { id: worker.id.clone(), source, log }
    }
}
