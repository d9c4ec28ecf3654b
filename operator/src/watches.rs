//! What the operator keeps in memory of the API server: one watch per kind, of our own objects and of the pods that mount
//! Datasets, and who is to be looked at when something changes.

mod slim;

use std::{collections::HashMap, fmt::Debug, hash::Hash, sync::Arc};

use futures::{Stream, StreamExt, channel::mpsc};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, watcher},
    },
};
use penstock_api::{CacheRuntime, DataLoad, Dataset, names::LABEL_DATASET};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::{
    names::{NAMESPACE_LABEL, SELECTOR},
    tasks::Tasks,
};

#[derive(Clone, Debug)]
pub struct Stores {
    pub datasets: Store<Dataset>,
    pub runtimes: Store<CacheRuntime>,
    pub loads: Store<DataLoad>,
    pub statefulsets: Store<StatefulSet>,
    pub services: Store<Service>,
    pub config_maps: Store<ConfigMap>,
    pub claims: Store<PersistentVolumeClaim>,
    pub volumes: Store<PersistentVolume>,
    pub pods: Store<Pod>,
    /// Pods that mount claims and have not ended, without all else.
    pub users: Store<Pod>,
    pub accounts: Store<PartialObjectMeta<ServiceAccount>>,
    pub budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
}

/// Who is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    Dataset(ObjectRef<Dataset>),
    Runtime(ObjectRef<CacheRuntime>),
    Load(ObjectRef<DataLoad>),
}

pub type Triggers = mpsc::UnboundedReceiver<Trigger>;

/// The object of `name` in `namespace`.
pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

/// Starts the watches in `tasks`, over all namespaces or one. `failed` is told when one fails; it is resumed by itself.
pub fn start(client: &Client, namespace: Option<&str>, tasks: &mut Tasks, failed: Arc<Notify>) -> (Stores, Triggers) {
    let (sender, triggers) = mpsc::unbounded();
    let (client, namespace) = (client.clone(), namespace.map(str::to_owned));
    let mut starter = Starter { client, namespace, sender, failed, tasks };
    let datasets = starter.own::<Dataset>(of_dataset);
    let others = datasets.clone();
    let runtimes = starter.runtimes(move |r| of_runtime(r, &others));
    let (of_claims, elastic) = (datasets.clone(), runtimes.clone());
    let stores = Stores {
        loads: starter.own::<DataLoad>(of_load),
        users: starter.users(move |pod| of_user(pod, &of_claims, &elastic)),
        statefulsets: starter.labelled(of_labelled),
        services: starter.labelled(of_labelled),
        config_maps: starter.labelled(of_labelled),
        claims: starter.labelled(of_labelled),
        pods: starter.labelled(of_labelled),
        accounts: starter.labelled(of_labelled),
        budgets: starter.labelled(of_labelled),
        volumes: starter.volumes(),
        datasets,
        runtimes,
    };
    (stores, triggers)
}

/// Waits until every store has its first contents. A store whose watch has ended is none to wait for: whoever started it
/// hears of that.
pub async fn filled(stores: &Stores) {
    let _ = tokio::join!(
        stores.datasets.wait_until_ready(),
        stores.runtimes.wait_until_ready(),
        stores.statefulsets.wait_until_ready(),
        stores.services.wait_until_ready(),
        stores.config_maps.wait_until_ready(),
        stores.claims.wait_until_ready(),
        stores.volumes.wait_until_ready(),
        stores.pods.wait_until_ready(),
        stores.users.wait_until_ready(),
        stores.loads.wait_until_ready(),
        stores.accounts.wait_until_ready(),
        stores.budgets.wait_until_ready(),
    );
}

/// A Dataset that comes or goes may free its runtime for another one, or leave it alone.
fn of_dataset(dataset: &Dataset) -> Vec<Trigger> {
    let namespace = dataset.namespace().unwrap_or_default();
    let runtime = |name: &str| Trigger::Runtime(ObjectRef::new(name).within(&namespace));
    vec![Trigger::Dataset(ObjectRef::from_obj(dataset)), runtime(dataset.runtime_name()), runtime(&dataset.name_any())]
}

/// Datasets that claim the runtime of this name, and the one that is called like it.
pub fn related(datasets: &Store<Dataset>, namespace: &str, runtime: &str) -> Vec<Arc<Dataset>> {
    datasets.state_filter(|d| {
        d.metadata.namespace.as_deref() == Some(namespace)
            && (d.runtime_name() == runtime || d.metadata.name.as_deref() == Some(runtime))
    })
}

fn of_runtime(runtime: &CacheRuntime, datasets: &Store<Dataset>) -> Vec<Trigger> {
    let related = related(datasets, &runtime.namespace().unwrap_or_default(), &runtime.name_any());
    let related = related.iter().map(|d| Trigger::Dataset(ObjectRef::from_obj(d.as_ref())));
    related.chain([Trigger::Runtime(ObjectRef::from_obj(runtime))]).collect()
}

/// The Dataset's pass does what is to be done; only a load without a Dataset is looked at alone.
fn of_load(load: &DataLoad) -> Vec<Trigger> {
    let namespace = load.namespace().unwrap_or_default();
    let dataset = ObjectRef::new(&load.spec.dataset).within(&namespace);
    vec![Trigger::Dataset(dataset), Trigger::Load(ObjectRef::from_obj(load))]
}

/// The DataLoads of a Dataset, the oldest first.
pub fn loads(loads: &Store<DataLoad>, namespace: &str, dataset: &str) -> Vec<Arc<DataLoad>> {
    let mut found = loads
        .state_filter(|load| load.metadata.namespace.as_deref() == Some(namespace) && load.spec.dataset == dataset);
    found.sort_by_key(|load| (load.creation_timestamp().map(|at| at.0), load.name_any()));
    found
}

/// A pod that mounts a Dataset may wake its workers, and one that goes may let them sleep.
fn of_user(pod: &Pod, datasets: &Store<Dataset>, runtimes: &Store<CacheRuntime>) -> Vec<Trigger> {
    let namespace = pod.namespace().unwrap_or_default();
    let is_elastic = |dataset: &Dataset| {
        let runtime = get(runtimes, &namespace, dataset.runtime_name());
        runtime.is_some_and(|runtime| runtime.spec.autoscaling.is_some())
    };
    let mounted = claims(pod).filter_map(|claim| get(datasets, &namespace, claim)).filter(|d| is_elastic(d));
    mounted.map(|dataset| Trigger::Dataset(ObjectRef::from_obj(dataset.as_ref()))).collect()
}

/// Names of the claims that a pod mounts.
fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// Pods that mount the claim and have not ended.
pub fn users(users: &Store<Pod>, namespace: &str, claim: &str) -> Vec<Arc<Pod>> {
    users.state_filter(|pod| {
        pod.metadata.namespace.as_deref() == Some(namespace) && claims(pod).any(|mounted| mounted == claim)
    })
}

fn of_labelled<K: ResourceExt>(object: &K) -> Vec<Trigger> {
    let namespace = object.namespace().or_else(|| object.labels().get(NAMESPACE_LABEL).cloned());
    match (object.labels().get(LABEL_DATASET), namespace) {
        (Some(dataset), Some(namespace)) => {
            vec![Trigger::Dataset(ObjectRef::new(dataset).within(&namespace))]
        }
        _ => Vec::new(),
    }
}

struct Starter<'a> {
    client: Client,
    namespace: Option<String>,
    sender: mpsc::UnboundedSender<Trigger>,
    failed: Arc<Notify>,
    tasks: &'a mut Tasks,
}

impl Starter<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn own<K>(&mut self, triggers: impl FnMut(&K) -> Vec<Trigger> + Send + 'static) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Watched,
    {
        self.watch(self.api(), watcher::Config::default(), slim::managed_fields, triggers)
    }

    fn runtimes(
        &mut self,
        triggers: impl FnMut(&CacheRuntime) -> Vec<Trigger> + Send + 'static,
    ) -> Store<CacheRuntime> {
        self.watch(self.api(), watcher::Config::default(), slim::runtime, triggers)
    }

    fn users(&mut self, triggers: impl FnMut(&Pod) -> Vec<Trigger> + Send + 'static) -> Store<Pod> {
        let config = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        self.watch(self.api(), config, slim::user, triggers)
    }

    fn labelled<K>(&mut self, triggers: impl FnMut(&K) -> Vec<Trigger> + Send + 'static) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Watched,
    {
        self.watch(self.api(), watcher::Config::default().labels(SELECTOR), slim::managed_fields, triggers)
    }

    fn volumes(&mut self) -> Store<PersistentVolume> {
        let api = Api::all(self.client.clone());
        self.watch(api, watcher::Config::default().labels(SELECTOR), slim::managed_fields, of_labelled)
    }

    fn watch<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        slim: fn(&mut K),
        triggers: impl FnMut(&K) -> Vec<Trigger> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Watched,
    {
        let (store, writer) = reflector::store();
        let events = watcher(api, config).default_backoff().modify(slim).reflect(writer);
        let task = forward(events, triggers, self.sender.clone(), self.failed.clone());
        self.tasks.spawn(format!("watch of {}", K::plural(&())), task);
        store
    }
}

/// What every watched kind can do.
trait Watched: Clone + DeserializeOwned + Debug + Send + Sync + Unpin + 'static {}
impl<K: Clone + DeserializeOwned + Debug + Send + Sync + Unpin + 'static> Watched for K {}

async fn forward<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    mut triggers: impl FnMut(&K) -> Vec<Trigger>,
    sender: mpsc::UnboundedSender<Trigger>,
    failed: Arc<Notify>,
) where
    K: Resource<DynamicType = ()>,
{
    let mut seen = Seen::default();
    // The store takes a list as a whole, when it has ended: who looked sooner would not find what is new in it.
    let mut listed = Vec::new();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(watcher::Event::Apply(object)) => seen.news(vec![object]),
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => seen.news(std::mem::take(&mut listed)),
            Ok(watcher::Event::Delete(object)) => {
                seen.forget(&object);
                vec![object]
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it will be resumed");
                failed.notify_one();
                continue;
            }
        };
        for trigger in news.iter().flat_map(&mut triggers) {
            // Closed means that the operator stops.
            let _ = sender.unbounded_send(trigger);
        }
    }
}

/// Objects with a generation are news when it moves; our own status writes are not.
#[derive(Default)]
struct Seen(HashMap<String, i64>);

impl Seen {
    fn news<K: Resource<DynamicType = ()>>(&mut self, mut objects: Vec<K>) -> Vec<K> {
        objects.retain(|object| self.is_news(object));
        objects
    }

    fn is_news<K: Resource<DynamicType = ()>>(&mut self, object: &K) -> bool {
        // A StatefulSet's status tells how many pods there are, so only our own kinds are judged by generation.
        if !K::group(&()).ends_with(penstock_api::GROUP) {
            return true;
        }
        match (object.meta().uid.clone(), object.meta().generation) {
            (Some(uid), Some(generation)) => self.0.insert(uid, generation) != Some(generation),
            _ => true,
        }
    }

    fn forget<K: Resource>(&mut self, object: &K) {
        if let Some(uid) = &object.meta().uid {
            self.0.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::api::ObjectMeta;

    use super::*;

    #[tokio::test]
    async fn what_a_list_brings_is_told_once_the_store_has_it() {
        let metadata = ObjectMeta { name: Some("a".into()), namespace: Some("ns".into()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let (store, writer) = reflector::store();
        let events = [watcher::Event::Init, watcher::Event::InitApply(map), watcher::Event::InitDone];
        let events = stream::iter(events.map(Ok)).reflect(writer);
        let (sender, told) = mpsc::unbounded();
        let look = move |map: &ConfigMap| {
            assert!(store.get(&ObjectRef::from_obj(map)).is_some(), "it is looked up before it can be found");
            vec![Trigger::Dataset(ObjectRef::new("a").within("ns"))]
        };
        forward(events, look, sender, Arc::default()).await;
        assert_eq!(told.count().await, 1);
    }
}
