//! Removes what no Dataset accounts for any more: objects of Datasets that went without their finalizer, and objects
//! under names that this version does not use.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{Api, Resource, ResourceExt, runtime::reflector::Store};
use penstock_api::{Dataset, names::LABEL_DATASET};
use penstock_plan::{Names, names::persistent_volume};
use serde::de::DeserializeOwned;

use super::{apply, observed::is_ours};
use crate::{context::Context, names::NAMESPACE_LABEL, watches};

const PERIOD: Duration = Duration::from_mins(1);
/// The stores follow separate watches: an object of a Dataset that is just being made gets time to be seen.
const SETTLE: Duration = Duration::from_secs(5);

/// In `namespace` alone, if it is given: of others, nobody here knows which Datasets there are.
pub(super) async fn run(ctx: Arc<Context>, namespace: Option<String>) {
    tokio::time::sleep(SETTLE).await;
    loop {
        sweep(&ctx, namespace.as_deref()).await;
        tokio::time::sleep(PERIOD).await;
    }
}

async fn sweep(ctx: &Context, namespace: Option<&str>) {
    let stores = &ctx.stores;
    let worker = |names: &Names| vec![names.worker()];
    // Secrets are not watched: they go first, while what tells of them is there.
    secrets(ctx, &stores.statefulsets, Names::worker).await;
    secrets(ctx, &stores.claims, Names::worker).await;
    secrets(ctx, &stores.claims, Names::client_secret).await;
    orphans(ctx, &stores.statefulsets, worker).await;
    orphans(ctx, &stores.accounts, worker).await;
    orphans(ctx, &stores.budgets, worker).await;
    orphans(ctx, &stores.services, |n| vec![n.worker(), n.cache()]).await;
    orphans(ctx, &stores.config_maps, |n| vec![n.members()]).await;
    orphans(ctx, &stores.claims, |n| vec![n.dataset.clone()]).await;
    volumes(ctx, namespace).await;
}

/// One that cannot be removed does not keep the others.
fn note(removed: Result<(), apply::Error>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "an orphan was not removed; it will be tried again");
    }
}

/// The Secret `name` of every Dataset that is gone and of which `store` still has an object.
async fn secrets<K>(ctx: &Context, store: &Store<K>, name: impl Fn(&Names) -> String)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + 'static,
{
    for object in store.state() {
        let Some(names) = names_of(object.as_ref()).filter(|names| !exists(ctx, names)) else { continue };
        note(remove_secret(ctx, &names, &name(&names)).await);
    }
}

async fn remove_secret(ctx: &Context, names: &Names, name: &str) -> Result<(), apply::Error> {
    let api = Api::<Secret>::namespaced(ctx.client.clone(), &names.namespace);
    let found = api.get_metadata_opt(name).await.map_err(|source| apply::error::<Secret>("read", name, source))?;
    if found.is_some_and(|secret| is_ours(&secret, &names.dataset)) {
        tracing::info!(kind = "Secret", name, dataset = names.id(), "removing an orphan");
        ctx.applier().delete(&api, name).await?;
    }
    ctx.secrets.forget(&names.namespace, name);
    Ok(())
}

/// The names of the Dataset that an object belongs to.
fn names_of(object: &impl ResourceExt) -> Option<Names> {
    let dataset = object.labels().get(LABEL_DATASET)?;
    Some(Names::new(object.namespace().unwrap_or_default(), dataset))
}

fn exists(ctx: &Context, names: &Names) -> bool {
    watches::get(&ctx.stores.datasets, &names.namespace, &names.dataset).is_some()
}

/// Objects whose Dataset is gone, or does not use their name.
async fn orphans<K>(ctx: &Context, store: &Store<K>, wanted: impl Fn(&Names) -> Vec<String>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    for object in store.state() {
        let Some(names) = names_of(object.as_ref()) else { continue };
        let is_wanted = exists(ctx, &names) && wanted(&names).contains(&object.name_any());
        if is_wanted || object.meta().deletion_timestamp.is_some() {
            continue;
        }
        tracing::info!(kind = %K::kind(&()), name = object.name_any(), dataset = names.id(), "removing an orphan");
        let api = Api::<K>::namespaced(ctx.client.clone(), &names.namespace);
        note(ctx.applier().delete(&api, &object.name_any()).await);
    }
}

/// Volumes have no owner that the garbage collector follows: they belong to a namespaced object. They are watched in all
/// namespaces, for they are in none.
async fn volumes(ctx: &Context, namespace: Option<&str>) {
    let uid = |dataset: &Arc<Dataset>| dataset.uid().map(|uid| persistent_volume(&uid));
    let wanted: BTreeSet<String> = ctx.stores.datasets.state().iter().filter_map(uid).collect();
    for volume in ctx.stores.volumes.state() {
        let name = volume.name_any();
        let is_foreign = namespace.is_some_and(|ours| volume.labels().get(NAMESPACE_LABEL).is_none_or(|n| n != ours));
        if is_foreign || wanted.contains(&name) || volume.metadata.deletion_timestamp.is_some() {
            continue;
        }
        tracing::info!(name, "removing the volume of a Dataset that is gone");
        let api = Api::all(ctx.client.clone());
        note(ctx.applier().delete::<k8s_openapi::api::core::v1::PersistentVolume>(&api, &name).await);
    }
}
