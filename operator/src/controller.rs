//! The control loop: a pair of Dataset and CacheRuntime goes through
//! dereference → validate → size → plan → build → apply → status. Only the first and the last two talk to anyone; the middle is
//! pure. Each step has a module of its own, takes what earlier steps made, and imports no later one.

pub mod apply;
pub mod build;
pub mod complaints;
mod deletion;
mod dereference;
pub mod events;
mod loads;
mod observed;
mod plan;
mod reconcile;
mod refusal;
mod rollout;
mod sizing;
pub mod status;
mod sweep;
mod validate;
pub mod written;

use std::{convert::Infallible, fmt::Debug, sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt, channel::mpsc, future::BoxFuture};
use jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        self, applier,
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use penstock_api::{CacheRuntime, DataLoad, Dataset};
use penstock_plan::{
    names::persistent_volume,
    validate::{Claim, dataset_of},
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{ConfigMapCache, Context, Races, SecretCache, Unbound},
    controller::complaints::Absences,
    metrics::Metrics,
    poller::Poller,
    recent::Recent,
    tasks::{self, Tasks},
    turns::Turns,
    watches::{self, Trigger, Triggers},
    worker_api::WorkerApi,
};

use self::{events::EventRecorder, observed::is_bound, written::Written};
pub use reconcile::Error;

/// Reconciles at once. They mostly wait for the API server.
const CONCURRENCY: u16 = 24;

pub struct Settings {
    /// Image of workers whose runtime names none.
    pub worker_image: String,
    /// What else workers have whose runtime does not say.
    pub worker_defaults: build::WorkerDefaults,
    /// How many runtimes take a new one at once.
    pub updating_runtimes: usize,
    /// The one namespace to look after; all when absent.
    pub namespace: Option<String>,
    /// Told when a watch fails.
    pub watch_failed: Arc<Notify>,
}

/// Looks after Datasets and CacheRuntimes until `stop`; reconciles under way then are finished. Only one may run at a
/// time on a cluster. Fails when one of its background tasks ends before that.
pub async fn run(
    client: Client,
    settings: Settings,
    workers: Arc<dyn WorkerApi>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), tasks::Ended> {
    let mut tasks = Tasks::default();
    let namespace = settings.namespace.as_deref();
    let (stores, triggers) = watches::start(&client, namespace, &mut tasks, settings.watch_failed);
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ended = tasks.ended() => return Err(ended),
        () = watches::filled(&stores) => {}
    }
    let (wake, dataset_queue) = mpsc::unbounded();
    let recent = Arc::<Recent>::default();
    metrics.show(&stores, recent.clone());
    let poller = Arc::new(Poller::new(workers.clone(), recent.clone(), wake.clone()));
    let ctx = Arc::new(Context {
        recorder: EventRecorder::start(client.clone(), &mut tasks),
        client,
        stores,
        secrets: SecretCache::default(),
        config_maps: ConfigMapCache::default(),
        poller: poller.clone(),
        recent,
        written: Written::default(),
        unbound: Unbound::default(),
        absences: Absences::default(),
        races: Races::default(),
        workers,
        metrics,
        worker_image: settings.worker_image,
        worker_defaults: settings.worker_defaults,
        turns: Turns::new(settings.updating_runtimes),
    });
    let queues = split(triggers, (wake, dataset_queue), &ctx, &mut tasks);
    tasks.spawn("poller", poller.run());
    tasks.spawn("sweep", sweep::run(ctx.clone(), settings.namespace));
    let datasets = look_after_datasets(ctx.clone(), queues.datasets, stop.clone());
    let stores = &ctx.stores;
    let runtimes = look_after_lone(ctx.clone(), stores.runtimes.clone(), queues.runtimes, stop.clone(), unclaimed);
    let loads = look_after_lone(ctx.clone(), stores.loads.clone(), queues.loads, stop, alone);
    // Boxed: the compiler does not see that so deep a future can be sent.
    let work: BoxFuture<'static, ()> = Box::pin(async move {
        tokio::join!(datasets, runtimes, loads);
    });
    tokio::select! {
        ended = tasks.ended() => Err(ended),
        () = work => Ok(()),
    }
}

type Queue<K> = mpsc::UnboundedReceiver<ObjectRef<K>>;

struct Queues {
    datasets: Queue<Dataset>,
    runtimes: Queue<CacheRuntime>,
    loads: Queue<DataLoad>,
}

fn split(
    mut triggers: Triggers,
    (datasets, dataset_queue): (mpsc::UnboundedSender<ObjectRef<Dataset>>, Queue<Dataset>),
    ctx: &Arc<Context>,
    tasks: &mut Tasks,
) -> Queues {
    let (runtimes, runtime_queue) = mpsc::unbounded();
    let (loads, load_queue) = mpsc::unbounded();
    let ctx = ctx.clone();
    tasks.spawn("queues", async move {
        while let Some(trigger) = triggers.next().await {
            // Closed means that the operator stops.
            let _ = match trigger {
                Trigger::Dataset(dataset) => {
                    if is_unbound(&dataset, &ctx) {
                        ctx.unbound.add(dataset.clone());
                    }
                    datasets.unbounded_send(dataset).is_ok()
                }
                Trigger::Runtime(runtime) => runtimes.unbounded_send(runtime).is_ok(),
                Trigger::Load(load) => loads.unbounded_send(load).is_ok(),
            };
        }
    });
    Queues { datasets: dataset_queue, runtimes: runtime_queue, loads: load_queue }
}

/// Whether the Dataset is there and pods cannot mount it yet.
fn is_unbound(dataset: &ObjectRef<Dataset>, ctx: &Context) -> bool {
    let Some(found) = ctx.stores.datasets.get(dataset) else { return false };
    let claim = watches::get(&ctx.stores.claims, &found.namespace().unwrap_or_default(), &found.name_any());
    let volume = ctx.stores.volumes.get(&ObjectRef::new(&persistent_volume(&found.uid().unwrap_or_default())));
    !claim.zip(volume).is_some_and(|(claim, volume)| is_bound(&claim, &volume))
}

async fn look_after_datasets(ctx: Arc<Context>, queue: Queue<Dataset>, stop: CancellationToken) {
    let queue = queue.map(Ok::<_, Infallible>).take_until(stop.cancelled_owned());
    let config = runtime::Config::default().concurrency(CONCURRENCY);
    let reconciles = applier(
        |dataset: Arc<Dataset>, ctx: Arc<Context>| Box::pin(measured(dataset, ctx)),
        |dataset, error: &Error, ctx| {
            let lost_race = error.is_race().then(|| ctx.races.pause(ObjectRef::from_obj(dataset.as_ref())));
            Action::requeue(lost_race.unwrap_or(error.pause()))
        },
        ctx.clone(),
        ctx.stores.datasets.clone(),
        queue,
        config,
    );
    // Errors are logged where they happen; that an object is gone before its turn is none.
    reconciles.map_err(drop).for_each(|_| async {}).await;
}

async fn measured(dataset: Arc<Dataset>, ctx: Arc<Context>) -> Result<Action, Error> {
    let begun = Instant::now();
    let id = format!("{}/{}", dataset.namespace().unwrap_or_default(), dataset.name_any());
    ctx.metrics.began();
    let reference = ObjectRef::from_obj(dataset.as_ref());
    let result = reconcile::reconcile(dataset, ctx.clone()).await;
    let (quiet, loud) = match &result {
        Ok(_) => (None, None),
        Err(error) if error.is_quiet() => (Some(error), None),
        Err(error) => (None, Some(error)),
    };
    ctx.metrics.ended(begun.elapsed(), loud.map(Into::into));
    if let Some(error) = loud {
        tracing::warn!(dataset = id, %error, "reconcile failed; it will be tried again");
    }
    if result.is_ok() {
        ctx.races.forget(&reference);
    }
    match quiet {
        Some(error) => tracing::debug!(dataset = id, %error, "looking again"),
        None => ctx.unbound.remove(&reference),
    }
    result
}

/// Objects of one kind that have no Dataset; the others' are looked after with it.
async fn look_after_lone<K, F>(
    ctx: Arc<Context>,
    store: Store<K>,
    queue: Queue<K>,
    stop: CancellationToken,
    look: fn(Arc<K>, Arc<Context>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, apply::Error>> + Send + 'static,
{
    let queue = queue.map(Ok::<_, Infallible>).take_until(stop.cancelled_owned());
    let config = runtime::Config::default().concurrency(CONCURRENCY);
    let reconciles = applier(
        move |object: Arc<K>, ctx: Arc<Context>| Box::pin(look(object, ctx)),
        |object: Arc<K>, error: &apply::Error, _| {
            if !error.is_race() && !error.is_terminating() {
                let object = ObjectRef::from_obj(object.as_ref());
                tracing::warn!(%object, %error, "a status was not written; it will be tried again");
            }
            Action::requeue(reconcile::MENDED)
        },
        ctx,
        store,
        queue,
        config,
    );
    reconciles.map_err(drop).for_each(|_| async {}).await;
}

/// The status of a DataLoad without a Dataset; of others, the Dataset's reconcile writes it.
async fn alone(load: Arc<DataLoad>, ctx: Arc<Context>) -> Result<Action, apply::Error> {
    let namespace = load.namespace().unwrap_or_default();
    let is_gone = watches::get(&ctx.stores.datasets, &namespace, &load.spec.dataset).is_none();
    if is_gone && load.metadata.deletion_timestamp.is_none() {
        if let Some(rest) = reconcile::grace(load.creation_timestamp(), Timestamp::now()) {
            return Ok(Action::requeue(rest));
        }
        loads::publish_alone(&load, &ctx, Timestamp::now()).await?;
    }
    Ok(Action::requeue(reconcile::QUIET))
}

/// The status of a runtime that serves no Dataset; of others, the pair's reconcile writes it.
async fn unclaimed(runtime: Arc<CacheRuntime>, ctx: Arc<Context>) -> Result<Action, apply::Error> {
    let namespace = runtime.namespace().unwrap_or_default();
    let datasets = watches::related(&ctx.stores.datasets, &namespace, &runtime.name_any());
    let datasets: Vec<&Dataset> = datasets.iter().map(AsRef::as_ref).collect();
    if runtime.metadata.deletion_timestamp.is_none()
        && let Claim::None(problem) = dataset_of(&runtime, &datasets)
    {
        if let Some(rest) = reconcile::grace(runtime.creation_timestamp(), Timestamp::now()) {
            return Ok(Action::requeue(rest));
        }
        let status = status::unclaimed(&runtime, &problem, Timestamp::now());
        status::publish_runtime(&runtime, &status, &ctx).await?;
    }
    Ok(Action::await_change())
}
