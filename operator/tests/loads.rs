//! DataLoads, with worker pods that the test plays and a real API server.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, wait_for};
use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::api::ListParams;
use penstock_api::{CacheRuntime, DataLoad, DataLoadPhase, DataLoadStatus, Dataset};
use penstock_wire::message::{LoadProgress, LoadState};
use serde_json::{Value, json};

const NS: &str = "ns";

async fn apply(bench: &Bench, name: &str, mut spec: Value) {
    spec["dataset"] = json!("a");
    let load =
        json!({"apiVersion": "penstock.dev/v1alpha1", "kind": "DataLoad", "metadata": {"name": name}, "spec": spec});
    bench.apply::<DataLoad>(NS, load).await;
}

async fn says(bench: &Bench, name: &str, phase: DataLoadPhase, reason: &str) -> DataLoadStatus {
    wait_for(&format!("DataLoad {name}: {phase} {reason}"), || async {
        let status = bench.api::<DataLoad>(NS).get(name).await.unwrap().status?;
        let is_so = status.phase == Some(phase) && status.conditions.first().is_some_and(|c| c.reason == reason);
        is_so.then_some(status)
    })
    .await
}

/// Two workers that serve; their addresses.
async fn serving(bench: &Bench) -> Vec<String> {
    bench.namespace(NS).await;
    bench.pair(NS, "a").await;
    bench.bound(NS, "a").await;
    let mut addresses = Vec::new();
    for ordinal in 0..2 {
        addresses.push(bench.worker_pod(NS, "a", ordinal).await);
    }
    wait_for("both workers have the list", || async {
        let stats = bench.workers.stats.lock();
        let epoch = |addr: &String| stats[addr].epoch;
        addresses.iter().all(|addr| epoch(addr) > 0 && epoch(addr) == epoch(&addresses[0])).then_some(())
    })
    .await;
    addresses
}

/// Waits for an order, and has each worker tell how far it is with it.
async fn work(bench: &Bench, addresses: &[String], cached: [u64; 2], state: LoadState) {
    let id = wait_for("an order", || async {
        let told = bench.workers.told.lock();
        let order = told.iter().rev().find_map(|told| told.strip_prefix(&format!("{} loads ", addresses[0])));
        order.filter(|ids| !ids.is_empty()).map(str::to_owned)
    })
    .await;
    let mut all = bench.workers.stats.lock();
    for (addr, cached) in addresses.iter().zip(cached) {
        let told = all.get_mut(addr).unwrap();
        told.loads = vec![LoadProgress {
            id: id.clone(),
            epoch: told.epoch,
            state,
            files: 10,
            bytes: 100,
            done_bytes: cached,
            cached_bytes: cached,
            ..LoadProgress::default()
        }];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_complete_when_the_bytes_are_there_and_is_deleted_after_its_time() {
    let mut bench = Bench::start().await;
    let addresses = serving(&bench).await;
    apply(&bench, "warm", json!({"targets": [{"path": "/d"}], "ttlSecondsAfterFinished": 1})).await;
    work(&bench, &addresses, [40, 57], LoadState::Running).await;
    let status = says(&bench, "warm", DataLoadPhase::Running, "Loading").await;
    assert_eq!(status.run, 1);
    wait_for("its progress", || async {
        let status = bench.api::<DataLoad>(NS).get("warm").await.unwrap().status?;
        (status.cached_percent == Some(48.5) && status.files == Some(20)).then_some(())
    })
    .await;
    work(&bench, &addresses, [100, 100], LoadState::Done).await;
    bench.gone::<DataLoad>(NS, "warm").await;
    wait_for("the Event that tells", || async {
        let events = bench.api::<Event>(NS).list(&ListParams::default()).await.unwrap();
        let told = events.items.into_iter().find(|event| event.reason.as_deref() == Some("Loaded"))?;
        (told.note? == "100 % of 200B in 20 files are in the cache").then_some(())
    })
    .await;
    bench.stop_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_for_a_load_is_told() {
    let mut bench = Bench::start().await;
    bench.namespace(NS).await;
    apply(&bench, "warm", json!({"targets": [{"configMap": {"name": "hot", "key": "list"}}]})).await;
    let status = says(&bench, "warm", DataLoadPhase::Pending, "DatasetNotFound").await;
    assert!(status.conditions[0].message.starts_with("no Dataset 'a' in this namespace; create it"));
    bench.apply::<Dataset>(NS, common::dataset("a")).await;
    bench.apply::<CacheRuntime>(NS, common::runtime("a")).await;
    let status = says(&bench, "warm", DataLoadPhase::Pending, "InvalidSpec").await;
    assert!(status.conditions[0].message.contains("key 'list' of ConfigMap 'hot', which is not there; create it"));
    let list =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hot"}, "data": {"list": "/d/f\n"}});
    bench.apply::<ConfigMap>(NS, list).await;
    says(&bench, "warm", DataLoadPhase::Pending, "WorkersNotReady").await;
    apply(&bench, "after", json!({"runAfter": {"name": "warm"}})).await;
    says(&bench, "after", DataLoadPhase::Pending, "WaitingForLoad").await;
    bench.stop_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_goes_on_with_another_operator_and_ends_where_its_order_is_taken_back() {
    let mut bench = Bench::start().await;
    let addresses = serving(&bench).await;
    apply(&bench, "warm", json!({})).await;
    work(&bench, &addresses, [10, 10], LoadState::Running).await;
    says(&bench, "warm", DataLoadPhase::Running, "Loading").await;
    bench.stop_operator().await;
    bench.start_operator().await;
    work(&bench, &addresses, [100, 30], LoadState::Done).await;
    let status = says(&bench, "warm", DataLoadPhase::Failed, "Incomplete").await;
    assert_eq!((status.run, status.cached_percent), (1, Some(65.0)));
    wait_for("the order to be taken back", || async {
        let told = bench.workers.told.lock();
        told.iter().any(|told| *told == format!("{} loads ", addresses[0])).then_some(())
    })
    .await;
    bench.stop_operator().await;
}
