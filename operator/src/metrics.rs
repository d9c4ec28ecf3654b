//! The operator's own numbers, in Prometheus' text format.

mod objects;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use self::objects::Objects;
use crate::{recent::Recent, watches::Stores};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    kind: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    durations: Histogram,
    errors: Family<ErrorLabels, Counter>,
    writes: Counter,
    running: Gauge,
    objects: Objects,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let (errors, writes, running) = (Family::default(), Counter::default(), Gauge::default());
        let mut registry = Registry::with_prefix("penstock_operator");
        registry.register("reconcile_seconds", "Time that one reconcile took", durations.clone());
        registry.register("reconcile_errors", "Reconciles that ended in an error, by its kind", errors.clone());
        registry.register("writes", "Objects and statuses written to the API server", Counter::clone(&writes));
        registry.register("reconciles_running", "Reconciles under way", Gauge::clone(&running));
        let objects = Objects::default();
        registry.register_collector(Box::new(objects.clone()));
        Self { registry: Arc::new(registry), durations, errors, writes, running, objects }
    }
}

impl Metrics {
    /// Shows what the objects say of themselves, from now on.
    pub fn show(&self, stores: &Stores, recent: Arc<Recent>) {
        self.objects.set(stores.datasets.clone(), stores.runtimes.clone(), stores.loads.clone(), recent);
    }

    pub fn began(&self) {
        self.running.inc();
    }

    pub fn ended(&self, took: Duration, error: Option<&'static str>) {
        self.running.dec();
        self.durations.observe(took.as_secs_f64());
        if let Some(kind) = error {
            self.errors.get_or_create(&ErrorLabels { kind }).inc();
        }
    }

    pub fn wrote(&self) {
        self.writes.inc();
    }

    /// Objects and statuses written so far.
    pub fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// For the HTTP server.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }
}
