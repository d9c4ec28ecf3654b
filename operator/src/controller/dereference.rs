//! Everything that a pass looks at, read in one step: from memory where it is watched, else from the API server, and the
//! workers' own numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};
use penstock_api::{CacheRuntime, DataLoad, Dataset, autoscaling::ConfigMapKey, names::LABEL_DATASET};
use penstock_plan::{Names, autoscaling::CalendarTexts, names::persistent_volume};
use penstock_wire::{
    Credential,
    config::{CLIENT_KEY_FILE, PEER_KEY_FILE},
};

use super::{
    complaints,
    observed::{KnownKeys, Observed, Seen, Worker, is_ours},
    written::Written,
};
use crate::{
    context::{Context, FRESH, OWN},
    poller::Target,
    watches::{self, Stores},
    worker_api::Fleet,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read Secret {name}: {source}")]
    Secret { name: String, source: kube::Error },
    #[error("failed to read ConfigMap {name}: {source}")]
    ConfigMap { name: String, source: kube::Error },
    /// The watch is behind what was written; the next event brings it.
    #[error("{kind} {name} is not in the watch yet")]
    Lagging { kind: String, name: String },
}

pub(super) async fn dereference(dataset: &Dataset, names: &Names, ctx: &Context) -> Result<Seen, Error> {
    let runtime = watches::get(&ctx.stores.runtimes, &names.namespace, dataset.runtime_name());
    let runtime = runtime.filter(|r| r.metadata.deletion_timestamp.is_none());
    let rivals = watches::related(&ctx.stores.datasets, &names.namespace, dataset.runtime_name());
    let mut own = watched(&ctx.stores, dataset, names);
    let loads = watches::loads(&ctx.stores.loads, &names.namespace, &names.dataset);
    let Some(runtime) = runtime else { return Ok(Seen { rivals, own, loads, ..Seen::default() }) };
    await_written(&ctx.written, dataset, Some(runtime.as_ref()), &loads, names, &own)?;
    // Our two Secrets are not watched: where the claim or the workers are, they should be.
    let is_expected = own.claim.is_some() || own.statefulset.is_some();
    let (worker_secret, client_secret, secrets) = tokio::try_join!(
        own_secret(ctx, names, names.worker(), is_expected),
        own_secret(ctx, names, names.client_secret(), is_expected),
        named_secrets(ctx, dataset, names),
    )?;
    (own.worker_secret, own.client_secret) = (worker_secret, client_secret);
    let keys = keys(&own);
    let fleet = keys.peer.clone().map(|peer_key| Fleet { dataset: names.id(), peer_key });
    let (workers, events, texts) = tokio::join!(
        workers(ctx, (dataset, &runtime), &own, fleet.as_ref()),
        complaints::read(ctx, &own, Timestamp::now()),
        texts(ctx, &runtime, &loads, names)
    );
    let is_elastic = runtime.spec.autoscaling.is_some();
    let users =
        if is_elastic { watches::users(&ctx.stores.users, &names.namespace, &names.dataset) } else { Vec::new() };
    Ok(Seen { runtime: Some(runtime), rivals, secrets, own, keys, workers, users, loads, texts: texts?, events })
}

/// Reads what is watched; no request is made.
pub(super) fn watched(stores: &Stores, dataset: &Dataset, names: &Names) -> Observed {
    let ns = names.namespace.as_str();
    let volume = persistent_volume(&dataset.uid().unwrap_or_default());
    Observed {
        statefulset: watches::get(&stores.statefulsets, ns, &names.worker()),
        headless: watches::get(&stores.services, ns, &names.worker()),
        cache: watches::get(&stores.services, ns, &names.cache()),
        members: watches::get(&stores.config_maps, ns, &names.members()),
        account: watches::get(&stores.accounts, ns, &names.worker()),
        budget: watches::get(&stores.budgets, ns, &names.worker()),
        claim: watches::get(&stores.claims, ns, &names.dataset),
        volume: stores.volumes.get(&ObjectRef::new(&volume)),
        pods: pods(stores, names),
        ..Observed::default()
    }
}

fn pods(stores: &Stores, names: &Names) -> Vec<(u32, Arc<Pod>)> {
    let ours = |pod: &Pod| {
        pod.metadata.namespace.as_deref() == Some(&names.namespace)
            && pod.labels().get(LABEL_DATASET) == Some(&names.dataset)
            && names.ordinal(pod.metadata.name.as_deref().unwrap_or_default()).is_some()
    };
    let mut pods: Vec<_> = (stores.pods.state_filter(ours).into_iter())
        .filter_map(|pod| Some((names.ordinal(&pod.name_any())?, pod)))
        .collect();
    pods.sort_by_key(|(ordinal, _)| *ordinal);
    pods
}

/// [`Error::Lagging`] while something that was just written has not been seen.
fn await_written(
    written: &Written,
    dataset: &Dataset,
    runtime: Option<&CacheRuntime>,
    loads: &[Arc<DataLoad>],
    names: &Names,
    seen: &Observed,
) -> Result<(), Error> {
    let (worker, ns) = (names.worker(), &names.namespace);
    let volume = persistent_volume(&dataset.uid().unwrap_or_default());
    awaited::<Dataset>(written, ns, &names.dataset, Some(dataset))?;
    awaited::<CacheRuntime>(written, ns, dataset.runtime_name(), runtime)?;
    for load in loads {
        awaited::<DataLoad>(written, ns, &load.name_any(), Some(load.as_ref()))?;
    }
    awaited::<StatefulSet>(written, ns, &worker, seen.statefulset.as_deref())?;
    awaited::<Service>(written, ns, &worker, seen.headless.as_deref())?;
    awaited::<Service>(written, ns, &names.cache(), seen.cache.as_deref())?;
    awaited::<ConfigMap>(written, ns, &names.members(), seen.members.as_deref())?;
    awaited::<ServiceAccount>(written, ns, &worker, seen.account.as_deref())?;
    awaited::<PodDisruptionBudget>(written, ns, &worker, seen.budget.as_deref())?;
    awaited::<PersistentVolumeClaim>(written, ns, &names.dataset, seen.claim.as_deref())?;
    awaited::<PersistentVolume>(written, "", &volume, seen.volume.as_deref())
}

fn awaited<K>(written: &Written, namespace: &str, name: &str, seen: Option<&impl ResourceExt>) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    if written.is_ahead_of::<K>(namespace, name, seen) {
        return Err(Error::Lagging { kind: K::kind(&()).into_owned(), name: name.to_owned() });
    }
    Ok(())
}

/// A stranger's Secret counts as none: to make ours in its place then fails with its name.
async fn own_secret(
    ctx: &Context,
    names: &Names,
    name: String,
    is_expected: bool,
) -> Result<Option<Arc<Secret>>, Error> {
    let found = if is_expected {
        read_secret(ctx, names, &name, OWN).await?
    } else {
        ctx.secrets.peek(&names.namespace, &name, OWN)
    };
    Ok(found.filter(|secret| is_ours(secret.as_ref(), &names.dataset)))
}

async fn named_secrets(
    ctx: &Context,
    dataset: &Dataset,
    names: &Names,
) -> Result<BTreeMap<String, Arc<Secret>>, Error> {
    let wanted = dataset.spec.secret_names();
    let found = try_join_all(wanted.iter().map(|name| read_secret(ctx, names, name, FRESH))).await?;
    Ok(wanted.into_iter().zip(found).filter_map(|(name, secret)| Some((name, secret?))).collect())
}

async fn read_secret(ctx: &Context, names: &Names, name: &str, age: Duration) -> Result<Option<Arc<Secret>>, Error> {
    let found = Box::pin(ctx.secrets.get(&ctx.client, &names.namespace, name, age)).await;
    found.map_err(|source| Error::Secret { name: name.to_owned(), source })
}

/// What calendars and targets name in ConfigMaps; what is not there is absent.
async fn texts(
    ctx: &Context,
    runtime: &CacheRuntime,
    loads: &[Arc<DataLoad>],
    names: &Names,
) -> Result<CalendarTexts, Error> {
    let of_runtime = runtime.spec.autoscaling.iter().flat_map(|spec| &spec.calendars);
    let of_loads = loads.iter().flat_map(|load| load.spec.skip_calendars.iter().chain(&load.spec.only_calendars));
    let calendars = of_runtime.chain(of_loads).filter_map(|calendar| calendar.config_map.as_ref());
    let targets = loads.iter().flat_map(|load| &load.spec.targets).filter_map(|target| target.config_map.as_ref());
    let keys: BTreeSet<ConfigMapKey> = calendars.chain(targets).cloned().collect();
    let mut texts = CalendarTexts::new();
    for key in keys {
        let found = Box::pin(ctx.config_maps.get(&ctx.client, &names.namespace, &key.name, FRESH)).await;
        let found = found.map_err(|source| Error::ConfigMap { name: key.name.clone(), source })?;
        let text = found.as_ref().and_then(|map| map.data.as_ref()?.get(&key.key));
        texts.extend(text.map(|text| (key, text.clone())));
    }
    Ok(texts)
}

/// The client key is taken from the mounts' Secret first: mounts hold it.
fn keys(seen: &Observed) -> KnownKeys {
    let client = key(seen.client_secret.as_ref(), CLIENT_KEY_FILE);
    KnownKeys {
        client: client.or_else(|| key(seen.worker_secret.as_ref(), CLIENT_KEY_FILE)),
        peer: key(seen.worker_secret.as_ref(), PEER_KEY_FILE),
    }
}

/// Key of a Secret, if there is one that can be read.
fn key(secret: Option<&Arc<Secret>>, file: &str) -> Option<Credential> {
    let bytes = secret?.data.as_ref()?.get(file)?;
    Credential::from_hex(std::str::from_utf8(&bytes.0).ok()?).ok()
}

/// The workers, and the numbers of those that have an address.
async fn workers(
    ctx: &Context,
    pair: (&Dataset, &CacheRuntime),
    seen: &Observed,
    fleet: Option<&Fleet>,
) -> Vec<Worker> {
    let silent = |(ordinal, pod): &(u32, Arc<Pod>)| Worker { ordinal: *ordinal, pod: pod.clone(), stats: None };
    let mut workers: Vec<Worker> = seen.pods.iter().map(silent).collect();
    let Some(fleet) = fleet else { return workers };
    let targets: Vec<Target> = workers.iter().filter_map(Worker::target).collect();
    let answers = ctx.poller.answers(pair, fleet, targets.clone()).await;
    for worker in &mut workers {
        let own = targets.iter().zip(&answers).find(|(target, _)| target.ordinal == worker.ordinal);
        worker.stats = own.and_then(|(_, answer)| answer.clone());
    }
    workers
}
