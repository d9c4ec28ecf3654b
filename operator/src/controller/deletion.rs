//! The end of a Dataset, and of what a runtime leaves behind. Every step may be done already.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Resource, ResourceExt};
use penstock_api::{Dataset, names::FINALIZER};
use penstock_plan::{Names, names::persistent_volume};
use serde::de::DeserializeOwned;

use super::{
    apply::{self, Applier, Error},
    dereference,
    observed::{Observed, is_ours},
};
use crate::context::Context;

/// How far the deletion of a Dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// The claim is still there: pods use it, or have just ceased to.
    ClaimRemains,
}

/// Deletes the claim. Kubernetes keeps it while pods use it, and lets no other pod begin to; its end is watched. Then
/// deletes all the rest, and lets the Dataset go.
pub(super) async fn delete(dataset: &Dataset, names: &Names, ctx: &Context) -> Result<Progress, Error> {
    if !dataset.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(Progress::Done);
    }
    let seen = dereference::watched(&ctx.stores, dataset, names);
    let applier = ctx.applier();
    if let Some(claim) = &seen.claim {
        let is_there = claim.metadata.deletion_timestamp.is_none();
        remove::<PersistentVolumeClaim>(&applier, names, &claim.name_any(), is_there).await?;
        return Ok(Progress::ClaimRemains);
    }
    of_runtime(names, &seen, ctx).await?;
    of_dataset(dataset, names, &seen, ctx).await?;
    ctx.workers.forget(&names.id());
    let others: Vec<_> = dataset.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
    apply::set_finalizers(dataset, &others, &applier).await?;
    Ok(Progress::Done)
}

/// What goes with the runtime: the workers and what only they need.
pub(super) async fn of_runtime(names: &Names, seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let applier = ctx.applier();
    let worker = names.worker();
    let statefulset = seen.statefulset.as_ref().filter(|set| set.metadata.deletion_timestamp.is_none());
    remove::<StatefulSet>(&applier, names, &worker, statefulset.is_some()).await?;
    remove::<Service>(&applier, names, &worker, seen.headless.is_some()).await?;
    remove::<PodDisruptionBudget>(&applier, names, &worker, seen.budget.is_some()).await?;
    remove::<ServiceAccount>(&applier, names, &worker, seen.account.is_some()).await
}

/// What outlives runtimes: the volume, what the mounts know, and the key by which they know workers.
async fn of_dataset(dataset: &Dataset, names: &Names, seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let applier = ctx.applier();
    if let (Some(_), Some(uid)) = (&seen.volume, dataset.uid()) {
        applier.delete(&Api::<PersistentVolume>::all(ctx.client.clone()), &persistent_volume(&uid)).await?;
    }
    remove::<Service>(&applier, names, &names.cache(), seen.cache.is_some()).await?;
    remove::<ConfigMap>(&applier, names, &names.members(), seen.members.is_some()).await?;
    for name in [names.client_secret(), names.worker()] {
        delete_secret(&name, names, ctx).await?;
    }
    Ok(())
}

/// Unless it is someone else's who took the name. It is read anew: what is remembered may have been replaced.
async fn delete_secret(name: &str, names: &Names, ctx: &Context) -> Result<(), Error> {
    ctx.secrets.forget(&names.namespace, name);
    let api = Api::<Secret>::namespaced(ctx.client.clone(), &names.namespace);
    let found = api.get_metadata_opt(name).await.map_err(|source| apply::error::<Secret>("read", name, source))?;
    if found.is_some_and(|secret| is_ours(&secret, &names.dataset)) {
        ctx.applier().delete(&api, name).await?;
    }
    Ok(())
}

/// Deletes what is there, and waits for no watch to bring what went by other means, such as garbage collection.
async fn remove<K>(applier: &Applier<'_>, names: &Names, name: &str, is_there: bool) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    applier.written.forget::<K>(&names.namespace, name);
    if !is_there {
        return Ok(());
    }
    applier.delete(&Api::<K>::namespaced(applier.client.clone(), &names.namespace), name).await
}
