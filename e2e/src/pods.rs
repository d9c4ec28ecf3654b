//! Pods in tests: run one to its end, read its logs, kill one.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::image::toolbox_name;
use crate::kubectl::wait_for;

/// A pod that runs one shell script in the toolbox image.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: String,
    pub namespace: String,
    pub script: String,
    /// Runs there; anywhere when absent.
    pub node: Option<String>,
    /// Claims and where to mount them, read-only.
    pub claims: Vec<(String, String)>,
    pub image: String,
    /// Fits the restricted Pod Security Standard.
    pub restricted: bool,
}

impl Script {
    /// A script for namespace `default` and any node.
    pub fn new(name: &str, script: &str) -> Self {
        let (name, script, image) = (name.into(), script.into(), toolbox_name());
        Self { name, namespace: "default".into(), script, node: None, claims: Vec::new(), image, restricted: false }
    }

    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.into());
        self
    }

    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Mounts a claim of the pod's namespace.
    #[must_use]
    pub fn claim(mut self, claim: &str, path: &str) -> Self {
        self.claims.push((claim.into(), path.into()));
        self
    }

    /// Fits the restricted Pod Security Standard: another user than root, and no rights.
    #[must_use]
    pub fn restricted(mut self) -> Self {
        self.restricted = true;
        self
    }

    fn pod(&self) -> Result<Pod> {
        let volumes =
            self.claims.iter().map(|(claim, _)| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
        let mounts =
            self.claims.iter().map(|(claim, path)| json!({"name": claim, "mountPath": path, "readOnly": true}));
        let container = json!({
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-ec", self.script],
            "volumeMounts": mounts.collect::<Vec<_>>(),
            "securityContext": self.restricted.then(|| json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            })),
        });
        let affinity = self.node.as_ref().map(|node| {
            let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
        });
        let pod = json!({
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": {"app": self.name}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "affinity": affinity,
                "containers": [container],
                "volumes": volumes.collect::<Vec<_>>(),
            },
        });
        Ok(serde_json::from_value(pod)?)
    }
}

/// How a pod ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub exit_code: i32,
    pub logs: String,
    pub node: String,
}

/// Creates the pod and returns at once.
pub async fn start(client: &Client, script: &Script) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &script.namespace);
    pods.create(&PostParams::default(), &script.pod()?)
        .await
        .with_context(|| format!("creating pod {}", script.name))?;
    Ok(())
}

/// Runs the pod to its end, deletes it and returns what it printed, whatever its exit code.
pub async fn run(client: &Client, script: &Script, limit: Duration) -> Result<Finished> {
    start(client, script).await?;
    let finished = finish(client, &script.namespace, &script.name, limit).await;
    kill(client, &script.namespace, &script.name).await?;
    finished
}

/// As [`run`]; an exit code other than 0 is an error with the logs.
pub async fn run_ok(client: &Client, script: &Script, limit: Duration) -> Result<String> {
    let finished = run(client, script, limit).await?;
    if finished.exit_code != 0 {
        bail!("pod {} ended with {} on {}:\n{}", script.name, finished.exit_code, finished.node, finished.logs);
    }
    Ok(finished.logs)
}

/// Waits for the end of a pod that was started before.
pub async fn finish(client: &Client, namespace: &str, name: &str, limit: Duration) -> Result<Finished> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let what = format!("the end of pod {name}");
    let ended = wait_for(&what, limit, || async {
        let status = pods.get(name).await?.status.unwrap_or_default();
        Ok(matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")).then_some(()))
    });
    if let Err(error) = ended.await {
        bail!("{error:#}; {}", describe(&pods, name).await);
    }
    let pod = pods.get(name).await?;
    let exit_code = containers(&pod).first().and_then(|status| status.state.as_ref()?.terminated.as_ref());
    Ok(Finished {
        exit_code: exit_code.map_or(-1, |ended| ended.exit_code),
        logs: pods.logs(name, &LogParams::default()).await?,
        node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
    })
}

/// Waits until the pod is Ready and returns it.
pub async fn wait_ready(client: &Client, namespace: &str, name: &str, limit: Duration) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let what = format!("pod {name} to be ready");
    let ready = wait_for(&what, limit, || async { Ok(pods.get_opt(name).await?.filter(is_ready)) });
    match ready.await {
        Ok(pod) => Ok(pod),
        Err(error) => bail!("{error:#}; {}", describe(&pods, name).await),
    }
}

/// The Ready pods of a label selector.
pub async fn ready(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.list(&ListParams::default().labels(selector)).await?;
    Ok(found.into_iter().filter(is_ready).collect())
}

/// Waits until at least `count` pods of a label selector are Ready.
pub async fn wait_ready_count(
    client: &Client,
    namespace: &str,
    selector: &str,
    count: usize,
    limit: Duration,
) -> Result<Vec<Pod>> {
    wait_for(&format!("{count} ready pods of {selector}"), limit, || async {
        let ready = ready(client, namespace, selector).await?;
        Ok((ready.len() >= count).then_some(ready))
    })
    .await
}

/// Waits until a pod's container is another one than `old` and the pod is Ready.
pub async fn wait_restarted(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    old: &str,
    limit: Duration,
) -> Result<()> {
    wait_for(&format!("{pod} to be started again"), limit, || async {
        let (_, now) = container_id(client, namespace, pod, container).await?;
        Ok((now != old).then_some(()))
    })
    .await?;
    wait_ready(client, namespace, pod, limit).await.map(drop)
}

/// Deletes a pod without grace and waits until it is gone or replaced by a new one of its name.
pub async fn kill(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Some(old) = pods.get_opt(name).await? else { return Ok(()) };
    match pods.delete(name, &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        result => drop(result?),
    }
    wait_for(&format!("pod {name} to be gone"), Duration::from_secs(30), || async {
        let now = pods.get_opt(name).await?;
        Ok(now.is_none_or(|now| now.metadata.uid != old.metadata.uid).then_some(()))
    })
    .await
}

/// Deletes every pod of a label selector without grace (restarts a Deployment, kills its leader).
pub async fn kill_all(client: &Client, namespace: &str, selector: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.list(&ListParams::default().labels(selector)).await?;
    for name in found.into_iter().filter_map(|pod| pod.metadata.name) {
        kill(client, namespace, &name).await?;
    }
    Ok(())
}

/// The node and the id (`containerd://…`) of a pod's container.
pub async fn container_id(client: &Client, namespace: &str, pod: &str, container: &str) -> Result<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(pod).await?;
    let status = containers(&pod).iter().find(|status| status.name == container);
    let id =
        status.and_then(|status| status.container_id.clone()).with_context(|| format!("no container {container}"))?;
    Ok((pod.spec.and_then(|spec| spec.node_name).context("the pod has no node")?, id))
}

fn containers(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why a pod is not where it should be, for error messages.
async fn describe(pods: &Api<Pod>, name: &str) -> String {
    let pod = match pods.get(name).await {
        Ok(pod) => pod,
        Err(error) => return error.to_string(),
    };
    let states: Vec<_> = containers(&pod).iter().map(|container| serde_json::to_string(&container.state)).collect();
    let whole = pod.status.as_ref();
    let unmet = whole.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let unmet: Vec<_> =
        unmet.filter(|condition| condition.status != "True").filter_map(|one| one.message.clone()).collect();
    let logs = pods.logs(name, &LogParams { tail_lines: Some(10), ..LogParams::default() }).await.unwrap_or_default();
    let phase = whole.and_then(|status| status.phase.as_deref()).unwrap_or("unknown");
    format!("phase {phase}, containers {states:?}, {unmet:?}; logs:\n{logs}")
}
