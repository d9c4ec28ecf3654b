use std::time::Instant;

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod, events::v1::Event};
use kube::{ResourceExt, api::ListParams};
use penstock_api::CacheRuntimePhase;
use penstock_wire::message::{Handover, TierStats};
use serde_json::json;

use super::*;
use crate::common::wait_for;

const DRAIN_STARTED: &str = "penstock.dev/drain-started";

async fn statefulset(bench: &Bench, namespace: &str) -> StatefulSet {
    bench.there(namespace, "a-worker").await
}

async fn replicas(bench: &Bench, namespace: &str, expected: i32) {
    wait_for(&format!("{namespace}: {expected} replicas"), || async {
        (statefulset(bench, namespace).await.spec.unwrap().replicas == Some(expected)).then_some(())
    })
    .await;
}

async fn scale(bench: &Bench, namespace: &str, replicas: u32, drain_timeout: u32) {
    let mut runtime = common::runtime("a");
    runtime["spec"]["replicas"] = json!(replicas);
    runtime["spec"]["drainTimeoutSeconds"] = json!(drain_timeout);
    bench.apply::<CacheRuntime>(namespace, runtime).await;
}

/// Waits until the status names those who hand over, and returns it.
async fn draining(bench: &Bench, namespace: &str, expected: &[&str]) -> CacheRuntimeStatus {
    wait_for(&format!("{namespace}: {expected:?} draining"), || async {
        Some(runtime_status(bench, namespace).await).filter(|status| status.draining == expected)
    })
    .await
}

async fn told(bench: &Bench, namespace: &str, reason: &str) -> Event {
    wait_for(&format!("{namespace}: the Event {reason}"), || async {
        let events = bench.api::<Event>(namespace).list(&ListParams::default()).await.unwrap();
        events.into_iter().find(|event| event.reason.as_deref() == Some(reason))
    })
    .await
}

pub(crate) async fn a_worker_that_never_ends_handing_over_goes_when_its_time_is_over(bench: &Bench) {
    let ns = "time-out";
    let [_, leaving] = serving(bench, ns).await;
    let handover = Handover { running: true, left_bytes: 5 << 20, ..Handover::default() };
    bench.workers.stats.lock().get_mut(&leaving).unwrap().handover = handover;

    let begun = Instant::now();
    scale(bench, ns, 1, 8).await;
    let status = draining(bench, ns, &["a-worker-1"]).await;
    assert_eq!((status.phase, status.ready_replicas), (Some(CacheRuntimePhase::Ready), 1));
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Draining"));
    assert!(ready.message.contains("5242880 bytes are left"), "{}", ready.message);
    let seen = statefulset(bench, ns).await;
    assert_eq!(seen.spec.as_ref().unwrap().replicas, Some(2), "its pod stays while it hands over");
    assert!(seen.annotations().contains_key(DRAIN_STARTED));

    replicas(bench, ns, 1).await;
    // Times are kept in whole seconds.
    assert!(begun.elapsed() >= Duration::from_secs(7), "{:?}", begun.elapsed());
    let event = told(bench, ns, "DrainTimedOut").await;
    let note = event.note.unwrap();
    assert!(note.contains("5.00MiB") && note.contains("spec.drainTimeoutSeconds"), "{note}");
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.regarding.unwrap().kind.as_deref(), Some("CacheRuntime"));

    bench.delete::<Pod>(ns, "a-worker-1").await;
    let status = draining(bench, ns, &[]).await;
    assert_eq!(status.phase, Some(CacheRuntimePhase::Ready));
    wait_for("the end of the hand-over", || async {
        (!statefulset(bench, ns).await.annotations().contains_key(DRAIN_STARTED)).then_some(())
    })
    .await;
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
}

pub(crate) async fn a_change_of_mind_keeps_the_worker_that_was_to_go(bench: &Bench) {
    let ns = "mind";
    let [_, leaving] = serving(bench, ns).await;
    scale(bench, ns, 1, 600).await;
    draining(bench, ns, &["a-worker-1"]).await;
    wait_for("a drain", || async { bench.workers.told.lock().contains(&format!("{leaving} drain")).then_some(()) })
        .await;
    scale(bench, ns, 2, 600).await;
    let status = draining(bench, ns, &[]).await;
    assert_eq!(status.desired_replicas, 2);
    let seen = statefulset(bench, ns).await;
    assert!(!seen.annotations().contains_key(DRAIN_STARTED));
    assert_eq!(seen.spec.unwrap().replicas, Some(2));
    // Both know of each other again: the list without the worker, and the one with it.
    let epoch = status.epoch.unwrap();
    wait_for("the list at both", || async { (bench.workers.stats.lock()[&leaving].epoch >= epoch).then_some(()) })
        .await;
}

pub(crate) async fn a_quota_raised_beside_a_claim_template_is_told_and_holds_up_no_scaling(bench: &Bench) {
    let ns = "claims";
    bench.namespace(ns).await;
    let runtime = |quota: &str, replicas: u32| {
        let level = json!({"mediumType": "SSD", "quota": quota, "volumeClaimTemplate": {"spec": {}}});
        let mut runtime = common::runtime("a");
        runtime["spec"] = json!({"replicas": replicas, "tieredStore": {"levels": [level]}});
        runtime
    };
    bench.apply::<Dataset>(ns, common::dataset("a")).await;
    bench.apply::<CacheRuntime>(ns, runtime("1Gi", 2)).await;
    for worker in served(bench, ns).await {
        let tier = TierStats { medium: "SSD".into(), quota_bytes: 1 << 30, used_bytes: 0, trouble: None };
        bench.workers.stats.lock().get_mut(&worker).unwrap().tiers = vec![tier];
    }
    let before = statefulset(bench, ns).await;

    bench.apply::<CacheRuntime>(ns, runtime("8Gi", 3)).await;
    replicas(bench, ns, 3).await;
    let after = statefulset(bench, ns).await;
    assert_eq!(after.spec.unwrap().volume_claim_templates, before.spec.unwrap().volume_claim_templates);
    wait_for("the claims told to be too small", || async {
        let conditions = runtime_status(bench, ns).await.conditions;
        conditions.into_iter().find(|c| c.reason == "ClaimTooSmall" && c.message.contains("quota 8Gi"))
    })
    .await;
}
