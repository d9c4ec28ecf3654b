//! Asks workers for their numbers, and keeps what they answered: apart from reconciles, so that a worker that is silent
//! holds up nobody, and numbers have a history however seldom a Dataset is looked at.
//!
//! A Dataset at rest is polled; a reconcile takes the answers from here, and is asked for when they differ in what people
//! see. While something moves, reconciles come often, and ask by themselves.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc::UnboundedSender, future::join_all, stream};
use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use penstock_api::{CacheRuntime, Dataset};
use penstock_plan::numbers::visible;
use penstock_wire::message::Stats;
use tokio::time::sleep;

use crate::{
    recent::Recent,
    worker_api::{Fleet, WorkerApi},
};

/// How old the numbers of a Dataset at rest may be.
const EVERY: Duration = Duration::from_secs(10);
/// How often it is looked who is due.
const TICK: Duration = Duration::from_secs(1);
/// An answer is taken for the present one until the next should be there.
const FRESH: Duration = Duration::from_secs(13);
/// Datasets that are asked at once. A silent worker takes a place for two seconds.
const AT_ONCE: usize = 256;

/// A worker to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub ordinal: u32,
    /// `host:port`
    pub addr: String,
    /// Another one for each process, as far as the API server tells them apart: its answers are no other's.
    pub life: String,
}

type Generations = [Option<i64>; 2];
/// `None` while the worker is silent.
type Answer = (Target, Option<Stats>);

pub struct Poller {
    api: Arc<dyn WorkerApi>,
    recent: Arc<Recent>,
    polled: Mutex<HashMap<ObjectRef<Dataset>, Polled>>,
    wake: UnboundedSender<ObjectRef<Dataset>>,
}

/// What is known of the workers of one Dataset.
struct Polled {
    uid: String,
    /// Of the Dataset and its runtime.
    generations: Generations,
    fleet: Fleet,
    answers: Vec<Answer>,
    /// What the last reconcile was told.
    told: Vec<Option<Stats>>,
    at: Instant,
    /// Whether nothing moves.
    rests: bool,
}

impl Poller {
    /// `wake` takes the Datasets that are to be looked at.
    pub fn new(api: Arc<dyn WorkerApi>, recent: Arc<Recent>, wake: UnboundedSender<ObjectRef<Dataset>>) -> Self {
        Self { api, recent, polled: Mutex::default(), wake }
    }

    /// What each of the targets answers, or answered within the last seconds under the same specifications; `None` for one
    /// that is silent.
    pub async fn answers(
        &self,
        (dataset, runtime): (&Dataset, &CacheRuntime),
        fleet: &Fleet,
        targets: Vec<Target>,
    ) -> Vec<Option<Stats>> {
        let reference = ObjectRef::from_obj(dataset);
        let generations = [dataset.metadata.generation, runtime.metadata.generation];
        let known = self.known(&reference, fleet, generations);
        let answers =
            join_all(targets.into_iter().map(async |target| match known.iter().find(|(known, _)| *known == target) {
                Some((_, answer)) => (target, answer.clone()),
                None => self.ask(fleet, target).await,
            }))
            .await;
        let stats: Vec<_> = answers.iter().map(|(_, answer)| answer.clone()).collect();
        let uid = dataset.uid().unwrap_or_default();
        // Counters of earlier would look as if nothing had been read since.
        if known.is_empty() {
            self.note(&uid, &answers);
        }
        let mut polled = self.polled.lock();
        let at = polled.get(&reference).filter(|_| !known.is_empty()).map_or_else(Instant::now, |polled| polled.at);
        let told = stats.clone();
        polled.insert(reference, Polled { uid, generations, fleet: fleet.clone(), answers, told, at, rests: false });
        stats
    }

    /// After a reconcile: whether nothing moves, so that asking can be left to the poller.
    pub fn rest(&self, dataset: &Dataset, rests: bool) {
        if let Some(polled) = self.polled.lock().get_mut(&ObjectRef::from_obj(dataset)) {
            polled.rests = rests;
        }
    }

    /// The Dataset has no workers any more.
    pub fn forget(&self, dataset: &ObjectRef<Dataset>) {
        self.polled.lock().remove(dataset);
    }

    /// Polls those at rest, without an end.
    pub async fn run(self: Arc<Self>) {
        loop {
            sleep(TICK).await;
            let due = self.due();
            stream::iter(due).for_each_concurrent(AT_ONCE, |dataset| self.poll(dataset)).await;
        }
    }

    /// Answers that are still good. While something moves, none is.
    fn known(&self, dataset: &ObjectRef<Dataset>, fleet: &Fleet, generations: Generations) -> Vec<Answer> {
        let polled = self.polled.lock();
        let known = polled.get(dataset).filter(|known| known.rests && known.at.elapsed() < FRESH);
        known
            .filter(|known| known.fleet == *fleet && known.generations == generations)
            .map(|known| known.answers.clone())
            .unwrap_or_default()
    }

    fn due(&self) -> Vec<ObjectRef<Dataset>> {
        let polled = self.polled.lock();
        let is_due = |polled: &Polled| polled.rests && !polled.answers.is_empty() && polled.at.elapsed() >= EVERY;
        polled.iter().filter(|(_, polled)| is_due(polled)).map(|(dataset, _)| dataset.clone()).collect()
    }

    async fn poll(&self, dataset: ObjectRef<Dataset>) {
        let Some((fleet, targets)) = self.targets(&dataset) else { return };
        let answers = join_all(targets.into_iter().map(|target| self.ask(&fleet, target))).await;
        let (uid, is_news) = {
            let mut polled = self.polled.lock();
            // A reconcile may have asked meanwhile, or seen others.
            let Some(known) = polled.get_mut(&dataset).filter(|known| known.rests) else { return };
            let same = answers.iter().map(|(target, _)| target).eq(known.answers.iter().map(|(target, _)| target));
            if !same {
                return;
            }
            let is_news = is_news(&known.told, &known.answers, &answers);
            known.answers.clone_from(&answers);
            known.at = Instant::now();
            (known.uid.clone(), is_news)
        };
        self.note(&uid, &answers);
        if is_news {
            // Closed means that the operator stops.
            let _ = self.wake.unbounded_send(dataset);
        }
    }

    fn targets(&self, dataset: &ObjectRef<Dataset>) -> Option<(Fleet, Vec<Target>)> {
        let polled = self.polled.lock();
        let known = polled.get(dataset)?;
        Some((known.fleet.clone(), known.answers.iter().map(|(target, _)| target.clone()).collect()))
    }

    async fn ask(&self, fleet: &Fleet, target: Target) -> Answer {
        let stats = self.api.stats(fleet, &target.addr).await;
        if let Err(error) = &stats {
            tracing::debug!(dataset = fleet.dataset, error, "a worker does not answer");
        }
        (target, stats.ok())
    }

    fn note(&self, uid: &str, answers: &[Answer]) {
        let now = Timestamp::now();
        self.recent.with(uid, now, |seen| {
            for (target, stats) in answers {
                if let Some(stats) = stats {
                    seen.numbers.add(target.ordinal, now, &stats.asked);
                }
            }
        });
    }
}

/// Whether people would see a difference to what was `told`, or numbers have come to rest at others.
fn is_news(told: &[Option<Stats>], before: &[Answer], now: &[Answer]) -> bool {
    let shown = |stats: &Option<Stats>| stats.as_ref().map(visible);
    let bytes = |stats: &Option<Stats>| stats.as_ref().map(|stats| (stats.cached_bytes, stats.tiers.clone()));
    let news = |told: &Option<Stats>, before: &Option<Stats>, now: &Option<Stats>| {
        shown(told) != shown(now) || (bytes(told) != bytes(now) && bytes(before) == bytes(now))
    };
    told.iter().zip(before).zip(now).any(|((told, (_, before)), (_, now))| news(told, before, now))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures::channel::mpsc;
    use penstock_placement::MemberList;
    use penstock_wire::{Credential, message::LoadOrder};
    use serde_json::json;

    use super::*;

    /// Counts how often it was asked, and answers what the test says.
    #[derive(Default)]
    struct Counting {
        asked: Mutex<usize>,
        answer: Mutex<Option<Stats>>,
    }

    #[async_trait]
    impl WorkerApi for Counting {
        async fn stats(&self, _: &Fleet, _: &str) -> Result<Stats, String> {
            *self.asked.lock() += 1;
            self.answer.lock().clone().ok_or_else(|| "silent".into())
        }

        async fn set_members(&self, _: &Fleet, _: &str, _: &MemberList) -> Result<(), String> {
            Ok(())
        }

        async fn drain(&self, _: &Fleet, _: &str) -> Result<(), String> {
            Ok(())
        }

        async fn set_loads(&self, _: &Fleet, _: &str, _: &[LoadOrder]) -> Result<(), String> {
            Ok(())
        }

        fn forget(&self, _: &str) {}
    }

    struct Rig {
        api: Arc<Counting>,
        poller: Poller,
        woken: mpsc::UnboundedReceiver<ObjectRef<Dataset>>,
        dataset: Dataset,
        runtime: CacheRuntime,
        fleet: Fleet,
    }

    impl Rig {
        fn new() -> Self {
            let (api, recent, (wake, woken)) = (Arc::<Counting>::default(), Arc::default(), mpsc::unbounded());
            *api.answer.lock() = Some(Stats::default());
            let poller = Poller::new(api.clone(), recent, wake);
            let dataset = serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "ns", "uid": "1"}, "spec": {"mounts": []}
            }));
            let fleet = Fleet { dataset: "ns/a".into(), peer_key: Credential::generate().unwrap() };
            let runtime = serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "ns"}, "spec": {"tieredStore": {"levels": []}}
            }));
            Self { api, poller, woken, dataset: dataset.unwrap(), runtime: runtime.unwrap(), fleet }
        }

        async fn answers(&self, life: &str) -> Vec<Option<Stats>> {
            let target = Target { ordinal: 0, addr: "198.18.0.1:9440".into(), life: life.into() };
            self.poller.answers((&self.dataset, &self.runtime), &self.fleet, vec![target]).await
        }

        fn asked(&self) -> usize {
            *self.api.asked.lock()
        }

        async fn poll(&self) {
            self.poller.poll(ObjectRef::from_obj(&self.dataset)).await;
        }

        fn is_woken(&mut self) -> bool {
            self.woken.try_recv().is_ok()
        }
    }

    #[tokio::test]
    async fn a_reconcile_at_rest_asks_nobody_but_new_processes() {
        let rig = Rig::new();
        rig.answers("one").await;
        rig.answers("one").await;
        assert_eq!(rig.asked(), 2, "while something moves, each asks");
        rig.poller.rest(&rig.dataset, true);
        assert_eq!(rig.answers("one").await, [Some(Stats::default())]);
        assert_eq!(rig.asked(), 2);
        rig.poller.rest(&rig.dataset, true);
        rig.answers("another").await;
        assert_eq!(rig.asked(), 3);
    }

    #[tokio::test]
    async fn only_what_people_see_wakes_a_reconcile() {
        let mut rig = Rig::new();
        rig.answers("one").await;
        assert!(rig.poller.due().is_empty(), "nobody is polled while something moves");
        rig.poller.rest(&rig.dataset, true);
        *rig.api.answer.lock() = Some(Stats { served_bytes: 5_000_000, ..Stats::default() });
        rig.poll().await;
        assert!(!rig.is_woken());
        *rig.api.answer.lock() = Some(Stats { cached_bytes: 5_000_000, ..Stats::default() });
        rig.poll().await;
        assert!(rig.is_woken());
        rig.poller.rest(&rig.dataset, true);
        rig.answers("one").await;
        rig.poller.rest(&rig.dataset, true);
        *rig.api.answer.lock() = Some(Stats { cached_bytes: 5_000_001, ..Stats::default() });
        rig.poll().await;
        assert!(!rig.is_woken(), "the difference is small");
        rig.poll().await;
        assert!(rig.is_woken(), "but it stays");
        *rig.api.answer.lock() = None;
        rig.poll().await;
        assert!(rig.is_woken(), "it is silent");
    }
}
