//! The one step that writes objects, and what running workers are told.

mod applier;
mod compare;
mod update;
mod workers;

use std::time::Duration;

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Secret};
use kube::{Api, ResourceExt};
use penstock_api::{Dataset, Reason, names::FINALIZER};
use penstock_plan::validate::Invalid;

use super::{
    build::{VolumeObjects, WorkerObjects},
    observed::{Observed, is_bound},
};
use crate::context::Context;

pub(super) use applier::error;
pub use applier::{Applier, Error};
pub(super) use workers::tell as tell_workers;

/// What the status tells of the writes.
#[derive(Debug)]
pub(super) struct Applied {
    /// Pods can mount the Dataset.
    pub(super) bound: bool,
    /// Why not everything was written.
    pub(super) refusal: Option<Invalid>,
}

impl Applied {
    /// Nothing was to be written.
    pub(super) fn nothing(seen: &Observed) -> Self {
        Self { bound: seen.is_bound(), refusal: None }
    }
}

/// Writes what a mount needs, then `workers`, if it is their turn.
pub(super) async fn apply(
    dataset: &Dataset,
    volume: VolumeObjects,
    workers: Option<WorkerObjects>,
    seen: &Observed,
    ctx: &Context,
) -> Result<Applied, Error> {
    let mut applied = Applied::nothing(seen);
    let written = async {
        // The finalizer comes before anything that it is to clean up.
        finalize(dataset, &ctx.applier()).await?;
        applied.bound = Box::pin(apply_volume(volume, seen, ctx)).await?;
        if let Some(workers) = workers {
            Box::pin(apply_workers(workers, seen, ctx)).await?;
        }
        Ok(())
    };
    match written.await {
        Ok(()) => {}
        Err(Error::Taken { kind, name }) => applied.refusal = Some(taken(&kind, &name, &dataset.name_any())),
        Err(error) => applied.refusal = Some(error.refusal().ok_or(error)?),
    }
    Ok(applied)
}

fn taken(kind: &str, name: &str, dataset: &str) -> Invalid {
    Invalid::new(
        Reason::NameTaken,
        format!(
            "{kind} '{name}' exists and is not Penstock's, but Dataset '{dataset}' needs the name; delete that {kind}, \
             or give the Dataset another name"
        ),
    )
}

/// The workers' key before the mounts' half of it is told; what others refer to, all at once; then the volume, which names
/// the Service's address and the claim's UID. Returns whether the volume is bound to the claim.
async fn apply_volume(objects: VolumeObjects, seen: &Observed, ctx: &Context) -> Result<bool, Error> {
    let applier = ctx.applier();
    apply_secret(objects.worker_secret, seen.worker_secret.as_deref(), ctx).await?;
    let (claim, volume) = objects.claim.unzip();
    let apply_claim = async {
        match claim {
            Some(claim) => applier.ensure(claim, seen.claim.as_deref(), None).await,
            None => Ok(None),
        }
    };
    let (cache, claim, ()) = tokio::try_join!(
        applier.ensure(objects.cache, seen.cache.as_deref(), None),
        apply_claim,
        apply_secret(objects.client_secret, seen.client_secret.as_deref(), ctx),
    )?;
    let cache = cache.as_ref().or(seen.cache.as_deref());
    let claim = claim.as_ref().or(seen.claim.as_deref());
    let (Some(cache), Some(claim), Some(volume)) = (cache, claim, volume) else { return Ok(false) };
    let Some(volume) = volume.bind(cache, claim) else { return Ok(false) };
    let written = applier.ensure_in(&Api::all(ctx.client.clone()), volume, seen.volume.as_deref(), None).await?;
    Ok(written.as_ref().or(seen.volume.as_deref()).is_some_and(|volume| is_bound(claim, volume)))
}

async fn apply_workers(objects: WorkerObjects, seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let applier = ctx.applier();
    // Two lists must never have one number: the write fails if the list that it follows is not the newest.
    let expect = seen.members.as_ref().and_then(|m| m.resource_version());
    // Pods start with what they read, so that comes first.
    applier.ensure(objects.members, seen.members.as_deref(), expect).await?;
    if let Some(statefulset) = &seen.statefulset {
        take_over_updates(statefulset, &applier).await?;
    }
    let all = tokio::try_join!(
        applier.ensure(objects.headless, seen.headless.as_deref(), None),
        applier.ensure(objects.account, seen.account.as_deref(), None),
        applier.ensure(objects.budget, seen.budget.as_deref(), None),
        applier.ensure(objects.statefulset, seen.statefulset.as_deref(), None),
    );
    all.map(drop)
}

/// A `StatefulSet` of a release that let the controller update pods does so no more, before its template changes. Its
/// strategy has a parameter, which nobody owns and an apply would leave, and which is refused then.
async fn take_over_updates(statefulset: &StatefulSet, applier: &Applier<'_>) -> Result<(), Error> {
    let strategy = statefulset.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.is_none_or(|strategy| strategy.rolling_update.is_none()) {
        return Ok(());
    }
    let api = Api::<StatefulSet>::namespaced(applier.client.clone(), &statefulset.namespace().unwrap_or_default());
    let patch = serde_json::json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}});
    applier.merge(&api, &statefulset.name_any(), &patch).await
}

/// Secrets are not watched: one of ours that was not expected is remembered for the next pass.
async fn apply_secret(desired: Secret, seen: Option<&Secret>, ctx: &Context) -> Result<(), Error> {
    let (namespace, name) = (desired.namespace().unwrap_or_default(), desired.name_any());
    match ctx.applier().ensure(desired, seen, None).await {
        Ok(Some(written)) => {
            ctx.secrets.put(written);
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(unseen @ Error::Unseen { .. }) => {
            let read = ctx.secrets.get(&ctx.client, &namespace, &name, Duration::ZERO).await;
            read.map_err(|source| error::<Secret>("read", &name, source))?;
            Err(unseen)
        }
        Err(error) => Err(error),
    }
}

async fn finalize(dataset: &Dataset, applier: &Applier<'_>) -> Result<(), Error> {
    if dataset.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(());
    }
    let finalizers: Vec<_> = dataset.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
    set_finalizers(dataset, &finalizers, applier).await
}

/// With the resource version that was seen, so that nobody else's change is undone.
pub(super) async fn set_finalizers(dataset: &Dataset, finalizers: &[&str], applier: &Applier<'_>) -> Result<(), Error> {
    let api = Api::<Dataset>::namespaced(applier.client.clone(), &dataset.namespace().unwrap_or_default());
    let metadata = serde_json::json!({"finalizers": finalizers, "resourceVersion": dataset.resource_version()});
    applier.merge(&api, &dataset.name_any(), &serde_json::json!({ "metadata": metadata })).await
}
