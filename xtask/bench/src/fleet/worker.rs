//! A worker as its real process, configured as the operator does it.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
};

use anyhow::bail;
use penstock_placement::{Member, MemberList};
use penstock_testkit::process::{ChildGuard, free_port};
use penstock_wire::{
    Access, Address, Caller, Client, Credential,
    message::{LoadOrder, LoadProgress, Request, Response, Stats},
};
use serde_json::{Value, json};

use super::{CLIENT_KEY, DATASET, PEER_KEY, Place, SOCKETS};
use crate::{program, source::Source};

/// Where a worker will be, before any runs: the member list names all of them.
pub(super) struct Seat {
    id: String,
    place: Place,
    pub(super) endpoint: String,
    http: String,
}

impl Seat {
    pub(super) fn new(number: usize, place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            id: format!("prices-worker-{number}"),
            place: place.clone(),
            endpoint: format!("{}:{}", place.address, free_port()?),
            http: format!("127.0.0.1:{}", free_port()?),
        })
    }
}

/// The numbered list of all workers.
pub(super) fn members(seats: &[Seat], quota: u64) -> Value {
    let member = |seat: &Seat| json!({"id": seat.id, "addr": seat.endpoint, "weight": quota});
    json!({"epoch": 1, "former": [], "members": seats.iter().map(member).collect::<Vec<_>>()})
}

/// Ends when dropped.
pub(crate) struct Worker {
    id: String,
    process: ChildGuard,
    place: Place,
    http: String,
    endpoint: String,
    /// The folder of its memory tier.
    pub(crate) tier: PathBuf,
}

impl Worker {
    /// Starts the process; `folder` is that of all nodes.
    pub(super) fn start(
        seat: Seat,
        folder: &Path,
        source: Source<'_>,
        quota: u64,
        members: &Value,
    ) -> anyhow::Result<Self> {
        let node = folder.join(&seat.place.name);
        let own = node.join(&seat.id);
        // The plugin sees the sockets of its own node only.
        let sockets = node.join(SOCKETS).join(&seat.id);
        let (config, tier) = (own.join("config"), own.join("tier"));
        for dir in [&config, &tier, &sockets] {
            fs::create_dir_all(dir)?;
        }
        configure(&config, source, &tier, quota, members)?;
        let process = seat
            .place
            .spawn(&program("penstock-worker"), own.join("log"))
            .args(["--id", &seat.id, "--listen", &seat.endpoint, "--http", &seat.http])
            .arg("--config-dir")
            .arg(config)
            .arg("--socket-dir")
            .arg(sockets)
            .start()?;
        Ok(Self { id: seat.id, process, place: seat.place, http: seat.http, endpoint: seat.endpoint, tier })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// As the operator does it. Blocks.
    pub(crate) fn set_load(&self, order: LoadOrder) -> anyhow::Result<()> {
        self.ask(Request::SetLoads(vec![order])).map(drop)
    }

    /// How far its loads are. Blocks.
    pub(crate) fn loads(&self) -> anyhow::Result<Vec<LoadProgress>> {
        Ok(self.stats()?.loads)
    }

    /// Its numbers. Blocks.
    pub(crate) fn stats(&self) -> anyhow::Result<Stats> {
        match self.ask(Request::Stats)? {
            Response::Stats(stats) => Ok(*stats),
            other => bail!("a worker answers with {other:?}"),
        }
    }

    /// As in member lists.
    pub(crate) fn member(&self, weight: u64) -> Member {
        Member { id: self.id.clone(), addr: self.endpoint.clone(), weight }
    }

    /// Another list than the one that it was started with. Blocks.
    pub(crate) fn set_members(&self, list: &MemberList) -> anyhow::Result<()> {
        self.ask(Request::SetMembers(list.clone())).map(drop)
    }

    /// Asks it to hand over. Blocks.
    pub(crate) fn drain(&self) -> anyhow::Result<()> {
        self.ask(Request::Drain).map(drop)
    }

    fn ask(&self, request: Request) -> anyhow::Result<Response> {
        let access = Access::Peer(Credential::from_hex(PEER_KEY)?);
        let caller = Caller { dataset: DATASET.into(), name: "bench".into(), access };
        let address = Address::Tcp(self.endpoint.clone());
        self.place.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { Ok(Client::connect(&address, &caller).await?.call(request).await?) })
        })
    }

    /// Whether it is ready; an error when it has ended.
    pub(super) fn is_ready(&mut self) -> anyhow::Result<bool> {
        self.process.ensure_running()?;
        let http = &self.http;
        Ok(self.place.run(|| Ok(answers_well(http)?)).unwrap_or(false))
    }
}

fn answers_well(http: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(http)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// What the operator gives to a worker.
fn configure(folder: &Path, source: Source<'_>, tier: &Path, quota: u64, members: &Value) -> anyhow::Result<()> {
    let worker = json!({
        "dataset": DATASET,
        "mounts": [source.mount()],
        "tiers": [{"medium": "MEM", "dir": tier, "quota": quota, "high": 0.95, "low": 0.9}],
        "revalidateMs": 30_000, "uid": 0, "gid": 0
    });
    fs::write(folder.join("worker.json"), worker.to_string())?;
    fs::write(folder.join("members.json"), members.to_string())?;
    for (file, key) in [("client.key", CLIENT_KEY), ("peer.key", PEER_KEY)].into_iter().chain(source.secrets()) {
        fs::write(folder.join(file), key)?;
    }
    Ok(())
}
