//! Loads: the extents that this worker owns of a part of the Dataset, into its store or out of it, below readers.
//!
//! A load is told whole and again and again; what is done is seen in the store, so that nothing needs to be remembered. It
//! counts first, then fetches what is missing, then counts what is there; and does so again when the member list changes.

mod run;
mod targets;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use penstock_store::Store;
use penstock_wire::message::{LoadOrder, LoadProgress};
use tokio::task::AbortHandle;

use crate::{
    fill::{Fills, Upstream},
    members::Members,
    metadata::Catalogs,
    readers::Readers,
};

pub(crate) struct Loads {
    parts: Arc<Parts>,
    running: Mutex<BTreeMap<String, Running>>,
}

/// What a load works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) fills: Fills<Upstream>,
    pub(crate) members: Arc<Members>,
    pub(crate) catalogs: Catalogs,
    pub(crate) readers: Arc<Readers>,
}

struct Running {
    order: LoadOrder,
    progress: Arc<Mutex<LoadProgress>>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Loads {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), running: Mutex::default() }
    }

    /// Begins what is new, ends what is not among `orders`, and lets the others go on.
    pub(crate) fn set(&self, orders: Vec<LoadOrder>) {
        let mut running = self.running.lock();
        running.retain(|_, one| orders.contains(&one.order));
        for order in orders {
            running.entry(order.id.clone()).or_insert_with(|| self.begin(order));
        }
    }

    fn begin(&self, order: LoadOrder) -> Running {
        tracing::info!(id = order.id, targets = order.targets.len(), evict = order.evict, "a load begins");
        let progress = Arc::new(Mutex::new(LoadProgress { id: order.id.clone(), ..LoadProgress::default() }));
        let task = tokio::spawn(run::run(self.parts.clone(), order.clone(), progress.clone())).abort_handle();
        Running { order, progress, task }
    }

    pub(crate) fn progress(&self) -> Vec<LoadProgress> {
        self.running.lock().values().map(|one| one.progress.lock().clone()).collect()
    }
}
