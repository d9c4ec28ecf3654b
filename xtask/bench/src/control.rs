//! How soon Datasets can be mounted: the operator as its real process on a real control plane.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Secret, Service},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use penstock_api::{CacheRuntime, CacheRuntimePhase, Dataset};
use penstock_testkit::{
    control_plane::{ControlPlane, ControlPlaneOptions},
    process::{ChildGuard, Spawn, free_port},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    csi,
    figures::{Better, Case, Goal},
    process, program,
};
use crate::root;

/// Pairs of the large case.
const MANY: usize = 300;
/// Users apply at most so many at once.
const APPLIERS: usize = 16;
const PATIENCE: Duration = Duration::from_mins(3);

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let runs = if quick { 1 } else { 3 };
    let mut one = Vec::new();
    let (mut many, mut bare, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        // A plane of its own each time: what an earlier run left to the controllers is not measured.
        let bench = Bench::start().await?;
        for index in 0..if quick { 3 } else { 5 } {
            one.push(bench.one(index).await?);
        }
        // First, for the operator is not done with the many when they are Bound.
        bare.push(bench.bare_writes().await?);
        many.push(bench.many().await?);
        bench.settle("many").await?;
        memory.push(bench.operator_megabytes()?);
    }
    let mounts = csi::first_publishes(if quick { 3 } else { 7 }).await?;
    let case = |name, unit, values: &[f64], goal| {
        Case::new(name, unit, Better::Lower, values, Goal { at_most: Some(goal), ..Goal::default() })
    };
    Ok(vec![
        case("control-one", "s", &one, 0.5),
        case("control-300", "s", &many, 5.0).limit(&bare),
        case("control-memory", "MB", &memory, 60.0),
        case("control-mount", "s", &mounts, 0.5),
    ])
}

/// A control plane with the operator on it.
struct Bench {
    client: Client,
    // Ends before the control plane.
    operator: ChildGuard,
    _plane: ControlPlane,
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let options = ControlPlaneOptions { controller_manager: true, ..ControlPlaneOptions::default() };
        let plane = ControlPlane::start_with(options).await?;
        plane.install_crds(root().join("crds")).await?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let operator = Spawn::new(program("penstock-operator"), plane.folder().join("logs/operator.log"))
            .args(["--worker-image", "penstock:bench", "--namespace", "default", "--http-addr", &address])
            .env("KUBECONFIG", plane.kubeconfig())
            .start()?;
        let bench = Self { client: plane.client(), operator, _plane: plane };
        bench.namespace("warm").await?;
        // The operator leads and its watches stand once the first pair is bound.
        bench.bind("warm", &["warm".to_owned()]).await?;
        Ok(bench)
    }

    async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let params = PatchParams::apply("user");
        Api::<Namespace>::all(self.client.clone()).patch(name, &params, &Patch::Apply(object)).await?;
        Ok(())
    }

    async fn apply(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let params = PatchParams::apply("user");
        let datasets = Api::<Dataset>::namespaced(self.client.clone(), namespace);
        datasets.patch(name, &params, &Patch::Apply(dataset(name))).await?;
        let runtimes = Api::<CacheRuntime>::namespaced(self.client.clone(), namespace);
        runtimes.patch(name, &params, &Patch::Apply(cache_runtime(name))).await?;
        Ok(())
    }

    /// Seconds from the end of the apply to the last Bound, and those of the apply itself.
    async fn bind(&self, namespace: &str, names: &[String]) -> anyhow::Result<(f64, f64)> {
        let api = Api::<Dataset>::namespaced(self.client.clone(), namespace);
        let all = tokio::spawn(all_bound(api, names.iter().cloned().collect()));
        let begun = Instant::now();
        let requests = stream::iter(names).map(|name| self.apply(namespace, name)).buffer_unordered(APPLIERS);
        requests.try_collect::<()>().await?;
        let applied = Instant::now();
        let last = tokio::time::timeout(PATIENCE, all).await.context("not all Datasets became Bound")???;
        Ok((last.saturating_duration_since(applied).as_secs_f64(), (applied - begun).as_secs_f64()))
    }

    /// Seconds from the begin of the apply to Bound.
    async fn one(&self, index: usize) -> anyhow::Result<f64> {
        let namespace = format!("one-{index}");
        self.namespace(&namespace).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (bound, applied) = self.bind(&namespace, &["one".to_owned()]).await?;
        eprintln!("one: {:.3} s", applied + bound);
        Ok(applied + bound)
    }

    async fn many(&self) -> anyhow::Result<f64> {
        self.namespace("many").await?;
        let names: Vec<String> = (0..MANY).map(|index| format!("pair-{index}")).collect();
        let (bound, applied) = self.bind("many", &names).await?;
        let cpu = process::cpu_seconds(self.operator.pid())?;
        eprintln!("{MANY}: applied in {applied:.2} s, the last was bound {bound:.2} s later; operator {cpu:.2} CPU s");
        Ok(bound)
    }

    /// Waits until all runtimes are Ready, so that the operator is done with all.
    async fn settle(&self, namespace: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        let api = Api::<CacheRuntime>::namespaced(self.client.clone(), namespace);
        let is_ready =
            |runtime: &CacheRuntime| runtime.status.as_ref().is_some_and(|s| s.phase == Some(CacheRuntimePhase::Ready));
        while !api.list(&ListParams::default()).await?.items.iter().all(is_ready) {
            ensure!(begun.elapsed() < PATIENCE, "not all CacheRuntimes became Ready");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        eprintln!("the last runtime was Ready {:.1} s after the last Bound", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// The operator's resident memory, once it is done with all.
    fn operator_megabytes(&self) -> anyhow::Result<f64> {
        let megabytes = process::memory(self.operator.pid(), "VmRSS")? as f64 / 1e6;
        eprintln!("operator: {megabytes:.1} MB");
        Ok(megabytes)
    }

    /// Seconds that this API server and its controllers take for the same writes as the many need to be Bound, with nobody to
    /// react: of each a Service, a Secret, a claim and its volume, and two small ones in place of the Dataset's own.
    async fn bare_writes(&self) -> anyhow::Result<f64> {
        self.namespace("bare").await?;
        let begun = Instant::now();
        let pairs = stream::iter(0..MANY).map(|index| self.bare_pair(index)).buffer_unordered(APPLIERS);
        pairs.try_collect::<()>().await?;
        eprintln!("bare writes for {MANY}: {:.2} s", begun.elapsed().as_secs_f64());
        Ok(begun.elapsed().as_secs_f64())
    }

    async fn bare_pair(&self, index: usize) -> anyhow::Result<()> {
        let name = format!("bare-{index}");
        let (modes, size) = (json!(["ReadOnlyMany"]), json!({"storage": "1Pi"}));
        let claim =
            json!({"accessModes": modes, "resources": {"requests": size}, "storageClassName": "", "volumeName": name});
        let volume = json!({
            "accessModes": modes, "capacity": size, "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": "bare", "name": name}, "csi": {"driver": "bench.penstock.dev", "volumeHandle": name}
        });
        let service = json!({"selector": {"bench": name}, "ports": [{"port": 80}]});
        self.bare::<ConfigMap>(&name, "data", json!({"step": "begun"})).await?;
        self.bare::<Service>(&name, "spec", service).await?;
        self.bare::<Secret>(&name, "stringData", json!({"key": "value"})).await?;
        self.bare::<PersistentVolumeClaim>(&name, "spec", claim).await?;
        let params = PatchParams::apply("user");
        let volume =
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume});
        Api::<PersistentVolume>::all(self.client.clone()).patch(&name, &params, &Patch::Apply(volume)).await?;
        self.bare::<ConfigMap>(&name, "data", json!({"step": "bound"})).await
    }

    async fn bare<K>(&self, name: &str, field: &str, value: Value) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let object = json!({"apiVersion": "v1", "kind": K::kind(&()), "metadata": {"name": name}, field: value});
        let api = Api::<K>::namespaced(self.client.clone(), "bare");
        api.patch(name, &PatchParams::apply("user"), &Patch::Apply(object)).await?;
        Ok(())
    }
}

/// Waits until each of `wanted` was Bound; when the last one was.
async fn all_bound(api: Api<Dataset>, mut wanted: HashSet<String>) -> anyhow::Result<Instant> {
    let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    while let Some(dataset) = events.next().await {
        let dataset = dataset?;
        if is_bound(&dataset) && wanted.remove(&dataset.name_any()) && wanted.is_empty() {
            return Ok(Instant::now());
        }
    }
    bail!("the watch ended")
}

fn is_bound(dataset: &Dataset) -> bool {
    let conditions = dataset.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|c| c.type_ == "Bound" && c.status == "True")
}

fn dataset(name: &str) -> Value {
    json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name},
        "spec": {"mounts": [{"mountPoint": "s3://bucket/prefix", "options": {"endpoint": "http://127.0.0.1:9", "anonymous": "true"}}]}
    })
}

fn cache_runtime(name: &str) -> Value {
    json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "CacheRuntime", "metadata": {"name": name},
        "spec": {"replicas": 0, "tieredStore": {"levels": [{"mediumType": "MEM", "quota": "64Mi"}]}}
    })
}
