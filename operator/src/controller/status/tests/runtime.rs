use super::*;

/// Those of the condition `Updated` are apart: it says nothing of whether a runtime serves.
fn without_updates(conditions: &[Condition]) -> Vec<Condition> {
    conditions.iter().filter(|c| c.type_ != "Updated").cloned().collect()
}

/// What it is about, the situation, and what is said: phase, `Ready`, `WorkersReady`, `TiersHealthy`, and words of
/// messages.
type Row = (&'static str, Scene, CacheRuntimePhase, [&'static str; 3], &'static [&'static str]);

#[track_caller]
fn check<const N: usize>(rows: [Row; N]) {
    for (case, scene, phase, expected, words) in rows {
        let status = scene.of_runtime(at(2)).expect(case);
        let kinds = ["Ready", "WorkersReady", "TiersHealthy"];
        let expected: Vec<_> = kinds.iter().zip(expected).map(|(kind, rest)| format!("{kind}={rest}")).collect();
        assert_eq!((status.phase, digest(&without_updates(&status.conditions))), (Some(phase), expected), "{case}");
        says(case, &status.conditions, words);
    }
}

const SILENT: &str = "Unknown NotReported";
const SERVES: &str = "True WorkersReady";
const STARTS: &str = "False WorkersNotReady";

#[test]
fn a_runtime_on_its_way_to_serving() {
    use CacheRuntimePhase::{Failed, PartialReady, Pending, Ready};
    let gone = "False SecretNotFound";
    check([
        ("no pods", Scene::bound(), Pending, [STARTS, STARTS, SILENT], &["0 of 2 workers serve; they are starting"]),
        (
            "one of two",
            Scene::bound().workers([worker(0), starting(1)]),
            PartialReady,
            [STARTS, SERVES, SILENT],
            &["1 of 2 workers serve; they are starting"],
        ),
        ("all", Scene::serving(), Ready, [SERVES, SERVES, SILENT], &["2 of 2 workers serve"]),
        (
            "none is wanted",
            Scene::bound().replicas(0),
            Ready,
            [SERVES, "False NoWorkers", SILENT],
            &["spec.replicas of the CacheRuntime is 0; raise it"],
        ),
        // It waits for the Dataset, whatever its workers do.
        (
            "a Secret missing",
            Scene::bound().problem(Reason::SecretNotFound, "create it"),
            Pending,
            [gone, gone, SILENT],
            &["create it"],
        ),
        (
            "a Secret went",
            Scene::serving().problem(Reason::SecretNotFound, "create it"),
            Pending,
            [gone, SERVES, SILENT],
            &["create it", "2 of 2 workers serve"],
        ),
        (
            "wrong",
            Scene::serving().problem(Reason::InvalidSpec, "mend it"),
            Failed,
            ["False InvalidSpec", SERVES, SILENT],
            &["mend it"],
        ),
    ]);
}

#[test]
fn without_a_runtime_nothing_is_told_of_one() {
    assert!(Scene::fresh().of_runtime(at(2)).is_none());
}

#[test]
fn a_runtime_whose_pods_are_in_trouble_says_so_as_long_as_not_all_serve() {
    use CacheRuntimePhase::{PartialReady, Pending, Ready};
    let one = || Scene::bound().workers([worker(0), starting(1)]);
    let (crash, image, nodes) = ("False WorkerCrashing", "False ImageUnavailable", "False Unschedulable");
    let lacking =
        PodTrouble { reason: Reason::Unschedulable, message: "no node".into(), lacks: Some(trouble::Scarce::Memory) };
    let none = Scene { trouble: Some(lacking), ..Scene::bound() };
    check([
        (
            "crash",
            one().trouble(Reason::WorkerCrashing, "see"),
            PartialReady,
            [crash, SERVES, SILENT],
            &["see", "1 of 2"],
        ),
        ("image", one().trouble(Reason::ImageUnavailable, "img"), PartialReady, [image, SERVES, SILENT], &["img"]),
        ("nodes", none, Pending, [nodes, nodes, SILENT], &["MEM levels", "1.00GiB", "lower them, or add nodes"]),
        // A pod that is no longer wanted may end as it likes.
        ("all", Scene::serving().trouble(Reason::WorkerCrashing, "see"), Ready, [SERVES, SERVES, SILENT], &["2 of 2"]),
    ]);
}

#[test]
fn a_runtime_whose_tiers_are_in_trouble_names_level_value_and_mend() {
    use CacheRuntimePhase::Ready;
    let scene = |first, second| Scene::bound().workers([with_tiers(0, [None, None]), with_tiers(1, [first, second])]);
    let unusable = [SERVES, SERVES, "False TierUnusable"];
    check([
        ("well", scene(None, None), Ready, [SERVES, SERVES, "True TiersHealthy"], &["every tier can be used"]),
        (
            "memory",
            scene(Some("too small"), None),
            Ready,
            unusable,
            &["spec.tieredStore.levels[0] (MEM, quota 100 bytes): too small; lower the quota, or use a medium"],
        ),
        (
            "disk",
            scene(None, Some("read-only")),
            Ready,
            unusable,
            &["levels[1] (SSD, quota 100 bytes, path '/mnt/ssd' of the node): read-only; let user 65532 write there"],
        ),
    ]);
    let status = scene(None, Some("read-only")).of_runtime(at(2)).unwrap();
    let tiers: Vec<_> = status.tiers.iter().map(|t| (t.quota_bytes, t.used_bytes, t.message.as_deref())).collect();
    assert_eq!(tiers, [(2 << 30, 20, None), (18 << 30, 20, Some("read-only"))]);
}

/// Both workers serve from claims of 10Gi.
fn on_claims(quota: &str) -> Scene {
    let claim =
        json!({"metadata": {"name": "penstock-tier-0"}, "spec": {"resources": {"requests": {"storage": "10Gi"}}}});
    let set = json!({"metadata": {}, "spec": {"volumeClaimTemplates": [claim], "selector": {}, "template": {}, "serviceName": ""}});
    let level = json!({"mediumType": "SSD", "quota": quota, "volumeClaimTemplate": {"spec": {}}});
    let spec = json!({"replicas": 2, "tieredStore": {"levels": [level]}});
    Scene {
        runtime: Some(object("CacheRuntime", 5, &spec)),
        statefulset: serde_json::from_value(set).unwrap(),
        ..Scene::bound().workers([with_tiers(0, [None, None]), with_tiers(1, [None, None])])
    }
}

#[test]
fn a_quota_above_what_the_claims_were_made_for_is_named_with_the_mend() {
    use CacheRuntimePhase::Ready;
    let fits = [SERVES, SERVES, "True TiersHealthy"];
    let small = [SERVES, SERVES, "False ClaimTooSmall"];
    check([
        ("fits", on_claims("10Gi"), Ready, fits, &["every tier can be used"]),
        (
            "too small",
            on_claims("11Gi"),
            Ready,
            small,
            &[
                "spec.tieredStore.levels[0].quota 11Gi does not fit",
                "made with 10Gi",
                "lower the quota",
                "delete StatefulSet 'a-worker' with --cascade=orphan",
                "penstock-tier-0-a-worker-0",
            ],
        ),
    ]);
}

#[test]
fn a_runtime_that_shrinks_stays_ready_and_says_who_hands_over_how_much() {
    let mut scene = Scene::bound().replicas(1).workers([worker(0), worker(1), worker(2)]);
    let scaling = scene.scaling.as_mut().unwrap();
    (scaling.replicas, scaling.draining, scaling.step) = (3, vec![1, 2], Step::Draining { left_bytes: 77 });
    let draining = "True Draining";
    let words = &["leaving workers hand over", "77 bytes are left", "1 of 1 workers serve"][..];
    let status = scene.of_runtime(at(2)).unwrap();
    check([("shrinks", scene.clone(), CacheRuntimePhase::Ready, [draining, SERVES, SILENT], words)]);
    assert_eq!(status.draining, ["a-worker-1", "a-worker-2"]);
    assert_eq!((status.replicas, status.ready_replicas, status.desired_replicas), (3, 1, 1));

    // That none of those who stay serves is worse than what the others do.
    let away = scene.clone().workers([starting(0), worker(1), worker(2)]);
    check([("none stays", away, CacheRuntimePhase::Pending, [STARTS, STARTS, SILENT], &["0 of 1 workers serve"])]);

    for step in [Step::Drained, Step::TimedOut { left_bytes: 77 }, Step::Steady] {
        let mut done = scene.clone();
        let scaling = done.scaling.as_mut().unwrap();
        (scaling.replicas, scaling.draining, scaling.step) = (1, Vec::new(), step);
        assert!(done.of_runtime(at(2)).unwrap().draining.is_empty());
        check([("done", done, CacheRuntimePhase::Ready, [SERVES, SERVES, SILENT], &["1 of 1 workers serve"])]);
    }
}

#[test]
fn a_runtime_that_serves_no_dataset_says_why() {
    for (reason, phase) in
        [(Reason::DatasetNotFound, CacheRuntimePhase::Pending), (Reason::DatasetTaken, CacheRuntimePhase::Failed)]
    {
        let runtime = Scene::serving().runtime.unwrap();
        let status = super::super::unclaimed(&runtime, &Invalid::new(reason, "mend it"), at(2));
        assert_eq!((status.phase, status.dataset.clone()), (Some(phase), None));
        assert_eq!(
            digest(&status.conditions),
            [format!("Ready=False {reason}"), format!("WorkersReady=False {reason}")]
        );
        says("unclaimed", &status.conditions, &["mend it"]);
        assert_eq!((status.observed_generation, status.desired_replicas, status.display), (Some(5), 2, None));
    }
}

#[test]
fn a_runtime_says_how_far_its_update_is_and_what_it_waits_for() {
    use rollout::Step::{AwaitDeletion, AwaitScaling, AwaitTurn, AwaitWorker, Replace, SetImage, Stopped, UpToDate};
    let stopped = Stopped { ordinal: 1, why: "no such image".into() };
    for (step, expected, worker, words) in [
        (UpToDate, "True UpToDate", None, "from 'v2'"),
        (AwaitTurn, "False WaitingForTurn", None, "workers run from 'v1' until"),
        (
            AwaitDeletion,
            "False WaitingForDeletion",
            None,
            "1 of 2 workers run as specified; spec.worker.updateStrategy",
        ),
        (AwaitScaling, "False RollingOut", Some(None), "leaving workers hand over first"),
        (AwaitWorker { ordinal: 1 }, "False RollingOut", Some(Some("a-worker-1")), "a-worker-1 has to serve first"),
        (SetImage { ordinal: 1 }, "False RollingOut", Some(Some("a-worker-1")), "a-worker-1 goes over to 'v2'"),
        (Replace { ordinal: 1 }, "False RollingOut", Some(Some("a-worker-1")), "a-worker-1 gets a new pod"),
        (stopped, "False UpdateStopped", Some(Some("a-worker-1")), "a-worker-1, which does not serve since: no such"),
    ] {
        let rollout = Rollout { target: "v2".into(), image: "v1".into(), updated: 1, step };
        let case = format!("{:?}", rollout.step);
        let status = Scene { rollout: Some(rollout), ..Scene::serving() }.of_runtime(at(2)).unwrap();
        let updated = status.conditions.iter().find(|c| c.type_ == "Updated").unwrap();
        assert_eq!(format!("{} {}", updated.status, updated.reason), expected, "{case}");
        assert!(updated.message.contains(words), "{case}: {}", updated.message);
        assert_eq!((status.updated_replicas, status.worker_image.as_deref()), (1, Some("v1")), "{case}");
        let under_way = status.update.map(|update| (update.image, update.worker));
        assert_eq!(under_way, worker.map(|w: Option<&str>| ("v2".into(), w.map(str::to_owned))), "{case}");
    }
}

#[test]
fn a_runtime_that_cannot_be_set_up_keeps_what_it_said_of_its_image_and_begins_no_update() {
    let rollout = Rollout { target: "v2".into(), image: "v1".into(), updated: 1, step: rollout::Step::AwaitScaling };
    let before = Scene { rollout: Some(rollout), ..Scene::serving() };
    let now = Scene::serving().problem(Reason::InvalidSpec, "mend it").after(&before).of_runtime(at(2)).unwrap();
    assert_eq!((now.worker_image.as_deref(), now.updated_replicas, now.update), (Some("v1"), 1, None));
}
