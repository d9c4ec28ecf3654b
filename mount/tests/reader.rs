//! The reader against workers that come, go and fail, over the real protocol on loopback.
#![allow(clippy::unwrap_used)]

#[path = "common/memory.rs"]
mod memory;
#[path = "common/workers.rs"]
mod workers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use memory::MemoryBackend;
use penstock_model::{EXTENT, Object};
use penstock_mount::{
    backend::{Backend, ReadError},
    reader::{self, Cluster},
    spec::Tuning,
};
use penstock_wire::{Address, message::Pattern};
use workers::Workers;

const SIZE: u64 = 64 * EXTENT;

async fn some(count: usize) -> (Workers, Object) {
    let backend = Arc::new(MemoryBackend::default());
    let object = backend.add_patterned(b"dir/file", SIZE);
    let workers = Workers::new(backend);
    for i in 0..count {
        workers.start(&format!("w-{i}")).await;
    }
    workers.publish();
    (workers, object)
}

fn connect(workers: &Workers, tuning: &Tuning) -> (Arc<Cluster>, Arc<reader::Workers>) {
    let endpoints = workers.endpoints().into_iter().map(Address::Tcp).take(1).collect();
    let cluster = Cluster::start(workers.caller(), endpoints, None, tuning);
    (cluster.clone(), Arc::new(reader::Workers(cluster)))
}

fn quick(patience_ms: u64) -> Tuning {
    Tuning { patience_ms, probe_after_ms: 100, ..Tuning::default() }
}

async fn read(reader: &reader::Workers, object: &Object, extent: u64) -> Result<(), ReadError> {
    let data = reader.read(object, extent * EXTENT + 7, 100, Pattern::Random).await?;
    assert_eq!(data, MemoryBackend::pattern(extent * EXTENT + 7, 100));
    Ok(())
}

/// Reads without pause until told to stop; the number of reads.
fn keep_reading(reader: &Arc<reader::Workers>, object: &Object) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (reader, object, told) = (reader.clone(), object.clone(), stop.clone());
    let task = tokio::spawn(async move {
        let mut count = 0;
        while !told.load(Ordering::Relaxed) {
            read(&reader, &object, count % 64).await.unwrap();
            count += 1;
        }
        count
    });
    (stop, task)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_extent_is_asked_of_its_owner() {
    let (workers, object) = some(0).await;
    let services = [workers.start("w-0").await, workers.start("w-1").await, workers.start("w-2").await];
    workers.publish();
    let (_, reader) = connect(&workers, &quick(5000));
    let mut expected = [0u64; 3];
    for extent in 0..64 {
        read(&reader, &object, extent).await.unwrap();
        let list = workers.list();
        let owner = list.owner(object.key.placement(extent * EXTENT)).unwrap();
        expected[owner.id.strip_prefix("w-").unwrap().parse::<usize>().unwrap()] += 1;
    }
    let answered = services.map(|service| service.answered.load(Ordering::Relaxed));
    assert_eq!(answered, expected);
    assert!(expected.iter().all(|count| *count > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_names_links_and_listings_come_through() {
    let (workers, object) = some(2).await;
    workers.backend.add_link(b"link", b"dir/file");
    let (_, reader) = connect(&workers, &quick(5000));
    let attr = reader.stat(b"dir/file").await.unwrap().attr;
    assert_eq!(attr.object, Some((object.key, object.version)));
    assert_eq!(reader.facts().map(|f| (f.revalidate, f.uid, f.gid)), Some((None, 1, 2)));
    assert_eq!(reader.read_link(b"link").await.unwrap(), b"dir/file");
    let listing = reader.list(b"", None, 10).await.unwrap();
    assert_eq!(listing.entries.iter().map(|e| &e.name[..]).collect::<Vec<_>>(), [&b"dir"[..], b"link"]);
    assert_eq!(reader.stat(b"none").await, Err(ReadError::NotFound));
    assert_eq!(reader.list(b"dir/file", None, 10).await, Err(ReadError::NotADirectory));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_notice_nothing_when_a_worker_dies_and_comes_back() {
    let (workers, object) = some(3).await;
    let (_, reader) = connect(&workers, &quick(20_000));
    let (stop, reading) = keep_reading(&reader, &object);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let addr = workers.kill("w-1");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let back = workers.start_at("w-1", addr).await;
    until("the worker is asked again", || back.answered.load(Ordering::Relaxed) > 0).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_notice_nothing_when_workers_are_added_and_taken_away() {
    let (workers, object) = some(2).await;
    let (cluster, reader) = connect(&workers, &quick(20_000));
    let (stop, reading) = keep_reading(&reader, &object);
    until("the first list", || cluster.epoch() == workers.list().epoch).await;
    let added = [workers.start("w-2").await, workers.start("w-3").await];
    workers.publish();
    until("the grown list", || cluster.epoch() == workers.list().epoch).await;
    until("new workers are asked", || added.iter().all(|w| w.answered.load(Ordering::Relaxed) > 0)).await;
    for id in ["w-0", "w-1", "w-3"] {
        workers.kill(id);
        workers.publish();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    until("the shrunk list", || cluster.epoch() == workers.list().epoch).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_falls_silent_is_stood_in_for() {
    let (workers, object) = some(0).await;
    let (silent, other) = (workers.start("w-0").await, workers.start("w-1").await);
    workers.publish();
    let tuning = Tuning { probe_after_ms: 100, ..Tuning::default() };
    let (_, reader) = connect(&workers, &tuning);
    for extent in 0..16 {
        read(&reader, &object, extent).await.unwrap();
    }
    silent.mute.store(true, Ordering::Relaxed);
    let before = other.answered.load(Ordering::Relaxed);
    for extent in 0..16 {
        read(&reader, &object, extent).await.unwrap();
    }
    assert_eq!(other.answered.load(Ordering::Relaxed) - before, 16);
    assert_eq!(silent.unanswered.load(Ordering::Relaxed), 1, "only one read may wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_of_a_living_worker_is_waited_for() {
    let (workers, object) = some(2).await;
    workers.backend.delay_read(b"dir/file", Duration::from_millis(800));
    let (_, reader) = connect(&workers, &quick(5000));
    read(&reader, &object, 0).await.unwrap();
    assert_eq!(workers.backend.reads().len(), 1, "nobody else was asked for the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_first_worker() {
    let (workers, object) = some(1).await;
    let addr = workers.kill("w-0");
    let cluster = Cluster::start(workers.caller(), vec![Address::Tcp(addr.to_string())], None, &quick(20_000));
    let reader = Arc::new(reader::Workers(cluster));
    let done = Arc::new(AtomicU64::new(0));
    let waiting = {
        let (reader, done) = (reader.clone(), done.clone());
        tokio::spawn(async move {
            read(&reader, &object, 0).await.unwrap();
            done.store(1, Ordering::Relaxed);
        })
    };
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(done.load(Ordering::Relaxed), 0);
    workers.start_at("w-0", addr).await;
    workers.publish();
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_a_read_fails_when_patience_ends() {
    let (workers, object) = some(1).await;
    let (_, reader) = connect(&workers, &quick(1000));
    read(&reader, &object, 0).await.unwrap();
    workers.kill("w-0");
    let begun = Instant::now();
    assert!(matches!(read(&reader, &object, 1).await, Err(ReadError::Unreachable(_))));
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_ufs_is_tried_again_and_what_is_final_is_not() {
    let (workers, object) = some(2).await;
    let (_, reader) = connect(&workers, &quick(5000));
    workers.backend.fail_reads(3, ReadError::Ufs("try later".into()));
    read(&reader, &object, 0).await.unwrap();
    workers.backend.fail_reads(1, ReadError::Denied("no".into()));
    assert_eq!(read(&reader, &object, 0).await, Err(ReadError::Denied("no".into())));
    workers.backend.remove(b"dir/file");
    assert_eq!(read(&reader, &object, 0).await, Err(ReadError::Stale));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused() {
    let (workers, object) = some(1).await;
    let stranger = Workers::new(workers.backend.clone());
    let endpoints = workers.endpoints().into_iter().map(Address::Tcp).collect();
    let cluster = Cluster::start(stranger.caller(), endpoints, None, &quick(300));
    assert!(matches!(read(&reader::Workers(cluster), &object, 0).await, Err(ReadError::Unreachable(_))));
}
