//! What mounts ask of this worker, for whoever decides how many workers there are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use penstock_wire::message::{Asked, Request};

use crate::metrics::Metrics;

pub(crate) struct Readers {
    metrics: Arc<Metrics>,
    boot: u64,
    started: Instant,
    /// Milliseconds after the start: when a mount last asked for something.
    last: AtomicU64,
}

impl Readers {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Self { metrics, boot, started: Instant::now(), last: AtomicU64::new(0) }
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

    pub(crate) fn served(&self, bytes: u64, is_hit: bool) {
        let counter = if is_hit { &self.metrics.mount_hit_bytes } else { &self.metrics.mount_miss_bytes };
        counter.inc_by(bytes);
    }

    pub(crate) fn opened(&self, bytes: u64) {
        self.metrics.opens.inc();
        self.metrics.opened_bytes.inc_by(bytes);
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
