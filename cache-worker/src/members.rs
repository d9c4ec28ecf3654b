//! The other workers: who they are, which of them may hold what, and how to ask them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use penstock_placement::{Member, MemberList};
use penstock_wire::{
    Address, CallError, Pool,
    message::{Failure, Object, Pattern, Reach, Request, Response},
};
use tokio::time::{Instant, sleep, timeout};

use crate::metrics::Metrics;

/// A former owner that takes longer is passed over: the UFS is the surer way.
const ASK: Duration = Duration::from_secs(2);
/// How long a worker that did not answer is not asked for cached bytes.
const SICK: Duration = Duration::from_secs(5);

pub(crate) struct Members {
    id: String,
    list: RwLock<Arc<MemberList>>,
    pub(crate) pool: Pool,
    sick: Mutex<HashMap<String, Instant>>,
    metrics: Arc<Metrics>,
}

impl Members {
    pub(crate) fn new(id: String, pool: Pool, metrics: Arc<Metrics>) -> Self {
        Self { id, list: RwLock::default(), pool, sick: Mutex::default(), metrics }
    }

    pub(crate) fn list(&self) -> Arc<MemberList> {
        self.list.read().clone()
    }

    pub(crate) fn is_member(&self) -> bool {
        self.list.read().get(&self.id).is_some()
    }

    /// Whether this worker does what one has to do for all.
    pub(crate) fn is_first(&self) -> bool {
        self.list.read().members.iter().map(|member| &member.id).min() == Some(&self.id)
    }

    pub(crate) fn is_me(&self, member: &Member) -> bool {
        member.id == self.id
    }

    /// Takes the list unless it is as old as or older than the present one.
    pub(crate) fn adopt(&self, list: MemberList) {
        let mut present = self.list.write();
        if list.epoch <= present.epoch {
            return;
        }
        tracing::info!(epoch = list.epoch, members = list.members.len(), "new member list");
        self.metrics.epoch.set(list.epoch);
        *present = Arc::new(list);
        drop(present);
        let list = self.list();
        let known = list.members.iter().chain(list.former.iter().flatten());
        self.pool.retain(&known.map(|member| Address::Tcp(member.addr.clone())).collect());
        self.sick.lock().clear();
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
        let list = self.list();
        let others = list.members.iter().filter(|member| !self.is_me(member));
        let calls = others.map(|member| async move {
            let address = Address::Tcp(member.addr.clone());
            let _ = timeout(ASK, self.pool.call(&address, Request::Forget { path: path.to_vec() })).await;
        });
        futures::future::join_all(calls).await;
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

    /// Bytes that `holder` has in its store, or why it gives none.
    pub(crate) async fn ask_cached(
        &self,
        holder: &Member,
        object: &Object,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, Unheld> {
        let request = Request::Read {
            object: object.clone(),
            offset,
            len: len as u32,
            pattern: Pattern::Random,
            reach: Reach::Cache,
        };
        let address = Address::Tcp(holder.addr.clone());
        match timeout(ASK, self.pool.call(&address, request)).await {
            Ok(Ok(Response::Data(data))) if data.len() as u64 == len => {
                self.metrics.peer_bytes.inc_by(len);
                Ok(data)
            }
            Ok(Err(CallError::Failure(Failure::NotCached))) => Err(Unheld::Absent),
            other => {
                let error = other.map_or("no answer in time".into(), |r| format!("{:?}", r.err()));
                tracing::debug!(holder = holder.id, error, "cannot ask a former owner");
                self.sick.lock().insert(holder.id.clone(), Instant::now() + SICK);
                Err(Unheld::Sick)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheld {
    /// At least one of the pages is not there; others may be.
    Absent,
    Sick,
}
