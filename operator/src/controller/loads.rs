//! The DataLoads of a Dataset: what its workers are told to load, and what users are told of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use penstock_api::{DataLoad, DataLoadPhase, DataLoadStatus, Dataset};
use penstock_plan::{
    Names,
    autoscaling::CalendarTexts,
    load::{self, Decision, Scene},
    scaling::WorkerSeen,
};
use penstock_wire::message::LoadOrder;

use super::{
    apply::{self, Error},
    events,
    observed::{Seen, Worker},
};
use crate::{
    context::Context,
    recent::{Recent, Runs},
    watches,
    worker_api::Fleet,
};

/// Between two looks at loads that are under way.
const UNDER_WAY: Duration = Duration::from_secs(3);
/// Before it a rate says nothing.
const MEASURED: Duration = Duration::from_secs(2);

/// What was decided about each load.
#[derive(Debug, Default)]
pub(super) struct Loads(Vec<(Arc<DataLoad>, Decision)>);

/// What loads are decided from, besides themselves.
#[derive(Clone, Copy)]
pub(super) struct Fleets<'a> {
    pub wanted: u32,
    pub epoch: u64,
    pub workers: &'a [WorkerSeen],
}

impl Loads {
    pub(super) fn decide(dataset: &Dataset, seen: &Seen, fleet: Fleets<'_>, ctx: &Context, now: Timestamp) -> Self {
        let uid = dataset.uid().unwrap_or_default();
        let namespace = dataset.namespace().unwrap_or_default();
        let phase_of =
            |name: &str| watches::get(&ctx.stores.loads, &namespace, name).and_then(|load| load.status.as_ref()?.phase);
        let one = |load: &Arc<DataLoad>| {
            let rate = rate(load, &ctx.recent, &uid, now);
            let decision = decide(load, fleet, &phase_of, &seen.texts, rate, now);
            (load.clone(), decision)
        };
        Self(seen.loads.iter().filter(|load| load.metadata.deletion_timestamp.is_none()).map(one).collect())
    }

    /// Loads that need workers.
    pub(super) fn active(&self) -> usize {
        self.0.iter().filter(|(_, decision)| decision.is_active).count()
    }

    fn orders(&self) -> Vec<LoadOrder> {
        self.0.iter().filter_map(|(_, decision)| decision.order.clone()).collect()
    }

    /// When to look again, if no watch tells before.
    pub(super) fn pause(&self) -> Option<Duration> {
        let pause = |(load, decision): &(Arc<DataLoad>, Decision)| {
            let under_way = decision.is_active.then_some(UNDER_WAY);
            let ends = expiry(load, &decision.status).map(|end| until(end, Timestamp::now()));
            [under_way, decision.look_again, ends].into_iter().flatten().min()
        };
        self.0.iter().filter_map(pause).min()
    }

    /// Tells every worker that answers what to work on. One that does not is told at the next pass.
    pub(super) async fn tell(&self, fleet: &Fleet, workers: &[Worker], ctx: &Context) {
        let orders = self.orders();
        for worker in workers {
            let (Some(addr), Some(stats)) = (worker.addr(), &worker.stats) else { continue };
            if orders.is_empty() && stats.loads.is_empty() {
                continue;
            }
            if let Err(error) = ctx.workers.set_loads(fleet, &addr, &orders).await {
                tracing::warn!(dataset = fleet.dataset, error, "a worker did not take its loads");
            }
        }
    }

    /// Writes the statuses, and deletes loads whose time after their end is over.
    pub(super) async fn publish(&self, names: &Names, ctx: &Context, now: Timestamp) -> Result<(), Error> {
        let api = Api::<DataLoad>::namespaced(ctx.client.clone(), &names.namespace);
        for (load, decision) in &self.0 {
            publish(&api, load, &decision.status, ctx).await?;
            if expiry(load, &decision.status).is_some_and(|end| end <= now) {
                delete(&api, load).await?;
            }
        }
        Ok(())
    }
}

fn decide(
    load: &DataLoad,
    fleet: Fleets<'_>,
    phase_of: &dyn Fn(&str) -> Option<DataLoadPhase>,
    texts: &CalendarTexts,
    rate: Option<u64>,
    now: Timestamp,
) -> Decision {
    let Fleets { wanted, epoch, workers } = fleet;
    load::decide(&Scene { load, wanted, epoch, workers, phase_of, texts, rate, now })
}

/// Bytes per second since the run was first seen.
fn rate(load: &DataLoad, recent: &Recent, uid: &str, now: Timestamp) -> Option<u64> {
    let status = load.status.as_ref()?;
    let (id, done) = (format!("{}/{}", load.uid()?, status.run), status.done_bytes?);
    let (since, first) = recent.with_runs(uid, now, |runs: &mut Runs| *runs.entry(id).or_insert((now, done)));
    let seconds = Duration::try_from(now.duration_since(since)).ok().filter(|age| *age >= MEASURED)?.as_secs_f64();
    Some((done.saturating_sub(first) as f64 / seconds) as u64)
}

/// The status of a load whose Dataset is not there.
pub(super) async fn publish_alone(load: &DataLoad, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let api = Api::<DataLoad>::namespaced(ctx.client.clone(), &load.namespace().unwrap_or_default());
    publish(&api, load, &load::without_dataset(load, now), ctx).await
}

async fn publish(api: &Api<DataLoad>, load: &DataLoad, new: &DataLoadStatus, ctx: &Context) -> Result<(), Error> {
    let old = load.status.clone().unwrap_or_default();
    if *new == old {
        return Ok(());
    }
    ctx.applier().status(api, &load.name_any(), new).await?;
    ctx.recorder.publish(&load.object_ref(&()), events::transitions(&old.conditions, &new.conditions));
    Ok(())
}

/// When it is to be deleted.
fn expiry(load: &DataLoad, status: &DataLoadStatus) -> Option<Timestamp> {
    let after = Duration::from_secs(load.spec.ttl_seconds_after_finished?.into());
    let has_ended = matches!(status.phase, Some(DataLoadPhase::Complete | DataLoadPhase::Failed));
    status.completion_time.as_ref().filter(|_| has_ended).map(|end| end.0 + after)
}

async fn delete(api: &Api<DataLoad>, load: &DataLoad) -> Result<(), Error> {
    let preconditions = Some(Preconditions { uid: load.uid(), resource_version: None });
    match api.delete(&load.name_any(), &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(_) => Ok(()),
        Err(source) => match apply::error::<DataLoad>("delete", &load.name_any(), source) {
            error if error.is_race() => Ok(()),
            error => Err(error),
        },
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
