//! The reader where extents have several holders, and where answers are late.
#![allow(clippy::unwrap_used)]

#[path = "common/memory.rs"]
mod memory;
#[path = "common/workers.rs"]
mod workers;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures::future::join_all;
use memory::MemoryBackend;
use penstock_model::{EXTENT, Object};
use penstock_mount::{backend::Backend, reader, reader::Cluster, spec::Tuning};
use penstock_wire::{Address, message::Pattern};
use workers::{Worker, Workers};

const LEN: u32 = 4096;

struct Rig {
    workers: Workers,
    services: Vec<Arc<Worker>>,
    object: Object,
    reader: reader::Workers,
}

impl Rig {
    async fn new(count: usize) -> Self {
        let backend = Arc::new(MemoryBackend::default());
        let object = backend.add_patterned(b"dir/file", 64 * EXTENT);
        let workers = Workers::new(backend);
        let mut services = Vec::new();
        for i in 0..count {
            services.push(workers.start(&format!("w-{i}")).await);
        }
        workers.publish();
        let endpoints = workers.endpoints().into_iter().map(Address::Tcp).collect();
        let cluster = Cluster::start(workers.caller(), endpoints, None, &Tuning::default());
        Self { workers, services, object, reader: reader::Workers(cluster) }
    }

    async fn read(&self, extent: u64) {
        let data = self.reader.read(&self.object, extent * EXTENT, LEN, Pattern::Random).await.unwrap();
        assert_eq!(data, MemoryBackend::pattern(extent * EXTENT, LEN.into()));
    }

    fn owner(&self, extent: u64) -> usize {
        let list = self.workers.list();
        let owner = list.owner(self.object.key.placement(extent * EXTENT)).unwrap();
        owner.id.strip_prefix("w-").unwrap().parse().unwrap()
    }

    /// Reads that each worker answered since the last time.
    fn answered(&self) -> Vec<u64> {
        self.services.iter().map(|service| service.answered.swap(0, Relaxed)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_extent_is_read_from_all_its_holders_and_another_list_ends_that() {
    let rig = Rig::new(4).await;
    let owner = rig.owner(3);
    rig.services[owner].holders.store(4, Relaxed);
    rig.read(3).await;
    rig.answered();
    for _ in 0..25 {
        join_all((0..8).map(|_| rig.read(3))).await;
    }
    let answered = rig.answered();
    assert!(answered.iter().all(|count| (5..=150).contains(count)), "{answered:?} of 200");

    // A cold one of the same object stays with its owner.
    let cold = (4..64).find(|extent| rig.owner(*extent) != owner).unwrap();
    join_all((0..20).map(|_| rig.read(cold))).await;
    assert_eq!(rig.answered()[rig.owner(cold)], 20);

    rig.services[owner].holders.store(0, Relaxed);
    rig.workers.start("w-4").await;
    rig.workers.publish();
    while rig.reader.0.epoch() != rig.workers.list().epoch {
        rig.read(3).await;
    }
    rig.answered();
    join_all((0..20).map(|_| rig.read(3))).await;
    assert_eq!(rig.answered().iter().sum::<u64>(), if rig.owner(3) == 4 { 0 } else { 20 });
    assert!(rig.owner(3) == 4 || rig.owner(3) == owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slower_of_two_holders_is_asked_less() {
    let rig = Rig::new(2).await;
    let owner = rig.owner(0);
    rig.services[owner].holders.store(2, Relaxed);
    rig.services[1 - owner].slow_ms.store(50, Relaxed);
    for _ in 0..100 {
        rig.read(0).await;
    }
    assert!(rig.answered()[1 - owner] < 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_overtaken_by_that_of_another_holder() {
    let rig = Rig::new(2).await;
    let owner = rig.owner(0);
    for _ in 0..200 {
        rig.read(0).await;
    }
    rig.services[owner].slow_ms.store(800, Relaxed);
    let begun = Instant::now();
    for _ in 0..4 {
        rig.read(0).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(1600), "{:?}", begun.elapsed());
    assert!(rig.services[1 - owner].asked_cached.load(Relaxed) >= 4);
    assert_eq!(rig.services[1 - owner].answered.load(Relaxed), 0, "nobody else was asked to fetch it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_else_has_the_bytes_a_late_answer_is_waited_for() {
    let rig = Rig::new(2).await;
    let owner = rig.owner(0);
    rig.services[1 - owner].cached.store(false, Relaxed);
    for _ in 0..200 {
        rig.read(0).await;
    }
    rig.services[owner].slow_ms.store(200, Relaxed);
    rig.read(0).await;
    let other = &rig.services[1 - owner];
    assert_eq!(other.answered.load(Relaxed), 0);
    assert!(other.asked_cached.load(Relaxed) >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_answers_are_late_few_are_asked_for_twice() {
    let rig = Rig::new(2).await;
    for _ in 0..200 {
        rig.read(0).await;
    }
    rig.services.iter().for_each(|service| service.slow_ms.store(30, Relaxed));
    let before: u64 = rig.services.iter().map(|service| service.asked_cached.load(Relaxed)).sum();
    for _ in 0..12 {
        join_all((0..50).map(|_| rig.read(0))).await;
    }
    let again = rig.services.iter().map(|service| service.asked_cached.load(Relaxed)).sum::<u64>() - before;
    assert!((1..=600 / 20 + 9).contains(&again), "{again} of 600");
}
