//! Listens to every worker for what it finds changed.

use std::{collections::HashMap, sync::Arc, sync::Weak};

use penstock_wire::{
    Address, Pool,
    message::{Request, Response},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::{Cluster, LONGEST_PAUSE};
use crate::backend::Changed;

/// Answers that nobody has heeded yet; workers wait for more.
const WAITING: usize = 16;

pub(super) struct Changes {
    sender: mpsc::Sender<Changed>,
    receiver: Mutex<mpsc::Receiver<Changed>>,
}

impl Default for Changes {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl Changes {
    pub(super) async fn next(&self) -> Changed {
        // Never closed: the sender is ours.
        self.receiver.lock().await.recv().await.unwrap_or(Changed::Anywhere)
    }
}

/// Keeps one question waiting at each worker of the present list.
pub(super) async fn listen(cluster: Weak<Cluster>) {
    let mut tasks = JoinSet::new();
    let mut listened = HashMap::new();
    loop {
        {
            let Some(cluster) = cluster.upgrade() else { return };
            let view = cluster.view();
            listened.retain(|address, task: &mut tokio::task::AbortHandle| {
                let wanted = view.addresses().any(|member| member == address);
                if !wanted {
                    task.abort();
                }
                wanted
            });
            for address in view.addresses() {
                listened.entry(address.clone()).or_insert_with(|| {
                    let sender = cluster.changes.sender.clone();
                    tasks.spawn(listen_to(cluster.pool.clone(), address.clone(), sender))
                });
            }
        }
        sleep(LONGEST_PAUSE).await;
    }
}

async fn listen_to(pool: Arc<Pool>, address: Address, sender: mpsc::Sender<Changed>) {
    let mut since = None;
    loop {
        match pool.call(&address, Request::Changes { since }).await {
            Ok(Response::Changes { next, changes }) => {
                since = Some(next);
                let changed = changes.map_or(Changed::Anywhere, Changed::Here);
                if changed != Changed::Here(Vec::new()) && sender.send(changed).await.is_err() {
                    return;
                }
            }
            // What it has found meanwhile it tells when it is there again.
            _ => sleep(LONGEST_PAUSE).await,
        }
    }
}
