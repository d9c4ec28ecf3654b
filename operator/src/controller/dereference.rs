//! Everything that a reconcile looks at, read in one step: from memory where it is watched, else from the API server,
//! and the workers' own numbers.

use std::{fmt::Debug, sync::Arc};

use futures::future::{join_all, try_join_all};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Resource, ResourceExt, api::PartialObjectMeta};
use penstock_api::{
    Dataset, Reason,
    names::{LABEL_DATASET, LABEL_MANAGED_BY, MANAGED_BY},
};
use penstock_plan::{
    Names,
    names::persistent_volume,
    scaling::WorkerSeen,
    validate::{Invalid, SecretData, Secrets, secret_names},
};
use penstock_wire::{
    Credential,
    config::{CLIENT_KEY_FILE, PEER_KEY_FILE, WIRE_PORT},
};
use serde::de::DeserializeOwned;

use super::status;
use crate::{context::Context, watches, worker_api::Fleet};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {kind} {name}: {source}")]
    Read { kind: String, name: String, source: kube::Error },
    /// The watch is behind what the API server has; the next event brings it.
    #[error("{kind} {name} is not in the watch yet")]
    Lagging { kind: String, name: String },
    #[error("{0}")]
    Taken(Invalid),
}

/// Our own objects of one Dataset, as far as they exist.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub statefulset: Option<Arc<StatefulSet>>,
    pub headless: Option<Arc<Service>>,
    pub cache: Option<Arc<Service>>,
    pub members: Option<Arc<ConfigMap>>,
    pub account: Option<Arc<PartialObjectMeta<ServiceAccount>>>,
    pub budget: Option<Arc<PartialObjectMeta<PodDisruptionBudget>>>,
    pub claim: Option<Arc<PersistentVolumeClaim>>,
    pub volume: Option<Arc<PersistentVolume>>,
    pub worker_secret: Option<Arc<Secret>>,
    pub client_secret: Option<Arc<Secret>>,
    /// Worker pods, by ordinal.
    pub pods: Vec<(u32, Arc<Pod>)>,
}

/// Reads what is watched; no request is made.
pub(super) fn watched(ctx: &Context, dataset: &Dataset, names: &Names) -> Observed {
    let (stores, ns) = (&ctx.stores, names.namespace.as_str());
    let volume = persistent_volume(&dataset.uid().unwrap_or_default());
    Observed {
        statefulset: watches::get(&stores.statefulsets, ns, &names.worker()),
        headless: watches::get(&stores.services, ns, &names.worker()),
        cache: watches::get(&stores.services, ns, &names.cache()),
        members: watches::get(&stores.config_maps, ns, &names.members()),
        account: watches::get(&stores.accounts, ns, &names.worker()),
        budget: watches::get(&stores.budgets, ns, &names.worker()),
        claim: watches::get(&stores.claims, ns, &names.dataset),
        volume: stores.volumes.get(&kube::runtime::reflector::ObjectRef::new(&volume)),
        pods: pods(ctx, names),
        ..Observed::default()
    }
}

fn pods(ctx: &Context, names: &Names) -> Vec<(u32, Arc<Pod>)> {
    let ours = |pod: &Pod| {
        pod.metadata.namespace.as_deref() == Some(&names.namespace)
            && pod.labels().get(LABEL_DATASET) == Some(&names.dataset)
            && names.ordinal(pod.metadata.name.as_deref().unwrap_or_default()).is_some()
    };
    let mut pods: Vec<_> = (ctx.stores.pods.state_filter(ours).into_iter())
        .filter_map(|pod| Some((names.ordinal(&pod.name_any())?, pod)))
        .collect();
    pods.sort_by_key(|(ordinal, _)| *ordinal);
    pods
}

/// Reads our two Secrets too, where they can be expected: each is made just before what else it is watched by.
pub(super) async fn own(ctx: &Context, dataset: &Dataset, names: &Names) -> Result<Observed, Error> {
    let mut seen = watched(ctx, dataset, names);
    await_made(ctx, dataset, names, &seen)?;
    let (worker_secret, client_secret) = tokio::try_join!(
        own_secret(ctx, names, names.worker(), seen.statefulset.is_some()),
        own_secret(ctx, names, names.client_secret(), seen.claim.is_some()),
    )?;
    (seen.worker_secret, seen.client_secret) = (worker_secret, client_secret);
    Ok(seen)
}

/// [`Error::Lagging`] while something that was just made has not been seen.
fn await_made(ctx: &Context, dataset: &Dataset, names: &Names, seen: &Observed) -> Result<(), Error> {
    let (worker, ns) = (names.worker(), &names.namespace);
    let volume = persistent_volume(&dataset.uid().unwrap_or_default());
    awaited::<Dataset>(ctx, ns, &names.dataset, status::says_bound(dataset))?;
    awaited::<StatefulSet>(ctx, ns, &worker, seen.statefulset.is_some())?;
    awaited::<Service>(ctx, ns, &worker, seen.headless.is_some())?;
    awaited::<Service>(ctx, ns, &names.cache(), seen.cache.is_some())?;
    awaited::<ConfigMap>(ctx, ns, &names.members(), seen.members.is_some())?;
    awaited::<ServiceAccount>(ctx, ns, &worker, seen.account.is_some())?;
    awaited::<PodDisruptionBudget>(ctx, ns, &worker, seen.budget.is_some())?;
    awaited::<PersistentVolumeClaim>(ctx, ns, &names.dataset, seen.claim.is_some())?;
    awaited::<PersistentVolume>(ctx, "", &volume, seen.volume.is_some())
}

fn awaited<K>(ctx: &Context, namespace: &str, name: &str, is_seen: bool) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    if is_seen {
        ctx.made.forget::<K>(namespace, name);
    } else if ctx.made.is_awaited::<K>(namespace, name) {
        return Err(Error::Lagging { kind: K::kind(&()).into_owned(), name: name.to_owned() });
    }
    Ok(())
}

async fn own_secret(
    ctx: &Context,
    names: &Names,
    name: String,
    is_expected: bool,
) -> Result<Option<Arc<Secret>>, Error> {
    if !is_expected {
        // A stranger's was read to find out whose it is.
        return Ok(ctx.secrets.peek(&names.namespace, &name).filter(|secret| is_ours(secret.as_ref(), names)));
    }
    let found = read_secret(ctx, names, &name).await?;
    if let Some(secret) = &found
        && !is_ours(secret.as_ref(), names)
    {
        return Err(taken::<Secret>(&name, names));
    }
    Ok(found)
}

/// Why an object that was not seen could not be made: [`Error::Taken`] when its name is someone else's,
/// [`Error::Lagging`] when it is ours after all.
pub(super) async fn find_taken(ctx: &Context, names: &Names, seen: &Observed) -> Result<(), Error> {
    let (worker, cache, members) = (names.worker(), names.cache(), names.members());
    let client = names.client_secret();
    tokio::try_join!(
        untaken::<StatefulSet>(ctx, names, &worker, seen.statefulset.is_some()),
        untaken::<Service>(ctx, names, &worker, seen.headless.is_some()),
        untaken::<Service>(ctx, names, &cache, seen.cache.is_some()),
        untaken::<ConfigMap>(ctx, names, &members, seen.members.is_some()),
        untaken::<ServiceAccount>(ctx, names, &worker, seen.account.is_some()),
        untaken::<PodDisruptionBudget>(ctx, names, &worker, seen.budget.is_some()),
        untaken::<PersistentVolumeClaim>(ctx, names, &names.dataset, seen.claim.is_some()),
        own_secret(ctx, names, worker.clone(), seen.worker_secret.is_none()),
        own_secret(ctx, names, client, seen.client_secret.is_none()),
    )
    .map(drop)
}

async fn read_secret(ctx: &Context, names: &Names, name: &str) -> Result<Option<Arc<Secret>>, Error> {
    let found = Box::pin(ctx.secrets.get(&ctx.client, &names.namespace, name)).await;
    found.map_err(|source| Error::Read { kind: "Secret".into(), name: name.to_owned(), source })
}

pub(super) fn is_ours(object: &impl ResourceExt, names: &Names) -> bool {
    let labels = object.labels();
    labels.get(LABEL_MANAGED_BY).map(String::as_str) == Some(MANAGED_BY)
        && labels.get(LABEL_DATASET) == Some(&names.dataset)
}

fn taken<K: Resource<DynamicType = ()>>(name: &str, names: &Names) -> Error {
    let kind = K::kind(&());
    Error::Taken(Invalid::new(
        Reason::NameTaken,
        format!(
            "{kind} '{name}' exists and is not Penstock's, but Dataset '{}' needs the name; delete that {kind}, or \
             give the Dataset another name",
            names.dataset
        ),
    ))
}

async fn untaken<K>(ctx: &Context, names: &Names, name: &str, is_watched: bool) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if is_watched {
        return Ok(());
    }
    let api = Api::<K>::namespaced(ctx.client.clone(), &names.namespace);
    let kind = || K::kind(&()).into_owned();
    match Box::pin(api.get_metadata_opt(name)).await {
        Ok(None) => Ok(()),
        Ok(Some(found)) if is_ours(&found, names) => Err(Error::Lagging { kind: kind(), name: name.to_owned() }),
        Ok(Some(_)) => Err(taken::<K>(name, names)),
        Err(source) => Err(Error::Read { kind: kind(), name: name.to_owned(), source }),
    }
}

/// The Secrets that the Dataset names, those that exist.
pub(super) async fn secrets(ctx: &Context, dataset: &Dataset, names: &Names) -> Result<Secrets, Error> {
    let wanted = secret_names(dataset);
    let found = try_join_all(wanted.iter().map(|name| read_secret(ctx, names, name))).await?;
    let data = |secret: &Secret| {
        SecretData(secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect())
    };
    Ok(wanted.into_iter().zip(found).filter_map(|(name, secret)| Some((name, data(secret?.as_ref())))).collect())
}

/// Key of a Secret, if there is one that can be read.
fn key(secret: Option<&Arc<Secret>>, file: &str) -> Option<Credential> {
    let bytes = secret?.data.as_ref()?.get(file)?;
    Credential::from_hex(std::str::from_utf8(&bytes.0).ok()?).ok()
}

/// The keys in force. The client key is taken from the mounts' Secret first: mounts hold it.
pub(super) fn keys(observed: &Observed) -> (Option<Credential>, Option<Credential>) {
    let client = key(observed.client_secret.as_ref(), CLIENT_KEY_FILE);
    let client = client.or_else(|| key(observed.worker_secret.as_ref(), CLIENT_KEY_FILE));
    (client, key(observed.worker_secret.as_ref(), PEER_KEY_FILE))
}

/// Asks every worker that has an address for its numbers, all at once.
pub(super) async fn workers(ctx: &Context, observed: &Observed, fleet: Option<&Fleet>) -> Vec<WorkerSeen> {
    let ask = |ordinal: u32, pod: Arc<Pod>| async move {
        let seen = seen(ordinal, &pod);
        match (fleet, seen.addr.as_deref()) {
            (Some(fleet), Some(addr)) => {
                let stats = ctx.workers.stats(fleet, addr).await;
                if let Err(error) = &stats {
                    tracing::debug!(dataset = fleet.dataset, error, "a worker does not answer");
                }
                WorkerSeen { stats: stats.ok(), ..seen }
            }
            _ => seen,
        }
    };
    join_all(observed.pods.iter().map(|(ordinal, pod)| ask(*ordinal, pod.clone()))).await
}

/// What the pod itself tells.
fn seen(ordinal: u32, pod: &Pod) -> WorkerSeen {
    let status = pod.status.as_ref();
    let running = status.and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Running");
    let ip = status.and_then(|s| s.pod_ip.as_deref()).filter(|ip| running && !ip.is_empty());
    let ready = status
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    WorkerSeen {
        ordinal,
        addr: ip.map(|ip| if ip.contains(':') { format!("[{ip}]:{WIRE_PORT}") } else { format!("{ip}:{WIRE_PORT}") }),
        ready: ready && pod.metadata.deletion_timestamp.is_none(),
        stats: None,
    }
}

/// Pods of the namespace that use the Dataset's claim and have not ended, by name.
pub(super) async fn users(ctx: &Context, names: &Names) -> Result<Vec<String>, Error> {
    let api = Api::<Pod>::namespaced(ctx.client.clone(), &names.namespace);
    let list = api.list(&kube::api::ListParams::default()).await;
    let list = list.map_err(|source| Error::Read { kind: "Pod".into(), name: "list".into(), source })?;
    let mut users: Vec<_> =
        list.items.iter().filter(|pod| uses(pod, &names.dataset)).map(ResourceExt::name_any).collect();
    users.sort();
    Ok(users)
}

fn uses(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.persistent_volume_claim.as_ref()).any(|v| v.claim_name == claim)
}
