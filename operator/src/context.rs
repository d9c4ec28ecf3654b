//! What every reconcile is given.

use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, Resource, ResourceExt, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use penstock_api::Dataset;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    controller::{
        apply::Applier, build::WorkerDefaults, complaints::Absences, events::EventRecorder, written::Written,
    },
    metrics::Metrics,
    poller::Poller,
    recent::Recent,
    turns::Turns,
    watches::Stores,
    worker_api::WorkerApi,
};

pub struct Context {
    pub client: Client,
    pub stores: Stores,
    pub secrets: SecretCache,
    pub config_maps: ConfigMapCache,
    pub recent: Arc<Recent>,
    pub poller: Arc<Poller>,
    pub written: Written,
    pub unbound: Unbound,
    pub absences: Absences,
    pub races: Races,
    pub workers: Arc<dyn WorkerApi>,
    pub recorder: EventRecorder,
    pub metrics: Arc<Metrics>,
    /// Image of workers whose runtime names none.
    pub worker_image: String,
    pub worker_defaults: WorkerDefaults,
    pub turns: Turns,
}

impl Context {
    pub fn applier(&self) -> Applier<'_> {
        Applier { client: &self.client, metrics: &self.metrics, written: &self.written }
    }
}

/// No pass over a Dataset takes longer, unless it waits for someone.
const SOON: Duration = Duration::from_secs(5);

/// The Datasets that will be mountable as soon as they were looked at: they go before what can wait.
#[derive(Default)]
pub struct Unbound(Mutex<HashMap<ObjectRef<Dataset>, Instant>>);

impl Unbound {
    pub fn add(&self, dataset: ObjectRef<Dataset>) {
        self.0.lock().entry(dataset).or_insert_with(Instant::now);
    }

    pub fn remove(&self, dataset: &ObjectRef<Dataset>) {
        self.0.lock().remove(dataset);
    }

    pub fn is_empty(&self) -> bool {
        let mut waiting = self.0.lock();
        waiting.retain(|_, since| since.elapsed() < SOON);
        waiting.is_empty()
    }
}

/// Time for an object that was just written to be seen by its watch: the first pause after a lost race.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often in a row each Dataset's pass was overtaken by someone else's write. Whoever writes again and again, such as
/// another controller, is not raced with.
#[derive(Default)]
pub struct Races(Mutex<HashMap<ObjectRef<Dataset>, u32>>);

impl Races {
    /// How long to wait after another lost race: twice as long each time.
    pub fn pause(&self, dataset: ObjectRef<Dataset>) -> Duration {
        let mut lost = self.0.lock();
        let lost = lost.entry(dataset).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*lost).min(16)).min(LONGEST_PAUSE);
        *lost = lost.saturating_add(1);
        pause
    }

    /// A pass went through.
    pub fn forget(&self, dataset: &ObjectRef<Dataset>) {
        self.0.lock().remove(dataset);
    }
}

/// A change by a user shows within this time.
pub const FRESH: Duration = Duration::from_secs(20);
/// That something which only the operator writes is gone shows within this time.
pub const OWN: Duration = Duration::from_secs(50);

/// Objects by namespace and name, for a short time: those that users name. They are not watched: that would take the right
/// to list every Secret of the cluster. That one is missing is not remembered, so that one who mends it does not wait.
pub struct ObjectCache<K>(Mutex<Remembered<K>>);

pub type SecretCache = ObjectCache<Secret>;
pub type ConfigMapCache = ObjectCache<ConfigMap>;

/// By namespace and name: since when, and what.
type Remembered<K> = HashMap<(String, String), (Instant, Arc<K>)>;

impl<K> Default for ObjectCache<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> ObjectCache<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    /// What is remembered, without a question.
    pub fn peek(&self, namespace: &str, name: &str, age: Duration) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().get(&key).filter(|(at, _)| at.elapsed() < age).map(|(_, object)| object.clone())
    }

    /// What is remembered and not older than `age`, else what the API server has.
    pub async fn get(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
        age: Duration,
    ) -> kube::Result<Option<Arc<K>>> {
        let known = self.peek(namespace, name, age);
        if known.is_some() {
            return Ok(known);
        }
        let found = Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await?;
        let Some(object) = found else {
            self.forget(namespace, name);
            return Ok(None);
        };
        Ok(Some(self.put(object)))
    }

    /// Remembers what was just written or read.
    pub fn put(&self, mut object: K) -> Arc<K> {
        object.meta_mut().managed_fields = None;
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let object = Arc::new(object);
        let mut objects = self.0.lock();
        objects.retain(|_, (at, _)| at.elapsed() < OWN);
        objects.insert(key, (Instant::now(), object.clone()));
        object
    }

    pub fn forget(&self, namespace: &str, name: &str) {
        self.0.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_races_are_followed_by_longer_and_longer_pauses_until_a_pass_goes_through() {
        let (races, one) = (Races::default(), ObjectRef::<Dataset>::new("one"));
        let pauses: Vec<_> = (0..12).map(|_| races.pause(one.clone()).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000, 30000]);
        assert_eq!(races.pause(ObjectRef::new("other")), FIRST_PAUSE);
        races.forget(&one);
        assert_eq!(races.pause(one), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_up_for_long_by_a_dataset_that_is_never_looked_at() {
        let (unbound, one, other) = (Unbound::default(), ObjectRef::new("one"), ObjectRef::new("other"));
        assert!(unbound.is_empty());
        unbound.add(one.clone());
        unbound.add(other.clone());
        unbound.remove(&one);
        assert!(!unbound.is_empty());
        tokio::time::advance(SOON / 2).await;
        unbound.add(other);
        tokio::time::advance(SOON / 2).await;
        assert!(unbound.is_empty());
    }
}
