//! The end of a Dataset, and of what a runtime leaves behind. Every step may be done already.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
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
pub(super) enum Progress {
    Done,
    /// These pods use the claim.
    InUse(Vec<String>),
}

/// Deletes everything once no pod uses the claim, then lets the Dataset go.
pub(super) async fn delete(dataset: &Dataset, names: &Names, ctx: &Context) -> Result<Progress, Error> {
    if !dataset.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(Progress::Done);
    }
    let mut users = users(ctx, names).await?;
    let seen = dereference::watched(&ctx.stores, dataset, names);
    let applier = ctx.applier();
    if users.is_empty() {
        if let Some(claim) = &seen.claim {
            delete_one::<PersistentVolumeClaim>(&applier, names, &claim.name_any()).await?;
        }
        // Nobody can begin to use a claim under deletion, so this second look is the last.
        users = self::users(ctx, names).await?;
    }
    if !users.is_empty() {
        return Ok(Progress::InUse(users));
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
    if let Some(statefulset) = &seen.statefulset {
        // Its Secret is not watched, and is there exactly while the StatefulSet is.
        delete_one::<Secret>(&applier, names, &worker).await?;
        ctx.secrets.forget(&names.namespace, &worker);
        if statefulset.metadata.deletion_timestamp.is_none() {
            delete_one::<StatefulSet>(&applier, names, &worker).await?;
        }
    }
    if seen.headless.is_some() {
        delete_one::<Service>(&applier, names, &worker).await?;
    }
    if seen.budget.is_some() {
        delete_one::<PodDisruptionBudget>(&applier, names, &worker).await?;
    }
    if seen.account.is_some() {
        delete_one::<ServiceAccount>(&applier, names, &worker).await?;
    }
    Ok(())
}

/// What outlives runtimes: the volume and what the mounts know.
async fn of_dataset(dataset: &Dataset, names: &Names, seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let applier = ctx.applier();
    if let (Some(_), Some(uid)) = (&seen.volume, dataset.uid()) {
        applier.delete(&Api::<PersistentVolume>::all(ctx.client.clone()), &persistent_volume(&uid)).await?;
    }
    if seen.cache.is_some() {
        delete_one::<Service>(&applier, names, &names.cache()).await?;
    }
    if seen.members.is_some() {
        delete_one::<ConfigMap>(&applier, names, &names.members()).await?;
    }
    for name in [names.client_secret(), names.worker()] {
        if ours(ctx, names, &name).await? {
            delete_one::<Secret>(&applier, names, &name).await?;
        }
        ctx.secrets.forget(&names.namespace, &name);
    }
    Ok(())
}

/// Whether there is a Secret of this name that the operator made.
async fn ours(ctx: &Context, names: &Names, name: &str) -> Result<bool, Error> {
    let found = ctx.secrets.get(&ctx.client, &names.namespace, name).await;
    let found = found.map_err(|source| apply::error::<Secret>("read", name, source))?;
    Ok(found.is_some_and(|secret| is_ours(secret.as_ref(), &names.dataset)))
}

async fn delete_one<K>(applier: &Applier<'_>, names: &Names, name: &str) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    applier.delete(&Api::<K>::namespaced(applier.client.clone(), &names.namespace), name).await
}

/// Pods of the namespace that use the Dataset's claim and have not ended, by name.
async fn users(ctx: &Context, names: &Names) -> Result<Vec<String>, Error> {
    let api = Api::<Pod>::namespaced(ctx.client.clone(), &names.namespace);
    let list = api.list(&ListParams::default()).await.map_err(|source| apply::error::<Pod>("read", "list", source))?;
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
