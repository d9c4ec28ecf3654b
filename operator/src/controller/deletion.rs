//! The end of a Dataset, and of what a runtime leaves behind. Every step may be done already.

use std::time::Duration;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use penstock_api::{Dataset, names::FINALIZER};
use penstock_plan::Names;
use serde::de::DeserializeOwned;

use super::{
    apply::{self, Applier},
    dereference::{self, Observed},
    reconcile::{Error, Pass, pass, volume_name, write_status},
};
use crate::context::Context;

/// Pods are not watched but those of workers.
const IN_USE: Duration = Duration::from_secs(2);

/// Waits until no pod uses the claim, then deletes all, then lets the Dataset go.
pub(super) async fn reconcile(dataset: &Dataset, names: &Names, ctx: &Context) -> Result<Action, Error> {
    if !dataset.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(Action::await_change());
    }
    let mut users = dereference::users(ctx, names).await?;
    let observed = dereference::watched(ctx, dataset, names);
    let applier = ctx.applier();
    if users.is_empty() {
        if let Some(claim) = &observed.claim {
            delete::<PersistentVolumeClaim>(&applier, names, &claim.name_any()).await?;
        }
        // Nobody can begin to use a claim under deletion, so this second look is the last.
        users = dereference::users(ctx, names).await?;
    }
    if !users.is_empty() {
        return wait(dataset, names, users, ctx).await;
    }
    of_runtime(names, &observed, ctx).await?;
    of_dataset(dataset, names, &observed, ctx).await?;
    ctx.workers.forget(&names.id());
    let others: Vec<_> = dataset.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
    match set_finalizers(dataset, &others, &applier).await {
        Err(error) if error.is_race() => Err(error.into()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Action::await_change()),
    }
}

/// Goes on serving the pods that use it, as far as the namespace lets.
async fn wait(dataset: &Dataset, names: &Names, users: Vec<String>, ctx: &Context) -> Result<Action, Error> {
    let found = match pass(dataset, names, ctx).await {
        Err(Error::Apply(error)) if error.is_terminating() => Pass::default(),
        found => found?,
    };
    write_status(dataset, names, &Pass { users, ..found }, ctx).await?;
    Ok(Action::requeue(IN_USE))
}

/// What goes with the runtime: the workers and what only they need.
pub(super) async fn of_runtime(names: &Names, seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let applier = ctx.applier();
    let worker = names.worker();
    if let Some(statefulset) = &seen.statefulset {
        // Its Secret is not watched, and is there exactly while the StatefulSet is.
        delete::<Secret>(&applier, names, &worker).await?;
        ctx.secrets.forget(&names.namespace, &worker);
        if statefulset.metadata.deletion_timestamp.is_none() {
            delete::<StatefulSet>(&applier, names, &worker).await?;
        }
    }
    if seen.headless.is_some() {
        delete::<Service>(&applier, names, &worker).await?;
    }
    if seen.budget.is_some() {
        delete::<PodDisruptionBudget>(&applier, names, &worker).await?;
    }
    if seen.account.is_some() {
        delete::<ServiceAccount>(&applier, names, &worker).await?;
    }
    Ok(())
}

/// What outlives runtimes: the volume and what the mounts know.
async fn of_dataset(dataset: &Dataset, names: &Names, seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let applier = ctx.applier();
    if let (Some(_), Some(volume)) = (&seen.volume, volume_name(dataset)) {
        applier.delete(&Api::<PersistentVolume>::all(ctx.client.clone()), &volume).await?;
    }
    if seen.cache.is_some() {
        delete::<Service>(&applier, names, &names.cache()).await?;
    }
    if seen.members.is_some() {
        delete::<ConfigMap>(&applier, names, &names.members()).await?;
    }
    for name in [names.client_secret(), names.worker()] {
        if ours(ctx, names, &name).await? {
            delete::<Secret>(&applier, names, &name).await?;
        }
        ctx.secrets.forget(&names.namespace, &name);
    }
    Ok(())
}

/// Whether there is a Secret of this name that the operator made.
async fn ours(ctx: &Context, names: &Names, name: &str) -> Result<bool, Error> {
    let found = ctx.secrets.get(&ctx.client, &names.namespace, name).await;
    let found =
        found.map_err(|source| dereference::Error::Read { kind: "Secret".into(), name: name.into(), source })?;
    Ok(found.is_some_and(|secret| dereference::is_ours(secret.as_ref(), names)))
}

async fn delete<K>(applier: &Applier<'_>, names: &Names, name: &str) -> Result<(), apply::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    applier.delete(&Api::<K>::namespaced(applier.client.clone(), &names.namespace), name).await
}

/// With the resource version that was seen, so that nobody else's change is undone.
pub(super) async fn set_finalizers(
    dataset: &Dataset,
    finalizers: &[&str],
    applier: &Applier<'_>,
) -> Result<(), apply::Error> {
    let api = Api::<Dataset>::namespaced(applier.client.clone(), &dataset.namespace().unwrap_or_default());
    let metadata = serde_json::json!({"finalizers": finalizers, "resourceVersion": dataset.resource_version()});
    applier.merge(&api, &dataset.name_any(), &serde_json::json!({ "metadata": metadata })).await
}
