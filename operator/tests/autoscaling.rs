//! `spec.autoscaling`, with worker pods that the test plays and a real API server.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, wait_for};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod},
    events::v1::Event,
};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use penstock_api::{
    CacheRuntime, CacheRuntimeStatus,
    autoscaling::{AutoscalingStatus, CurvePoint, SizeReason},
};
use penstock_curve::{Fleet, Reuse, Sampler};
use penstock_model::{ObjectKey, PAGE};
use penstock_wire::message::{Asked, Stats};
use serde_json::{Value, json};

const NS: &str = "ns";

async fn elastic(autoscaling: Value) -> Bench {
    let bench = Bench::start().await;
    bench.namespace(NS).await;
    bench.apply::<penstock_api::Dataset>(NS, common::dataset("a")).await;
    let mut runtime = common::runtime("a");
    runtime["spec"]["autoscaling"] = autoscaling;
    bench.apply::<CacheRuntime>(NS, runtime).await;
    bench.bound(NS, "a").await;
    bench
}

/// `@date` so many seconds from now, in UTC.
fn date_in(seconds: i64) -> String {
    let at = TimeZone::UTC.to_datetime(Timestamp::now() + seconds.seconds());
    format!("@date {}", at.strftime("%Y-%m-%d %H:%M:%S"))
}

/// Waits until the `StatefulSet` has so many replicas.
async fn sized(bench: &Bench, replicas: i32) {
    wait_for(&format!("{replicas} replicas"), || async {
        let set = bench.api::<StatefulSet>(NS).get_opt("a-worker").await.unwrap()?;
        (set.spec?.replicas == Some(replicas)).then_some(())
    })
    .await;
}

/// Waits until the status gives such a reason.
async fn because(bench: &Bench, reason: SizeReason) -> (CacheRuntimeStatus, AutoscalingStatus) {
    wait_for(&format!("reason {reason}"), || async {
        let status = bench.api::<CacheRuntime>(NS).get("a").await.unwrap().status?;
        let autoscaling = status.autoscaling.clone().filter(|autoscaling| autoscaling.reason == Some(reason))?;
        Some((status, autoscaling))
    })
    .await
}

async fn condition(bench: &Bench, status: &str, reason: &str) -> String {
    wait_for(&format!("ScalingActive={status} {reason}"), || async {
        let runtime = bench.api::<CacheRuntime>(NS).get("a").await.unwrap();
        let found = runtime.status?.conditions.into_iter().find(|c| c.type_ == "ScalingActive")?;
        (found.status == status && found.reason == reason).then_some(found.message)
    })
    .await
}

async fn event(bench: &Bench, reason: &str) -> String {
    wait_for(&format!("Event {reason}"), || async {
        let events = bench.api::<Event>(NS).list(&ListParams::default()).await.unwrap();
        events.items.into_iter().find(|event| event.reason.as_deref() == Some(reason))?.note
    })
    .await
}

async fn schedule(bench: &Bench, schedules: Value) {
    let patch = Patch::Merge(json!({"spec": {"autoscaling": {"schedules": schedules}}}));
    bench.api::<CacheRuntime>(NS).patch("a", &PatchParams::default(), &patch).await.unwrap();
}

async fn scale(bench: &Bench, manager: &str, replicas: u32) {
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    bench.api::<CacheRuntime>(NS).patch_scale("a", &params, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_sizes_the_workers_and_an_order_holds_until_it_does_again() {
    let later = json!({"name": "later", "schedule": "@yearly", "replicas": 1});
    let mut bench = elastic(json!({"maxReplicas": 9, "schedules": [later]})).await;
    sized(&bench, 2).await;
    let (status, autoscaling) = because(&bench, SizeReason::Specified).await;
    assert_eq!((status.desired_replicas, autoscaling.next[0].name.as_str()), (2, "later"));
    schedule(&bench, json!([{"name": "open", "schedule": date_in(2), "replicas": 4}, later])).await;

    sized(&bench, 4).await;
    let (status, autoscaling) = because(&bench, SizeReason::Scheduled).await;
    assert_eq!((status.desired_replicas, autoscaling.schedule.unwrap().name.as_str()), (4, "open"));
    let spec = bench.api::<CacheRuntime>(NS).get("a").await.unwrap().spec;
    assert_eq!(spec.replicas, 2, "what the user wrote stays the user's");
    assert!(
        event(&bench, "Resized").await.starts_with("from 2 workers to 4: schedule 'open' asks for 4 workers since")
    );

    scale(&bench, "kubectl", 3).await;
    sized(&bench, 3).await;
    because(&bench, SizeReason::Ordered).await;
    assert!(condition(&bench, "True", "Ordered").await.starts_with("3 workers ordered by kubectl, until"));
    bench.stop_operator().await;
    bench.start_operator().await;
    schedule(&bench, json!([{"name": "open", "schedule": date_in(2), "replicas": 5}, later])).await;
    sized(&bench, 5).await;
    because(&bench, SizeReason::Scheduled).await;
    bench.stop_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_nobody_uses_loses_its_workers_and_a_pod_wakes_them() {
    let mut bench = elastic(json!({"minReplicas": 2, "maxReplicas": 9, "idle": {"afterSeconds": 10}})).await;
    for ordinal in 0..2 {
        let addr = bench.worker_pod(NS, "a", ordinal).await;
        let asked = Asked { boot: 1, unused_ms: 60_000, ..Asked::default() };
        bench.workers.stats.lock().insert(addr, Stats { asked, ..Stats::default() });
    }
    let (status, autoscaling) = because(&bench, SizeReason::Idle).await;
    assert_eq!(status.desired_replicas, 0);
    assert!(autoscaling.message.unwrap().contains("a pod that mounts it wakes the workers"));
    sized(&bench, 0).await;
    bench.bound(NS, "a").await;

    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "a"}}]);
    let pod = json!({"metadata": {"name": "job"},
        "spec": {"containers": [{"name": "job", "image": "job"}], "volumes": volumes}});
    bench.api::<Pod>(NS).create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    sized(&bench, 2).await;
    assert!(event(&bench, "WakingWorkers").await.contains("it waits for the workers of Dataset 'a'"));
    bench.stop_operator().await;
}

/// Rounds over so many pages, as each of `members` workers tells them of its part.
fn rounds(pages: u64, members: u64) -> Reuse {
    let (sampler, fleet) = (Sampler::default(), Fleet { epoch: 1, members });
    for page in (0..20 * pages / members).map(|read| read % (pages / members)) {
        sampler.read(ObjectKey(1), u64::MAX, page * PAGE..(page + 1) * PAGE, fleet);
    }
    sampler.told()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hit_ratio_that_is_predicted_sizes_the_workers() {
    let metrics = json!([{"type": "HitRatio", "target": 90}]);
    let mut bench = elastic(json!({"maxReplicas": 9, "metrics": metrics})).await;
    // The 64 MiB of one worker hold 230 pages after an eviction.
    for ordinal in 0..2 {
        let addr = bench.worker_pod(NS, "a", ordinal).await;
        let asked = Asked { boot: 1, ..Asked::default() };
        let stats = Stats { asked, reuse: rounds(900, 2), ..Stats::default() };
        bench.workers.stats.lock().insert(addr, stats);
    }
    sized(&bench, 4).await;
    let (status, autoscaling) = because(&bench, SizeReason::Metric).await;
    assert_eq!(status.desired_replicas, 4);
    let message = autoscaling.message.unwrap();
    assert!(message.starts_with("HitRatio: 4 workers"), "{message}");
    let points = autoscaling.curve.unwrap().points;
    assert_eq!((points.len(), points[3], points[8].hit_percent), (9, CurvePoint { replicas: 4, hit_percent: 95 }, 95));
    assert!(points[1].hit_percent < 50, "{points:?}");
    bench.stop_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_autoscaling_is_told_and_the_rest_goes_on() {
    let schedules = json!([
        {"name": "closed", "schedule": "@daily", "replicas": 7, "skipCalendars": ["xshg"]},
        {"name": "nowhere", "schedule": "@daily", "replicas": 7, "timeZone": "Asia/Shanghia"},
        {"name": "open", "schedule": "* * * * * *", "replicas": 4},
    ]);
    let calendars = json!([{"name": "xshg", "configMap": {"name": "holidays", "key": "days"}}]);
    let spec = json!({"maxReplicas": 9, "schedules": schedules, "calendars": calendars});
    let mut bench = elastic(spec).await;
    let message = condition(&bench, "False", "InvalidSpec").await;
    assert!(message.contains("key 'days' of ConfigMap 'holidays', which is not there; create it"), "{message}");
    assert!(message.ends_with("(and 1 more); the rest goes on"), "{message}");
    sized(&bench, 4).await;

    let holidays = |days: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "holidays"},
        "data": {"days": days}})
    };
    bench.apply::<ConfigMap>(NS, holidays("2026-10-01..2026-10-08\n")).await;
    schedule(&bench, json!([{"name": "closed", "schedule": "@yearly", "replicas": 7, "skipCalendars": ["xshg"]}]))
        .await;
    condition(&bench, "True", "ScalingActive").await;
    bench.stop_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_autoscaler_beside_it_is_told_and_not_fought() {
    let schedules = json!([{"name": "yearly", "schedule": "@yearly", "replicas": 4}]);
    let mut bench = elastic(json!({"maxReplicas": 9, "schedules": schedules})).await;
    because(&bench, SizeReason::Specified).await;
    scale(&bench, "kube-controller-manager", 6).await;
    sized(&bench, 6).await;
    let message = condition(&bench, "False", "Contended").await;
    assert!(
        message.starts_with("'kube-controller-manager' sets spec.replicas through the scale subresource"),
        "{message}"
    );
    assert!(message.contains("remove one of the two"), "{message}");
    bench.stop_operator().await;
}
