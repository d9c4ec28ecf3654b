use super::*;

/// What it is about, the situation, and what is said: phase, `Bound`, `Ready`, `MountsHealthy`, and words of messages.
type Row = (&'static str, Scene, DatasetPhase, [&'static str; 3], &'static [&'static str]);

#[track_caller]
fn check<const N: usize>(rows: [Row; N]) {
    for (case, scene, phase, expected, words) in rows {
        let status = scene.of_dataset(at(2));
        let expected: Vec<_> = ["Bound", "Ready", "MountsHealthy"]
            .iter()
            .zip(expected)
            .map(|(kind, rest)| format!("{kind}={rest}"))
            .collect();
        assert_eq!((status.phase, digest(&status.conditions)), (Some(phase), expected), "{case}");
        says(case, &status.conditions, words);
    }
}

const SILENT: &str = "Unknown NotReported";
const BOUND: &str = "True Bound";
const WELL: &str = "True MountsHealthy";

#[test]
fn a_dataset_on_its_way_to_serving() {
    use DatasetPhase::{Bound, Pending, Ready};
    let starts = "False WorkersNotReady";
    let lacks = "False RuntimeNotFound";
    let fresh = Scene { bound: false, ..Scene::bound() };
    check([
        (
            "no runtime",
            Scene::fresh().problem(Reason::RuntimeNotFound, "create it"),
            Pending,
            [lacks, lacks, SILENT],
            &["create it"],
        ),
        ("not bound", fresh, Pending, ["False VolumePending", starts, SILENT], &["is being set up", "0 of 2"]),
        ("no pods", Scene::bound(), Bound, [BOUND, starts, SILENT], &["0 of 2 workers serve; they are starting"]),
        (
            "starting",
            Scene::bound().workers([starting(0)]),
            Bound,
            [BOUND, starts, SILENT],
            &["no worker has reported"],
        ),
        (
            "nobody is wanted",
            Scene::bound().replicas(0),
            Bound,
            [BOUND, "False NoWorkers", SILENT],
            &["spec.replicas of the CacheRuntime is 0; raise it"],
        ),
        ("serving", Scene::serving(), Ready, [BOUND, "True WorkersReady", WELL], &["2 of 2 workers serve", "mount it"]),
        (
            "one serves",
            Scene::bound().workers([worker(0), starting(1)]),
            Ready,
            [BOUND, "True WorkersReady", WELL],
            &["1 of 2 workers serve"],
        ),
    ]);
}

#[test]
fn a_dataset_is_not_ready_before_its_ufs_has_answered() {
    let asking = [saying(0, MountHealth::Unknown), saying(1, MountHealth::Serving)];
    let words = &["2 of 2 workers serve; they are asking the UFS"][..];
    let said = [BOUND, "False WorkersNotReady", SILENT];
    check([("asking", Scene::bound().workers(asking), DatasetPhase::Bound, said, words)]);
}

#[test]
fn a_dataset_is_not_ready_before_a_worker_has_answered_the_operator() {
    use DatasetPhase::{Bound, Ready};
    let mute = |ordinal| WorkerSeen { stats: None, ..worker(ordinal) };
    let words = &["2 of 2 workers are ready, but none answers the operator", "port 9440"][..];
    let scene = || Scene::bound().workers([mute(0), mute(1)]);
    let unknown = "Unknown WorkersUnreachable";
    check([
        ("never heard", scene(), Bound, [BOUND, "False WorkersUnreachable", unknown], words),
        ("one answers", scene().workers([worker(0), mute(1)]), Ready, [BOUND, "True WorkersReady", WELL], &["2 of 2"]),
        ("heard before", scene().after(&Scene::serving()), Ready, [BOUND, "True WorkersReady", unknown], words),
    ]);
}

#[test]
fn a_dataset_whose_ufs_is_in_trouble_says_which_and_why() {
    use DatasetPhase::{Bound, Ready};
    let words = &["mount '/m' (s3://b): no: mend it"][..];
    let scene = |kind| Scene::bound().workers([worker(0), saying(1, ufs_trouble(kind))]);
    let later = |kind| scene(kind).after(&Scene::serving());
    let (denied, misconfigured) = ("False UfsDenied", "False UfsMisconfigured");
    let unreachable = "False UfsUnreachable";
    check([
        ("denied", scene(TroubleKind::Denied), Bound, [BOUND, denied, denied], words),
        ("wrong", scene(TroubleKind::Misconfigured), Bound, [BOUND, misconfigured, misconfigured], words),
        ("silent", scene(TroubleKind::Unreachable), Bound, [BOUND, unreachable, unreachable], words),
        ("denied later", later(TroubleKind::Denied), Bound, [BOUND, denied, denied], words),
        ("wrong later", later(TroubleKind::Misconfigured), Bound, [BOUND, misconfigured, misconfigured], words),
        // What is cached is served through an outage.
        ("silent later", later(TroubleKind::Unreachable), Ready, [BOUND, "True WorkersReady", unreachable], words),
        // Pods that were started anew must not turn what was served before into a Dataset that is not.
        (
            "asked anew",
            Scene::bound().workers([saying(0, MountHealth::Unknown)]).after(&Scene::serving()),
            Ready,
            [BOUND, "True WorkersReady", SILENT],
            &["asking the UFS for the first time"],
        ),
    ]);
}

#[test]
fn a_dataset_whose_worker_pods_are_in_trouble_says_so_while_nobody_serves() {
    use DatasetPhase::{Bound, Ready};
    let serves = "True WorkersReady";
    let lacking =
        PodTrouble { reason: Reason::Unschedulable, message: "no node".into(), lacks: Some(trouble::Scarce::Memory) };
    check([
        (
            "image",
            Scene::bound().workers([starting(0)]).trouble(Reason::ImageUnavailable, "mend spec.worker.image"),
            Bound,
            [BOUND, "False ImageUnavailable", SILENT],
            &["mend spec.worker.image"],
        ),
        (
            "crash loop",
            Scene::bound().workers([starting(0)]).trouble(Reason::WorkerCrashing, "see its logs"),
            Bound,
            [BOUND, "False WorkerCrashing", SILENT],
            &["see its logs"],
        ),
        (
            "no node",
            Scene::bound().workers([starting(0)]).trouble(Reason::Unschedulable, "0/3 nodes are available"),
            Bound,
            [BOUND, "False Unschedulable", SILENT],
            &["0/3 nodes are available"],
        ),
        (
            "no memory",
            Scene { trouble: Some(lacking), ..Scene::bound() },
            Bound,
            [BOUND, "False Unschedulable", SILENT],
            &["no node", "spec.tieredStore are 1.00GiB (1073741824 bytes)", "lower them, or add nodes"],
        ),
        (
            "one of two",
            Scene::bound().workers([worker(0), starting(1)]).trouble(Reason::WorkerCrashing, "see its logs"),
            Ready,
            [BOUND, serves, WELL],
            &["1 of 2 workers serve"],
        ),
    ]);
}

#[test]
fn a_dataset_that_cannot_be_set_up_as_written_says_what_stands() {
    use DatasetPhase::{Failed, Pending};
    let (gone, wrong, refused) = ("False SecretNotFound", "False InvalidSpec", "False ApplyFailed");
    let broken = |reason| Scene::serving().problem(reason, "mend it");
    let unbound = |reason| Scene { bound: false, ..Scene::bound() }.problem(reason, "mend it");
    let words = &["mend it"][..];
    let (taken, stands) = ("False NameTaken", &["as it was before the last change", "mend it"][..]);
    check([
        ("a Secret missing", unbound(Reason::SecretNotFound), Pending, [gone, gone, SILENT], words),
        ("a name taken", unbound(Reason::NameTaken), Pending, [taken, taken, SILENT], words),
        ("wrong", unbound(Reason::InvalidSpec), Failed, [wrong, wrong, SILENT], words),
        ("refused", unbound(Reason::ApplyFailed), Failed, [refused, refused, SILENT], words),
        // What stands keeps standing.
        ("a Secret went", broken(Reason::SecretNotFound), Pending, [BOUND, gone, WELL], stands),
        ("made wrong", broken(Reason::InvalidSpec), Failed, [BOUND, wrong, WELL], stands),
        (
            "the runtime went",
            Scene { bound: true, ..Scene::fresh() }.problem(Reason::RuntimeNotFound, "mend it"),
            Pending,
            ["False RuntimeNotFound", "False RuntimeNotFound", SILENT],
            words,
        ),
    ]);
}

#[test]
fn a_readahead_that_the_volume_was_not_made_with_is_told() {
    let kept = "True ReadaheadKept";
    let serves = "True WorkersReady";
    for (made_with, wanted, bound, words) in [
        (None, None, BOUND, &["pods can mount it"][..]),
        (Some("1024"), Some("1Ki"), BOUND, &["pods can mount it"]),
        (
            Some("1024"),
            Some("2Ki"),
            kept,
            &["is now 2048 bytes", "made with 1024 bytes", "delete and create the Dataset"],
        ),
        (None, Some("0"), kept, &["is now 0 bytes", "made with the default"]),
        (Some("1024"), None, kept, &["is now the default", "made with 1024 bytes"]),
    ] {
        let attributes = made_with.map_or(json!({}), |bytes| json!({"readaheadBytes": bytes}));
        let csi = json!({"driver": "d", "volumeHandle": "h", "volumeAttributes": attributes});
        let mut scene = Scene::serving();
        scene.volume = serde_json::from_value(json!({"metadata": {}, "spec": {"csi": csi}})).unwrap();
        scene.runtime.as_mut().unwrap().spec.client.readahead =
            wanted.map(|bytes| k8s_openapi::apimachinery::pkg::api::resource::Quantity(bytes.into()));
        check([("readahead", scene, DatasetPhase::Ready, [bound, serves, WELL], words)]);
    }
}

#[test]
fn a_dataset_under_deletion_says_whether_pods_use_it_and_who_names_them() {
    use DatasetPhase::Deleting;
    let serves = "True WorkersReady";
    let words = &["pods use its claim 'a'", "kubectl describe pvc a -n ns", "delete them, or let them end"][..];
    let unbound = Scene { bound: false, ..Scene::bound() };
    check([
        ("free", Scene::serving().deleted(false), Deleting, ["False Deleting", serves, WELL], &["being deleted"]),
        ("in use", Scene::serving().deleted(true), Deleting, ["False InUse", serves, WELL], words),
        ("unbound", unbound.deleted(true), Deleting, ["False InUse", "False WorkersNotReady", SILENT], words),
    ]);
}

#[test]
fn each_mount_says_whether_its_ufs_answers() {
    let mounts = json!([{"mountPoint": "s3://b", "path": "/m"}, {"mountPoint": "s3://c", "name": "n"}]);
    let mut scene = Scene { dataset: object("Dataset", 3, &json!({ "mounts": mounts })), ..Scene::bound() };
    let moved = MountStats { path: "m".into(), source: "s3://old".into(), health: ufs_trouble(TroubleKind::Denied) };
    let mut behind = worker(1);
    behind.stats.as_mut().unwrap().mounts = vec![moved];
    for (workers, expected) in [
        (vec![], [(false, None), (false, None)]),
        (vec![worker(0)], [(true, None), (false, None)]),
        (vec![saying(0, MountHealth::Unknown)], [(false, None), (false, None)]),
        (vec![saying(0, MountHealth::Unknown), worker(1)], [(true, None), (false, None)]),
        (vec![worker(0), saying(1, ufs_trouble(TroubleKind::Denied))], [(false, Some("no: mend it")), (false, None)]),
        // What a worker says of the mount that was at the path before is not about this one.
        (vec![worker(0), behind], [(true, None), (false, None)]),
    ] {
        scene.workers = workers;
        let got = scene.of_dataset(at(2)).mounts;
        let told: Vec<_> = got.iter().map(|m| (m.ready, m.message.as_deref())).collect();
        assert_eq!(told, expected);
        let names: Vec<_> = got.iter().map(|m| (m.path.as_str(), m.mount_point.as_str())).collect();
        assert_eq!(names, [("/m", "s3://b"), ("/n", "s3://c")]);
    }
}
