//! What Datasets, CacheRuntimes and DataLoads say of themselves, as gauges: read from their statuses at each scrape, so
//! that an object that is gone leaves nothing behind. Only the operator that leads has them.

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{ResourceExt, runtime::reflector::Store};
use penstock_api::{CacheRuntime, CacheRuntimeStatus, DataLoad, DataLoadStatus, Dataset, DatasetStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{family::Family, gauge::Gauge},
};

use crate::recent::Recent;

type Number = Gauge<f64, AtomicU64>;
/// Names and values.
type Labels = Vec<(&'static str, String)>;

/// The objects, once there are watches.
#[derive(Clone, Default)]
pub(super) struct Objects(Arc<OnceLock<Watched>>);

struct Watched {
    datasets: Store<Dataset>,
    runtimes: Store<CacheRuntime>,
    loads: Store<DataLoad>,
    recent: Arc<Recent>,
}

impl Objects {
    pub(super) fn set(
        &self,
        datasets: Store<Dataset>,
        runtimes: Store<CacheRuntime>,
        loads: Store<DataLoad>,
        recent: Arc<Recent>,
    ) {
        // A process leads once in its life.
        let _ = self.0.set(Watched { datasets, runtimes, loads, recent });
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(watched) = self.0.get() else { return Ok(()) };
        let gauges = Gauges::default();
        watched.datasets.state().iter().for_each(|dataset| gauges.add_dataset(dataset, &watched.recent));
        watched.runtimes.state().iter().for_each(|runtime| gauges.add_runtime(runtime));
        watched.loads.state().iter().for_each(|load| gauges.add_load(load));
        gauges.encode(&mut encoder)
    }
}

/// Name and help of each gauge, without the prefix.
const HELP: [(&str, &str); 15] = [
    ("dataset_condition", "1 while the condition of a Dataset is True"),
    ("dataset_bytes", "Bytes of a Dataset in its stores"),
    ("dataset_cached_bytes", "Bytes of a Dataset in the cache"),
    ("dataset_read_bytes_per_second", "What readers took over the last 1, 5 and 15 minutes, by origin"),
    ("runtime_condition", "1 while the condition of a CacheRuntime is True"),
    ("runtime_workers", "Workers of a CacheRuntime: desired, ready, updated"),
    ("runtime_size_reason", "1 for the reason of the present size, with spec.autoscaling"),
    ("runtime_capacity_bytes", "Bytes that the tiers of a CacheRuntime may take"),
    ("runtime_cached_bytes", "Bytes in the tiers of a CacheRuntime"),
    ("runtime_hit_ratio", "Part of the bytes served from the cache since the workers started"),
    ("runtime_predicted_hit_ratio", "Hit ratio predicted for a number of workers, with spec.autoscaling"),
    ("runtime_hand_over_bytes", "Bytes of the hand-over under way or the last one: moved, left, dropped"),
    ("load_condition", "1 while the condition of a DataLoad is True"),
    ("load_bytes", "Bytes of the targets of a DataLoad: total, done, cached"),
    ("load_failed_files", "Files of a DataLoad that could not be loaded"),
];

#[derive(Default)]
struct Gauges([Family<Labels, Number>; HELP.len()]);

impl Gauges {
    fn set(&self, name: &'static str, labels: &Labels, value: f64) {
        if let Some(at) = HELP.iter().position(|(known, _)| *known == name) {
            self.0[at].get_or_create(labels).set(value);
        }
    }

    fn bytes(&self, name: &'static str, labels: &Labels, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.set(name, labels, bytes as f64);
        }
    }

    fn conditions(&self, name: &'static str, labels: &Labels, conditions: &[Condition]) {
        for condition in conditions {
            let holds = f64::from(u8::from(condition.status == "True"));
            self.set(name, &with(labels, "type", &condition.type_), holds);
        }
    }

    fn add_dataset(&self, dataset: &Dataset, recent: &Recent) {
        let none = DatasetStatus::default();
        let status = dataset.status.as_ref().unwrap_or(&none);
        let labels = labels(dataset, "dataset");
        self.conditions("dataset_condition", &labels, &status.conditions);
        self.bytes("dataset_bytes", &labels, status.ufs_total_bytes);
        self.bytes("dataset_cached_bytes", &labels, status.cached_bytes);
        for (minutes, rates) in recent.rates(&dataset.uid().unwrap_or_default(), Timestamp::now()) {
            let labels = with(&labels, "window", &format!("{minutes}m"));
            for (origin, rate) in [("cache", rates.hit), ("fetched", rates.miss), ("kernel", rates.opened)] {
                self.set("dataset_read_bytes_per_second", &with(&labels, "origin", origin), rate);
            }
        }
    }

    fn add_runtime(&self, runtime: &CacheRuntime) {
        let none = CacheRuntimeStatus::default();
        let status = runtime.status.as_ref().unwrap_or(&none);
        let labels = labels(runtime, "runtime");
        self.conditions("runtime_condition", &labels, &status.conditions);
        for (state, count) in [
            ("desired", status.desired_replicas),
            ("ready", status.ready_replicas),
            ("updated", status.updated_replicas),
        ] {
            self.set("runtime_workers", &with(&labels, "state", state), count.into());
        }
        if let Some(reason) = status.autoscaling.as_ref().and_then(|autoscaling| autoscaling.reason) {
            self.set("runtime_size_reason", &with(&labels, "reason", reason.as_ref()), 1.0);
        }
        let curve = status.autoscaling.iter().flat_map(|autoscaling| &autoscaling.curve);
        for point in curve.flat_map(|curve| &curve.points) {
            let labels = with(&labels, "workers", &point.replicas.to_string());
            self.set("runtime_predicted_hit_ratio", &labels, f64::from(point.hit_percent) / 100.0);
        }
        self.bytes("runtime_capacity_bytes", &labels, status.cache_capacity_bytes);
        self.bytes("runtime_cached_bytes", &labels, status.cached_bytes);
        if let Some(percent) = status.hit_ratio_percent {
            self.set("runtime_hit_ratio", &labels, percent / 100.0);
        }
        if let Some(over) = &status.hand_over {
            for (state, bytes) in
                [("moved", over.moved_bytes), ("left", over.left_bytes), ("dropped", over.dropped_bytes)]
            {
                self.set("runtime_hand_over_bytes", &with(&labels, "state", state), bytes as f64);
            }
        }
    }

    fn add_load(&self, load: &DataLoad) {
        let none = DataLoadStatus::default();
        let status = load.status.as_ref().unwrap_or(&none);
        let labels = with(&labels(load, "load"), "dataset", &load.spec.dataset);
        self.conditions("load_condition", &labels, &status.conditions);
        for (state, bytes) in [("total", status.bytes), ("done", status.done_bytes), ("cached", status.cached_bytes)] {
            self.bytes("load_bytes", &with(&labels, "state", state), bytes);
        }
        self.set("load_failed_files", &labels, status.failed_files as f64);
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for ((name, help), family) in HELP.iter().zip(&self.0) {
            let metric = encoder.encode_descriptor(name, help, None, family.metric_type())?;
            family.encode(metric)?;
        }
        Ok(())
    }
}

/// `namespace`, and the object's name as `kind`.
fn labels(object: &impl ResourceExt, kind: &'static str) -> Labels {
    vec![("namespace", object.namespace().unwrap_or_default()), (kind, object.name_any())]
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    labels.iter().cloned().chain([(name, value.to_owned())]).collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use kube::runtime::{reflector, watcher};
    use penstock_wire::message::Asked;
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn store<K>(object: Value) -> Store<K>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + 'static,
    {
        let (reader, mut writer) = reflector::store();
        writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value::<K>(object).unwrap()));
        reader
    }

    #[test]
    fn statuses_are_shown_with_their_objects_names() {
        let meta = json!({"name": "prices", "namespace": "quant"});
        let condition = |holds: &str| {
            json!([{"type": "Ready", "status": holds, "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let tiers = json!({"levels": [{"mediumType": "MEM", "quota": "1Gi"}]});
        let (objects, recent, now) = (Objects::default(), Arc::<Recent>::default(), Timestamp::now());
        recent.with("1", now, |seen| {
            for (seconds, hit_bytes) in [(60, 0), (0, 6000)] {
                let asked = Asked { boot: 1, hit_bytes, ..Asked::default() };
                seen.numbers.add(0, now - SignedDuration::from_secs(seconds), &asked);
            }
        });
        objects.set(
            store(json!({
                "metadata": {"name": "prices", "namespace": "quant", "uid": "1"}, "spec": {"mounts": []},
                "status": {"conditions": condition("False")}
            })),
            store(json!({"metadata": meta, "spec": {"tieredStore": tiers}, "status": {
                "conditions": condition("True"), "desiredReplicas": 3, "readyReplicas": 2, "hitRatioPercent": 97.5,
                "autoscaling": {"reason": "Scheduled", "curve": {"points": [{"replicas": 3, "hitPercent": 90}]}}, "cachedBytes": 7
            }})),
            store(json!({"metadata": {"name": "warm", "namespace": "quant"}, "spec": {"dataset": "prices"},
                "status": {"bytes": 100, "doneBytes": 40, "failedFiles": 1}})),
            recent,
        );
        let mut registry = Registry::with_prefix("penstock_operator");
        registry.register_collector(Box::new(objects));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let of = "namespace=\"quant\",runtime=\"prices\"";
        for line in [
            "penstock_operator_dataset_condition{namespace=\"quant\",dataset=\"prices\",type=\"Ready\"} 0.0".to_owned(),
            format!("penstock_operator_runtime_condition{{{of},type=\"Ready\"}} 1.0"),
            format!("penstock_operator_runtime_workers{{{of},state=\"desired\"}} 3.0"),
            format!("penstock_operator_runtime_workers{{{of},state=\"ready\"}} 2.0"),
            format!("penstock_operator_runtime_size_reason{{{of},reason=\"Scheduled\"}} 1.0"),
            format!("penstock_operator_runtime_hit_ratio{{{of}}} 0.975"),
            format!("penstock_operator_runtime_cached_bytes{{{of}}} 7.0"),
            format!("penstock_operator_runtime_predicted_hit_ratio{{{of},workers=\"3\"}} 0.9"),
            "penstock_operator_load_bytes{namespace=\"quant\",load=\"warm\",dataset=\"prices\",state=\"done\"} 40.0"
                .into(),
            "penstock_operator_load_failed_files{namespace=\"quant\",load=\"warm\",dataset=\"prices\"} 1.0".into(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
