//! Several workers over a real S3 server: what reaches the UFS, and what readers see while workers come and go.
#![allow(clippy::unwrap_used)]

#[path = "common/fleet.rs"]
mod common;

use std::{collections::BTreeMap, fs, time::Duration};

use bytes::Bytes;
use common::{Fleet, eventually, mount, noise};
use futures::future::join_all;
use penstock_curve::Reuse;
use penstock_model::{EXTENT, Kind, Object};
use penstock_placement::PlacementKey;
use penstock_wire::{
    Address, CallError,
    message::{Failure, MountHealth, Pattern, Request, Response, TroubleKind},
};
use tokio::time::sleep;

#[path = "common/readers.rs"]
mod readers;

#[path = "fleet/load.rs"]
mod load;
#[path = "fleet/metadata.rs"]
mod metadata;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_readers_at_once_fetch_every_byte_once() {
    let (fleet, files) = Fleet::over_files(3).await;
    join_all((0..12).map(|_| fleet.check(&files))).await;
    let total: u64 = files.values().map(|content| content.len() as u64).sum();
    assert_eq!(fleet.s3.sent_bytes(), total);
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), total, "the second pass must not reach the UFS");
    let mut stats = Vec::new();
    for worker in &fleet.workers {
        stats.push(fleet.stats(worker).await);
    }
    assert_eq!(stats.iter().map(|s| s.cached_bytes).sum::<u64>(), total);
    assert_eq!(stats.iter().map(|s| s.ufs_bytes).sum::<u64>(), total);
    assert!(
        stats
            .iter()
            .all(|s| s.cached_bytes > 0 && s.tiers[0].trouble.is_none() && s.mounts[0].health == MountHealth::Serving)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_tell_what_comes_back_to_readers_and_what_the_ufs_gave() {
    let (mut fleet, files) = Fleet::over_files(3).await;
    let total: u64 = files.values().map(|content| content.len() as u64).sum();
    fleet.check(&files).await;
    fleet.check(&files).await;
    let told = async |fleet: &Fleet| {
        let mut all = Vec::new();
        for worker in &fleet.workers {
            all.push(fleet.stats(worker).await.reuse);
        }
        all
    };
    let sum = |all: &[Reuse], number: fn(&Reuse) -> u64| all.iter().map(number).sum::<u64>();
    let all = told(&fleet).await;
    assert_eq!([sum(&all, |r| r.asked), sum(&all, |r| r.sampled)], [2 * total; 2]);
    assert_eq!([sum(&all, |r| r.first), sum(&all, |r| r.missed), sum(&all, |r| r.hit)], [total; 3]);
    // What a newcomer owns was read elsewhere before: it is no first read.
    fleet.scale(5).await;
    fleet.check(&files).await;
    let all = told(&fleet).await;
    assert_eq!([sum(&all, |r| r.asked), sum(&all, |r| r.missed)], [3 * total, total]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_and_shrinking_fetch_nothing_again() {
    let (mut fleet, files) = Fleet::over_files(3).await;
    fleet.check(&files).await;
    // A part of an extent only: its new owner must not fetch what the former one has.
    let object = fleet.object("d/f6").await;
    fleet.read(&object, Pattern::Random).await.unwrap();
    fleet.s3.reset_counts();
    for workers in [5, 2, 4, 1] {
        fleet.scale(workers).await;
        fleet.check(&files).await;
        assert_eq!(fleet.s3.sent_bytes(), 0, "with {workers} workers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_are_given_what_they_own_before_anyone_asks_them() {
    let (mut fleet, files) = Fleet::over_files(3).await;
    fleet.check(&files).await;
    fleet.s3.reset_counts();
    fleet.scale(5).await;
    let newcomers = [3, 4].map(|number| fleet.list.members[number].id.clone());
    let mut theirs = 0;
    for name in files.keys() {
        let object = fleet.object(name).await;
        for start in (0..object.size).step_by(EXTENT as usize) {
            if newcomers.contains(&fleet.list.owner(object.key.placement(start)).unwrap().id) {
                theirs += EXTENT.min(object.size - start);
            }
        }
    }
    let numbers = async || [fleet.stats(&fleet.workers[3]).await, fleet.stats(&fleet.workers[4]).await];
    eventually("all that newcomers own", async || {
        numbers().await.iter().map(|stats| stats.cached_bytes).sum::<u64>() == theirs && theirs > 0
    })
    .await;
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), 0);
    assert_eq!(numbers().await.map(|stats| stats.peer_bytes), [0, 0], "they had all when they were asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_worker_dies_the_next_in_rank_answers_and_a_restart_keeps_the_tier() {
    let (mut fleet, files) = Fleet::over_files(3).await;
    fleet.check(&files).await;
    let before = fleet.stats(&fleet.workers[0]).await;
    fleet.workers[0].stop().await;
    fleet.check(&files).await;
    fleet.s3.reset_counts();
    fleet.workers[0].start();
    fleet.ready(&fleet.workers[0]).await;
    let after = fleet.stats(&fleet.workers[0]).await;
    assert_eq!((after.cached_bytes, after.epoch), (before.cached_bytes, fleet.list.epoch));
    let sizes = files.values().map(|content| content.len() as u64);
    let known = (Some(sizes.sum()), Some(files.len() as u64));
    eventually("the Dataset's size", async || {
        let stats = fleet.stats(&fleet.workers[0]).await;
        (stats.ufs_total_bytes, stats.ufs_files) == known
    })
    .await;
    sleep(Duration::from_millis(2100)).await;
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_object_is_stale_for_its_reader_and_new_for_the_next() {
    let fleet = Fleet::new(3).await;
    fleet.s3.put("data", "a/b", noise(1, 500_000)).unwrap();
    assert_eq!(fleet.names("a").await.unwrap(), ["b"]);
    let old = fleet.object("a/b").await;
    fleet.s3.put("data", "a/b", noise(2, 400_000)).unwrap();
    assert_eq!(fleet.read(&old, Pattern::Sequential).await, Err(Failure::Stale));
    eventually("the new version", async || fleet.object("a/b").await.version != old.version).await;
    let new = fleet.object("a/b").await;
    assert!(fleet.read(&new, Pattern::Random).await.unwrap() == noise(2, 400_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_ufs_are_ridden_out() {
    let (fleet, files) = Fleet::over_files(2).await;
    fleet.s3.faults(|faults| {
        faults.fail_gets = 2;
        faults.fail_lists = 1;
    });
    fleet.check(&files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_with_bad_credentials_says_so_and_recovers_once_mended() {
    let mut fleet = Fleet::new(1).await;
    fleet.s3.put("data", "x", noise(1, 100)).unwrap();
    let (config, id) = (fleet.workers[0].options.config_dir.clone(), fleet.workers[0].member.id.clone());
    fs::write(config.join("ufs-0-secret-key"), "wrong").unwrap();
    let health = async || fleet.stats(&fleet.workers[0]).await.mounts[0].health.clone();
    let trouble = async || match health().await {
        MountHealth::Trouble(trouble) => Some((trouble.kind, trouble.message)),
        _ => None,
    };
    eventually("denial", async || trouble().await.is_some_and(|(kind, _)| kind == TroubleKind::Denied)).await;
    assert!(matches!(fleet.stat("x").await, Err(Failure::Denied(_) | Failure::Ufs(_))));
    fs::remove_file(config.join("ufs-0-secret-key")).unwrap();
    let names_it = |(kind, text): (_, String)| kind == TroubleKind::Misconfigured && text.contains("secret");
    eventually("a missing secret is named", async || trouble().await.is_some_and(names_it)).await;
    fleet.write_config(&id);
    eventually("recovery", async || health().await == MountHealth::Serving).await;
    assert_eq!(fleet.stat("x").await.unwrap().size, 100);
    fleet.mounts.push(mount(&fleet.s3, "deep/er"));
    fleet.write_config(&id);
    eventually("the added mount", async || fleet.names("").await.is_ok_and(|names| names == ["deep", "x"])).await;
    assert_eq!(fleet.names("deep/er").await.unwrap(), ["x"]);
    assert_eq!(fleet.stat("deep").await.unwrap().kind, Kind::Directory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_paged_in_order_and_absence_is_told() {
    let (fleet, _) = Fleet::over_files(2).await;
    let names: Vec<_> = (0..7).map(|i| format!("f{i}")).collect();
    assert_eq!(fleet.names("d").await.unwrap(), names);
    assert_eq!(fleet.stat("d/nothing").await, Err(Failure::NotFound));
    assert_eq!(fleet.names("nothing").await, Err(Failure::NotFound));
    let lists = fleet.s3.requests().list;
    fleet.names("d").await.unwrap();
    assert_eq!(fleet.s3.requests().list, lists, "a listing is asked for once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_an_old_list_learns_the_new_one_from_its_peers() {
    let mut fleet = Fleet::new(3).await;
    let members = fleet.workers[..2].iter().map(|worker| worker.member.clone()).collect();
    fleet.list = fleet.list.next(members).unwrap();
    let tell = Request::SetMembers(fleet.list.clone());
    fleet.operator.call(&fleet.workers[0].address(), tell).await.unwrap();
    // Restarted with the old file: it asks the others at start.
    fleet.workers[1].stop().await;
    fleet.workers[1].start();
    fleet.ready(&fleet.workers[1]).await;
    eventually("gossip", async || fleet.stats(&fleet.workers[1]).await.epoch == fleet.list.epoch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_object_goes_out_as_a_descriptor_and_metrics_are_scraped() {
    let (fleet, files) = Fleet::over_files(1).await;
    let socket = fleet.workers[0].options.socket_dir.clone().unwrap().join("worker.sock");
    let local = fleet.client.client(&Address::Unix(socket)).await.unwrap();
    let object = fleet.object("d/f4").await;
    let early = local.open_local(object.clone()).await;
    assert!(matches!(early, Err(CallError::Failure(Failure::NotCached))), "{early:?}");
    fleet.read(&object, Pattern::Sequential).await.unwrap();
    eventually("complete", async || local.open_local(object.clone()).await.is_ok()).await;
    let file = fs::File::from(local.open_local(object).await.unwrap());
    let mut content = vec![0; files["d/f4"].len()];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
    assert!(content == files["d/f4"]);

    let text = http_get(&fleet.workers[0].options.http, "/metrics").await;
    for name in [
        "penstock_worker_fetched_ufs_bytes_total",
        "penstock_worker_tier_used_bytes{",
        "penstock_worker_request_seconds_bucket{",
    ] {
        assert!(text.contains(name), "no {name} in {text}");
    }
    assert!(!text.contains("d/f4"));
    assert!(http_get(&fleet.workers[0].options.http, "/readyz").await.starts_with("HTTP/1.1 200"));
}

async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
