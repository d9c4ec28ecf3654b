//! What a worker counts. Labels are of small, fixed sets: never an object's or a client's name.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use penstock_store::StoreStats;
use penstock_ufs::UfsError;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Operation {
    pub(crate) operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TierLabel {
    /// Its place: 0 is the highest.
    pub(crate) level: u32,
    pub(crate) medium: &'static str,
}

type UnsignedGauge = Gauge<u64, AtomicU64>;
type Seconds = Family<Operation, Histogram, fn() -> Histogram>;

pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) served: Counter,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) shared: Counter,
    pub(crate) completed: Counter,
    pub(crate) hit_bytes: Counter,
    pub(crate) miss_bytes: Counter,
    pub(crate) ufs_bytes: Counter,
    pub(crate) peer_bytes: Counter,
    pub(crate) pushed_bytes: Counter,
    pub(crate) unkept_bytes: Counter,
    pub(crate) mount_hit_bytes: Counter,
    pub(crate) mount_miss_bytes: Counter,
    pub(crate) opens: Counter,
    pub(crate) opened_bytes: Counter,
    pub(crate) ufs_errors: Family<Kind, Counter>,
    pub(crate) failures: Family<Operation, Counter>,
    requests: Seconds,
    ufs: Seconds,
    pub(crate) epoch: UnsignedGauge,
    cached: UnsignedGauge,
    evicted: Counter,
    demoted: Counter,
    promoted: Counter,
    corrupt: Counter,
    tier_used: Family<TierLabel, UnsignedGauge>,
    tier_quota: Family<TierLabel, UnsignedGauge>,
    tier_usable: Family<TierLabel, UnsignedGauge>,
    pub(crate) mounts_in_trouble: UnsignedGauge,
}

/// 50 µs to about 25 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.00005, 2.0, 20))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("penstock_worker"),
            served: Counter::default(),
            hits: Counter::default(),
            misses: Counter::default(),
            shared: Counter::default(),
            completed: Counter::default(),
            hit_bytes: Counter::default(),
            miss_bytes: Counter::default(),
            ufs_bytes: Counter::default(),
            peer_bytes: Counter::default(),
            pushed_bytes: Counter::default(),
            unkept_bytes: Counter::default(),
            mount_hit_bytes: Counter::default(),
            mount_miss_bytes: Counter::default(),
            opens: Counter::default(),
            opened_bytes: Counter::default(),
            ufs_errors: Family::default(),
            failures: Family::default(),
            requests: Family::new_with_constructor(seconds),
            ufs: Family::new_with_constructor(seconds),
            epoch: Gauge::default(),
            cached: Gauge::default(),
            evicted: Counter::default(),
            demoted: Counter::default(),
            promoted: Counter::default(),
            corrupt: Counter::default(),
            tier_used: Family::default(),
            tier_quota: Family::default(),
            tier_usable: Family::default(),
            mounts_in_trouble: Gauge::default(),
        };
        metrics.register_counts();
        metrics.register_states();
        metrics
    }

    fn register_counts(&mut self) {
        let r = &mut self.registry;
        r.register("read_hits", "Reads answered from the store", self.hits.clone());
        r.register("read_misses", "Reads that had to fetch", self.misses.clone());
        r.register("opens", "Files that mounts opened to read past the worker", self.opens.clone());
        r.register("completed_objects", "Objects made whole for the worker's own node", self.completed.clone());
        r.register(
            "shared_reads",
            "Reads of hot extents, whose readers were told of other holders",
            self.shared.clone(),
        );
        for (name, help, counter) in [
            ("served", "Bytes sent to mounts and peers", &self.served),
            ("hit", "Bytes served from the store", &self.hit_bytes),
            ("miss", "Bytes served that had to be fetched", &self.miss_bytes),
            ("fetched_ufs", "Bytes fetched from under file systems", &self.ufs_bytes),
            ("fetched_peer", "Bytes fetched from other workers", &self.peer_bytes),
            ("handed_over", "Bytes handed over to other workers", &self.pushed_bytes),
            ("unkept", "Bytes fetched that no tier took", &self.unkept_bytes),
            ("mount_hit", "Bytes served to mounts from the store", &self.mount_hit_bytes),
            ("mount_miss", "Bytes served to mounts that had to be fetched", &self.mount_miss_bytes),
            (
                "opened",
                "Sizes of the files that mounts opened to read past the worker: an estimate of what they read so",
                &self.opened_bytes,
            ),
            ("evicted", "Bytes that left the store for want of room", &self.evicted),
            ("demoted", "Bytes that went one tier down", &self.demoted),
            ("promoted", "Bytes that went one tier up", &self.promoted),
        ] {
            r.register_with_unit(name, help, Unit::Bytes, counter.clone());
        }
        r.register("corrupt_pages", "Pages dropped for a wrong checksum", self.corrupt.clone());
        r.register("ufs_errors", "Failed requests to under file systems, by kind", self.ufs_errors.clone());
        r.register("failures", "Requests answered with a failure, by operation", self.failures.clone());
    }

    fn register_states(&mut self) {
        let r = &mut self.registry;
        r.register_with_unit("request", "Time to answer, by operation", Unit::Seconds, self.requests.clone());
        r.register_with_unit("ufs_request", "Time that the UFS took, by operation", Unit::Seconds, self.ufs.clone());
        r.register("members_epoch", "Number of the member list in use", self.epoch.clone());
        r.register_with_unit("cached", "Bytes of objects that are present", Unit::Bytes, self.cached.clone());
        r.register_with_unit("tier_used", "Bytes that a tier takes on its medium", Unit::Bytes, self.tier_used.clone());
        r.register_with_unit("tier_quota", "Bytes that a tier may take", Unit::Bytes, self.tier_quota.clone());
        r.register("tier_usable", "1 when the tier is in use", self.tier_usable.clone());
        r.register("mounts_in_trouble", "Mounts whose UFS does not answer", self.mounts_in_trouble.clone());
    }

    pub(crate) fn answered(&self, operation: &'static str, since: Instant) {
        self.requests.get_or_create(&Operation { operation }).observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn ufs_answered(&self, operation: &'static str, took: Duration) {
        self.ufs.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
    }

    pub(crate) fn ufs_error(&self, error: &UfsError) {
        let kind = match error {
            // Answers, not errors.
            UfsError::NotFound | UfsError::NotADirectory => return,
            UfsError::Changed => "changed",
            UfsError::Denied(_) => "denied",
            UfsError::Unavailable(_) => "unavailable",
            UfsError::Misconfigured(_) => "misconfigured",
        };
        self.ufs_errors.get_or_create(&Kind { kind }).inc();
    }

    pub(crate) fn ufs_error_count(&self) -> u64 {
        let kinds = ["changed", "denied", "unavailable", "misconfigured"];
        kinds.into_iter().map(|kind| self.ufs_errors.get_or_create(&Kind { kind }).get()).sum()
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn text(&self, store: &StoreStats) -> String {
        self.cached.set(store.cached_bytes);
        for (counter, now) in [
            (&self.evicted, store.evicted_bytes),
            (&self.demoted, store.demoted_bytes),
            (&self.promoted, store.promoted_bytes),
            (&self.corrupt, store.corrupt_pages),
        ] {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
        for (level, tier) in store.tiers.iter().enumerate() {
            let label = TierLabel { level: level as u32, medium: medium_name(tier.medium) };
            self.tier_used.get_or_create(&label).set(tier.used);
            self.tier_quota.get_or_create(&label).set(tier.quota);
            self.tier_usable.get_or_create(&label).set(u64::from(tier.usable));
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

pub(crate) fn medium_name(medium: penstock_model::Medium) -> &'static str {
    use penstock_model::Medium;
    match medium {
        Medium::Mem => "MEM",
        Medium::Ssd => "SSD",
        Medium::Hdd => "HDD",
    }
}
