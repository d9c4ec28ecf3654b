//! One worker of local mode: its configuration folder, its process, and what it is asked over the wire.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use penstock_model::Medium;
use penstock_placement::{Member, MemberList};
use penstock_wire::{
    Address, CallError, Caller, Client,
    config::{MEMBERS_FILE, WORKER_FILE, WorkerConfig},
    message::{LoadOrder, Request, Response, Stats},
};

use super::{
    blueprint::Blueprint,
    process::Process,
    state::{Folder, Worker},
};

/// How long a worker may take to answer after its start.
const START: Duration = Duration::from_secs(20);

/// The sibling program `name` of this one.
pub(super) fn sibling(name: &str) -> io::Result<PathBuf> {
    let here = std::env::current_exe()?;
    // A test's program lies one folder deeper than the programs it starts.
    let folders = here.ancestors().skip(1).take(2);
    let mut candidates = folders.map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{name} is not beside {}: build it first", here.display()))
    })
}

/// Writes the worker's configuration folder and starts it.
pub(super) fn start(
    program: &Path,
    folder: &Folder,
    id: &str,
    blueprint: &Blueprint,
    members: &MemberList,
) -> io::Result<Worker> {
    let config_dir = folder.worker(id).join("config");
    write_config(folder, id, blueprint, members)?;
    let sockets = folder.sockets().join(id);
    fs::create_dir_all(&sockets)?;
    let [addr, http] = free_addresses()?;
    let mut command = Command::new(program);
    command.arg("--config-dir").arg(config_dir).args(["--id", id, "--listen", &addr, "--http", &http]);
    command.arg("--socket-dir").arg(sockets);
    let process = Process::spawn(&mut command, &folder.worker(id).join("log"))?;
    Ok(Worker { id: id.into(), addr, http, process })
}

/// Also brings a running worker's files up to date; it re-reads them by itself.
pub(super) fn write_config(folder: &Folder, id: &str, blueprint: &Blueprint, members: &MemberList) -> io::Result<()> {
    let config_dir = folder.worker(id).join("config");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&config_dir)?;
    let mut config = blueprint.config.clone();
    for (index, tier) in config.tiers.iter_mut().enumerate() {
        let base = match tier.medium {
            _ if !tier.dir.as_os_str().is_empty() => tier.dir.join(id),
            Medium::Mem => folder.memory(id),
            Medium::Ssd | Medium::Hdd => folder.worker(id),
        };
        tier.dir = base.join(format!("tier-{index}"));
        fs::create_dir_all(&tier.dir)?;
    }
    for (name, value) in &blueprint.files {
        write_secret(&config_dir.join(name), value)?;
    }
    write_members(folder, id, members)?;
    write_secret(&config_dir.join(WORKER_FILE), &serde_json::to_vec_pretty(&config)?)
}

pub(super) fn write_members(folder: &Folder, id: &str, members: &MemberList) -> io::Result<()> {
    let file = folder.worker(id).join("config").join(MEMBERS_FILE);
    write_secret(&file, &serde_json::to_vec_pretty(members)?)
}

/// Replaces the file at once, so that a reader never sees half of it; for its owner only.
pub(super) fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    io::Write::write_all(&mut file, content)?;
    fs::rename(fresh, path)
}

/// Drops what the worker held and was told.
pub(super) fn remove(folder: &Folder, id: &str) -> io::Result<()> {
    for dir in [folder.memory(id), folder.worker(id), folder.sockets().join(id)] {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn member(worker: &Worker, config: &WorkerConfig) -> Member {
    let weight = config.tiers.iter().map(|tier| tier.quota).sum();
    Member { id: worker.id.clone(), addr: worker.addr.clone(), weight }
}

/// Two that nobody has, at this moment.
fn free_addresses() -> io::Result<[String; 2]> {
    let held = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([held[0].local_addr()?.to_string(), held[1].local_addr()?.to_string()])
}

/// Why a worker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("it does not accept our connection: {0}")]
    Connect(#[from] penstock_wire::ConnectError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it answered something else than asked")]
    Confused,
}

/// The planner's side of a worker.
pub(super) struct Asker(pub(super) Caller);

impl Asker {
    async fn call(&self, worker: &Worker, request: Request) -> Result<Response, AskError> {
        let address = Address::Tcp(worker.addr.clone());
        Ok(Client::connect(&address, &self.0).await?.call(request).await?)
    }

    pub(super) async fn stats(&self, worker: &Worker) -> Result<Stats, AskError> {
        match self.call(worker, Request::Stats).await? {
            Response::Stats(stats) => Ok(*stats),
            _ => Err(AskError::Confused),
        }
    }

    pub(super) async fn set_members(&self, worker: &Worker, members: &MemberList) -> Result<(), AskError> {
        self.call(worker, Request::SetMembers(members.clone())).await.map(|_| ())
    }

    pub(super) async fn set_loads(&self, worker: &Worker, orders: &[LoadOrder]) -> Result<(), AskError> {
        self.call(worker, Request::SetLoads(orders.to_vec())).await.map(|_| ())
    }

    pub(super) async fn drain(&self, worker: &Worker) -> Result<(), AskError> {
        self.call(worker, Request::Drain).await.map(|_| ())
    }

    /// Waits for the first answer after the start.
    pub(super) async fn wait_ready(&self, worker: &Worker) -> Result<Stats, AskError> {
        let deadline = Instant::now() + START;
        loop {
            match self.stats(worker).await {
                Err(_) if worker.process.is_alive() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                answer => return answer,
            }
        }
    }
}
