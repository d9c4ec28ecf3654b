use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Secret},
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use penstock_wire::message::{MountHealth, MountStats, MountTrouble, Stats, TroubleKind};
use serde_json::{Value, json};

use super::*;
use crate::common::{wait_at_most, wait_for};

async fn worker_secret(bench: &Bench, namespace: &str) -> Secret {
    bench.there(namespace, "a-worker").await
}

/// The annotation by which a pod is refreshed.
async fn config_hash(bench: &Bench, namespace: &str, ordinal: u32) -> Option<String> {
    let pod = bench.api::<Pod>(namespace).get(&format!("a-worker-{ordinal}")).await.unwrap();
    pod.annotations().get("penstock.dev/config-hash").cloned()
}

/// Waits until both pods have one hash, other than `before`, and returns it.
async fn refreshed(bench: &Bench, namespace: &str, before: Option<&str>) -> String {
    wait_at_most(PATIENCE, &format!("{namespace}: refreshed pods"), || async {
        let (first, second) = (config_hash(bench, namespace, 0).await?, config_hash(bench, namespace, 1).await?);
        (first == second && Some(first.as_str()) != before).then_some(first)
    })
    .await
}

pub(crate) async fn mounts_change_without_a_restart(bench: &Bench) {
    let ns = "mounts";
    serving(bench, ns).await;
    let before = refreshed(bench, ns, None).await;
    let workers: StatefulSet = bench.api(ns).get("a-worker").await.unwrap();
    let pods = [bench.api::<Pod>(ns).get("a-worker-0").await.unwrap(), bench.api(ns).get("a-worker-1").await.unwrap()];

    let mut dataset = common::dataset("a");
    let mounts =
        json!([{"mountPoint": "s3://bucket/prefix", "path": "/first"}, {"mountPoint": "s3://b", "name": "second"}]);
    dataset["spec"]["mounts"] = mounts;
    bench.apply::<Dataset>(ns, dataset).await;
    wait_for("the workers' new configuration", || async {
        let files = worker_secret(bench, ns).await.data.unwrap();
        let config: Value = serde_json::from_slice(&files["worker.json"].0).unwrap();
        let paths: Vec<_> = config["mounts"].as_array()?.iter().map(|m| m["path"].as_str()).collect();
        (paths == [Some("first"), Some("second")]).then_some(())
    })
    .await;
    refreshed(bench, ns, Some(&before)).await;

    let after: StatefulSet = bench.api(ns).get("a-worker").await.unwrap();
    assert_eq!(after.spec, workers.spec);
    assert_eq!(after.metadata.generation, workers.metadata.generation);
    for pod in pods {
        assert_eq!(bench.api::<Pod>(ns).get(&pod.name_any()).await.unwrap().uid(), pod.uid());
    }
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
    let paths: Vec<_> = dataset_status(bench, ns).await.mounts.into_iter().map(|m| m.path).collect();
    assert_eq!(paths, ["/first", "/second"]);
}

fn keys(value: &str) -> Value {
    let labels = json!({"penstock.dev/usable-by-datasets": "true"});
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "labels": labels}, "stringData": {"secret": value}
    })
}

pub(crate) async fn a_secret_that_goes_and_comes_back_takes_readiness_with_it(bench: &Bench) {
    let ns = "secret";
    bench.namespace(ns).await;
    bench.apply::<Secret>(ns, keys("hush")).await;
    let mut dataset = common::dataset("a");
    let reference = json!({"secretKeyRef": {"name": "s3", "key": "secret"}});
    dataset["spec"]["mounts"][0]["encryptOptions"] = json!([{"name": "secret-key", "valueFrom": reference}]);
    bench.apply::<Dataset>(ns, dataset).await;
    bench.apply::<CacheRuntime>(ns, common::runtime("a")).await;
    served(bench, ns).await;
    let before = refreshed(bench, ns, None).await;

    bench.delete::<Secret>(ns, "s3").await;
    let message = dataset_is(bench, ns, "Pending", "False", "SecretNotFound").await;
    assert!(message.contains("'s3'") && message.contains("create it"), "{message}");
    // What stands keeps standing: pods go on with what the workers know.
    bench.bound(ns, "a").await;
    assert_eq!(worker_secret(bench, ns).await.data.unwrap()["ufs-0-secret-key"].0, b"hush");
    assert_eq!(config_hash(bench, ns, 0).await.as_ref(), Some(&before));
    let phase = runtime_status(bench, ns).await.phase;
    assert_eq!(phase, Some(penstock_api::CacheRuntimePhase::Pending));

    bench.apply::<Secret>(ns, keys("other")).await;
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
    refreshed(bench, ns, Some(&before)).await;
    assert_eq!(worker_secret(bench, ns).await.data.unwrap()["ufs-0-secret-key"].0, b"other");
}

fn telling(health: MountHealth, epoch: u64) -> Stats {
    let mount = MountStats { path: String::new(), source: "s3://bucket/prefix".into(), health };
    Stats { epoch, mounts: vec![mount], ..Stats::default() }
}

pub(crate) async fn a_ufs_that_denies_is_told_and_recovers(bench: &Bench) {
    let ns = "denied";
    let workers = serving(bench, ns).await;
    let tell = |health: MountHealth| {
        for worker in &workers {
            let mut stats = bench.workers.stats.lock();
            let epoch = stats[worker].epoch;
            stats.insert(worker.clone(), telling(health.clone(), epoch));
        }
    };
    let denied = MountTrouble { kind: TroubleKind::Denied, message: "wrong key: mend it".into() };
    tell(MountHealth::Trouble(denied));
    let message = dataset_is(bench, ns, "Bound", "False", "UfsDenied").await;
    assert_eq!(message, "mount '/' (s3://bucket/prefix): wrong key: mend it");
    assert_eq!(dataset_status(bench, ns).await.mounts[0].message.as_deref(), Some("wrong key: mend it"));
    tell(MountHealth::Serving);
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
    assert!(dataset_status(bench, ns).await.mounts[0].ready);
}

pub(crate) async fn a_pod_without_its_image_is_told_and_recovers(bench: &Bench) {
    let ns = "image";
    bench.namespace(ns).await;
    bench.pair(ns, "a").await;
    bench.bound(ns, "a").await;
    dataset_is(bench, ns, "Bound", "False", "WorkersNotReady").await;
    bench.worker_pod(ns, "a", 0).await;
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
    let waiting = json!({"reason": "ImagePullBackOff", "message": "no such image"});
    let container = json!({
        "name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": waiting}
    });
    let status = json!({"status": {
        "phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [container]
    }});
    let pods = bench.api::<Pod>(ns);
    pods.patch_status("a-worker-0", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let message = dataset_is(bench, ns, "Bound", "False", "ImageUnavailable").await;
    assert!(message.contains("'x'") && message.contains("spec.worker.image"), "{message}");
    let status = json!({"status": {
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": []
    }});
    pods.patch_status("a-worker-0", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
}

pub(crate) async fn a_local_path_without_a_volume_fails_until_one_is_brought_in(bench: &Bench) {
    let ns = "local";
    bench.namespace(ns).await;
    let mut dataset = common::dataset("a");
    dataset["spec"]["mounts"] = json!([{"mountPoint": "local:///mnt/nfs/data"}]);
    bench.apply::<Dataset>(ns, dataset).await;
    bench.apply::<CacheRuntime>(ns, common::runtime("a")).await;
    let message = dataset_is(bench, ns, "Failed", "False", "InvalidSpec").await;
    for word in ["spec.mounts[0].mountPoint", "/mnt/nfs/data", "spec.worker.volumeMounts"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(bench.api::<StatefulSet>(ns).get_opt("a-worker").await.unwrap().is_none());
    assert_eq!(runtime_status(bench, ns).await.phase, Some(penstock_api::CacheRuntimePhase::Failed));

    let mut runtime = common::runtime("a");
    runtime["spec"]["worker"] = json!({
        "volumes": [{"name": "nfs", "nfs": {"server": "nfs.example", "path": "/"}}],
        "volumeMounts": [{"name": "nfs", "mountPath": "/mnt/nfs"}]
    });
    bench.apply::<CacheRuntime>(ns, runtime).await;
    served(bench, ns).await;
}
