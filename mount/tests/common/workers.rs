//! Workers that serve a backend in memory over the real protocol, on loopback.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use penstock_mount::backend::{Backend, ReadError};
use penstock_placement::{Member, MemberList};
use penstock_wire::{
    Caller, Host, Keys, Reply, Service,
    message::{Description, Failure, Reach, Request, Response, Role},
    serve,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::memory::MemoryBackend;

pub const DATASET: &str = "test/data";

/// Some workers, and the member list that all of them know.
pub struct Workers {
    pub backend: Arc<MemoryBackend>,
    pub keys: Keys,
    list: Arc<Mutex<MemberList>>,
    running: Mutex<Vec<Running>>,
}

pub struct Running {
    pub member: Member,
    pub service: Arc<Worker>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub struct Worker {
    backend: Arc<MemoryBackend>,
    list: Arc<Mutex<MemberList>>,
    pub answered: AtomicU64,
    /// Takes requests and never answers.
    pub mute: AtomicBool,
    /// Reads that it took and did not answer.
    pub unanswered: AtomicU64,
    /// How many hold an extent, when that is more than its owner.
    pub holders: AtomicU8,
    /// Milliseconds that every read takes.
    pub slow_ms: AtomicU64,
    /// Whether it has anything in its store.
    pub cached: AtomicBool,
    /// Reads for what it has in its store only.
    pub asked_cached: AtomicU64,
}

impl Workers {
    pub fn new(backend: Arc<MemoryBackend>) -> Self {
        Self { backend, keys: Keys::generate().unwrap(), list: Arc::default(), running: Mutex::default() }
    }

    /// Starts a worker; it is no member until [`Self::publish`].
    pub async fn start(&self, id: &str) -> Arc<Worker> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        self.start_on(id, listener)
    }

    /// Starts a worker where another one was.
    pub async fn start_at(&self, id: &str, addr: SocketAddr) -> Arc<Worker> {
        self.start_on(id, TcpListener::bind(addr).await.unwrap())
    }

    fn start_on(&self, id: &str, listener: TcpListener) -> Arc<Worker> {
        let addr = listener.local_addr().unwrap().to_string();
        let service = Arc::new(Worker {
            backend: self.backend.clone(),
            list: self.list.clone(),
            answered: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            holders: AtomicU8::new(0),
            slow_ms: AtomicU64::new(0),
            cached: AtomicBool::new(true),
            asked_cached: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let host = Host { dataset: DATASET.into(), name: id.into(), keys: self.keys.clone() };
        let task = tokio::spawn(serve(listener, host, service.clone(), stop.clone()));
        let member = Member { id: id.into(), addr, weight: 1 << 30 };
        self.running.lock().push(Running { member, service: service.clone(), stop, task });
        service
    }

    /// Tells all that those who run are the members.
    pub fn publish(&self) {
        let members = self.running.lock().iter().map(|running| running.member.clone()).collect();
        let mut list = self.list.lock();
        if let Some(next) = list.next(members) {
            *list = next;
        }
    }

    /// Tells all that a worker is found at another address.
    pub fn readdress(&self, id: &str, addr: &str) {
        for running in self.running.lock().iter_mut().filter(|running| running.member.id == id) {
            addr.clone_into(&mut running.member.addr);
        }
        self.publish();
    }

    /// Ends a worker at once, without a word to anyone.
    pub fn kill(&self, id: &str) -> SocketAddr {
        let mut running = self.running.lock();
        let at = running.iter().position(|running| running.member.id == id).unwrap();
        let gone = running.remove(at);
        gone.stop.cancel();
        gone.task.abort();
        gone.member.addr.parse().unwrap()
    }

    /// What a mount shows.
    pub fn caller(&self) -> Caller {
        Caller { dataset: DATASET.into(), name: "test".into(), access: self.keys.for_clients() }
    }

    pub fn list(&self) -> MemberList {
        self.list.lock().clone()
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.running.lock().iter().map(|running| running.member.addr.clone()).collect()
    }
}

impl Service for Worker {
    fn epoch(&self) -> u64 {
        self.list.lock().epoch
    }

    async fn call(&self, _: Role, request: Request) -> Result<Reply, Failure> {
        if self.mute.load(Ordering::Relaxed) {
            self.unanswered.fetch_add(u64::from(matches!(request, Request::Read { .. })), Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        let backend = &self.backend;
        let response = match request {
            Request::Describe => Ok(Response::Description(Description {
                dataset: DATASET.into(),
                members: self.list.lock().clone(),
                revalidate_ms: None,
                uid: 1,
                gid: 2,
            })),
            Request::Stat { path } => {
                let told = backend.stat(&path).await;
                told.map(|told| Response::Attr { attr: told.attr, age_ms: told.age.as_millis() as u64 })
            }
            Request::List { path, after, limit } => {
                let listing = backend.list(&path, after.as_deref(), limit).await;
                listing.map(|l| Response::Entries { entries: l.entries, more: l.more, age_ms: 0 })
            }
            Request::ReadLink { path } => backend.read_link(&path).await.map(Response::Target),
            Request::Read { reach: Reach::Cache, .. } if !self.cached.load(Ordering::Relaxed) => {
                self.asked_cached.fetch_add(1, Ordering::Relaxed);
                return Err(Failure::NotCached);
            }
            Request::Read { object, offset, len, pattern, reach } => {
                let counter = if reach == Reach::Cache { &self.asked_cached } else { &self.answered };
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(self.slow_ms.load(Ordering::Relaxed))).await;
                let holders = self.holders.load(Ordering::Relaxed);
                let read = backend.read(&object, offset, len, pattern).await;
                read.map(|data| if holders < 2 { Response::Data(data) } else { Response::SharedData { data, holders } })
            }
            _ => return Err(Failure::NotCached),
        };
        response.map(Reply::from).map_err(|error| match error {
            ReadError::NotFound => Failure::NotFound,
            ReadError::NotADirectory => Failure::NotADirectory,
            ReadError::Stale => Failure::Stale,
            ReadError::Denied(text) => Failure::Denied(text),
            ReadError::Ufs(text) => Failure::Ufs(text),
            ReadError::Unreachable(text) | ReadError::Protocol(text) => Failure::Unavailable(text),
        })
    }
}
