//! One pass over a Dataset: dereference, validate, plan, build, apply, status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};
use penstock_api::{CacheRuntime, Dataset, Reason};
use penstock_plan::{Names, rollout::Step, scaling::WorkerSeen};
use penstock_wire::{CredentialError, message::MountHealth};
use strum::IntoStaticStr;

use super::{
    apply::{self, Applied},
    build::{self, Blueprint},
    deletion, dereference, events,
    loads::{Fleets, Loads},
    observed::{Observed, Seen},
    plan::{self, Moment, Plan, Serve, Stage},
    sizing::{self, Sizing},
    status::{self, View},
    validate::{self, Validated},
};
use crate::{context::Context, worker_api::Fleet};

/// Time for an object that was just written to be seen by its watch.
const WATCHED: Duration = Duration::from_millis(200);
/// While others wait to be mountable.
const TURN: Duration = Duration::from_secs(1);
/// Time between the two objects of a pair; a creation is stamped in whole seconds.
const COUNTERPART: Duration = Duration::from_secs(3);
/// Time that Kubernetes takes to let a claim go that no pod uses.
const LET_GO: Duration = Duration::from_secs(5);
/// While something is missing or wrong: not all of it is watched.
pub(super) const MENDED: Duration = Duration::from_secs(5);
/// While other runtimes are updated first.
const OTHERS: Duration = Duration::from_secs(10);
/// While Secrets or ConfigMaps are named, which are not watched.
const NAMED: Duration = Duration::from_secs(30);
/// While our own Secrets are there, which are not watched either.
const SERVED: Duration = Duration::from_secs(54);
/// While workers hand over, or have not taken the newest member list.
const MOVING: Duration = Duration::from_secs(1);
/// When there is nothing to wait for: in case that something was missed.
pub(super) const QUIET: Duration = Duration::from_mins(5);

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
    /// When to look again, unless it [is a race](Self::is_race).
    pub fn pause(&self) -> Duration {
        match self {
            Self::Dereference(dereference::Error::Lagging { .. }) => WATCHED,
            _ => MENDED,
        }
    }

    /// Someone else was faster.
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Apply(error) if error.is_race())
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

pub(super) async fn reconcile(dataset: Arc<Dataset>, ctx: Arc<Context>) -> Result<Action, Error> {
    let names = Names::new(dataset.namespace().unwrap_or_default(), dataset.name_any());
    if dataset.metadata.deletion_timestamp.is_none() {
        return serve(&dataset, &names, &ctx).await;
    }
    match deletion::delete(&dataset, &names, &ctx).await? {
        deletion::Progress::Done => {
            ctx.recent.forget(&dataset.uid().unwrap_or_default());
            ctx.poller.forget(&ObjectRef::from_obj(dataset.as_ref()));
            Ok(Action::await_change())
        }
        // The pods that use it are served on, as far as the namespace lets.
        deletion::Progress::ClaimRemains => match serve(&dataset, &names, &ctx).await {
            Err(Error::Apply(error)) if error.is_terminating() => Ok(Action::requeue(MENDED)),
            served => served,
        },
    }
}

async fn serve(dataset: &Dataset, names: &Names, ctx: &Context) -> Result<Action, Error> {
    // 1. Dereference: the API server and the workers are asked.
    let seen = dereference::dereference(dataset, names, ctx).await?;

    // 2. Validate.
    let mut validated = validate::validate(dataset, &seen);

    // 3. Size: how many workers there shall be.
    let moment =
        Moment { now: Timestamp::now(), default_image: &ctx.worker_image, others_wait: !ctx.unbound.is_empty() };
    let nobody = Fleets { wanted: 0, epoch: 0, workers: &[] };
    let active = Loads::decide(dataset, &seen, nobody, ctx, moment.now).active();
    let sizing = size(dataset, &mut validated, &seen, active, ctx, moment.now);

    // 4. Plan.
    let turn = |runtime: &CacheRuntime, wants| ctx.turns.turn(runtime, wants, &ctx.stores.runtimes);
    let plan = plan::plan(dataset, &validated, &seen, moment, turn)?;

    // 5. Build and 6. apply: the API server and the workers are told.
    let applied = match &plan {
        Plan::Retire => {
            deletion::of_runtime(names, &seen.own, ctx).await?;
            Applied::nothing(&seen.own)
        }
        Plan::Keep => Applied::nothing(&seen.own),
        Plan::Serve(serve) => set_up(dataset, &validated, serve, &seen, ctx).await?,
    };
    let workers = plan::workers(&seen.workers);
    let loads = Box::pin(load(dataset, names, &plan, &seen, &workers, ctx, moment.now)).await?;
    if let Some(rest) = silence(dataset, &validated, &plan, &seen, moment) {
        return Ok(Action::requeue(rest));
    }

    // 7. Status: users are told.
    let trouble = status::trouble(&seen.own.pods, &seen.events);
    let view = View {
        names,
        dataset,
        runtime: validated.runtime.as_deref(),
        valid_runtime: validated.pair.as_ref().ok().map(|pair| &pair.runtime),
        problem: validated.pair.as_ref().err().or(applied.refusal.as_ref()),
        bound: applied.bound,
        sizing: sizing.as_ref(),
        scaling: plan.scaling(),
        rollout: plan.rollout(),
        workers: &workers,
        reads: &ctx.recent.rates(&dataset.uid().unwrap_or_default(), moment.now),
        trouble: trouble.as_ref(),
        statefulset: seen.own.statefulset.as_deref(),
        volume: seen.own.volume.as_deref(),
        in_use: is_in_use(&seen.own, moment.now),
    };
    status::publish(&view, ctx).await?;
    wake_up_calls(&view, &seen, ctx);
    let haste = haste(&view);
    if seen.workers.is_empty() {
        ctx.poller.forget(&ObjectRef::from_obj(dataset));
    } else {
        ctx.poller.rest(dataset, haste.is_none() && loads.active() == 0);
    }
    let unwatched = if seen.secrets.is_empty() && seen.texts.is_empty() { SERVED } else { NAMED };
    let by_the_clock = sizing.as_ref().and_then(|sizing| sizing.decision.look_again);
    Ok(Action::requeue(
        [haste, Some(unwatched), by_the_clock, loads.pause()].into_iter().flatten().fold(QUIET, Duration::min),
    ))
}

/// What workers load, and what is told of it.
async fn load(
    dataset: &Dataset,
    names: &Names,
    plan: &Plan,
    seen: &Seen,
    workers: &[WorkerSeen],
    ctx: &Context,
    now: Timestamp,
) -> Result<Loads, Error> {
    let Plan::Serve(serve) = plan else {
        let loads = Loads::decide(dataset, seen, Fleets { wanted: 0, epoch: 0, workers: &[] }, ctx, now);
        loads.publish(names, ctx, now).await?;
        return Ok(loads);
    };
    let wanted = serve.scaling.members.members.len() as u32;
    let fleets = Fleets { wanted, epoch: serve.scaling.members.epoch, workers };
    let loads = Loads::decide(dataset, seen, fleets, ctx, now);
    let fleet = Fleet { dataset: names.id(), peer_key: serve.keys.peer.clone() };
    loads.tell(&fleet, &seen.workers, ctx).await;
    loads.publish(names, ctx, now).await?;
    Ok(loads)
}

/// The size takes the place of `spec.replicas` in all that follows.
fn size(
    dataset: &Dataset,
    validated: &mut Validated,
    seen: &Seen,
    active_loads: usize,
    ctx: &Context,
    now: Timestamp,
) -> Option<Sizing> {
    let (Some(runtime), Ok(pair)) = (&validated.runtime, &mut validated.pair) else { return None };
    let sizing = sizing::size(dataset, runtime, &pair.runtime, seen, active_loads, &ctx.recent, now)?;
    pair.runtime.replicas = sizing.decision.replicas;
    Some(sizing)
}

/// Pods that mount what slept are told what they wait for.
fn wake_up_calls(view: &View<'_>, seen: &Seen, ctx: &Context) {
    if view.sizing.is_some_and(Sizing::wakes) {
        for pod in &seen.users {
            ctx.recorder.publish(&pod.object_ref(&()), [events::waking(&view.names.dataset)]);
        }
    }
}

async fn set_up(
    dataset: &Dataset,
    validated: &Validated,
    serve: &Serve,
    seen: &Seen,
    ctx: &Context,
) -> Result<Applied, Error> {
    let (Some(runtime), Ok(pair)) = (&validated.runtime, &validated.pair) else {
        return Ok(Applied::nothing(&seen.own));
    };
    let blueprint = Blueprint {
        dataset,
        runtime,
        valid: &pair.dataset,
        valid_runtime: &pair.runtime,
        files: &serve.files,
        keys: &serve.keys,
        scaling: &serve.scaling,
        observed: seen.own.statefulset.as_deref(),
        image: &serve.rollout.image,
        revision: &serve.revision,
        defaults: &ctx.worker_defaults,
    };
    let volume = build::volume_objects(&blueprint, seen.own.cache.as_deref(), seen.own.volume.as_deref());
    let workers = (serve.stage == Stage::Workers).then(|| build::worker_objects(&blueprint));
    let mut applied = Box::pin(apply::apply(dataset, volume, workers, &seen.own, ctx)).await?;
    if serve.stage == Stage::Workers && applied.refusal.is_none() {
        let told = apply::tell_workers(pair.dataset.names.id(), serve, seen, ctx).await;
        if let Err(error) = told {
            applied.refusal = Some(error.refusal().ok_or(error)?);
        }
    }
    Ok(applied)
}

/// Whether pods keep a claim under deletion. One that nobody uses takes Kubernetes a moment to let go.
fn is_in_use(seen: &Observed, now: Timestamp) -> bool {
    let deleted = seen.claim.as_ref().and_then(|claim| claim.metadata.deletion_timestamp.as_ref());
    let age = deleted.and_then(|deleted| Duration::try_from(now.duration_since(deleted.0)).ok());
    age.is_some_and(|age| age >= LET_GO)
}

/// How long to wait when there is nothing to tell users yet.
fn silence(dataset: &Dataset, validated: &Validated, plan: &Plan, seen: &Seen, moment: Moment<'_>) -> Option<Duration> {
    let is_alone = validated.pair.as_ref().is_err_and(|problem| problem.reason == Reason::RuntimeNotFound);
    if is_alone && dataset.metadata.deletion_timestamp.is_none() {
        return grace(dataset.creation_timestamp(), moment.now);
    }
    // It was told to be mountable when it became so; its workers are still to be set up.
    let waits = matches!(plan, Plan::Serve(serve) if serve.stage == Stage::Volume) && seen.own.is_bound();
    waits.then_some(TURN)
}

/// How long a new object without a counterpart is given until that is worth telling: people apply both at once.
pub(super) fn grace(created: Option<Time>, now: Timestamp) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(created?.0)).ok()?;
    COUNTERPART.checked_sub(age).filter(|rest| !rest.is_zero())
}

/// When to look again, while something moves or is wrong that nothing tells. Else the poller tells what workers say.
fn haste(view: &View<'_>) -> Option<Duration> {
    let epoch = view.scaling.map_or(0, |s| s.members.epoch);
    let stats = || view.workers.iter().filter_map(|w| w.stats.as_ref());
    let behind = stats().any(|s| s.epoch < epoch);
    let is_new = stats().flat_map(|s| &s.mounts).any(|m| m.health == MountHealth::Unknown);
    let troubled =
        stats().any(|s| s.mounts.iter().any(|m| m.trouble().is_some()) || s.tiers.iter().any(|t| t.trouble.is_some()));
    let updating = view.rollout.is_some_and(|r| r.step.is_under_way());
    let draining = view.scaling.is_some_and(|s| !s.draining.is_empty());
    // Why pods do not come up is not watched.
    let incomplete = view.scaling.is_some_and(|s| (view.workers.len() as u32) < s.replicas) || view.trouble.is_some();
    if behind || draining || is_new {
        return Some(MOVING);
    }
    let is_wrong = view.problem.is_some() || troubled || incomplete || updating || view.is_deleting();
    let waits = view.rollout.is_some_and(|rollout| rollout.step == Step::AwaitTurn);
    is_wrong.then_some(MENDED).or(waits.then_some(OTHERS))
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
    fn a_claim_that_is_let_go_at_once_was_not_in_use() {
        let deleted = Timestamp::from_second(1_000).unwrap();
        let claim = serde_json::from_value(serde_json::json!({"metadata": {"deletionTimestamp": deleted}})).unwrap();
        let seen = Observed { claim: Some(Arc::new(claim)), ..Observed::default() };
        for (age, in_use) in [(0, false), (4, false), (5, true), (90, true)] {
            assert_eq!(is_in_use(&seen, deleted + jiff::SignedDuration::from_secs(age)), in_use, "{age} s");
        }
        assert!(!is_in_use(&Observed::default(), deleted));
    }
}
