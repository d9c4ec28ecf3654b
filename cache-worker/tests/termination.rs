//! What becomes of a worker's bytes when it is asked to end, or ends without being asked.
#![allow(clippy::unwrap_used)]

#[path = "common/fleet.rs"]
mod common;
#[path = "common/readers.rs"]
mod readers;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use common::{Fleet, Plan, Worker, eventually};
use penstock_testkit::process::{ChildGuard, Spawn};
use tokio::time::sleep;

/// Workers that may hand over before they end, as in pods.
async fn over_files(workers: usize) -> (Fleet, BTreeMap<String, Bytes>) {
    let mut fleet = Fleet::with(0, Plan { hand_over: Duration::from_mins(1), ..Plan::default() }).await;
    let files = fleet.fill_bucket();
    fleet.scale(workers).await;
    (fleet, files)
}

/// The list without the worker `index`, as the operator sends it when that one's pod is under deletion.
async fn take_off(fleet: &mut Fleet, index: usize) {
    let leaving = fleet.workers[index].member.id.clone();
    let members = fleet.list.members.iter().filter(|member| member.id != leaving).cloned().collect();
    fleet.list = fleet.list.next(members).unwrap();
    fleet.send_list().await;
}

async fn cached(fleet: &Fleet) -> Vec<u64> {
    let mut cached = Vec::new();
    for worker in &fleet.workers {
        cached.push(fleet.stats(worker).await.cached_bytes);
    }
    cached
}

/// Reads all, and waits until the workers have kept all of it; says what each has.
async fn warm(fleet: &Fleet, files: &BTreeMap<String, Bytes>) -> Vec<u64> {
    fleet.check(files).await;
    let total: u64 = files.values().map(|content| content.len() as u64).sum();
    eventually("all is cached", async || cached(fleet).await.iter().sum::<u64>() == total).await;
    fleet.s3.reset_counts();
    cached(fleet).await
}

/// The worker as a process of its own, on its tiers.
fn process(worker: &Worker, fleet: &Fleet) -> ChildGuard {
    let options = &worker.options;
    let dir = |path: &std::path::Path| path.display().to_string();
    let args = [
        ("--config-dir", dir(&options.config_dir)),
        ("--id", options.id.clone()),
        ("--listen", options.listen.clone()),
        ("--http", options.http.clone()),
    ];
    let args = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    Spawn::new(env!("CARGO_BIN_EXE_penstock-worker"), fleet.dir.join("worker.log")).args(args).start().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_pod_goes_hands_over_before_it_ends() {
    let (mut fleet, files) = over_files(3).await;
    warm(&fleet, &files).await;
    fleet.workers[2].terminate();
    take_off(&mut fleet, 2).await;
    fleet.check(&files).await;
    fleet.workers.pop().unwrap().ended().await;
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_only_starts_again_hands_nothing_over_and_keeps_all() {
    let (mut fleet, files) = over_files(3).await;
    let before = warm(&fleet, &files).await;
    fleet.workers[1].stop().await;
    fleet.workers[1].start();
    fleet.ready(&fleet.workers[1]).await;
    assert_eq!(cached(&fleet).await, before);
    fleet.check(&files).await;
    assert_eq!((cached(&fleet).await, fleet.s3.sent_bytes()), (before, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_the_bytes_of_a_worker_that_starts_again_waits_for_it() {
    let (mut fleet, files) = over_files(3).await;
    warm(&fleet, &files).await;
    let mut away = fleet.workers.remove(1);
    away.stop().await;
    tokio::join!(fleet.check(&files), async {
        sleep(Duration::from_secs(1)).await;
        away.start();
    });
    assert_eq!(fleet.s3.sent_bytes(), 0);
    fleet.ready(&away).await;
    // It may be wrong about its return.
    away.stop().await;
    fleet.check(&files).await;
    assert!(fleet.s3.sent_bytes() > 0, "nobody has what only the worker had that is away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_worker_has_nobody_to_hand_over_to_and_ends_with_what_it_has() {
    let (mut fleet, files) = over_files(1).await;
    warm(&fleet, &files).await;
    fleet.workers[0].stop().await;
    fleet.workers[0].start();
    fleet.ready(&fleet.workers[0]).await;
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_and_starts_again_has_what_it_had() {
    let (mut fleet, files) = Fleet::over_files(2).await;
    fleet.workers[0].stop().await;
    let mut killed = process(&fleet.workers[0], &fleet);
    fleet.ready(&fleet.workers[0]).await;
    let before = warm(&fleet, &files).await;
    assert!(before[0] > 0);
    killed.kill();
    let _again = process(&fleet.workers[0], &fleet);
    fleet.ready(&fleet.workers[0]).await;
    assert_eq!(cached(&fleet).await, before);
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), 0);
}
