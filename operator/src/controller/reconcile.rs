//! One pair of Dataset and CacheRuntime: dereference, validate, plan, build, apply, status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret};
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use penstock_api::{
    CacheRuntime, ConditionType, Dataset, DatasetStatus, Reason,
    condition::is_true,
    names::{ANNOTATION_CONFIG_HASH, FINALIZER},
};
use penstock_wire::{Credential, CredentialError, message::MountHealth};
use strum::IntoStaticStr;

use super::{
    apply::{self, Applier},
    build::{self, Blueprint, seconds},
    deletion,
    dereference::{self, Observed},
    events,
    plan::{self, Keys, scaling},
    status::{self, PodTrouble, View},
    validate::{self, Invalid, Secrets, ValidDataset, ValidRuntime},
};
use crate::{
    context::Context,
    names::{DRAIN_STARTED, Names, persistent_volume},
    worker_api::Fleet,
};

/// While something is missing or wrong: not all of it is watched.
const MENDED: Duration = Duration::from_secs(5);
/// While workers run: how old their numbers in the status may be.
const NUMBERS: Duration = Duration::from_secs(10);
/// While workers hand over, or have not taken the newest member list.
const MOVING: Duration = Duration::from_secs(1);
/// When there is nothing to wait for: in case that something was missed.
const QUIET: Duration = Duration::from_mins(5);

#[derive(Debug, thiserror::Error, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Error {
    #[error(transparent)]
    Dereference(#[from] dereference::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("failed to make keys: {0}")]
    Keys(#[from] CredentialError),
}

impl Error {
    /// When to look again.
    pub fn pause(&self) -> Duration {
        match self {
            Self::Dereference(dereference::Error::Lagging { .. }) => Duration::from_millis(200),
            Self::Apply(error) => Self::pause_of(error),
            _ => MENDED,
        }
    }

    pub(super) fn pause_of(error: &apply::Error) -> Duration {
        if error.is_race() { Duration::from_millis(200) } else { MENDED }
    }

    /// Whether this is nothing to complain about.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Dereference(dereference::Error::Lagging { .. }) => true,
            Self::Apply(error) => error.is_race() || error.is_terminating(),
            _ => false,
        }
    }
}

/// What one pass found out, for the status and for when to look again.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) runtime: Option<Arc<CacheRuntime>>,
    pub(super) valid_runtime: Option<ValidRuntime>,
    pub(super) problem: Option<Invalid>,
    pub(super) bound: bool,
    pub(super) scaling: Option<scaling::Scaling>,
    pub(super) workers: Vec<scaling::WorkerSeen>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) users: Vec<String>,
    /// The Dataset's status, where this pass wrote it already.
    pub(super) written: Option<DatasetStatus>,
}

pub(super) async fn reconcile(dataset: Arc<Dataset>, ctx: Arc<Context>) -> Result<Action, Error> {
    let names = Names::new(dataset.namespace().unwrap_or_default(), dataset.name_any());
    if dataset.metadata.deletion_timestamp.is_some() {
        return deletion::reconcile(&dataset, &names, &ctx).await;
    }
    let mut pass = pass(&dataset, &names, &ctx).await?;
    write_status(&dataset, &names, &mut pass, &ctx).await?;
    Ok(Action::requeue(pass.pause()))
}

impl Pass {
    fn pause(&self) -> Duration {
        let epoch = self.scaling.as_ref().map_or(0, |s| s.members.epoch);
        let stats = || self.workers.iter().filter_map(|w| w.stats.as_ref());
        let behind = stats().any(|s| s.epoch < epoch);
        let is_new = stats().flat_map(|s| &s.mounts).any(|m| m.health == MountHealth::Unknown);
        let troubled = stats()
            .any(|s| s.mounts.iter().any(|m| m.trouble().is_some()) || s.tiers.iter().any(|t| t.trouble.is_some()));
        let draining = self.scaling.as_ref().is_some_and(|s| !s.draining.is_empty());
        if behind || draining || is_new {
            MOVING
        } else if self.problem.is_some() || troubled {
            MENDED
        } else if self.workers.is_empty() {
            QUIET
        } else {
            NUMBERS
        }
    }
}

/// Sets everything up as written, as far as it goes; what keeps it from going on is in [`Pass::problem`].
pub(super) async fn pass(dataset: &Dataset, names: &Names, ctx: &Context) -> Result<Pass, Error> {
    let (runtimes, datasets) = dereference::neighbours(ctx, &names.namespace);
    let datasets: Vec<&Dataset> = datasets.iter().map(AsRef::as_ref).collect();
    let bound_to = validate::bind(dataset, runtimes.iter().map(AsRef::as_ref), &datasets).cloned();
    let mut pass = Pass::default();
    let runtime = match bound_to {
        Ok(runtime) => runtime,
        Err(problem) => {
            let observed = dereference::watched(ctx, dataset, names);
            deletion::of_runtime(names, &observed, ctx).await?;
            return Ok(Pass { bound: is_bound(&observed), problem: Some(problem), ..pass });
        }
    };
    let observed = match dereference::own(ctx, dataset, names).await {
        Err(dereference::Error::Taken(problem)) => {
            pass.problem = Some(problem);
            dereference::watched(ctx, dataset, names)
        }
        observed => observed?,
    };
    let secrets = dereference::secrets(ctx, dataset, names).await?;
    pass.bound = is_bound(&observed);
    pass.pods = observed.pods.iter().map(|(_, pod)| pod.clone()).collect();
    let keys = dereference::keys(&observed);
    let fleet = keys.1.clone().map(|peer_key| Fleet { dataset: names.id(), peer_key });
    pass.workers = dereference::workers(ctx, &observed, fleet.as_ref()).await;
    let valid = valid(dataset, &runtime, &secrets);
    pass.runtime = Some(Arc::new(runtime));
    match valid {
        Err(problem) => pass.problem = pass.problem.or(Some(problem)),
        Ok((valid, valid_runtime)) => {
            if pass.problem.is_none() {
                set_up(dataset, &valid, &valid_runtime, &observed, keys, &mut pass, ctx).await?;
            }
            pass.valid_runtime = Some(valid_runtime);
        }
    }
    Ok(pass)
}

fn valid(
    dataset: &Dataset,
    runtime: &CacheRuntime,
    secrets: &Secrets,
) -> Result<(ValidDataset, ValidRuntime), Invalid> {
    let valid_runtime = validate::runtime(runtime)?;
    let valid = validate::dataset(dataset, secrets)?;
    match validate::uncovered_local_mount(&valid, &runtime.spec.worker.volume_mounts) {
        Some(problem) => Err(problem),
        None => Ok((valid, valid_runtime)),
    }
}

fn is_bound(observed: &Observed) -> bool {
    match (&observed.claim, &observed.volume) {
        (Some(claim), Some(volume)) => build::is_bound(claim, volume) && observed.client_secret_or_unknown(),
        _ => false,
    }
}

impl Observed {
    /// Secrets are read only while a runtime is there; the mounts' own lives as long as the claim.
    fn client_secret_or_unknown(&self) -> bool {
        self.client_secret.is_some() || self.worker_secret.is_none()
    }
}

/// Plan, build, apply.
async fn set_up(
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
    let config = plan::worker_config(valid, valid_runtime, |index, _| plan::tier_dir(index));
    let files = plan::config_files(&config, valid, &keys);
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

/// First all that a mount needs, and word of it; then the workers.
async fn apply_all(b: &Blueprint<'_>, seen: &Observed, pass: &mut Pass, ctx: &Context) -> Result<(), apply::Error> {
    // The finalizer comes before anything that it is to clean up.
    finalize(b.dataset, &ctx.applier()).await?;
    pass.bound = Box::pin(apply_volume(b, seen, ctx)).await?;
    let known = b.dataset.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Bound));
    if pass.bound && !known {
        write_dataset_status(b.dataset, &b.valid.names, pass, ctx).await?;
    }
    Box::pin(apply_workers(b, seen, ctx)).await
}

/// What others refer to, all at once; then the volume, which names the Service's address and the claim's UID. Returns
/// whether the volume is bound to the claim.
async fn apply_volume(b: &Blueprint<'_>, seen: &Observed, ctx: &Context) -> Result<bool, apply::Error> {
    let applier = ctx.applier();
    let endpoint = seen.volume.as_ref().and_then(|v| address_of(v));
    // Two lists must never have one number: the write fails if the list that it follows is not the newest.
    let expect = seen.members.as_ref().and_then(|m| m.resource_version());
    let (cache, claim, ..) = tokio::try_join!(
        applier.ensure(build::cache_service(b, endpoint), seen.cache.as_deref(), None),
        applier.ensure(build::claim(b), seen.claim.as_deref(), None),
        apply_secret(build::worker_secret(b), seen.worker_secret.as_deref(), ctx),
        apply_secret(build::client_secret(b), seen.client_secret.as_deref(), ctx),
        applier.ensure(build::members(b), seen.members.as_deref(), expect),
    )?;
    let cache = cache.as_ref().or(seen.cache.as_deref());
    let claim = claim.as_ref().or(seen.claim.as_deref());
    let address = cache.and_then(|s| s.spec.as_ref()?.cluster_ip.as_deref());
    let (Some(address), Some(claim)) = (address, claim) else { return Ok(false) };
    let volume = build::persistent_volume(b, address, &claim.uid().unwrap_or_default(), seen.volume.as_deref());
    let written = applier.ensure_in(&Api::all(ctx.client.clone()), volume, seen.volume.as_deref(), None).await?;
    Ok(written.as_ref().or(seen.volume.as_deref()).is_some_and(|volume| build::is_bound(claim, volume)))
}

async fn apply_secret(desired: Secret, seen: Option<&Secret>, ctx: &Context) -> Result<(), apply::Error> {
    if let Some(written) = ctx.applier().ensure(desired, seen, None).await? {
        ctx.secrets.put(written);
    }
    Ok(())
}

async fn apply_workers(b: &Blueprint<'_>, seen: &Observed, ctx: &Context) -> Result<(), apply::Error> {
    let applier = ctx.applier();
    let all = tokio::try_join!(
        applier.ensure(build::headless_service(b), seen.headless.as_deref(), None),
        applier.ensure(build::service_account(b), seen.account.as_deref(), None),
        applier.ensure(build::budget(b), seen.budget.as_deref(), None),
        applier.ensure(build::statefulset(b), seen.statefulset.as_deref(), None),
    );
    all.map(drop)
}

/// The address that the volume sends mounts to.
fn address_of(volume: &PersistentVolume) -> Option<&str> {
    let attributes = volume.spec.as_ref()?.csi.as_ref()?.volume_attributes.as_ref()?;
    let (host, _) = attributes.get(penstock_api::names::ATTRIBUTE_ENDPOINT)?.rsplit_once(':')?;
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

fn view<'a>(dataset: &'a Dataset, names: &'a Names, pass: &'a Pass, trouble: Option<&'a PodTrouble>) -> View<'a> {
    View {
        names,
        dataset,
        runtime: pass.runtime.as_deref(),
        valid_runtime: pass.valid_runtime.as_ref(),
        problem: pass.problem.as_ref(),
        bound: pass.bound,
        scaling: pass.scaling.as_ref(),
        workers: &pass.workers,
        trouble,
        users: &pass.users,
    }
}

pub(super) async fn write_status(
    dataset: &Dataset,
    names: &Names,
    pass: &mut Pass,
    ctx: &Context,
) -> Result<(), apply::Error> {
    let trouble = pass.pods.iter().find_map(|pod| status::pod_trouble(pod));
    let of_runtime = status::runtime(&view(dataset, names, pass, trouble.as_ref()), Timestamp::now());
    let runtime = pass.runtime.clone();
    let step = pass.scaling.as_ref().filter(|_| pass.problem.is_none()).map(|scaling| scaling.step.clone());
    let of_runtime = async {
        let (Some(runtime), Some(new)) = (runtime.as_deref(), of_runtime) else { return Ok(()) };
        let was_draining = runtime.status.as_ref().is_some_and(|status| !status.draining.is_empty());
        let news = step.and_then(|step| events::scaling(was_draining, runtime.spec.replicas, &step));
        events::publish(&ctx.recorder, runtime.object_ref(&()), news.into_iter().collect());
        write_runtime_status(runtime, &new, ctx).await
    };
    tokio::try_join!(write_dataset_status(dataset, names, pass, ctx), of_runtime).map(drop)
}

async fn write_dataset_status(
    dataset: &Dataset,
    names: &Names,
    pass: &mut Pass,
    ctx: &Context,
) -> Result<(), apply::Error> {
    let trouble = pass.pods.iter().find_map(|pod| status::pod_trouble(pod));
    let new = status::dataset(&view(dataset, names, pass, trouble.as_ref()), Timestamp::now());
    let old = pass.written.take().or_else(|| dataset.status.clone()).unwrap_or_default();
    if new != old {
        let api = Api::<Dataset>::namespaced(ctx.client.clone(), &names.namespace);
        ctx.applier().status(&api, &names.dataset, &new).await?;
        let news = events::transitions(&old.conditions, &new.conditions);
        events::publish(&ctx.recorder, dataset.object_ref(&()), news);
    }
    pass.written = Some(new);
    Ok(())
}

pub(super) async fn write_runtime_status(
    runtime: &CacheRuntime,
    new: &penstock_api::CacheRuntimeStatus,
    ctx: &Context,
) -> Result<(), apply::Error> {
    let old = runtime.status.clone().unwrap_or_default();
    if *new == old {
        return Ok(());
    }
    let applier = ctx.applier();
    let api = Api::<CacheRuntime>::namespaced(ctx.client.clone(), &runtime.namespace().unwrap_or_default());
    applier.status(&api, &runtime.name_any(), new).await?;
    events::publish(&ctx.recorder, runtime.object_ref(&()), events::transitions(&old.conditions, &new.conditions));
    Ok(())
}

/// The name of the volume of a Dataset, if it has a UID.
pub(super) fn volume_name(dataset: &Dataset) -> Option<String> {
    dataset.uid().map(|uid| persistent_volume(&uid))
}
