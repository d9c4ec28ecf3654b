//! Local replicas: what this worker's own node reads again is completed here, so that the kernel reads it without anyone.
//!
//! Nothing that is owned makes room for them (the store sees to that), and nothing is fetched from the UFS for them that
//! nobody asked for: they are copied from the owners' stores, unless most of the object is here already.

use std::{
    collections::HashMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use penstock_model::{EXTENT, Object, ObjectKey};
use penstock_store::Store;
use penstock_wire::message::{Failure, Pattern, Reach};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    fill::{Fills, Upstream},
    members::Members,
    metrics::Metrics,
};

/// Whoever opens an object of at most this many bytes reads it whole: as owner, a worker fetches it at the first open.
const WHOLE: u64 = 1 << 20;
/// The open of an object of at most this many bytes waits for its completion.
const AWAITED: u64 = 8 << 20;
/// For so long, which is less than a mount waits for a descriptor.
const WAIT: Duration = Duration::from_millis(200);
/// An object was opened again when that is not longer ago.
const MEMORY: Duration = Duration::from_mins(10);
/// How many opened objects are remembered.
const MANY: usize = 8192;
/// After an attempt, whatever came of it.
const PAUSE: Duration = Duration::from_secs(5);
/// Objects, and extents of each, on their way at once: at most 32 MiB in memory.
const OBJECTS: usize = 2;
const EXTENTS: usize = 4;

/// What is known of an object that was opened and is not whole here.
#[derive(Clone, Copy, Debug)]
struct Opened {
    size: u64,
    /// Bytes that are here.
    present: u64,
    /// Lately, this one included.
    opens: u32,
    /// Whether this worker owns all of it.
    owned: bool,
    /// Bytes that replicas can take here.
    room: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    reach: Reach,
    /// Whether the open waits for it.
    awaited: bool,
}

/// Whether to complete an object, and how. Once opened, once read is no reason: the same bytes would travel twice.
fn plan(opened: &Opened) -> Option<Plan> {
    let Opened { size, present, opens, owned, room } = *opened;
    let absent = size - present;
    let (read_whole, mostly_here) = (owned && size <= WHOLE, present >= absent);
    let worth = read_whole || mostly_here || opens > 1;
    let reach = if read_whole || mostly_here { Reach::Ufs } else { Reach::Cache };
    (worth && absent > 0 && absent <= room).then_some(Plan { reach, awaited: size <= AWAITED })
}

pub(crate) struct Locals {
    store: Store,
    fills: Fills<Upstream>,
    members: Arc<Members>,
    metrics: Arc<Metrics>,
    seen: Mutex<HashMap<ObjectKey, Seen>>,
    turns: Arc<Semaphore>,
}

#[derive(Clone, Copy)]
struct Seen {
    opens: u32,
    last: Instant,
    /// Of the last attempt to complete it.
    tried: Option<Instant>,
}

impl Locals {
    pub(crate) fn new(store: Store, fills: Fills<Upstream>, members: Arc<Members>, metrics: Arc<Metrics>) -> Self {
        let turns = Arc::new(Semaphore::new(OBJECTS));
        Self { store, fills, members, metrics, seen: Mutex::default(), turns }
    }

    /// The node opened an object that is not whole here. True when it may be now.
    pub(crate) async fn opened(self: &Arc<Self>, object: Object) -> bool {
        let now = Instant::now();
        let Some(opens) = self.count(object.key, now) else { return false };
        let (this, about) = (self.clone(), object.clone());
        let Ok(opened) = spawn_blocking(move || this.look(&about, opens)).await else { return false };
        let (Some(plan), Ok(turn)) = (plan(&opened), self.turns.clone().try_acquire_owned()) else { return false };
        self.tried(object.key, now);
        let work = tokio::spawn(self.clone().complete(Arc::new(object), plan.reach, turn));
        plan.awaited && matches!(timeout(WAIT, work).await, Ok(Ok(true)))
    }

    /// How often the object was opened lately; `None` while an attempt was made only just.
    fn count(&self, key: ObjectKey, now: Instant) -> Option<u32> {
        let mut seen = self.seen.lock();
        if seen.len() >= MANY && !seen.contains_key(&key) {
            forget_oldest(&mut seen, now);
        }
        let one = seen.entry(key).or_insert(Seen { opens: 0, last: now, tried: None });
        one.opens = if now - one.last > MEMORY { 1 } else { one.opens.saturating_add(1) };
        one.last = now;
        one.tried.is_none_or(|tried| now - tried > PAUSE).then_some(one.opens)
    }

    fn tried(&self, key: ObjectKey, now: Instant) {
        if let Some(one) = self.seen.lock().get_mut(&key) {
            one.tried = Some(now);
        }
    }

    fn look(&self, object: &Object, opens: u32) -> Opened {
        let absent: u64 = self.absent(object).iter().map(|range| range.end - range.start).sum();
        let owned = extents(object.size).all(|extent| self.members.owns(object.key, extent.start));
        let room = self.store.room_for_replicas();
        Opened { size: object.size, present: object.size - absent, opens, owned, room }
    }

    fn absent(&self, object: &Object) -> Vec<Range<u64>> {
        self.store.missing(&object.key, object.size, 0..object.size)
    }

    async fn complete(self: Arc<Self>, object: Arc<Object>, reach: Reach, _turn: OwnedSemaphorePermit) -> bool {
        let here = |extent: &Range<u64>| self.store.missing(&object.key, object.size, extent.clone()).is_empty();
        let fetches = extents(object.size).filter(|extent| !here(extent)).map(|extent| {
            let reach = self.members.route(object.key, extent.start, reach);
            self.fills.keep(&object, extent, Pattern::Sequential, reach)
        });
        let done: Result<Vec<()>, Failure> = stream::iter(fetches).buffer_unordered(EXTENTS).try_collect().await;
        match &done {
            Ok(_) => {
                self.metrics.completed.inc();
            }
            Err(failure) => tracing::debug!(%failure, "an object is not completed for this node"),
        }
        done.is_ok()
    }
}

fn forget_oldest(seen: &mut HashMap<ObjectKey, Seen>, now: Instant) {
    seen.retain(|_, one| now - one.last <= MEMORY);
    if seen.len() < MANY {
        return;
    }
    let mut ages: Vec<Instant> = seen.values().map(|one| one.last).collect();
    let middle = ages.len() / 2;
    let oldest = *ages.select_nth_unstable(middle).1;
    seen.retain(|_, one| one.last > oldest);
}

fn extents(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(EXTENT)).map(move |number| number * EXTENT..((number + 1) * EXTENT).min(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn data_that_proves_itself_is_completed_where_there_is_room() {
        let first = Opened { size: 100 * MIB, present: 10 * MIB, opens: 1, owned: false, room: 200 * MIB };
        let (cache, ufs) = (Some((Reach::Cache, false)), Some((Reach::Ufs, false)));
        for (opened, expected) in [
            (first, None),
            (Opened { opens: 2, ..first }, cache),
            (Opened { opens: 2, room: 50 * MIB, ..first }, None),
            (Opened { present: 50 * MIB, ..first }, ufs),
            (Opened { present: 100 * MIB, opens: 9, ..first }, None),
            (Opened { size: 8 * MIB, present: 0, opens: 2, ..first }, Some((Reach::Cache, true))),
            (Opened { size: MIB, present: 0, owned: true, ..first }, Some((Reach::Ufs, true))),
            (Opened { size: MIB, present: 0, ..first }, None),
        ] {
            assert_eq!(plan(&opened).map(|plan| (plan.reach, plan.awaited)), expected, "{opened:?}");
        }
    }

    #[test]
    fn the_oldest_half_is_forgotten_when_too_many_were_opened() {
        let now = Instant::now();
        let at = |n: u64| Seen { opens: 1, last: now + Duration::from_millis(n), tried: None };
        let mut seen: HashMap<_, _> = (0..MANY as u64).map(|n| (ObjectKey(n.into()), at(n))).collect();
        forget_oldest(&mut seen, now);
        let newest = ObjectKey(MANY as u128 - 1);
        assert!(seen.len() == MANY / 2 - 1 && seen.contains_key(&newest), "{}", seen.len());
    }
}
