//! Removes what no Dataset accounts for any more: objects of Datasets that went without their finalizer, and objects
//! under names that this version does not use.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt, runtime::reflector::Store};
use penstock_api::{Dataset, names::LABEL_DATASET};
use serde::de::DeserializeOwned;

use super::apply;
use crate::{
    context::Context,
    names::{Names, persistent_volume},
    watches,
};

const PERIOD: Duration = Duration::from_mins(1);
/// The stores follow separate watches: an object of a Dataset that is just being made gets time to be seen.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) async fn run(ctx: Arc<Context>) {
    tokio::time::sleep(SETTLE).await;
    loop {
        if let Err(error) = sweep(&ctx).await {
            tracing::warn!(%error, "an orphan was not removed; it will be tried again");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn sweep(ctx: &Context) -> Result<(), apply::Error> {
    let stores = &ctx.stores;
    let worker = |names: &Names| vec![names.worker()];
    orphans(ctx, &stores.statefulsets, worker).await?;
    orphans(ctx, &stores.services, |n| vec![n.worker(), n.cache()]).await?;
    orphans(ctx, &stores.config_maps, |n| vec![n.members()]).await?;
    orphans(ctx, &stores.claims, |n| vec![n.dataset.clone()]).await?;
    volumes(ctx).await
}

/// Objects whose Dataset is gone, or does not use their name.
async fn orphans<K>(ctx: &Context, store: &Store<K>, wanted: impl Fn(&Names) -> Vec<String>) -> Result<(), apply::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    for object in store.state() {
        let Some(dataset) = object.labels().get(LABEL_DATASET) else { continue };
        let names = Names::new(ResourceExt::namespace(object.as_ref()).unwrap_or_default(), dataset);
        let exists = watches::get(&ctx.stores.datasets, &names.namespace, dataset).is_some();
        if exists && wanted(&names).contains(&object.name_any()) || object.meta().deletion_timestamp.is_some() {
            continue;
        }
        tracing::info!(kind = %K::kind(&()), name = object.name_any(), dataset = names.id(), "removing an orphan");
        let api = Api::<K>::namespaced(ctx.client.clone(), &names.namespace);
        ctx.applier().delete(&api, &object.name_any()).await?;
    }
    Ok(())
}

/// Volumes have no owner that the garbage collector follows: they belong to a namespaced object.
async fn volumes(ctx: &Context) -> Result<(), apply::Error> {
    let uid = |dataset: &Arc<Dataset>| dataset.uid().map(|uid| persistent_volume(&uid));
    let wanted: BTreeSet<String> = ctx.stores.datasets.state().iter().filter_map(uid).collect();
    for volume in ctx.stores.volumes.state() {
        let name = volume.name_any();
        if wanted.contains(&name) || volume.metadata.deletion_timestamp.is_some() {
            continue;
        }
        tracing::info!(name, "removing the volume of a Dataset that is gone");
        let api = Api::all(ctx.client.clone());
        ctx.applier().delete::<k8s_openapi::api::core::v1::PersistentVolume>(&api, &name).await?;
    }
    Ok(())
}
