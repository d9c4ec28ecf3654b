//! The other workers: who they are, which of them may hold what, and how to ask them.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use penstock_model::{EXTENT, Entry, Object, ObjectKey};
use penstock_placement::{Member, MemberList, PlacementKey};
use penstock_store::Claim;
use penstock_wire::{
    Address, CallError, Pool,
    message::{Failure, Pattern, Reach, Request, Response},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{metrics::Metrics, restarts::Restarts};

/// A former owner that takes longer is passed over: the UFS is the surer way. The owner is asked for a sign of life.
const ASK: Duration = Duration::from_secs(2);
/// How long a worker that did not answer is not asked for cached bytes.
const SICK: Duration = Duration::from_secs(5);
/// Whatever a worker says, it is not waited for longer.
const LONGEST_RESTART: Duration = Duration::from_secs(30);

pub(crate) struct Members {
    id: String,
    list: watch::Sender<Arc<MemberList>>,
    pub(crate) pool: Pool,
    sick: Mutex<HashMap<String, Instant>>,
    restarts: Restarts,
    metrics: Arc<Metrics>,
}

impl Members {
    pub(crate) fn new(id: String, pool: Pool, metrics: Arc<Metrics>) -> Self {
        Self {
            id,
            list: watch::Sender::default(),
            pool,
            sick: Mutex::default(),
            restarts: Restarts::default(),
            metrics,
        }
    }

    pub(crate) fn list(&self) -> Arc<MemberList> {
        self.list.borrow().clone()
    }

    /// Changes with every list that is adopted.
    pub(crate) fn lists(&self) -> watch::Receiver<Arc<MemberList>> {
        self.list.subscribe()
    }

    pub(crate) fn is_member(&self) -> bool {
        !self.has_left(&self.list())
    }

    /// Whether `list` is without this worker.
    pub(crate) fn has_left(&self, list: &MemberList) -> bool {
        list.get(&self.id).is_none()
    }

    pub(crate) fn has_others(&self, list: &MemberList) -> bool {
        list.members.iter().any(|member| !self.is_me(member))
    }

    /// Whether this worker does what one has to do for all.
    pub(crate) fn is_first(&self) -> bool {
        self.list().members.iter().map(|member| &member.id).min() == Some(&self.id)
    }

    pub(crate) fn is_me(&self, member: &Member) -> bool {
        member.id == self.id
    }

    /// Takes the list unless it is as old as or older than the present one.
    pub(crate) fn adopt(&self, list: MemberList) {
        let list = Arc::new(list);
        let is_newer = |present: &Arc<MemberList>| list.epoch > present.epoch;
        if !self.list.send_if_modified(|present| is_newer(present).then(|| *present = list.clone()).is_some()) {
            return;
        }
        tracing::info!(epoch = list.epoch, members = list.members.len(), "new member list");
        self.metrics.epoch.set(list.epoch);
        let known = list.members.iter().chain(list.former.iter().flatten());
        self.pool.retain(&known.map(|member| Address::Tcp(member.addr.clone())).collect());
        self.sick.lock().clear();
        // Who is on its way out is not waited for.
        self.restarts.retain(|id| list.get(id).is_some());
    }

    /// Asks `address` for its list.
    pub(crate) async fn learn_from(&self, address: &Address) {
        match timeout(ASK, self.pool.call(address, Request::Describe)).await {
            Ok(Ok(Response::Description(description))) => self.adopt(description.members),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%address, %error, "cannot learn the member list"),
            Err(_) => tracing::debug!(%address, "cannot learn the member list: no answer"),
        }
    }

    /// Asks every other member, at the start: the file may be older than what they have been sent since.
    pub(crate) async fn learn_from_all(&self) {
        let list = self.list();
        let others = list.members.iter().filter(|member| !self.is_me(member));
        let addresses: Vec<_> = others.map(|member| Address::Tcp(member.addr.clone())).collect();
        futures::future::join_all(addresses.iter().map(|address| self.learn_from(address))).await;
    }

    /// Learns newer lists from whoever is seen to have one.
    pub(crate) async fn follow(&self) {
        let mut newest = self.pool.newest();
        while newest.changed().await.is_ok() {
            let seen = newest.borrow_and_update().clone();
            let Some(address) = seen.address else { continue };
            while seen.epoch > self.list().epoch && !newest.has_changed().unwrap_or(true) {
                self.learn_from(&address).await;
                if seen.epoch > self.list().epoch {
                    sleep(ASK).await;
                }
            }
        }
    }

    /// Tells all others that what they know of `path` is out of date. Best effort: an answer lost here is one more `Stale`.
    pub(crate) async fn spread_forget(&self, path: &[u8]) {
        self.spread(&Request::Forget { path: path.to_vec() }).await;
    }

    /// Asks all others to wait for this worker `within` that time; with zero, not any longer. Best effort: who does not
    /// hear it asks the UFS.
    pub(crate) async fn spread_restart(&self, within: Duration) {
        self.spread(&Request::Restarting { id: self.id.clone(), within_ms: within.as_millis() as u64 }).await;
    }

    async fn spread(&self, request: &Request) {
        let list = self.list();
        let others = list.members.iter().filter(|member| !self.is_me(member));
        let calls = others.map(|member| async move {
            let address = Address::Tcp(member.addr.clone());
            let _ = timeout(ASK, self.pool.call(&address, request.clone())).await;
        });
        futures::future::join_all(calls).await;
    }

    /// Returns when worker `id` is there again, at once if it has not said that it starts again.
    pub(crate) async fn back(&self, id: &str) {
        self.restarts.back(id).await;
    }

    /// Worker `id` starts again; it is waited for `within` that time, or is back when that is zero.
    pub(crate) async fn restarting(&self, id: String, within: Duration) {
        tracing::debug!(id, within = within.as_secs_f64(), "another worker starts again");
        if let Some(member) = self.list().get(&id) {
            self.pool.retry_now(&Address::Tcp(member.addr.clone())).await;
        }
        self.sick.lock().remove(&id);
        self.restarts.expect(id, within.min(LONGEST_RESTART));
    }

    pub(crate) fn owns(&self, key: ObjectKey, offset: u64) -> bool {
        self.list.borrow().owner(key.placement(offset)).is_some_and(|owner| self.is_me(owner))
    }

    /// How far a fetch goes: what this worker owns it fetches as owner.
    pub(crate) fn route(&self, key: ObjectKey, offset: u64, reach: Reach) -> Reach {
        if reach == Reach::Ufs && self.owns(key, offset) { Reach::Owner } else { reach }
    }

    /// The owner by the present list, unless that is this worker or it did not answer lately.
    pub(crate) fn other_owner(&self, object: &Object, offset: u64) -> Option<Member> {
        let list = self.list();
        let owner = list.owner(object.key.placement(offset)).filter(|owner| !self.is_me(owner))?;
        let sick = self.sick.lock().get(&owner.id).is_some_and(|until| Instant::now() < *until);
        (!sick).then(|| owner.clone())
    }

    /// Says what claim this worker has to extents by the present list.
    pub(crate) fn claims(&self) -> impl Fn(ObjectKey, u32) -> Claim + Send + Sync + 'static {
        let (list, id) = (self.list(), self.id.clone());
        move |key, extent| {
            let key = key.placement(u64::from(extent) * EXTENT);
            let is_me = |member: &Member| member.id == id;
            if list.owner(key).is_some_and(is_me) {
                Claim::Owner
            } else if list.former_owners(key).into_iter().any(is_me) {
                Claim::FormerOwner
            } else {
                Claim::None
            }
        }
    }

    /// Who may hold the extent that this worker lacks: its owner (when this one only stands in), then former owners.
    pub(crate) fn holders(&self, object: &Object, offset: u64) -> Vec<Member> {
        let (list, key) = (self.list(), object.key.placement(offset));
        let owner = list.owner(key).into_iter();
        let mut sick = self.sick.lock();
        sick.retain(|_, until| Instant::now() < *until);
        owner
            .chain(list.former_owners(key))
            .filter(|member| !self.is_me(member) && !sick.contains_key(&member.id))
            .cloned()
            .collect()
    }

    /// A page of a directory from its owner; `None` when that is this worker, or does not answer.
    pub(crate) async fn ask_listing(
        &self,
        directory: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Option<(Vec<Entry>, bool)> {
        let owner = self.list().owner(PlacementKey::directory(directory)).filter(|owner| !self.is_me(owner))?.clone();
        self.back(&owner.id).await;
        let request = Request::List { path: directory.to_vec(), after: after.map(<[u8]>::to_vec), limit };
        match self.pool.call(&Address::Tcp(owner.addr), request).await {
            Ok(Response::Entries { entries, more, .. }) => Some((entries, more)),
            _ => None,
        }
    }

    /// Bytes that `holder` has, or gets when `reach` lets it, or why it gives none.
    pub(crate) async fn ask(
        &self,
        holder: &Member,
        object: &Object,
        range: &Range<u64>,
        reach: Reach,
    ) -> Result<Bytes, Unheld> {
        let (offset, len) = (range.start, range.end - range.start);
        let request =
            Request::Read { object: object.clone(), offset, len: len as u32, pattern: Pattern::Random, reach };
        let answer = loop {
            self.back(&holder.id).await;
            let answer = self.try_to_ask(holder, request.clone()).await;
            // It may have gone since.
            if matches!(answer, Ok(_) | Err(CallError::Failure(_))) || !self.restarts.is_away(&holder.id) {
                break answer;
            }
        };
        match answer {
            Ok(Response::Data(data)) if data.len() as u64 == len => {
                self.metrics.peer_bytes.inc_by(len);
                Ok(data)
            }
            Err(CallError::Failure(Failure::NotCached)) => Err(Unheld::Absent),
            Err(CallError::Failure(failure)) => Err(Unheld::Failed(failure)),
            other => {
                let error = format!("{:?}", other.err());
                tracing::debug!(holder = holder.id, error, "cannot ask another worker");
                self.sick.lock().insert(holder.id.clone(), Instant::now() + SICK);
                Err(Unheld::Sick)
            }
        }
    }

    async fn try_to_ask(&self, holder: &Member, request: Request) -> Result<Response, CallError> {
        let address = Address::Tcp(holder.addr.clone());
        match request {
            Request::Read { reach: Reach::Cache, .. } => {
                timeout(ASK, self.pool.call(&address, request)).await.unwrap_or(Err(CallError::Timeout))
            }
            _ => self.pool.call_patiently(&address, request, ASK).await,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unheld {
    /// At least one of the pages is not there; others may be.
    Absent,
    Failed(Failure),
    Sick,
}
