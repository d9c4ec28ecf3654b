//! What the operator asks of workers, behind a trait so that tests answer in their place.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use penstock_placement::MemberList;
use penstock_wire::{
    Access, Address, Caller, Credential, Pool,
    message::{LoadOrder, Request, Response, Stats},
};
use tokio::time::timeout;

/// A worker that does not answer is asked again at the next reconcile; nothing waits for it longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What workers call the operator in their logs.
const CALLER: &str = "operator";

/// Whom to ask: a Dataset's workers share one peer key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// `NS/NAME`.
    pub dataset: String,
    /// Hexadecimal; [`Credential`] keeps it out of logs.
    pub peer_key: Credential,
}

#[async_trait]
pub trait WorkerApi: Send + Sync {
    /// The worker's numbers; the error is for a condition's message.
    async fn stats(&self, fleet: &Fleet, addr: &str) -> Result<Stats, String>;
    async fn set_members(&self, fleet: &Fleet, addr: &str, members: &MemberList) -> Result<(), String>;
    async fn drain(&self, fleet: &Fleet, addr: &str) -> Result<(), String>;
    /// The loads to work on from now on, all of them.
    async fn set_loads(&self, fleet: &Fleet, addr: &str, orders: &[LoadOrder]) -> Result<(), String>;
    /// The Dataset is gone: its connections are not needed any more.
    fn forget(&self, dataset: &str);
}

/// Over the wire protocol.
#[derive(Default)]
pub struct WireWorkers {
    pools: Mutex<BTreeMap<String, (Credential, Arc<Pool>)>>,
}

impl WireWorkers {
    async fn call(&self, fleet: &Fleet, addr: &str, request: Request) -> Result<Response, String> {
        let address = Address::Tcp(addr.to_owned());
        let pool = self.pool(fleet);
        match timeout(PATIENCE, pool.call(&address, request)).await {
            Ok(answer) => answer.map_err(|e| format!("{addr}: {e}")),
            Err(_) => Err(format!("{addr}: no answer within {} s", PATIENCE.as_secs())),
        }
    }

    fn pool(&self, fleet: &Fleet) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        if let Some((key, pool)) = pools.get(&fleet.dataset)
            && *key == fleet.peer_key
        {
            return pool.clone();
        }
        let (dataset, access) = (fleet.dataset.clone(), Access::Peer(fleet.peer_key.clone()));
        let pool = Arc::new(Pool::new(Caller { dataset, name: CALLER.to_owned(), access }));
        pools.insert(fleet.dataset.clone(), (fleet.peer_key.clone(), pool.clone()));
        pool
    }
}

#[async_trait]
impl WorkerApi for WireWorkers {
    async fn stats(&self, fleet: &Fleet, addr: &str) -> Result<Stats, String> {
        match self.call(fleet, addr, Request::Stats).await? {
            Response::Stats(stats) => Ok(*stats),
            _ => Err(format!("{addr}: an answer to another question")),
        }
    }

    async fn set_members(&self, fleet: &Fleet, addr: &str, members: &MemberList) -> Result<(), String> {
        self.call(fleet, addr, Request::SetMembers(members.clone())).await.map(drop)
    }

    async fn drain(&self, fleet: &Fleet, addr: &str) -> Result<(), String> {
        self.call(fleet, addr, Request::Drain).await.map(drop)
    }

    async fn set_loads(&self, fleet: &Fleet, addr: &str, orders: &[LoadOrder]) -> Result<(), String> {
        self.call(fleet, addr, Request::SetLoads(orders.to_vec())).await.map(drop)
    }

    fn forget(&self, dataset: &str) {
        self.pools.lock().remove(dataset);
    }
}
