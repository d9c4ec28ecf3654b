//! One pair of Dataset and CacheRuntime: dereference, validate, plan, build, apply, status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Resource, ResourceExt, runtime::controller::Action};
use penstock_api::{CacheRuntime, Dataset, Reason};
use penstock_plan::{
    Names,
    names::persistent_volume,
    scaling,
    validate::{self, Invalid, Secrets, ValidDataset, ValidRuntime},
};
use penstock_wire::{CredentialError, message::MountHealth};
use strum::IntoStaticStr;

use super::{
    apply, build, deletion,
    dereference::{self, Observed},
    events, set_up,
    status::{self, PodTrouble, View},
};
use crate::{context::Context, watches, worker_api::Fleet};

/// Time for an object that was just written to be seen by its watch.
const WATCHED: Duration = Duration::from_millis(200);
/// While others wait to be mountable.
const TURN: Duration = Duration::from_secs(1);
/// Time between the two objects of a pair; a creation is stamped in whole seconds.
const COUNTERPART: Duration = Duration::from_secs(3);
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
            Self::Dereference(dereference::Error::Lagging { .. }) => WATCHED,
            Self::Apply(error) => Self::pause_of(error),
            _ => MENDED,
        }
    }

    pub(super) fn pause_of(error: &apply::Error) -> Duration {
        if error.is_race() { WATCHED } else { MENDED }
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
    pub(super) trouble: Option<PodTrouble>,
    pub(super) users: Vec<String>,
    /// The workers are still to be set up, at a later pass.
    pub(super) workers_wait: bool,
}

pub(super) async fn reconcile(dataset: Arc<Dataset>, ctx: Arc<Context>) -> Result<Action, Error> {
    let names = Names::new(dataset.namespace().unwrap_or_default(), dataset.name_any());
    if dataset.metadata.deletion_timestamp.is_some() {
        return deletion::reconcile(&dataset, &names, &ctx).await;
    }
    let pass = pass(&dataset, &names, &ctx).await?;
    let alone = pass.problem.as_ref().is_some_and(|problem| problem.reason == Reason::RuntimeNotFound);
    if let Some(rest) = alone.then(|| grace(dataset.creation_timestamp(), Timestamp::now())).flatten() {
        return Ok(Action::requeue(rest));
    }
    if pass.workers_wait && !status::says_bound(&dataset) {
        write_dataset_status(&dataset, &names, &pass, &ctx).await?;
        ctx.made.remember::<Dataset>(&names.namespace, &names.dataset);
        return Ok(Action::requeue(WATCHED));
    }
    if !pass.workers_wait {
        write_status(&dataset, &names, &pass, &ctx).await?;
    }
    Ok(Action::requeue(pass.pause()))
}

/// How long a new object without a counterpart is given until that is worth telling: people apply both at once.
pub(super) fn grace(created: Option<Time>, now: Timestamp) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(created?.0)).ok()?;
    COUNTERPART.checked_sub(age).filter(|rest| !rest.is_zero())
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
        if self.workers_wait {
            TURN
        } else if behind || draining || is_new {
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
    let runtime = watches::get(&ctx.stores.runtimes, &names.namespace, dataset.runtime_name());
    let rivals = watches::related(&ctx.stores.datasets, &names.namespace, dataset.runtime_name());
    let rivals: Vec<&Dataset> = rivals.iter().map(AsRef::as_ref).collect();
    let bound_to = validate::bind(dataset, runtime.as_deref(), &rivals).cloned();
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
    pass.trouble = observed.pods.iter().find_map(|(_, pod)| status::pod_trouble(pod));
    let keys = dereference::keys(&observed);
    let fleet = keys.1.clone().map(|peer_key| Fleet { dataset: names.id(), peer_key });
    pass.workers = dereference::workers(ctx, &observed, fleet.as_ref()).await;
    let valid = valid(dataset, &runtime, &secrets);
    pass.runtime = Some(Arc::new(runtime));
    match valid {
        Err(problem) => pass.problem = pass.problem.or(Some(problem)),
        Ok((valid, valid_runtime)) => {
            if pass.problem.is_none() {
                set_up::set_up(dataset, &valid, &valid_runtime, &observed, keys, &mut pass, ctx).await?;
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

fn view<'a>(dataset: &'a Dataset, names: &'a Names, pass: &'a Pass) -> View<'a> {
    View {
        names,
        dataset,
        runtime: pass.runtime.as_deref(),
        valid_runtime: pass.valid_runtime.as_ref(),
        problem: pass.problem.as_ref(),
        bound: pass.bound,
        scaling: pass.scaling.as_ref(),
        workers: &pass.workers,
        trouble: pass.trouble.as_ref(),
        users: &pass.users,
    }
}

pub(super) async fn write_status(
    dataset: &Dataset,
    names: &Names,
    pass: &Pass,
    ctx: &Context,
) -> Result<(), apply::Error> {
    let of_runtime = async {
        let Some(runtime) = pass.runtime.as_deref() else { return Ok(()) };
        let Some(new) = status::runtime(&view(dataset, names, pass), Timestamp::now()) else { return Ok(()) };
        let step = pass.scaling.as_ref().filter(|_| pass.problem.is_none()).map(|scaling| &scaling.step);
        let was_draining = runtime.status.as_ref().is_some_and(|status| !status.draining.is_empty());
        let news = step.and_then(|step| events::scaling(was_draining, runtime.spec.replicas, step));
        ctx.recorder.publish(&runtime.object_ref(&()), news);
        write_runtime_status(runtime, &new, ctx).await
    };
    tokio::try_join!(write_dataset_status(dataset, names, pass, ctx), of_runtime).map(drop)
}

async fn write_dataset_status(
    dataset: &Dataset,
    names: &Names,
    pass: &Pass,
    ctx: &Context,
) -> Result<(), apply::Error> {
    let new = status::dataset(&view(dataset, names, pass), Timestamp::now());
    let old = dataset.status.clone().unwrap_or_default();
    if new == old {
        return Ok(());
    }
    let api = Api::<Dataset>::namespaced(ctx.client.clone(), &names.namespace);
    ctx.applier().status(&api, &names.dataset, &new).await?;
    ctx.recorder.publish(&dataset.object_ref(&()), events::transitions(&old.conditions, &new.conditions));
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
    ctx.recorder.publish(&runtime.object_ref(&()), events::transitions(&old.conditions, &new.conditions));
    Ok(())
}

/// The name of the volume of a Dataset, if it has a UID.
pub(super) fn volume_name(dataset: &Dataset) -> Option<String> {
    dataset.uid().map(|uid| persistent_volume(&uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_young_object_is_given_time_for_its_counterpart() {
        let created = Timestamp::from_second(1_000).unwrap();
        for (age, rest) in [(0, Some(3000)), (1000, Some(2000)), (2999, Some(1)), (3000, None), (90_000, None)] {
            let now = created + jiff::SignedDuration::from_millis(age);
            assert_eq!(grace(Some(Time(created)), now), rest.map(Duration::from_millis), "{age} ms");
        }
        assert_eq!(grace(None, created), None);
    }

    #[test]
    fn workers_that_wait_for_a_turn_are_looked_at_soon() {
        let waiting = Pass { workers_wait: true, ..Pass::default() };
        assert_eq!((waiting.pause(), Pass::default().pause()), (TURN, QUIET));
    }
}
