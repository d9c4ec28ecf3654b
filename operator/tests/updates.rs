//! How workers come to run as specified, on a real API server. The test plays the kubelets and the `StatefulSet`
//! controller.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, runtime, uid, wait_for};
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Pod},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use penstock_api::{CacheRuntime, CacheRuntimeStatus};
use penstock_placement::MemberList;
use serde_json::{Value, json};

const OLD: &str = "penstock:test";
const NEW: &str = "penstock:next";

async fn pod(bench: &Bench, ns: &str, name: &str) -> Pod {
    bench.api::<Pod>(ns).get(name).await.unwrap()
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

async fn image_is(bench: &Bench, ns: &str, name: &str, expected: &str) {
    wait_for(&format!("{ns}: {name} from {expected}"), || async {
        let pod = bench.api::<Pod>(ns).get_opt(name).await.unwrap()?;
        (image(&pod) == expected).then_some(())
    })
    .await;
}

async fn status(bench: &Bench, ns: &str, name: &str) -> CacheRuntimeStatus {
    bench.api::<CacheRuntime>(ns).get(name).await.unwrap().status.unwrap_or_default()
}

/// Waits until the runtime says so of its update.
async fn says(bench: &Bench, ns: &str, name: &str, reason: &str, words: &str) -> Condition {
    wait_for(&format!("{ns}/{name}: Updated {reason} '{words}'"), || async {
        let conditions = status(bench, ns, name).await.conditions;
        conditions.into_iter().find(|c| c.type_ == "Updated" && c.reason == reason && c.message.contains(words))
    })
    .await
}

/// As the kubelet does: the container ends, and another one runs.
async fn restart(bench: &Bench, ns: &str, name: &str, container: &str) {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    play(bench, ns, name, &json!({"conditions": ready, "containerStatuses": [common::container(container)]})).await;
}

async fn play(bench: &Bench, ns: &str, name: &str, status: &Value) {
    let patch = Patch::Merge(json!({ "status": status }));
    bench.api::<Pod>(ns).patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

/// The container does not start; it was so long ago that the operator need not wait to see whether it does yet.
async fn fail_to_start(bench: &Bench, ns: &str, name: &str) {
    let mut waiting = common::container("");
    waiting["ready"] = json!(false);
    waiting["state"] = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"}]);
    play(bench, ns, name, &json!({"conditions": ready, "containerStatuses": [waiting]})).await;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"penstock.dev/updated-at": "1"}}}));
    bench.api::<Pod>(ns).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// A pair of which both workers serve and are up to date; returns their addresses.
async fn serving(bench: &Bench, ns: &str, name: &str) -> [String; 2] {
    bench.pair(ns, name).await;
    bench.bound(ns, name).await;
    let workers = [bench.worker_pod(ns, name, 0).await, bench.worker_pod(ns, name, 1).await];
    bench.dataset_says(ns, name, "Ready", "True", "WorkersReady").await;
    says(bench, ns, name, "UpToDate", OLD).await;
    workers
}

async fn with_worker(bench: &Bench, ns: &str, name: &str, worker: &Value) {
    let mut changed = runtime(name);
    changed["spec"]["worker"] = worker.clone();
    bench.apply::<CacheRuntime>(ns, changed).await;
}

async fn template_image(bench: &Bench, ns: &str, name: &str) -> Option<String> {
    let statefulset = bench.there::<StatefulSet>(ns, &format!("{name}-worker")).await;
    statefulset.spec.unwrap().template.spec.unwrap().containers[0].image.clone()
}

async fn members(bench: &Bench, ns: &str) -> MemberList {
    let map = bench.there::<ConfigMap>(ns, "a-members").await;
    serde_json::from_str(&map.data.unwrap()["members.json"]).unwrap()
}

async fn members_are(bench: &Bench, ns: &str, expected: &[&str]) -> MemberList {
    wait_for(&format!("{ns}: members {expected:?}"), || async {
        let list = members(bench, ns).await;
        list.members.iter().map(|m| m.id.as_str()).eq(expected.iter().copied()).then_some(list)
    })
    .await
}

async fn events(bench: &Bench, ns: &str, reason: &str) -> Vec<Event> {
    let events = bench.api::<Event>(ns).list(&ListParams::default()).await.unwrap();
    events.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect()
}

async fn told(bench: &Bench, what: String) {
    wait_for(&what, || async { bench.workers.told.lock().contains(&what).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_goes_from_worker_to_worker_and_through_the_fleet() {
    let mut bench = Bench::start().await;
    for ns in ["stop", "replace", "by-hand", "evict", "older"] {
        bench.namespace(ns).await;
    }
    tokio::join!(
        a_bad_image_stops_at_the_first_worker_and_a_mended_one_goes_on(&bench),
        what_takes_a_new_pod_hands_over_first(&bench),
        on_delete_leaves_the_pods_to_the_user(&bench),
        a_pod_under_deletion_hands_over(&bench),
        a_statefulset_that_rolls_by_itself_does_so_no_more(&bench),
    );
    a_new_default_image_goes_through_the_fleet_in_turns(&mut bench).await;
}

async fn a_bad_image_stops_at_the_first_worker_and_a_mended_one_goes_on(bench: &Bench) {
    let ns = "stop";
    serving(bench, ns, "a").await;
    let pods = [uid(&pod(bench, ns, "a-worker-0").await), uid(&pod(bench, ns, "a-worker-1").await)];
    with_worker(bench, ns, "a", &json!({"image": "bad:1"})).await;
    image_is(bench, ns, "a-worker-1", "bad:1").await;
    says(bench, ns, "a", "RollingOut", "a-worker-1 has to serve first").await;
    fail_to_start(bench, ns, "a-worker-1").await;
    let stopped = says(bench, ns, "a", "UpdateStopped", "no such image").await;
    assert_eq!(stopped.status, "False");
    let told = status(bench, ns, "a").await;
    assert_eq!((told.worker_image.as_deref(), told.updated_replicas), (Some(OLD), 1));
    assert_eq!(told.update.unwrap().worker.as_deref(), Some("a-worker-1"));
    assert_eq!(image(&pod(bench, ns, "a-worker-0").await), OLD);
    assert_eq!(template_image(bench, ns, "a").await.as_deref(), Some(OLD), "a new pod is to serve");
    let event = wait_for("a Warning", || async { events(bench, ns, "UpdateStopped").await.pop() }).await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));

    with_worker(bench, ns, "a", &json!({"image": "good:1"})).await;
    image_is(bench, ns, "a-worker-1", "good:1").await;
    restart(bench, ns, "a-worker-1", "containerd://2").await;
    image_is(bench, ns, "a-worker-0", "good:1").await;
    restart(bench, ns, "a-worker-0", "containerd://2").await;
    says(bench, ns, "a", "UpToDate", "good:1").await;
    assert_eq!(template_image(bench, ns, "a").await.as_deref(), Some("good:1"));
    let now = [uid(&pod(bench, ns, "a-worker-0").await), uid(&pod(bench, ns, "a-worker-1").await)];
    assert_eq!(now, pods, "what is cached is in the pods");
    assert_eq!(events(bench, ns, "UpdateStopped").await.len(), 1);
}

async fn what_takes_a_new_pod_hands_over_first(bench: &Bench) {
    let ns = "replace";
    let [_, second] = serving(bench, ns, "a").await;
    members_are(bench, ns, &["a-worker-0", "a-worker-1"]).await;
    let old = [uid(&pod(bench, ns, "a-worker-0").await), uid(&pod(bench, ns, "a-worker-1").await)];
    with_worker(bench, ns, "a", &json!({"env": [{"name": "RUST_LOG", "value": "debug"}]})).await;
    let list = members_are(bench, ns, &["a-worker-0"]).await;
    told(bench, format!("{second} drain")).await;
    wait_for("the status to name it", || async {
        (status(bench, ns, "a").await.draining == ["a-worker-1"]).then_some(())
    })
    .await;
    assert_eq!(uid(&pod(bench, ns, "a-worker-1").await), old[1], "it stays while it hands over");

    bench.workers.stats.lock().get_mut(&second).unwrap().handover.finished_epoch = list.epoch;
    bench.gone::<Pod>(ns, "a-worker-1").await;
    says(bench, ns, "a", "RollingOut", "a-worker-1 has to serve first").await;
    assert_eq!(uid(&pod(bench, ns, "a-worker-0").await), old[0]);
    bench.worker_pod(ns, "a", 1).await;
    let list = members_are(bench, ns, &["a-worker-1"]).await;
    let [first, _] = addresses(bench, ns).await;
    bench.workers.stats.lock().get_mut(&first).unwrap().handover.finished_epoch = list.epoch;
    bench.gone::<Pod>(ns, "a-worker-0").await;
    bench.worker_pod(ns, "a", 0).await;
    says(bench, ns, "a", "UpToDate", OLD).await;
    members_are(bench, ns, &["a-worker-0", "a-worker-1"]).await;
}

async fn addresses(bench: &Bench, ns: &str) -> [String; 2] {
    let (first, second) = (pod(bench, ns, "a-worker-0").await, pod(bench, ns, "a-worker-1").await);
    [first, second].map(|pod| format!("{}:9440", pod.status.unwrap().pod_ip.unwrap()))
}

async fn on_delete_leaves_the_pods_to_the_user(bench: &Bench) {
    let ns = "by-hand";
    serving(bench, ns, "a").await;
    with_worker(bench, ns, "a", &json!({"image": NEW, "updateStrategy": "OnDelete"})).await;
    says(bench, ns, "a", "WaitingForDeletion", "delete the pods").await;
    assert_eq!(template_image(bench, ns, "a").await.as_deref(), Some(NEW));
    for name in ["a-worker-0", "a-worker-1"] {
        assert_eq!(image(&pod(bench, ns, name).await), OLD);
        bench.delete::<Pod>(ns, name).await;
    }
    bench.worker_pod(ns, "a", 0).await;
    bench.worker_pod(ns, "a", 1).await;
    says(bench, ns, "a", "UpToDate", NEW).await;
}

async fn a_pod_under_deletion_hands_over(bench: &Bench) {
    let ns = "evict";
    let [_, second] = serving(bench, ns, "a").await;
    members_are(bench, ns, &["a-worker-0", "a-worker-1"]).await;
    // In the place of the time that a kubelet gives it.
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let api = bench.api::<Pod>(ns);
    api.patch("a-worker-1", &PatchParams::default(), &hold(json!(["test.dev/hold"]))).await.unwrap();
    bench.delete::<Pod>(ns, "a-worker-1").await;
    members_are(bench, ns, &["a-worker-0"]).await;
    told(bench, format!("{second} drain")).await;
    api.patch("a-worker-1", &PatchParams::default(), &hold(Value::Null)).await.unwrap();
    bench.gone::<Pod>(ns, "a-worker-1").await;
    bench.worker_pod(ns, "a", 1).await;
    members_are(bench, ns, &["a-worker-0", "a-worker-1"]).await;
}

/// As a release made it that left updates to the `StatefulSet` controller.
async fn a_statefulset_that_rolls_by_itself_does_so_no_more(bench: &Bench) {
    let ns = "older";
    serving(bench, ns, "a").await;
    let rolling = json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}});
    let api = bench.api::<StatefulSet>(ns);
    api.patch("a-worker", &PatchParams::default(), &Patch::Merge(rolling)).await.unwrap();
    wait_for("OnDelete", || async {
        let strategy = api.get("a-worker").await.unwrap().spec.unwrap().update_strategy.unwrap();
        (strategy.type_.as_deref() == Some("OnDelete") && strategy.rolling_update.is_none()).then_some(())
    })
    .await;
}

async fn a_new_default_image_goes_through_the_fleet_in_turns(bench: &mut Bench) {
    let ns = "fleet";
    bench.namespace(ns).await;
    for name in ["a", "b"] {
        serving(bench, ns, name).await;
    }
    bench.stop_operator().await;
    (bench.worker_image, bench.updating_runtimes) = (NEW.into(), 1);
    bench.start_operator_of(Some(ns)).await;
    let first = wait_for("one that begins", || async {
        for name in ["a", "b"] {
            if status(bench, ns, name).await.update.is_some() {
                return Some(name);
            }
        }
        None
    })
    .await;
    let second = if first == "a" { "b" } else { "a" };
    says(bench, ns, second, "WaitingForTurn", NEW).await;
    for name in [first, second] {
        assert_eq!(template_image(bench, ns, name).await.as_deref(), Some(OLD), "{name} has not seen it serve");
        for ordinal in [1, 0] {
            let worker = format!("{name}-worker-{ordinal}");
            image_is(bench, ns, &worker, NEW).await;
            if name == first {
                assert_eq!(image(&pod(bench, ns, &format!("{second}-worker-1")).await), OLD, "it waits");
            }
            restart(bench, ns, &worker, "containerd://2").await;
        }
        says(bench, ns, name, "UpToDate", NEW).await;
        assert_eq!(status(bench, ns, name).await.worker_image.as_deref(), Some(NEW));
    }
    // Later runtimes start from it.
    bench.pair(ns, "c").await;
    bench.bound(ns, "c").await;
    assert_eq!(template_image(bench, ns, "c").await.as_deref(), Some(NEW));
    assert_eq!(bench.there::<StatefulSet>(ns, "c-worker").await.name_any(), "c-worker");
}
