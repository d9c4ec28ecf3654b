use penstock_api::UpdateStrategy::{OnDelete, Staged};

use super::*;
use crate::validate;

fn pod(ordinal: u32, image: &str) -> PodSeen {
    PodSeen { ordinal, image: image.into(), revision: "r1".into(), serves: true, silent: Duration::ZERO, trouble: None }
}

fn silent(pod: PodSeen, seconds: u64) -> PodSeen {
    PodSeen { serves: false, silent: Duration::from_secs(seconds), ..pod }
}

fn troubled(pod: PodSeen, seconds: u64) -> PodSeen {
    PodSeen { trouble: Some("no such image".into()), ..silent(pod, seconds) }
}

fn revised(pod: PodSeen) -> PodSeen {
    PodSeen { revision: "r0".into(), ..pod }
}

/// Three workers from `v1`, of which the image `v2` is wanted.
fn scene(pods: &[PodSeen]) -> Scene<'_> {
    Scene {
        strategy: Staged,
        image: "v2",
        revision: "r1",
        pinned: Some("v1"),
        wanted: 3,
        pods,
        was_under_way: false,
        has_turn: true,
        is_draining: false,
    }
}

fn stopped(ordinal: u32, why: &str) -> Step {
    Step::Stopped { ordinal, why: why.into() }
}

#[test]
fn one_worker_at_a_time_each_when_all_serve() {
    let (old, new) = (|ordinal| pod(ordinal, "v1"), |ordinal| pod(ordinal, "v2"));
    for (pods, step, pinned, updated) in [
        (vec![old(0), old(1), old(2)], Step::SetImage { ordinal: 2 }, "v1", 0),
        (vec![old(0), old(1), silent(new(2), 5)], Step::AwaitWorker { ordinal: 2 }, "v1", 1),
        (vec![old(0), old(1), new(2)], Step::SetImage { ordinal: 1 }, "v2", 1),
        (vec![silent(old(0), 5), old(1), new(2)], Step::AwaitWorker { ordinal: 0 }, "v2", 1),
        (vec![old(0), new(2)], Step::AwaitWorker { ordinal: 1 }, "v2", 1),
        (vec![new(0), new(1), new(2)], Step::UpToDate, "v2", 3),
    ] {
        let got = decide(&scene(&pods));
        assert_eq!((got.step, got.image.as_str(), got.updated), (step, pinned, updated), "{pods:?}");
    }
}

#[test]
fn an_updated_worker_that_does_not_come_back_stops_the_update() {
    let old = |ordinal| pod(ordinal, "v1");
    for (third, step) in [
        (troubled(pod(2, "v2"), 29), Step::AwaitWorker { ordinal: 2 }),
        (troubled(pod(2, "v2"), 30), stopped(2, "no such image")),
        (silent(pod(2, "v2"), 899), Step::AwaitWorker { ordinal: 2 }),
        (silent(pod(2, "v2"), 900), stopped(2, "it does not become ready")),
        (pod(2, "v2"), Step::SetImage { ordinal: 1 }),
    ] {
        let pods = [old(0), old(1), third];
        assert_eq!(decide(&scene(&pods)).step, step, "{pods:?}");
    }
}

#[test]
fn another_image_mends_the_worker_that_is_stuck_and_the_update_goes_on() {
    let pods = [pod(0, "v1"), pod(1, "v1"), troubled(pod(2, "bad"), 60)];
    let got = decide(&scene(&pods));
    assert_eq!((got.step, got.image.as_str()), (Step::SetImage { ordinal: 2 }, "v1"));
    let back = Scene { image: "v1", was_under_way: true, ..scene(&pods) };
    assert_eq!(decide(&back).step, Step::SetImage { ordinal: 2 }, "the image of before is as good");
}

#[test]
fn workers_that_never_came_up_are_mended_though_none_serves() {
    let bad = |ordinal| troubled(pod(ordinal, "bad"), 60);
    let pods = [bad(0), bad(1), bad(2)];
    let bad_from_the_start = Scene { image: "bad", pinned: Some("bad"), ..scene(&pods) };
    assert_eq!(decide(&bad_from_the_start).step, Step::UpToDate, "nothing is to be updated yet");
    let mended = Scene { pinned: Some("bad"), ..scene(&pods) };
    assert_eq!(decide(&mended).step, Step::SetImage { ordinal: 0 });
    let pods = [silent(pod(0, "v2"), 1), bad(1), bad(2)];
    let mended = Scene { pods: &pods, ..mended };
    assert_eq!(decide(&mended).step, Step::SetImage { ordinal: 1 });
}

#[test]
fn what_the_image_is_not_takes_a_new_pod() {
    let pods = [revised(pod(0, "v2")), revised(pod(1, "v1")), pod(2, "v2")];
    assert_eq!(decide(&scene(&pods)).step, Step::Replace { ordinal: 1 });
    let unschedulable = [pod(0, "v2"), pod(1, "v2"), troubled(revised(pod(2, "v2")), 60)];
    assert_eq!(decide(&scene(&unschedulable)).step, Step::Replace { ordinal: 2 });
}

#[test]
fn the_last_worker_is_waited_for_and_then_the_update_is_over() {
    let pods = [pod(0, "v2"), silent(pod(1, "v2"), 3), pod(2, "v2")];
    let proven = Scene { pinned: Some("v2"), ..scene(&pods) };
    assert_eq!(decide(&proven).step, Step::UpToDate, "a restart long after the update is none");
    let under_way = Scene { was_under_way: true, ..proven };
    assert_eq!(decide(&under_way).step, Step::AwaitWorker { ordinal: 1 });
    assert!(!needs_turn(&under_way));
}

#[test]
fn the_only_worker_of_a_runtime_proves_the_image_too() {
    for (only, step, pinned, turn) in [
        (pod(0, "v1"), Step::SetImage { ordinal: 0 }, "v1", true),
        (troubled(pod(0, "v2"), 60), stopped(0, "no such image"), "v1", true),
        (pod(0, "v2"), Step::UpToDate, "v2", true),
    ] {
        let pods = [only];
        let scene = Scene { wanted: 1, ..scene(&pods) };
        let got = decide(&scene);
        assert_eq!((got.step, got.image.as_str(), needs_turn(&scene)), (step, pinned, turn), "{pods:?}");
    }
}

#[test]
fn who_has_no_turn_keeps_the_image() {
    let pods = [pod(0, "v1"), pod(1, "v1"), pod(2, "v1")];
    let waiting = Scene { has_turn: false, ..scene(&pods) };
    let got = decide(&waiting);
    assert_eq!((got.step, got.image.as_str()), (Step::AwaitTurn, "v1"));
    let gone = Scene { pods: &[], ..waiting };
    assert_eq!(decide(&gone).image, "v1", "a pod that is made anew is no way round");
    let none_wanted = Scene { wanted: 0, pods: &[], ..waiting };
    let got = decide(&none_wanted);
    assert_eq!((got.step, got.image.as_str(), needs_turn(&none_wanted)), (Step::UpToDate, "v2", false));
    let new = Scene { pinned: None, pods: &[], ..waiting };
    assert_eq!((decide(&new).image.as_str(), needs_turn(&new)), ("v2", false));
}

#[test]
fn a_change_of_the_rest_waits_for_no_turn() {
    let pods = [revised(pod(0, "v2")), pod(1, "v2"), pod(2, "v2")];
    let scene = Scene { has_turn: false, pinned: Some("v2"), ..scene(&pods) };
    assert_eq!(decide(&scene).step, Step::Replace { ordinal: 0 });
}

#[test]
fn leaving_workers_hand_over_before_others_are_updated() {
    let pods = [pod(0, "v1"), pod(1, "v1"), pod(2, "v1")];
    assert_eq!(decide(&Scene { is_draining: true, ..scene(&pods) }).step, Step::AwaitScaling);
}

#[test]
fn on_delete_leaves_the_pods_to_the_user() {
    let pods = [pod(0, "v1"), troubled(pod(1, "v1"), 60), pod(2, "v2")];
    let by_hand = Scene { strategy: OnDelete, has_turn: false, ..scene(&pods) };
    let got = decide(&by_hand);
    assert_eq!((got.step, got.image.as_str(), got.updated), (Step::AwaitDeletion, "v2", 1));
    let pods = [pod(0, "v2"), pod(1, "v2"), pod(2, "v2")];
    assert_eq!(decide(&Scene { pods: &pods, ..by_hand }).step, Step::UpToDate);
}

fn revision_of(worker: &Value, quota: &str) -> String {
    let object = |kind: &str, spec: &Value| json!({"kind": kind, "metadata": {"name": "a"}, "spec": spec});
    let spec = json!({"worker": worker, "tieredStore": {"levels": [{"mediumType": "MEM", "quota": quota}]}});
    let runtime: CacheRuntime = serde_json::from_value(object("CacheRuntime", &spec)).unwrap();
    let dataset = object("Dataset", &json!({"mounts": [{"mountPoint": "s3://b"}]}));
    let valid = validate::runtime(&runtime).unwrap();
    revision(&serde_json::from_value(dataset).unwrap(), &runtime, &valid)
}

#[test]
fn the_revision_changes_with_what_takes_a_new_pod_and_with_nothing_else() {
    let plain = revision_of(&json!({}), "1Gi");
    for (worker, quota, is_same) in [
        (json!({"image": "v2"}), "1Gi", true),
        (json!({"updateStrategy": "OnDelete"}), "1Gi", true),
        (json!({"networkMode": "PodNetwork", "env": []}), "1Gi", true),
        (json!({}), "1024Mi", true),
        (json!({}), "2Gi", false),
        (json!({"networkMode": "HostNetwork"}), "1Gi", false),
        (json!({"env": [{"name": "RUST_LOG", "value": "debug"}]}), "1Gi", false),
        (json!({"resources": {"limits": {"memory": "4Gi"}}}), "1Gi", false),
    ] {
        assert_eq!(revision_of(&worker, quota) == plain, is_same, "{worker} {quota}");
    }
}
