//! The miss path: every absent page is fetched once, whoever asks for it and how often.

mod admission;
mod ranges;
mod upstream;

use std::{collections::HashMap, future::Future, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use penstock_model::{EXTENT, Object, ObjectKey};
use penstock_store::Store;
use penstock_wire::message::{Failure, Pattern, Reach};
use tokio::sync::watch;

use self::admission::Admission;
use self::ranges::{overlap, pages_of, subtract};
pub(crate) use self::upstream::{Upstream, locate};
use crate::metrics::Metrics;

/// How often bytes may be evicted between their fetch and their reading before they are fetched past the store.
const TRIES: usize = 3;

/// Where bytes come from that the store lacks.
pub(crate) trait Origin: Send + Sync + 'static {
    /// The bytes of a page-aligned range within one extent, from as far as `reach` says.
    fn fetch(
        &self,
        object: &Object,
        range: Range<u64>,
        reach: Reach,
    ) -> impl Future<Output = Result<Bytes, Failure>> + Send;
}

type Outcome = Option<Result<Bytes, Failure>>;

/// One range on its way. In the table from before its fetch begins until the store has it.
#[derive(Clone)]
struct Flight {
    range: Range<u64>,
    outcome: watch::Receiver<Outcome>,
}

pub(crate) struct Fills<O> {
    inner: Arc<Inner<O>>,
}

impl<O> Clone for Fills<O> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<O> {
    store: Store,
    origin: O,
    metrics: Arc<Metrics>,
    flights: Mutex<HashMap<FlightKey, Vec<Flight>>>,
    /// Of flights as owner, and of the others, which may wait for those of another worker.
    owner: Admission,
    other: Admission,
}

/// Object, number of the extent, and how far its flights go. Those as owner are apart from the others, which may wait for
/// another worker: so no circle of waiting closes while two workers disagree on who owns the extent.
type FlightKey = (ObjectKey, u64, Reach);

impl<O: Origin> Fills<O> {
    pub(crate) fn new(store: Store, origin: O, metrics: Arc<Metrics>) -> Self {
        let (flights, owner, other) = (Mutex::default(), Admission::new(), Admission::new());
        Self { inner: Arc::new(Inner { store, origin, metrics, flights, owner, other }) }
    }

    /// The bytes of `range`, which lies in one extent; what is absent is fetched and kept. Fetches go on when the caller
    /// gives up.
    pub(crate) async fn read(
        &self,
        object: &Arc<Object>,
        range: Range<u64>,
        pattern: Pattern,
        reach: Reach,
    ) -> Result<Bytes, Failure> {
        for _ in 0..TRIES {
            let mut arrived = Vec::new();
            for flight in self.board(object, &range, pattern, reach) {
                arrived.push((flight.range.clone(), flight.land().await?));
            }
            if let Some(bytes) = self.assemble(object, &range, arrived).await {
                return Ok(bytes);
            }
        }
        let pages = pages_of(&range, object.size);
        let bytes = self.inner.origin.fetch(object, pages.clone(), reach).await?;
        Ok(bytes.slice((range.start - pages.start) as usize..(range.end - pages.start) as usize))
    }

    /// As [`Self::read`], for what comes of it: returns when the store has taken all that it takes.
    pub(crate) async fn keep(
        &self,
        object: &Arc<Object>,
        range: Range<u64>,
        pattern: Pattern,
        reach: Reach,
    ) -> Result<(), Failure> {
        for flight in self.board(object, &range, pattern, reach) {
            flight.land().await?;
            flight.is_over().await;
        }
        Ok(())
    }

    /// The flights that bring what is absent of `range`: those under way, and new ones for the rest.
    fn board(&self, object: &Arc<Object>, range: &Range<u64>, pattern: Pattern, reach: Reach) -> Vec<Flight> {
        let wanted = widen(range, object.size, pattern);
        let route = (object.key, range.start / EXTENT, reach);
        let mut table = self.inner.flights.lock();
        let flights = table.entry(route).or_default();
        // Under the table's lock: what landed is in the store before its flight leaves the table.
        let absent = self.inner.store.missing(&object.key, object.size, wanted);
        for range in subtract(absent, flights.iter().map(|flight| &flight.range)) {
            let (sender, outcome) = watch::channel(None);
            flights.push(Flight { range: range.clone(), outcome });
            tokio::spawn(fly(self.inner.clone(), object.clone(), range, route, sender));
        }
        let needed = flights.iter().filter(|flight| overlap(&flight.range, range).is_some()).cloned().collect();
        if flights.is_empty() {
            table.remove(&route);
        }
        needed
    }

    /// `range` from what arrived, and from the store between; `None` when something was evicted meanwhile.
    async fn assemble(
        &self,
        object: &Object,
        range: &Range<u64>,
        mut arrived: Vec<(Range<u64>, Bytes)>,
    ) -> Option<Bytes> {
        let part = |have: &Range<u64>, bytes: &Bytes, want: &Range<u64>| {
            bytes.slice((want.start - have.start) as usize..(want.end - have.start) as usize)
        };
        if let Some((have, bytes)) = arrived.iter().find(|(have, _)| have.start <= range.start && range.end <= have.end)
        {
            return Some(part(have, bytes, range));
        }
        arrived.sort_by_key(|(have, _)| have.start);
        let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        for (have, bytes) in &arrived {
            let want = overlap(have, &(at..range.end))?;
            whole.extend_from_slice(&self.stored(object, at..want.start).await?);
            whole.extend_from_slice(&part(have, bytes, &want));
            at = want.end;
        }
        if arrived.is_empty() {
            return self.stored(object, range.clone()).await;
        }
        whole.extend_from_slice(&self.stored(object, at..range.end).await?);
        Some(whole.freeze())
    }

    async fn stored(&self, object: &Object, range: Range<u64>) -> Option<Bytes> {
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let (store, key) = (self.inner.store.clone(), object.key);
        let read = move || store.read(&key, range.start, (range.end - range.start) as usize);
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }
}

impl Flight {
    async fn land(&self) -> Result<Bytes, Failure> {
        let mut outcome = self.outcome.clone();
        let landed = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        landed.unwrap_or_else(|| Err(Failure::Unavailable("a fetch ended early".into())))
    }

    /// Returns when the store has the bytes, or has not taken them.
    async fn is_over(&self) {
        let mut outcome = self.outcome.clone();
        while outcome.changed().await.is_ok() {}
    }
}

/// A sequential reader will want the rest of the extent.
fn widen(range: &Range<u64>, size: u64, pattern: Pattern) -> Range<u64> {
    let pages = pages_of(range, size);
    match pattern {
        Pattern::Random => pages,
        Pattern::Sequential => pages.start..((range.start / EXTENT + 1) * EXTENT).min(size),
    }
}

async fn fly<O: Origin>(
    inner: Arc<Inner<O>>,
    object: Arc<Object>,
    range: Range<u64>,
    route: FlightKey,
    outcome: watch::Sender<Outcome>,
) {
    // Also when the fetch panics: the next reader tries again.
    let _listed = Listed { inner: &inner, route, start: range.start };
    let admission = if route.2 == Reach::Owner { &inner.owner } else { &inner.other };
    let mut admitted = admission.enter(object.key, range.end - range.start).await;
    let fetched = inner.origin.fetch(&object, range.clone(), route.2).await;
    admitted.landed();
    outcome.send_replace(Some(fetched.clone()));
    let Ok(bytes) = fetched else { return };
    let (store, len) = (inner.store.clone(), bytes.len() as u64);
    let written = tokio::task::spawn_blocking(move || store.write(&object, range.start, &bytes)).await;
    if let Ok(Err(error)) = written {
        inner.metrics.unkept_bytes.inc_by(len);
        tracing::debug!(%error, len, "fetched bytes are not kept");
    }
}

struct Listed<'a, O> {
    inner: &'a Inner<O>,
    route: FlightKey,
    start: u64,
}

impl<O> Drop for Listed<'_, O> {
    fn drop(&mut self) {
        let mut table = self.inner.flights.lock();
        if let Some(flights) = table.get_mut(&self.route) {
            flights.retain(|flight| flight.range.start != self.start);
            if flights.is_empty() {
                table.remove(&self.route);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests;
