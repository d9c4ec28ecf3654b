//! Datasets are told apart whatever their names, and strangers get nothing.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use penstock_e2e::harness::{Case, blocking};
use penstock_e2e::image::toolbox_name;
use penstock_e2e::kubectl::{apply_yaml, apply_yaml_in, wait_for};
use penstock_e2e::pods::{self, Script};
use serde_json::json;
use std::time::Duration;

use crate::says::event;

const LIMIT: Duration = Duration::from_mins(2);

/// `a-b/c` and `a/b-c`, which many ways to join two names confuse.
pub(crate) async fn datasets_whose_joined_names_are_equal_read_their_own_data(case: &Case<'_>) -> Result<()> {
    let (a, other) = (&case.namespace, format!("{}-b", case.namespace));
    let namespaces: Api<Namespace> = Api::all(case.env.client());
    let namespace = serde_json::from_value(json!({"metadata": {"name": other}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let read = read_both(case, [(a, "b-c"), (&other, "c")]).await;
    namespaces.delete(&other, &DeleteParams::default()).await?;
    wait_for("the other namespace to be gone", LIMIT, || async {
        Ok(namespaces.get_opt(&other).await?.is_none().then_some(()))
    })
    .await?;
    read
}

async fn read_both(case: &Case<'_>, pairs: [(&str, &str); 2]) -> Result<()> {
    case.store(&[])?;
    let client = case.env.client();
    for (namespace, name) in pairs {
        let content = format!("data of {namespace}/{name}");
        blocking(|| case.env.s3.put(case.bucket(), &format!("{namespace}/{name}/file"), content.as_bytes()))?;
        let bucket = format!("s3://{}'", case.bucket());
        let dataset = case.dataset_yaml(name).replace(&bucket, &format!("s3://{}/{namespace}/{name}'", case.bucket()));
        let all = [case.secret_yaml(), dataset, case.runtime_yaml(name, 1, "32Mi")].concat();
        wait_for("the namespace to take objects", LIMIT, || async {
            Ok(Some(apply_yaml_in(&client, namespace, &all).await?))
        })
        .await?;
    }
    // On one node, where a confusion would show.
    let node = case.env.cluster.nodes().first().context("no node")?;
    for (namespace, name) in pairs {
        let script = Script::new(&format!("reader-{name}"), "until cat /data/file; do sleep 1; done")
            .in_namespace(namespace)
            .claim(name, "/data")
            .on(node);
        wait_for("the pod to be accepted", LIMIT, || async { Ok(Some(pods::start(&client, &script).await?)) }).await?;
    }
    for (namespace, name) in pairs {
        let pod = format!("reader-{name}");
        let finished = pods::finish(&client, namespace, &pod, LIMIT).await?;
        let expected = format!("data of {namespace}/{name}");
        ensure!(finished.exit_code == 0 && finished.logs.ends_with(&expected), "not {expected:?}: {finished:?}");
        pods::kill(&client, namespace, &pod).await?;
    }
    Ok(())
}

fn pod_with(case: &Case<'_>, name: &str, volume: serde_json::Value, script: &str) -> Result<Pod> {
    let mut volume = volume;
    volume["name"] = "v".into();
    let container = json!({
        "name": "main", "image": toolbox_name(), "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    });
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": case.namespace},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]},
    }))?)
}

/// An inline volume is for a worker's own socket and nothing else.
pub(crate) async fn an_inline_volume_of_a_stranger_is_refused(case: &Case<'_>) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(case.env.client(), &case.namespace);
    let strangers = [
        ("no-purpose", json!({"dataset": "a"}), "serves only workers"),
        ("other-purpose", json!({"dataset": "a", "purpose": "read"}), "mount the PersistentVolumeClaim"),
        ("other-namespace", json!({"dataset": "other/a", "purpose": "worker-socket"}), "without a namespace"),
        ("other-folder", json!({"dataset": "..", "purpose": "worker-socket"}), "without a namespace"),
        ("no-worker", json!({"dataset": "a", "purpose": "worker-socket"}), "is no worker of Dataset a"),
    ];
    for (name, attributes, _) in &strangers {
        let volume = json!({"csi": {"driver": "csi.penstock.dev", "volumeAttributes": attributes}});
        pods.create(&PostParams::default(), &pod_with(case, name, volume, "ls -la /v")?).await?;
    }
    for (name, _, words) in &strangers {
        event(case, "Pod", name, "Warning", "FailedMount", &[words]).await?;
        let phase = pods.get(name).await?.status.and_then(|status| status.phase);
        ensure!(phase.as_deref() == Some("Pending"), "pod {name} is {phase:?}");
        pods::kill(&case.env.client(), &case.namespace, name).await?;
    }
    Ok(())
}

/// Who has another key than the Dataset's reads nothing, and who has the right one goes on.
pub(crate) async fn a_volume_with_a_wrong_key_shows_nothing(case: &Case<'_>) -> Result<()> {
    case.store(&[("treasure", 1000)])?;
    case.serve("a", 1, "32Mi").await?;
    let volumes: Api<PersistentVolume> = Api::all(case.env.client());
    let forged = format!("{}-forged", case.namespace);
    let result = read_forged(case, &volumes, &forged).await;
    volumes.delete(&forged, &DeleteParams::default()).await.ok();
    result
}

async fn read_forged(case: &Case<'_>, volumes: &Api<PersistentVolume>, forged: &str) -> Result<()> {
    let real = case.kubectl(&["get", "pvc", "a", "-o", "jsonpath={.spec.volumeName}"])?;
    let real = volumes.get(&real).await?.spec.and_then(|spec| spec.csi).context("no volume")?;
    let yaml = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": forged},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "capacity": {"storage": "1Gi"}, "storageClassName": "forged",
            "claimRef": {"namespace": case.namespace, "name": "forged"},
            "csi": {
                "driver": real.driver, "readOnly": true,
                "volumeHandle": format!("{}/forged/0", case.namespace),
                "volumeAttributes": real.volume_attributes,
                "nodeStageSecretRef": {"namespace": case.namespace, "name": "forged"},
                "nodePublishSecretRef": {"namespace": case.namespace, "name": "forged"},
            },
        },
    });
    apply_yaml(&case.env.client(), &yaml.to_string()).await?;
    let workers = case.kubectl(&["get", "secret", "a-client", "-o", r"jsonpath={.data.peer\.pub}"])?;
    case.apply(&format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: forged}}\n\
         stringData: {{client.key: '{}'}}\ndata: {{peer.pub: {workers}}}\n\
         ---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: forged}}\n\
         spec: {{storageClassName: forged, volumeName: {forged}, accessModes: [ReadOnlyMany], resources: {{requests: {{storage: 1Gi}}}}}}\n",
        "ab".repeat(32)
    ))
    .await?;
    let client = case.env.client();
    let script = "echo begun; ls /data && echo seen; wc -c /data/treasure && echo read";
    pods::start(&client, &case.script("stranger", "forged", script)).await?;
    let logs = || case.kubectl(&["logs", "stranger"]);
    wait_for("the stranger to begin", LIMIT, || async { Ok(logs()?.contains("begun").then_some(())) }).await?;
    // Who has the key reads meanwhile; the stranger's first call waits for a worker that knows its key.
    let seen = case.run(&case.script("friend", "a", "ls /data")).await?;
    ensure!(seen.contains("treasure"), "{seen}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seen = logs()?;
    pods::kill(&client, &case.namespace, "stranger").await?;
    ensure!(!["treasure", "seen", "read"].iter().any(|word| seen.contains(word)), "{seen}");
    Ok(())
}
