//! Plan, build, apply: from a valid pair to the objects on the API server.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret};
use kube::{Api, ResourceExt};
use penstock_api::{
    Dataset, Reason,
    names::{ANNOTATION_CONFIG_HASH, ATTRIBUTE_ENDPOINT, FINALIZER},
};
use penstock_plan::{
    Keys, config, scaling,
    validate::{Invalid, ValidDataset, ValidRuntime},
};
use penstock_wire::Credential;

use super::{
    apply::{self, Applier},
    build::{self, Blueprint, seconds},
    deletion,
    dereference::{self, Observed},
    reconcile::{Error, Pass},
    status,
};
use crate::{context::Context, names::DRAIN_STARTED, worker_api::Fleet};

pub(super) async fn set_up(
    dataset: &Dataset,
    valid: &ValidDataset,
    valid_runtime: &ValidRuntime,
    observed: &Observed,
    keys: (Option<Credential>, Option<Credential>),
    pass: &mut Pass,
    ctx: &Context,
) -> Result<(), Error> {
    let Some(runtime) = pass.runtime.clone() else { return Ok(()) };
    let generated = |key: Option<Credential>| key.map_or_else(Credential::generate, Ok);
    let keys = Keys { client: generated(keys.0)?, peer: generated(keys.1)? };
    let config = config::worker_config(valid, valid_runtime, |index, _| config::tier_dir(index));
    let files = config::config_files(&config, valid, &keys);
    let scaling = scaling(valid, valid_runtime, observed, &pass.workers);
    let blueprint = Blueprint {
        dataset,
        runtime: &runtime,
        valid,
        valid_runtime,
        files: &files,
        keys: &keys,
        scaling: &scaling,
        default_image: &ctx.worker_image,
    };
    match apply_all(&blueprint, observed, pass, ctx).await {
        Err(error) if error.is_refusal() => {
            pass.problem =
                Some(Invalid::new(Reason::ApplyFailed, format!("the API server refuses an object: {error}")));
        }
        Err(error) if error.is_race() => match dereference::find_taken(ctx, &valid.names, observed).await {
            Err(dereference::Error::Taken(problem)) => pass.problem = Some(problem),
            _ => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
        Ok(()) if pass.workers_wait => {}
        Ok(()) => {
            refresh_pods(&files.hash(), observed, ctx).await?;
            tell_workers(&Fleet { dataset: valid.names.id(), peer_key: keys.peer.clone() }, &scaling, pass, ctx).await;
        }
    }
    pass.scaling = Some(scaling);
    Ok(())
}

fn scaling(
    valid: &ValidDataset,
    valid_runtime: &ValidRuntime,
    observed: &Observed,
    workers: &[scaling::WorkerSeen],
) -> scaling::Scaling {
    let statefulset = observed.statefulset.as_ref();
    let drain_started = statefulset.and_then(|s| s.annotations().get(DRAIN_STARTED)?.parse().ok());
    let members = observed.members.as_ref().map(|map| build::read_members(map)).unwrap_or_default();
    let scene = scaling::Scene {
        wanted: valid_runtime.replicas,
        current: statefulset.and_then(|s| s.spec.as_ref()?.replicas).map(i32::unsigned_abs),
        members: &members,
        workers,
        weight: valid_runtime.weight(),
        drain_started,
        drain_timeout: valid_runtime.drain_timeout,
        now: seconds(Timestamp::now()),
    };
    scaling::decide(&scene, |ordinal| valid.names.worker_pod(ordinal))
}

/// First all that a mount needs. The first workers of a Dataset come at a later pass: they must not keep others from being
/// mountable.
async fn apply_all(b: &Blueprint<'_>, seen: &Observed, pass: &mut Pass, ctx: &Context) -> Result<(), apply::Error> {
    // The finalizer comes before anything that it is to clean up.
    finalize(b.dataset, &ctx.applier()).await?;
    pass.bound = Box::pin(apply_volume(b, seen, ctx)).await?;
    let is_first = pass.bound && seen.statefulset.is_none() && !status::says_refused(b.dataset);
    pass.workers_wait = is_first && (!status::says_bound(b.dataset) || !ctx.unbound.is_empty());
    if pass.workers_wait {
        return Ok(());
    }
    Box::pin(apply_workers(b, seen, ctx)).await
}

/// What others refer to, all at once; then the volume, which names the Service's address and the claim's UID. Returns
/// whether the volume is bound to the claim.
async fn apply_volume(b: &Blueprint<'_>, seen: &Observed, ctx: &Context) -> Result<bool, apply::Error> {
    let applier = ctx.applier();
    // A Service that was lost comes back where mounts look for it.
    let lost = seen.volume.as_ref().filter(|_| seen.cache.is_none());
    let endpoint = lost.and_then(|volume| address_of(volume));
    let (cache, claim, ()) = tokio::try_join!(
        applier.ensure(build::cache_service(b, endpoint), seen.cache.as_deref(), None),
        applier.ensure(build::claim(b), seen.claim.as_deref(), None),
        apply_secret(build::client_secret(b), seen.client_secret.as_deref(), ctx),
    )?;
    let cache = cache.as_ref().or(seen.cache.as_deref());
    let claim = claim.as_ref().or(seen.claim.as_deref());
    let address = cache.and_then(|s| s.spec.as_ref()?.cluster_ip.as_deref());
    let (Some(address), Some(claim)) = (address, claim) else { return Ok(false) };
    let volume = build::persistent_volume(b, address, &claim.uid().unwrap_or_default(), seen.volume.as_deref());
    let written = applier.ensure_in(&Api::all(ctx.client.clone()), volume, seen.volume.as_deref(), None).await?;
    Ok(written.as_ref().or(seen.volume.as_deref()).is_some_and(|volume| build::is_bound(claim, volume)))
}

async fn apply_workers(b: &Blueprint<'_>, seen: &Observed, ctx: &Context) -> Result<(), apply::Error> {
    let applier = ctx.applier();
    // Two lists must never have one number: the write fails if the list that it follows is not the newest.
    let expect = seen.members.as_ref().and_then(|m| m.resource_version());
    // Pods start with what they read, so that comes first.
    tokio::try_join!(
        apply_secret(build::worker_secret(b), seen.worker_secret.as_deref(), ctx),
        applier.ensure(build::members(b), seen.members.as_deref(), expect),
    )?;
    let all = tokio::try_join!(
        applier.ensure(build::headless_service(b), seen.headless.as_deref(), None),
        applier.ensure(build::service_account(b), seen.account.as_deref(), None),
        applier.ensure(build::budget(b), seen.budget.as_deref(), None),
        applier.ensure(build::statefulset(b), seen.statefulset.as_deref(), None),
    );
    all.map(drop)
}

async fn apply_secret(desired: Secret, seen: Option<&Secret>, ctx: &Context) -> Result<(), apply::Error> {
    if let Some(written) = ctx.applier().ensure(desired, seen, None).await? {
        ctx.secrets.put(written);
    }
    Ok(())
}

/// The address that the volume sends mounts to.
fn address_of(volume: &PersistentVolume) -> Option<&str> {
    let attributes = volume.spec.as_ref()?.csi.as_ref()?.volume_attributes.as_ref()?;
    let (host, _) = attributes.get(ATTRIBUTE_ENDPOINT)?.rsplit_once(':')?;
    Some(host.trim_matches(['[', ']']))
}

async fn finalize(dataset: &Dataset, applier: &Applier<'_>) -> Result<(), apply::Error> {
    if dataset.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(());
    }
    let finalizers: Vec<_> = dataset.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
    deletion::set_finalizers(dataset, &finalizers, applier).await
}

/// A worker re-reads its configuration when the projected volume changes, and the kubelet refreshes that at once when
/// the pod changes.
async fn refresh_pods(hash: &str, observed: &Observed, ctx: &Context) -> Result<(), apply::Error> {
    let applier = ctx.applier();
    for (_, pod) in &observed.pods {
        let known = pod.annotations().get(ANNOTATION_CONFIG_HASH).map(String::as_str);
        if known == Some(hash) || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let api = Api::<Pod>::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default());
        let patch = serde_json::json!({"metadata": {"annotations": {ANNOTATION_CONFIG_HASH: hash}}});
        match applier.merge(&api, &pod.name_any(), &patch).await {
            Err(error) if !error.is_race() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Sends the member list to those behind it, then asks the leaving ones to hand over. Who does not answer is asked again.
async fn tell_workers(fleet: &Fleet, scaling: &scaling::Scaling, pass: &Pass, ctx: &Context) {
    let tell = |worker: scaling::WorkerSeen| async move {
        let (Some(addr), Some(stats)) = (&worker.addr, &worker.stats) else { return };
        let mut told = Ok(());
        if stats.epoch < scaling.members.epoch {
            told = ctx.workers.set_members(fleet, addr, &scaling.members).await;
        }
        if told.is_ok() && scaling.draining.contains(&worker.ordinal) {
            told = ctx.workers.drain(fleet, addr).await;
        }
        if let Err(error) = told {
            tracing::warn!(dataset = fleet.dataset, error, "a worker did not take the member list");
        }
    };
    futures::future::join_all(pass.workers.iter().cloned().map(tell)).await;
}
