//! What mounts ask of this worker, for whoever decides how many workers there are.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use penstock_curve::{Fleet, Reuse, Sampler};
use penstock_model::{EXTENT, Object};
use penstock_wire::message::{Asked, Request};

use crate::{members::Members, metrics::Metrics};

pub(crate) struct Readers {
    metrics: Arc<Metrics>,
    members: Arc<Members>,
    sampler: Arc<Sampler>,
    boot: u64,
    started: Instant,
    /// Milliseconds after the start: when a mount last asked for something.
    last: AtomicU64,
}

impl Readers {
    pub(crate) fn new(metrics: Arc<Metrics>, members: Arc<Members>, sampler: Arc<Sampler>) -> Self {
        let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Self { metrics, members, sampler, boot, started: Instant::now(), last: AtomicU64::new(0) }
    }

    /// A mount asked; what mounts ask by themselves, without a reader, does not count.
    pub(crate) fn asked(&self, request: &Request) {
        use Request::{List, OpenLocal, Read, ReadLink, Stat};
        if matches!(request, Stat { .. } | List { .. } | ReadLink { .. } | Read { .. } | OpenLocal { .. }) {
            self.last.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Whether a mount asked for something within the time `lately`.
    pub(crate) fn are_about(&self, lately: Duration) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last > 0 && self.started.elapsed().saturating_sub(Duration::from_millis(last)) < lately
    }

    /// A mount was given `range`, which lies in one extent.
    pub(crate) fn served(&self, object: &Object, range: Range<u64>, is_hit: bool) {
        let counter = if is_hit { &self.metrics.mount_hit_bytes } else { &self.metrics.mount_miss_bytes };
        counter.inc_by(range.end - range.start);
        self.sample(object, range);
    }

    /// A mount has the whole file, and reads it without asking.
    pub(crate) fn opened(&self, object: &Object) {
        self.metrics.opens.inc();
        self.metrics.opened_bytes.inc_by(object.size);
        for start in (0..object.size).step_by(EXTENT as usize) {
            self.sample(object, start..(start + EXTENT).min(object.size));
        }
    }

    /// Owners see what becomes of their pages; what others give is a copy.
    fn sample(&self, object: &Object, range: Range<u64>) {
        if self.members.owns(object.key, range.start) {
            let list = self.members.list();
            let fleet = Fleet { epoch: list.epoch, members: list.members.len() as u64 };
            self.sampler.read(object.key, object.size, range, fleet);
        } else {
            self.sampler.copied(range.end - range.start);
        }
    }

    /// What comes back to what was read says of the size.
    pub(crate) fn reuse(&self) -> Reuse {
        self.sampler.told()
    }

    pub(crate) fn counted(&self) -> Asked {
        let now = self.started.elapsed().as_millis() as u64;
        Asked {
            boot: self.boot,
            hit_bytes: self.metrics.mount_hit_bytes.get(),
            miss_bytes: self.metrics.mount_miss_bytes.get(),
            opens: self.metrics.opens.get(),
            opened_bytes: self.metrics.opened_bytes.get(),
            unused_ms: now.saturating_sub(self.last.load(Ordering::Relaxed)),
        }
    }
}
