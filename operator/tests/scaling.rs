//! Members and scaling, with worker pods that the test plays.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, wait_for};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::ConfigMap};
use kube::api::{Patch, PatchParams};
use penstock_api::CacheRuntime;
use penstock_placement::MemberList;
use serde_json::json;

async fn members(bench: &Bench) -> Option<MemberList> {
    let map = bench.api::<ConfigMap>("ns").get_opt("a-members").await.unwrap()?;
    serde_json::from_str(map.data?.get("members.json")?).ok()
}

async fn list(bench: &Bench, ids: &[&str]) -> MemberList {
    wait_for(&format!("members {ids:?}"), || async {
        members(bench).await.filter(|list| list.members.iter().map(|m| m.id.as_str()).eq(ids.iter().copied()))
    })
    .await
}

async fn replicas(bench: &Bench) -> i32 {
    bench.api::<StatefulSet>("ns").get("a-worker").await.unwrap().spec.unwrap().replicas.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_workers_become_members_and_leaving_ones_hand_over_before_they_go() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    bench.worker_pod("ns", "a", 0).await;
    let leaving = bench.worker_pod("ns", "a", 1).await;
    let both = list(&bench, &["a-worker-0", "a-worker-1"]).await;
    bench.dataset_says("ns", "a", "Ready", "True", "WorkersReady").await;
    wait_for("the list at both workers", || async {
        bench.workers.stats.lock().values().all(|s| s.epoch == both.epoch).then_some(())
    })
    .await;

    let mut smaller = common::runtime("a");
    smaller["spec"]["replicas"] = json!(1);
    bench.apply::<CacheRuntime>("ns", smaller).await;
    let one = list(&bench, &["a-worker-0"]).await;
    wait_for("a drain of the leaving worker", || async {
        bench.workers.told.lock().contains(&format!("{leaving} drain")).then_some(())
    })
    .await;
    assert_eq!(replicas(&bench).await, 2, "its pod stays while it hands over");

    bench.workers.stats.lock().get_mut(&leaving).unwrap().handover.finished_epoch = one.epoch;
    wait_for("the pod to be let go", || async { (replicas(&bench).await == 1).then_some(()) }).await;
}

/// Waits until the persisted list has a number above `epoch`, and all workers the same one.
async fn all_above(bench: &Bench, epoch: u64) -> u64 {
    wait_for(&format!("a list above {epoch} at all workers"), || async {
        let list = members(bench).await.filter(|list| list.epoch > epoch && list.members.len() == 2)?;
        let agree = bench.workers.stats.lock().values().all(|stats| stats.epoch == list.epoch);
        agree.then_some(list.epoch)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_list_that_is_lost_unreadable_or_from_a_backup_gets_a_number_above_all_that_workers_know() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    bench.worker_pod("ns", "a", 0).await;
    bench.worker_pod("ns", "a", 1).await;
    let first = all_above(&bench, 0).await;
    let maps = bench.api::<ConfigMap>("ns");
    let backup = maps.get("a-members").await.unwrap().data;
    let replace = |data: serde_json::Value| Patch::Merge(json!({ "data": data }));

    // The list moves on: a worker comes back at another address, and the one it had before is no more.
    let before = bench.worker_pod("ns", "a", 0).await;
    bench.workers.stats.lock().retain(|addr, _| *addr == before || addr.ends_with(".2:9440"));
    let moved = all_above(&bench, first).await;

    maps.patch("a-members", &PatchParams::default(), &replace(json!(backup))).await.unwrap();
    let restored = all_above(&bench, moved).await;

    bench.delete::<ConfigMap>("ns", "a-members").await;
    let anew = all_above(&bench, restored).await;

    let garbage = replace(json!({"members.json": "{"}));
    maps.patch("a-members", &PatchParams::default(), &garbage).await.unwrap();
    all_above(&bench, anew).await;
}
