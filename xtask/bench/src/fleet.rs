//! Workers and node plugins as real processes, on this machine as it is or on nodes of a simulated network.

mod client;
mod network;
mod worker;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use penstock_wire::{Access, Caller, Credential, Pool, PublicKey};

use self::worker::Seat;
pub(super) use self::{
    client::Client,
    network::{Network, Place},
    worker::Worker,
};
use super::{scratch::Scratch, source::Source};

const DATASET: &str = "bench/prices";
const CLIENT_KEY: &str = "11f1e2d3c4b5a69788796a5b4c3d2e1f11f1e2d3c4b5a69788796a5b4c3d2e1f";
const PEER_KEY: &str = "22f1e2d3c4b5a69788796a5b4c3d2e1f22f1e2d3c4b5a69788796a5b4c3d2e1f";
/// The public half of [`PEER_KEY`].
const PEER_PUBLIC: &str = "86b74bd7218826155d9f224e05e47237988f7a1f4c8fe1682cb9dd559112f6d2";
/// Where a node's plugin looks for the workers of its node, each in a folder of its own.
const SOCKETS: &str = "state/sockets/bench/prices";
const PATIENCE: Duration = Duration::from_secs(20);

/// All that serves one Dataset. Processes, mounts and tiers are gone when it is dropped.
pub(super) struct Fleet {
    // Plugins end before the workers, and both before their folder goes.
    pub(super) clients: Vec<Client>,
    pub(super) workers: Vec<Worker>,
    folder: Scratch,
}

impl Fleet {
    /// Workers with a memory tier of `quota` bytes each, and plugins. What is at one place shares a node.
    pub(super) async fn start(
        source: Source<'_>,
        quota: u64,
        workers: &[Place],
        clients: &[Place],
    ) -> anyhow::Result<Self> {
        let folder = Scratch::in_memory()?;
        let seats = workers.iter().enumerate().map(|(number, place)| Seat::new(number, place));
        let seats = seats.collect::<anyhow::Result<Vec<_>>>()?;
        let members = worker::members(&seats, quota);
        let contact = seats.first().context("a fleet has a worker")?.endpoint.clone();
        let mut fleet = Self { clients: Vec::new(), workers: Vec::new(), folder };
        for seat in seats {
            fleet.workers.push(Worker::start(seat, fleet.folder.path(), source, quota, &members)?);
        }
        for place in clients {
            fleet.clients.push(Client::start(place, fleet.folder.path(), &contact)?);
        }
        for worker in &mut fleet.workers {
            wait("a worker", || worker.is_ready()).await?;
        }
        for client in &mut fleet.clients {
            wait("a plugin", || client.is_ready()).await?;
        }
        Ok(fleet)
    }

    /// What asks its workers as mounts do.
    pub(super) fn pool() -> anyhow::Result<Pool> {
        let access =
            Access::Client { key: Credential::from_hex(CLIENT_KEY)?, peers: PublicKey::from_hex(PEER_PUBLIC)? };
        Ok(Pool::new(Caller { dataset: DATASET.into(), name: "bench".into(), access }))
    }

    /// One worker and one plugin on this machine.
    pub(super) async fn here(source: Source<'_>, quota: u64) -> anyhow::Result<Self> {
        Self::start(source, quota, &[Place::here()], &[Place::here()]).await
    }

    /// Where the volume is on each client, in their order.
    pub(super) async fn mount(&mut self) -> anyhow::Result<Vec<PathBuf>> {
        let mut targets = Vec::new();
        for client in &mut self.clients {
            targets.push(client.mount().await?);
        }
        Ok(targets)
    }

    /// As [`Self::mount`], on the first client alone.
    pub(super) async fn mount_first(&mut self) -> anyhow::Result<PathBuf> {
        self.clients.first_mut().context("a fleet has a client")?.mount().await
    }

    /// Only a client that was mounted; an orderly end, which tells errors.
    pub(super) async fn unmount(&mut self) -> anyhow::Result<()> {
        for client in &mut self.clients {
            client.unmount().await?;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A serving process ends by itself without its mount; a plugin leaves it running.
        self.folder.detach();
    }
}

async fn wait(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what} is not ready after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
