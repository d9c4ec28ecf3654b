use std::sync::Arc;

use penstock_wire::message::Stats;
use serde_json::{Value, json};

use super::*;

/// Seconds since the epoch.
const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn ago(seconds: i64) -> String {
    Timestamp::from_second(NOW - seconds).unwrap().to_string()
}

/// A pod from image `v1` that was made an hour ago, with a container `c1` and this condition `Ready`.
fn pod(annotations: &Value, ready: (&str, i64)) -> Pod {
    let ready = json!({"type": "Ready", "status": ready.0, "lastTransitionTime": ago(ready.1)});
    let container = json!({
        "name": "worker", "image": "v1", "imageID": "", "ready": true, "restartCount": 0, "containerID": "c1"
    });
    let pod = json!({
        "metadata": {"name": "a-worker-0", "creationTimestamp": ago(3600), "annotations": annotations},
        "spec": {"containers": [{"name": "worker", "image": "v1"}]},
        "status": {"phase": "Running", "podIP": "198.18.0.1", "conditions": [ready], "containerStatuses": [container]}
    });
    serde_json::from_value(pod).unwrap()
}

fn worker(pod: Pod, epoch: Option<u64>) -> Worker {
    let stats = epoch.map(|epoch| Stats { epoch, ..Stats::default() });
    Worker { ordinal: 0, pod: Arc::new(pod), stats }
}

fn see(worker: Worker) -> PodSeen {
    pods(&[worker], 1, 7, "new", now()).remove(0)
}

#[test]
fn a_worker_serves_when_it_answers_with_the_newest_list_from_a_container_of_its_image() {
    let updated = |container: &str| json!({REPLACED_CONTAINER: container, UPDATED_AT: (NOW - 5).to_string()});
    let old = ("True", 3000);
    for (case, annotations, ready, epoch, serves, silent) in [
        ("it always did", json!({}), old, Some(7), true, 0),
        ("another list", json!({}), old, Some(6), false, 0),
        ("no answer", json!({}), old, None, false, 0),
        ("the container of before still runs", updated("c1"), old, Some(7), false, 5),
        ("it was replaced", updated("c0"), ("True", 1), Some(7), true, 0),
        ("nothing ran before", updated(""), ("True", 1), Some(7), true, 0),
        ("it starts again", updated("c0"), ("False", 3), Some(7), false, 3),
        ("it was not ready long before the update", updated("c0"), ("False", 600), None, false, 5),
        ("it fell over", json!({}), ("False", 20), None, false, 20),
    ] {
        let seen = see(worker(pod(&annotations, ready), epoch));
        assert_eq!((seen.serves, seen.silent.as_secs()), (serves, silent), "{case}");
    }
}

#[test]
fn a_pod_without_a_revision_is_taken_as_it_is() {
    for (annotations, revision) in [(json!({}), "new"), (json!({REVISION: "old"}), "old")] {
        assert_eq!(see(worker(pod(&annotations, ("True", 9)), Some(7))).revision, revision);
    }
}

#[test]
fn pods_that_are_not_wanted_or_go_are_not_updated() {
    let one = worker(pod(&json!({}), ("True", 9)), Some(7));
    let mut going = pod(&json!({}), ("True", 9));
    going.metadata.deletion_timestamp = Some(Time(now()));
    let workers = [Worker { ordinal: 1, ..one.clone() }, one, Worker { ordinal: 2, ..worker(going, Some(7)) }];
    let seen: Vec<_> = pods(&workers, 1, 7, "new", now()).iter().map(|pod| pod.ordinal).collect();
    assert_eq!(seen, [0]);
    assert_eq!(pods(&workers, 3, 7, "new", now()).len(), 2);
}

#[test]
fn who_hands_over_and_since_when() {
    let mut going = pod(&json!({}), ("True", 9));
    going.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(NOW + 50).unwrap()));
    going.metadata.deletion_grace_period_seconds = Some(60);
    let begun = || pod(&json!({HAND_OVER_STARTED: (NOW - 70).to_string()}), ("True", 9));
    let plain = || pod(&json!({}), ("True", 9));
    let (stays, replace) = (Step::UpToDate, Step::Replace { ordinal: 0 });
    let waits = Step::AwaitWorker { ordinal: 0 };
    for (case, worker, step, since) in [
        ("it stays", worker(plain(), Some(7)), &stays, None),
        ("its pod is under deletion", worker(going, Some(7)), &stays, Some(NOW - 10)),
        ("it gets a new pod", worker(plain(), Some(7)), &replace, Some(NOW)),
        ("its hand-over has begun", worker(begun(), Some(7)), &replace, Some(NOW - 70)),
        ("it never answered", worker(plain(), None), &replace, None),
        ("an answer of its hand-over is late", worker(begun(), None), &waits, Some(NOW - 70)),
        ("it starts again", worker(plain(), None), &waits, None),
        ("nothing is to be replaced any more", worker(begun(), Some(7)), &stays, None),
    ] {
        let rollout = Rollout { target: "v1".into(), image: "v1".into(), updated: 0, step: step.clone() };
        let got = leaving(&[worker], &rollout, 1, now());
        let expected = since.map(|since| Leaving { ordinal: 0, since: since.try_into().unwrap() });
        assert_eq!(got, Vec::from_iter(expected), "{case}");
    }
}
