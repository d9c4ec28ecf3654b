//! The reader and real workers: hot extents, bytes that are asked of whoever it is, and local replicas.
#![allow(clippy::unwrap_used)]

#[path = "../../cache-worker/tests/common/fleet.rs"]
mod fleet;

use std::{
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleet::{DATASET, Fleet, SOCKETS, eventually, noise};
use futures::future::join_all;
use penstock_model::{EXTENT, Object};
use penstock_mount::{
    backend::{Backend, LocalFile},
    reader::{Cluster, Workers},
    spec::Tuning,
};
use penstock_wire::{
    Address, Caller,
    message::{Pattern, Reach, Request, Response},
};

const MIB: u64 = 1 << 20;

struct Rig {
    fleet: Fleet,
    /// As many mounts on different nodes.
    readers: Vec<Workers>,
}

impl Rig {
    async fn new(workers: usize, readers: usize) -> Self {
        let fleet = Fleet::new(workers).await;
        let readers = (0..readers).map(|_| Workers(start(&fleet, None))).collect();
        Self { fleet, readers }
    }

    /// A reader on the node of worker `at`.
    fn beside(&self, at: usize) -> Workers {
        let id = &self.fleet.workers[at].member.id;
        // Its own directory, as kubelet makes one for each pod.
        let node = self.fleet.dir.join(format!("node-{at}"));
        std::fs::create_dir_all(&node).unwrap();
        std::os::unix::fs::symlink(self.fleet.dir.join(SOCKETS).join(id), node.join("pod")).unwrap();
        Workers(start(&self.fleet, Some(node)))
    }

    async fn put(&self, name: &str, content: &Bytes) -> Object {
        self.fleet.s3.put("data", name, content.clone()).unwrap();
        let attr = self.readers[0].stat(name.as_bytes()).await.unwrap();
        let (key, version) = attr.attr.object.unwrap();
        Object { key, path: name.into(), version, size: attr.attr.size }
    }

    async fn served(&self) -> Vec<u64> {
        join_all(self.fleet.workers.iter().map(async |worker| self.fleet.stats(worker).await.served_bytes)).await
    }

    /// Bytes of whole extents that each worker keeps, its own and replicas. What a tier takes besides is less than one.
    async fn cached(&self) -> Vec<u64> {
        let whole = async |worker| {
            let used: u64 = self.fleet.stats(worker).await.tiers.iter().map(|tier| tier.used_bytes).sum();
            used / EXTENT * EXTENT
        };
        join_all(self.fleet.workers.iter().map(whole)).await
    }

    fn owner(&self, object: &Object) -> usize {
        let owner = self.fleet.list.owner(object.key.placement(0)).unwrap();
        self.fleet.workers.iter().position(|worker| worker.member.id == owner.id).unwrap()
    }
}

fn start(fleet: &Fleet, sockets: Option<std::path::PathBuf>) -> Arc<Cluster> {
    let endpoints = vec![fleet.workers[0].address()];
    let caller = Caller { dataset: DATASET.into(), name: "test".into(), access: fleet.keys.for_clients() };
    Cluster::start(caller, endpoints, sockets, &Tuning::default())
}

async fn read(reader: &Workers, object: &Object, content: &Bytes) {
    for start in (0..object.size).step_by(MIB as usize) {
        let end = (start + MIB).min(object.size);
        let data = reader.read(object, start, (end - start) as u32, Pattern::Sequential).await.unwrap();
        assert!(data == content[start as usize..end as usize], "wrong bytes from {start} on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_extent_spreads_over_the_workers_and_a_cold_one_does_not() {
    let mut rig = Rig::new(4, 5).await;
    let (hot_bytes, cold_bytes) = (noise(1, EXTENT as usize), noise(2, EXTENT as usize));
    let (hot, cold) = (rig.put("hot", &hot_bytes).await, rig.put("cold", &cold_bytes).await);
    read(&rig.readers[0], &cold, &cold_bytes).await;
    read(&rig.readers[0], &hot, &hot_bytes).await;
    let (before, began) = (rig.served().await, Instant::now());
    eventually("all is kept", async || rig.cached().await.iter().sum::<u64>() == 2 * EXTENT).await;
    // Until all are holders, and readers have forgiven them that their first answers waited for the copy; then a fixed number
    // of reads must be level.
    let read_by_all = async || join_all(rig.readers.iter().map(|reader| read(reader, &hot, &hot_bytes))).await;
    while rig.cached().await.iter().filter(|bytes| **bytes >= EXTENT).count() < 4 {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", rig.cached().await);
        read_by_all().await;
    }
    let hold = rig.served().await;
    let spread = loop {
        read_by_all().await;
        let served = rig.served().await;
        if served.iter().zip(&hold).all(|(served, hold)| served - hold >= 10 * EXTENT) {
            break served;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{hold:?} to {served:?}");
    };
    for _ in 0..10 {
        read_by_all().await;
    }
    let after = rig.served().await;
    let level: Vec<u64> = after.iter().zip(&spread).map(|(after, before)| (after - before) / MIB).collect();
    println!("MiB served by each of the holders: {level:?}, until all were asked: {before:?} to {spread:?}");
    assert!(
        level.iter().sum::<u64>() >= 200 && level.iter().all(|part| (4..=150).contains(part)),
        "{level:?} MiB of 200"
    );
    assert_eq!(rig.fleet.s3.sent_bytes(), 2 * EXTENT, "replicas come from the owner");
    assert_eq!(rig.cached().await.iter().sum::<u64>(), 5 * EXTENT, "the cold one has one holder");

    rig.fleet.scale(5).await;
    join_all(rig.readers.iter().map(|reader| read(reader, &hot, &hot_bytes))).await;
    assert_eq!(rig.fleet.s3.sent_bytes(), 2 * EXTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_fetched_once_whichever_workers_are_asked_for_them() {
    let rig = Rig::new(4, 1).await;
    let content = noise(3, 2 * EXTENT as usize);
    let object = rig.put("d/any", &content).await;
    let ask = async |worker: usize, offset: u64| {
        let request =
            Request::Read { object: object.clone(), offset, len: 300_000, pattern: Pattern::Random, reach: Reach::Ufs };
        let address = rig.fleet.workers[worker].address();
        match rig.fleet.client.call(&address, request).await.unwrap() {
            Response::Data(data) | Response::SharedData { data, .. } => {
                assert!(data == content[offset as usize..offset as usize + 300_000]);
            }
            other => panic!("{other:?}"),
        }
    };
    join_all((0..96u64).map(|n| ask(n as usize % 4, n % 24 / 12 * EXTENT + n % 12 * 300_000))).await;
    join_all((0..4).map(|worker| ask(worker, EXTENT - 300_000))).await;
    assert!(rig.fleet.s3.sent_bytes() <= object.size, "{} of {}", rig.fleet.s3.sent_bytes(), object.size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_opens_again_becomes_whole_there_without_the_ufs() {
    let rig = Rig::new(2, 1).await;
    let (large_bytes, medium_bytes) = (noise(4, 5 * EXTENT as usize + 77), noise(5, 6 << 20));
    let (large, medium) = (rig.put("large", &large_bytes).await, rig.put("medium", &medium_bytes).await);
    let elsewhere = 1 - rig.owner(&medium);
    let reader = rig.beside(elsewhere);
    for (object, content) in [(&large, &large_bytes), (&medium, &medium_bytes)] {
        assert!(reader.open_local(object).await.is_none(), "once opened is no proof");
        read(&reader, object, content).await;
    }
    let sent = rig.fleet.s3.sent_bytes();
    assert_eq!(sent, large.size + medium.size);
    // The medium one is completed while it is opened, the large one after that.
    check(&reader.open_local(&medium).await.expect("the open waits for the rest"), &medium_bytes);
    eventually("the large one is whole", async || match reader.open_local(&large).await {
        Some(file) => {
            check(&file, &large_bytes);
            true
        }
        None => false,
    })
    .await;
    assert_eq!(rig.fleet.s3.sent_bytes(), sent);
}

fn check(file: &LocalFile, content: &Bytes) {
    let mut data = vec![0; content.len()];
    file.file.read_exact_at(&mut data, 0).unwrap();
    assert!(data == *content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fetched_from_the_ufs_for_who_reads_little() {
    let rig = Rig::new(1, 1).await;
    let (large_bytes, small_bytes) = (noise(6, 3 * EXTENT as usize), noise(7, 900_000));
    let (large, small) = (rig.put("large", &large_bytes).await, rig.put("small", &small_bytes).await);
    let reader = rig.beside(0);
    for _ in 0..3 {
        assert!(reader.open_local(&large).await.is_none());
        reader.read(&large, EXTENT, 100, Pattern::Random).await.unwrap();
    }
    assert_eq!(rig.fleet.s3.sent_bytes(), 256 << 10, "a page");
    check(
        &reader.open_local(&small).await.expect("a small one is fetched when its owner is asked to open it"),
        &small_bytes,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_is_stood_in_for_by_who_asked_it() {
    let mut rig = Rig::new(2, 1).await;
    let content = noise(8, EXTENT as usize);
    let object = rig.put("d/f", &content).await;
    let owner = rig.owner(&object);
    rig.fleet.workers[owner].stop().await;
    let other = Address::Tcp(rig.fleet.workers[1 - owner].member.addr.clone());
    let request = Request::Read { object, offset: 0, len: 1000, pattern: Pattern::Random, reach: Reach::Ufs };
    let answer = rig.fleet.client.call(&other, request).await.unwrap();
    assert_eq!(answer, Response::Data(content.slice(..1000)));
}
