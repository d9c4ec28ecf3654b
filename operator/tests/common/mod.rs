//! A control plane of its own with the operator running against it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{Namespace, PersistentVolumeClaim, Pod},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, TypeMeta},
};
use parking_lot::Mutex;
use penstock_api::{CacheRuntime, Dataset};
use penstock_operator::{
    controller::{self, Settings, build::WorkerDefaults},
    metrics::Metrics,
    prerequisites::{self, Place},
    tasks::Ended,
    worker_api::{Fleet, WorkerApi},
};
use penstock_placement::MemberList;
use penstock_testkit::{
    chart,
    control_plane::{ControlPlane, ControlPlaneOptions, client_from},
};
use penstock_wire::message::{LoadOrder, Stats};
use prometheus_client::encoding::text::encode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");

/// The account that the chart makes for the operator.
pub(crate) const OPERATOR: &str = "system:serviceaccount:penstock-system:penstock-operator";

/// Workers without processes: they answer what the test says, by address.
#[derive(Default)]
pub(crate) struct FakeWorkers {
    pub(crate) stats: Mutex<BTreeMap<String, Stats>>,
    pub(crate) told: Mutex<Vec<String>>,
}

#[async_trait]
impl WorkerApi for FakeWorkers {
    async fn stats(&self, _: &Fleet, addr: &str) -> Result<Stats, String> {
        self.stats.lock().get(addr).cloned().ok_or_else(|| "no such worker".into())
    }

    async fn set_members(&self, _: &Fleet, addr: &str, members: &MemberList) -> Result<(), String> {
        self.told.lock().push(format!("{addr} members {}", members.epoch));
        // As real ones do, they take newer lists only.
        if let Some(stats) = self.stats.lock().get_mut(addr) {
            stats.epoch = stats.epoch.max(members.epoch);
        }
        Ok(())
    }

    async fn drain(&self, _: &Fleet, addr: &str) -> Result<(), String> {
        self.told.lock().push(format!("{addr} drain"));
        Ok(())
    }

    async fn set_loads(&self, _: &Fleet, addr: &str, orders: &[LoadOrder]) -> Result<(), String> {
        let ids: Vec<&str> = orders.iter().map(|order| order.id.as_str()).collect();
        self.told.lock().push(format!("{addr} loads {}", ids.join(" ")));
        Ok(())
    }

    fn forget(&self, _: &str) {}
}

pub(crate) struct Bench {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) workers: Arc<FakeWorkers>,
    pub(crate) metrics: Arc<Metrics>,
    /// Of the next operator that is started.
    pub(crate) worker_image: String,
    pub(crate) updating_runtimes: usize,
    addresses: AtomicU32,
    operator: Option<(CancellationToken, JoinHandle<Result<(), Ended>>)>,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::start_with(ControlPlaneOptions::default()).await
    }

    pub(crate) async fn start_with(options: ControlPlaneOptions) -> Self {
        let _ = tracing_subscriber::fmt().with_env_filter("penstock_operator=debug,warn").with_test_writer().try_init();
        let plane = ControlPlane::start_with(options).await.unwrap();
        plane.install_crds(CRDS).await.unwrap();
        let client = plane.client();
        let mut bench = Self {
            plane,
            client,
            workers: Arc::default(),
            metrics: Arc::default(),
            worker_image: "penstock:test".into(),
            updating_runtimes: 3,
            addresses: AtomicU32::new(1),
            operator: None,
        };
        bench.start_operator().await;
        bench
    }

    pub(crate) async fn start_operator(&mut self) {
        self.start_operator_of(None).await;
    }

    /// One that looks after `namespace` alone, if it is given, and has the rights that the chart gives it, no more.
    pub(crate) async fn start_operator_of(&mut self, namespace: Option<&str>) {
        let stop = CancellationToken::new();
        self.metrics = Arc::default();
        let settings = Settings {
            worker_image: self.worker_image.clone(),
            updating_runtimes: self.updating_runtimes,
            worker_defaults: WorkerDefaults::default(),
            namespace: namespace.map(str::to_owned),
            watch_failed: Arc::default(),
        };
        let client = self.operator_client(namespace).await;
        let run = controller::run(client, settings, self.workers.clone(), self.metrics.clone(), stop.clone());
        self.operator = Some((stop, tokio::spawn(run)));
    }

    /// Grants the chart's roles, and nothing else, to the account that the client acts as.
    async fn operator_client(&self, namespace: Option<&str>) -> Client {
        let values: Vec<_> = namespace.iter().map(|namespace| format!("operator.watchNamespace={namespace}")).collect();
        let granted = chart::roles(&values).unwrap();
        if Api::<Namespace>::all(self.client.clone()).get_opt(chart::NAMESPACE).await.unwrap().is_none() {
            self.namespace(chart::NAMESPACE).await;
        }
        for role in granted {
            let types: TypeMeta = serde_json::from_value(role.clone()).unwrap();
            let resource = ApiResource::from_gvk(&types.try_into().unwrap());
            let name = role["metadata"]["name"].as_str().unwrap();
            let api: Api<DynamicObject> = match role["metadata"]["namespace"].as_str() {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            api.patch(name, &PatchParams::apply("helm").force(), &Patch::Apply(&role)).await.unwrap();
        }
        let client = client_from(&self.plane.kubeconfig_acting_as(OPERATOR)).await.unwrap();
        let place = Place { own: chart::NAMESPACE.into(), watched: namespace.map(str::to_owned) };
        wait_for("the chart's rights", || async {
            let missing = prerequisites::missing(&client, &place).await.unwrap();
            missing.is_empty().then_some(())
        })
        .await;
        client
    }

    pub(crate) async fn stop_operator(&mut self) {
        let (stop, task) = self.operator.take().unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("the operator stops").unwrap().unwrap();
    }

    /// Has the operator look at the object once more, from now on, and waits until it has.
    pub(crate) async fn look_again<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        // The first that ends may have begun before.
        for _ in 0..2 {
            let before = self.looks();
            let annotations = json!({"example.org/looks": before.to_string()});
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            self.api::<K>(namespace).patch(name, &PatchParams::default(), &patch).await.unwrap();
            wait_for("another look", || async { (self.looks() > before).then_some(()) }).await;
        }
    }

    /// Reconciles that have ended.
    fn looks(&self) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.metrics.registry()).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("penstock_operator_reconcile_seconds_count "));
        count.unwrap().parse().unwrap()
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Applies as a user would.
    pub(crate) async fn apply<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let params = PatchParams::apply("user").force();
        self.api::<K>(namespace).patch(&name, &params, &Patch::Apply(&object)).await.unwrap()
    }

    pub(crate) async fn pair(&self, namespace: &str, name: &str) {
        self.apply::<Dataset>(namespace, dataset(name)).await;
        self.apply::<CacheRuntime>(namespace, runtime(name)).await;
    }

    pub(crate) async fn delete<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>(namespace).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// Waits until the Dataset's condition is so, and returns the message.
    pub(crate) async fn dataset_says(
        &self,
        namespace: &str,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("{namespace}/{name} {type_}={status} {reason}");
        let found = wait_for(&what, || async {
            let dataset = self.api::<Dataset>(namespace).get(name).await.unwrap();
            let conditions = dataset.status.unwrap_or_default().conditions;
            conditions.into_iter().find(|c| c.type_ == type_ && c.status == status && c.reason == reason)
        });
        found.await.message
    }

    pub(crate) async fn bound(&self, namespace: &str, name: &str) {
        self.dataset_says(namespace, name, "Bound", "True", "Bound").await;
    }

    /// Waits for an object: what workers need comes after the Dataset is bound.
    pub(crate) async fn there<K>(&self, namespace: &str, name: &str) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>(namespace);
        wait_for(&format!("{} {name}", K::kind(&())), || async { api.get_opt(name).await.unwrap() }).await
    }

    pub(crate) async fn gone<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>(namespace);
        wait_for(&format!("{} {name} gone", K::kind(&())), || async {
            api.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// In the place of the controller manager, which lets a claim under deletion go when no pod uses it.
    pub(crate) async fn release_claim(&self, namespace: &str, name: &str) {
        let api = self.api::<PersistentVolumeClaim>(namespace);
        wait_for(&format!("{namespace}: claim {name} under deletion"), || async {
            api.get(name).await.unwrap().metadata.deletion_timestamp
        })
        .await;
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// In the place of the `StatefulSet` controller and a kubelet: a worker pod that is ready.
    pub(crate) async fn worker_pod(&self, namespace: &str, dataset: &str, ordinal: u32) -> String {
        let name = format!("{dataset}-worker-{ordinal}");
        let template = self.there::<StatefulSet>(namespace, &format!("{dataset}-worker")).await.spec.unwrap().template;
        let image = template.spec.unwrap().containers[0].image.clone();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": template.metadata.as_ref().unwrap().labels,
                "annotations": template.metadata.as_ref().unwrap().annotations
            },
            "spec": {"containers": [{"name": "worker", "image": image}]}
        });
        self.apply::<Pod>(namespace, pod).await;
        // Workers are told apart by their addresses, in all namespaces.
        let [.., high, low] = self.addresses.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let ip = format!("198.18.{high}.{low}");
        // It answers before it is said to be ready.
        let addr = format!("{ip}:9440");
        self.workers.stats.lock().insert(addr.clone(), Stats::default());
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container("containerd://1")]
        }});
        self.api::<Pod>(namespace).patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        addr
    }
}

/// What a kubelet tells of a worker's container that runs.
pub(crate) fn container(id: &str) -> Value {
    json!({
        "name": "worker", "image": "penstock", "imageID": "", "ready": true, "restartCount": 0, "containerID": id,
        "state": {"running": {}}
    })
}

pub(crate) fn dataset(name: &str) -> Value {
    json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name},
        "spec": {"mounts": [{"mountPoint": "s3://bucket/prefix", "options": {"endpoint": "http://198.18.0.250:9000"}}]}
    })
}

pub(crate) fn runtime(name: &str) -> Value {
    json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "CacheRuntime", "metadata": {"name": name},
        "spec": {"replicas": 2, "tieredStore": {"levels": [{"mediumType": "MEM", "quota": "64Mi"}]}}
    })
}

/// Longer than anything takes but what waits for workers and Secrets both.
pub(crate) async fn wait_for<T, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    wait_at_most(Duration::from_secs(40), what, probe).await
}

pub(crate) async fn wait_at_most<T, F>(limit: Duration, what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(found) = probe().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within {limit:?}: {what}");
}

pub(crate) fn uid(object: &impl ResourceExt) -> String {
    object.uid().unwrap()
}
