//! Members and scaling, with worker pods that the test plays.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, wait_for};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::ConfigMap};
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
