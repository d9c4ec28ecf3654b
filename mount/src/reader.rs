//! The reader: asks the workers, so that its callers see one dependable store.
//!
//! Requests go to the owner by rendezvous hashing, then to the next in rank, over and over, for a bounded time. The member
//! list comes from any worker that answers and is renewed whenever an answer names a newer one. A worker that fails to
//! answer is asked last until it shows signs of life again.

mod changes;
mod health;
mod holders;
mod loads;
mod local;
mod read;
mod stragglers;
mod view;

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::RwLock;
use penstock_model::Object;
use penstock_placement::PlacementKey;
use penstock_wire::{
    Address, CallError, Caller, Pool,
    message::{Description, Failure, Pattern, Request, Response},
};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::{
    changes::Changes, health::Health, holders::Holders, loads::Loads, local::LocalWorkers, read::Read,
    stragglers::Stragglers, view::View,
};
use crate::{
    backend::{Backend, Changed, Facts, Listing, LocalFile, ReadError, Told},
    path::parent,
    spec::Tuning,
};

/// How long a worker may take to say who is there.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a failing UFS is tried again; the workers have tried before they say so.
const UFS_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// All workers of one Dataset.
pub struct Cluster {
    pool: Arc<Pool>,
    endpoints: Vec<Address>,
    view: RwLock<Arc<View>>,
    /// Taken by who asks for a newer view: the others wait for the same answer.
    renewing: Mutex<()>,
    health: Arc<Health>,
    holders: Holders,
    loads: Loads,
    stragglers: Stragglers,
    local: Option<LocalWorkers>,
    patience: Duration,
    probe_after: Duration,
    changes: Changes,
    watchers: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

/// What workers are asked.
enum Question<'a> {
    /// About names: goes to the owner of the directory whose key this is.
    Name(PlacementKey, Request),
    Bytes(Read<'a>),
}

/// What an attempt at one worker came to, when it was not an answer.
enum Setback {
    /// Another worker would say the same.
    Final(ReadError),
    /// Another worker may do better.
    Next(ReadError),
}

impl Cluster {
    /// `endpoints` are first contacts. Nobody needs to be there yet. Needs a tokio runtime.
    pub fn start(caller: Caller, endpoints: Vec<Address>, socket_dir: Option<PathBuf>, tuning: &Tuning) -> Arc<Self> {
        let cluster = Arc::new(Self {
            pool: Arc::new(Pool::new(caller)),
            endpoints,
            view: RwLock::default(),
            renewing: Mutex::default(),
            health: Arc::default(),
            holders: Holders::default(),
            loads: Loads::default(),
            stragglers: Stragglers::default(),
            local: socket_dir.map(LocalWorkers::new),
            patience: Duration::from_millis(tuning.patience_ms),
            probe_after: Duration::from_millis(tuning.probe_after_ms),
            changes: Changes::default(),
            watchers: parking_lot::Mutex::default(),
        });
        let listen = changes::listen(Arc::downgrade(&cluster));
        *cluster.watchers.lock() = vec![tokio::spawn(follow(Arc::downgrade(&cluster))), tokio::spawn(listen)];
        cluster
    }

    /// The epoch of the member list in use; 0 when there is none yet.
    pub fn epoch(&self) -> u64 {
        self.view().members.epoch
    }

    fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// The answer of the first worker that has one. They are asked one after the other, over and over, until patience ends.
    async fn ask(self: &Arc<Self>, question: Question<'_>) -> Result<Response, ReadError> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut last = ReadError::Unreachable("no worker is known".into());
        loop {
            let view = self.view();
            let order = match &question {
                Question::Name(key, _) => self.health.healthy_first(view.ranked(*key)),
                Question::Bytes(read) => self.order(&view, read),
            };
            for (at, address) in order.iter().enumerate() {
                let answer = match &question {
                    Question::Name(_, request) => self.call(address, request.clone()).await,
                    Question::Bytes(read) => self.read_from(&view, address, order.get(at + 1), read).await,
                };
                match self.judge(address, answer) {
                    Ok(response) => return Ok(response),
                    Err(Setback::Final(error)) => return Err(error),
                    Err(Setback::Next(error)) => last = error,
                }
                if begun.elapsed() > self.patience_with(&last) {
                    return Err(last);
                }
            }
            if begun.elapsed() + pause > self.patience_with(&last) {
                return Err(last);
            }
            tracing::debug!(error = %last, "no worker has answered, trying again");
            self.renew(view.members.epoch).await;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn patience_with(&self, error: &ReadError) -> Duration {
        match error {
            ReadError::Ufs(_) => self.patience.min(UFS_PATIENCE),
            _ => self.patience,
        }
    }

    async fn call(&self, address: &Address, request: Request) -> Result<Response, CallError> {
        self.pool.call_patiently(address, request, self.probe_after).await
    }

    fn judge(self: &Arc<Self>, address: &Address, answer: Result<Response, CallError>) -> Result<Response, Setback> {
        match answer {
            Ok(response) => Ok(response),
            Err(CallError::Failure(failure)) => Err(setback(failure)),
            Err(CallError::Unusable(text)) => {
                tracing::warn!(%address, "{text}; asking another worker");
                Err(Setback::Next(ReadError::Unreachable(text)))
            }
            Err(error) => {
                self.suspect(address);
                Err(Setback::Next(ReadError::Unreachable(error.to_string())))
            }
        }
    }

    async fn describe(&self, address: &Address) -> Option<Description> {
        match timeout(DESCRIBE_TIMEOUT, self.pool.call(address, Request::Describe)).await {
            Ok(Ok(Response::Description(description))) => Some(description),
            Ok(Ok(other)) => {
                tracing::warn!(%address, "a worker describes itself by {}", kind_of(&other));
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "no description");
                None
            }
            Err(_) => None,
        }
    }

    /// Asks `address` last until it answers again.
    fn suspect(self: &Arc<Self>, address: &Address) {
        if !self.health.mark(address) {
            return;
        }
        tracing::info!(%address, "a worker does not answer, others stand in");
        let (this, address) = (Arc::downgrade(self), address.clone());
        tokio::spawn(async move {
            loop {
                sleep(LONGEST_PAUSE).await;
                let Some(this) = this.upgrade() else { return };
                if !this.wanted(&address) || this.describe(&address).await.is_some() {
                    this.health.clear(&address);
                    return;
                }
            }
        });
    }

    fn wanted(&self, address: &Address) -> bool {
        self.view().addresses().any(|a| a == address)
    }

    /// Looks for a newer view than that of `epoch`: from all known workers and those of this node at once, the first good
    /// answer counts. The node's are found by their sockets, also where none of the known addresses is in use any more.
    async fn renew(&self, epoch: u64) {
        let _one = self.renewing.lock().await;
        let view = self.view();
        if view.members.epoch > epoch {
            return;
        }
        let sockets = self.local.as_ref().map(LocalWorkers::sockets).unwrap_or_default();
        let known = self.endpoints.iter().chain(view.addresses()).chain(sockets.iter());
        let mut answers: FuturesUnordered<_> = known.map(|address| self.describe(address)).collect();
        while let Some(answer) = answers.next().await {
            if let Some(description) = answer
                && self.adopt(description)
            {
                return;
            }
        }
    }

    /// Takes the description unless a newer one is known. Whether it is as new as what is known.
    fn adopt(&self, description: Description) -> bool {
        let mut view = self.view.write();
        let known = view.members.epoch;
        if view.facts.is_some() && description.members.epoch < known {
            return false;
        }
        if description.members.epoch != known {
            let (epoch, members) = (description.members.epoch, description.members.members.len());
            tracing::info!(epoch, members, "new member list");
        }
        *view = Arc::new(View::new(description));
        let wanted = view.addresses().chain(&self.endpoints).cloned().collect();
        drop(view);
        self.pool.retain(&wanted);
        self.loads.retain(|address| wanted.contains(address));
        true
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for watcher in self.watchers.get_mut() {
            watcher.abort();
        }
    }
}

/// Learns the first member list, and then each newer one that an answer names.
async fn follow(cluster: Weak<Cluster>) {
    let mut newest = {
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.pool.newest()
    };
    loop {
        let sighting = newest.borrow_and_update().clone();
        {
            let Some(cluster) = cluster.upgrade() else { return };
            let known = cluster.view();
            if known.facts.is_none() || sighting.epoch > known.members.epoch {
                let told = match &sighting.address {
                    Some(address) => cluster.describe(address).await,
                    None => None,
                };
                match told {
                    Some(description) => drop(cluster.adopt(description)),
                    None => cluster.renew(known.members.epoch).await,
                }
            }
            let view = cluster.view();
            if view.facts.is_some() && view.members.epoch >= newest.borrow().epoch {
                drop(cluster);
                if newest.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        sleep(LONGEST_PAUSE).await;
    }
}

fn setback(failure: Failure) -> Setback {
    match failure {
        Failure::NotFound => Setback::Final(ReadError::NotFound),
        Failure::NotADirectory => Setback::Final(ReadError::NotADirectory),
        Failure::Stale => Setback::Final(ReadError::Stale),
        Failure::Denied(text) => Setback::Final(ReadError::Denied(text)),
        Failure::BadRequest(text) => Setback::Final(ReadError::Protocol(text)),
        Failure::Ufs(text) => Setback::Next(ReadError::Ufs(text)),
        // A newer worker may understand what this one does not.
        Failure::Unavailable(text) | Failure::Unsupported(text) => Setback::Next(ReadError::Unreachable(text)),
        Failure::Corrupt => Setback::Next(ReadError::Unreachable(failure.to_string())),
        Failure::NotCached => Setback::Next(ReadError::Unreachable("not cached".into())),
    }
}

fn kind_of(response: &Response) -> &'static str {
    match response {
        Response::Description(_) => "a description",
        Response::Attr { .. } => "attributes",
        Response::Entries { .. } => "entries",
        Response::Target(_) => "a target",
        Response::Changes { .. } => "changes",
        Response::Data(_) | Response::SharedData { .. } => "data",
        Response::Descriptor => "a descriptor",
        Response::Stats(_) => "numbers",
        Response::Done => "done",
    }
}

fn surprised(response: &Response) -> ReadError {
    ReadError::Protocol(format!("answered with {}", kind_of(response)))
}

/// The reader as the file system sees it.
pub struct Workers(pub Arc<Cluster>);

#[async_trait]
impl Backend for Workers {
    fn facts(&self) -> Option<Facts> {
        self.0.view().facts
    }

    async fn stat(&self, path: &[u8]) -> Result<Told, ReadError> {
        let key = PlacementKey::directory(parent(path));
        match self.0.ask(Question::Name(key, Request::Stat { path: path.to_vec() })).await? {
            Response::Attr { attr, age_ms } => Ok(Told { attr, age: Duration::from_millis(age_ms) }),
            other => Err(surprised(&other)),
        }
    }

    async fn list(&self, path: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Listing, ReadError> {
        let request = Request::List { path: path.to_vec(), after: after.map(<[u8]>::to_vec), limit };
        match self.0.ask(Question::Name(PlacementKey::directory(path), request)).await? {
            Response::Entries { entries, more, age_ms } => {
                Ok(Listing { entries, more, age: Duration::from_millis(age_ms) })
            }
            other => Err(surprised(&other)),
        }
    }

    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        let key = PlacementKey::directory(parent(path));
        match self.0.ask(Question::Name(key, Request::ReadLink { path: path.to_vec() })).await? {
            Response::Target(target) => Ok(target),
            other => Err(surprised(&other)),
        }
    }

    async fn read(&self, object: &Object, offset: u64, len: u32, pattern: Pattern) -> Result<Bytes, ReadError> {
        match self.0.ask(Question::Bytes(Read { object, offset, len, pattern })).await {
            Ok(Response::Data(data) | Response::SharedData { data, .. }) => Ok(data),
            Ok(other) => Err(surprised(&other)),
            // It was there when it was opened.
            Err(ReadError::NotFound) => Err(ReadError::Stale),
            Err(error) => Err(error),
        }
    }

    async fn open_local(&self, object: &Object) -> Option<LocalFile> {
        self.0.local.as_ref()?.open(&self.0.pool, object).await
    }

    async fn changed(&self) -> Changed {
        self.0.changes.next().await
    }
}
