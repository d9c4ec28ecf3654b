//! Sends an extent to another worker, as fast as hand-overs may be.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use penstock_placement::Member;
use penstock_store::{ExtentInfo, Store};
use penstock_wire::{Address, message::Request};

use crate::{members::Members, metrics::Metrics, throttle::Throttle};

pub(crate) struct Courier {
    pub(super) store: Store,
    members: Arc<Members>,
    metrics: Arc<Metrics>,
    throttle: RwLock<Option<Arc<Throttle>>>,
}

impl Courier {
    pub(crate) fn new(store: Store, members: Arc<Members>, metrics: Arc<Metrics>) -> Self {
        Self { store, members, metrics, throttle: RwLock::default() }
    }

    /// Not more than so many bytes per second, from the next extent on.
    pub(crate) fn limit(&self, bandwidth: Option<u64>) {
        *self.throttle.write() = bandwidth.map(|rate| Arc::new(Throttle::new(rate)));
    }

    /// What is here of the extent, to the first of `takers` that takes it; `moved` is told how many bytes went. Whether all
    /// of it went.
    pub(super) async fn send(&self, extent: &ExtentInfo, takers: &[&Member], moved: impl Fn(u64)) -> bool {
        let absent = self.store.missing(&extent.object.key, extent.object.size, extent.range());
        for run in complement(extent.range(), &absent) {
            let (store, key, at) = (self.store.clone(), extent.object.key, run.start);
            let read = move || store.read(&key, at, (run.end - run.start) as usize);
            // Evicted meanwhile: nothing to hand over.
            let Some(data) = tokio::task::spawn_blocking(read).await.ok().flatten() else { continue };
            let len = data.len() as u64;
            let throttle = self.throttle.read().clone();
            if let Some(throttle) = throttle {
                throttle.take(len).await;
            }
            if !self.push(takers, extent, at, data).await {
                return false;
            }
            self.metrics.pushed_bytes.inc_by(len);
            moved(len);
        }
        true
    }

    async fn push(&self, takers: &[&Member], extent: &ExtentInfo, offset: u64, data: Bytes) -> bool {
        for taker in takers {
            self.members.back(&taker.id).await;
            let request = Request::Push { object: (*extent.object).clone(), offset, data: data.clone() };
            match self.members.pool.call(&Address::Tcp(taker.addr.clone()), request).await {
                Ok(_) => return true,
                Err(error) => tracing::warn!(taker = taker.id, %error, "cannot hand an extent over"),
            }
        }
        false
    }
}

/// The parts of `whole` that are not in `holes`, which are in order and apart.
fn complement(whole: Range<u64>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let starts = std::iter::once(whole.start).chain(holes.iter().map(|hole| hole.end));
    let ends = holes.iter().map(|hole| hole.start).chain(std::iter::once(whole.end));
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn what_is_present_is_what_is_not_missing() {
        for (holes, present) in [
            (vec![], vec![0..10]),
            (vec![0..10], vec![]),
            (vec![0..2, 5..6], vec![2..5, 6..10]),
            (vec![3..10], vec![0..3]),
        ] {
            assert_eq!(complement(0..10, &holes), present);
        }
    }
}
