//! What users read in each situation, as a whole: phase, conditions, and the words that help.

mod changes;
mod dataset;
mod numbers;
mod runtime;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use penstock_placement::MemberList;
use penstock_plan::{rollout, scaling::Step, validate};
use penstock_wire::message::{MountStats, MountTrouble, TierStats, TroubleKind};
use serde_json::{Value, json};

use super::*;

/// What a view borrows.
#[derive(Clone)]
struct Scene {
    dataset: Box<Dataset>,
    runtime: Option<Box<CacheRuntime>>,
    problem: Option<Invalid>,
    bound: bool,
    scaling: Option<Scaling>,
    rollout: Option<Rollout>,
    workers: Vec<WorkerSeen>,
    trouble: Option<PodTrouble>,
    statefulset: Option<Box<StatefulSet>>,
    volume: Option<Box<PersistentVolume>>,
    in_use: bool,
}

/// Seconds since the epoch.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn object<T: serde::de::DeserializeOwned>(kind: &str, generation: i64, spec: &Value) -> T {
    let object = json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "a", "namespace": "ns", "generation": generation}, "spec": spec
    });
    serde_json::from_value(object).unwrap()
}

impl Scene {
    /// A Dataset alone.
    fn fresh() -> Self {
        Self {
            dataset: object("Dataset", 3, &json!({"mounts": [{"mountPoint": "s3://b", "path": "/m"}]})),
            runtime: None,
            problem: None,
            bound: false,
            scaling: None,
            rollout: None,
            workers: Vec::new(),
            trouble: None,
            statefulset: None,
            volume: None,
            in_use: false,
        }
    }

    /// Volume and configuration stand; no worker has come up.
    fn bound() -> Self {
        let levels = json!([
            {"mediumType": "MEM", "quota": "1Gi"}, {"mediumType": "SSD", "quota": "9Gi", "path": "/mnt/ssd"}
        ]);
        let spec = json!({"replicas": 2, "tieredStore": {"levels": levels}});
        let members = MemberList { epoch: 4, ..MemberList::default() };
        let scaling = Scaling { replicas: 2, members, draining: Vec::new(), ..Scaling::default() };
        Self { runtime: Some(object("CacheRuntime", 5, &spec)), bound: true, scaling: Some(scaling), ..Self::fresh() }
    }

    /// Both workers serve, and every UFS answers.
    fn serving() -> Self {
        Self { workers: vec![worker(0), worker(1)], ..Self::bound() }
    }

    fn problem(mut self, reason: Reason, message: &str) -> Self {
        self.problem = Some(Invalid::new(reason, message));
        self
    }

    fn workers(mut self, workers: impl IntoIterator<Item = WorkerSeen>) -> Self {
        self.workers = workers.into_iter().collect();
        self
    }

    fn replicas(mut self, replicas: u32) -> Self {
        self.runtime.as_mut().unwrap().spec.replicas = replicas;
        self
    }

    fn trouble(mut self, reason: Reason, message: &str) -> Self {
        self.trouble = Some(PodTrouble { reason, message: message.into(), lacks: None });
        self
    }

    fn deleted(mut self, in_use: bool) -> Self {
        self.dataset.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        self.in_use = in_use;
        self
    }

    /// With what was written when the Dataset and its runtime were as in `before`.
    fn after(mut self, before: &Self) -> Self {
        self.dataset.status = Some(before.of_dataset(at(1)));
        if let Some(runtime) = &mut self.runtime {
            runtime.status = before.of_runtime(at(1));
        }
        self
    }

    fn with_view<T>(&self, read: impl FnOnce(&View<'_>) -> T) -> T {
        let valid = self.runtime.as_deref().and_then(|runtime| validate::runtime(runtime).ok());
        read(&View {
            names: &Names::new("ns", "a"),
            dataset: &self.dataset,
            runtime: self.runtime.as_deref(),
            valid_runtime: valid.as_ref(),
            problem: self.problem.as_ref(),
            bound: self.bound,
            sizing: None,
            scaling: self.scaling.as_ref(),
            rollout: self.rollout.as_ref(),
            workers: &self.workers,
            reads: &[],
            trouble: self.trouble.as_ref(),
            statefulset: self.statefulset.as_deref(),
            volume: self.volume.as_deref(),
            in_use: self.in_use,
        })
    }

    fn of_dataset(&self, now: Timestamp) -> DatasetStatus {
        self.with_view(|view| super::dataset(view, now))
    }

    fn of_runtime(&self, now: Timestamp) -> Option<CacheRuntimeStatus> {
        self.with_view(|view| super::runtime(view, now))
    }
}

/// A worker that serves, of whom the UFS answers.
fn worker(ordinal: u32) -> WorkerSeen {
    WorkerSeen { ordinal, addr: Some("198.18.0.1:9440".into()), ready: true, stats: Some(told(MountHealth::Serving)) }
}

/// A worker whose pod runs and does not serve.
fn starting(ordinal: u32) -> WorkerSeen {
    WorkerSeen { ordinal, ..WorkerSeen::default() }
}

fn saying(ordinal: u32, health: MountHealth) -> WorkerSeen {
    WorkerSeen { stats: Some(told(health)), ..worker(ordinal) }
}

fn with_tiers(ordinal: u32, troubles: [Option<&str>; 2]) -> WorkerSeen {
    let tier = |(medium, trouble): (&str, Option<&str>)| TierStats {
        medium: medium.into(),
        quota_bytes: 100,
        used_bytes: 10,
        trouble: trouble.map(str::to_owned),
    };
    let stats =
        Stats { tiers: ["MEM", "SSD"].into_iter().zip(troubles).map(tier).collect(), ..told(MountHealth::Serving) };
    WorkerSeen { stats: Some(stats), ..worker(ordinal) }
}

fn told(health: MountHealth) -> Stats {
    Stats { mounts: vec![MountStats { path: "m".into(), source: "s3://b".into(), health }], ..Stats::default() }
}

fn ufs_trouble(kind: TroubleKind) -> MountHealth {
    MountHealth::Trouble(MountTrouble { kind, message: "no: mend it".into() })
}

/// `TYPE=STATUS REASON` of each.
fn digest(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
}

#[track_caller]
fn says(case: &str, conditions: &[Condition], words: &[&str]) {
    let text: Vec<&str> = conditions.iter().map(|c| c.message.as_str()).collect();
    let text = text.join("\n");
    for word in words {
        assert!(text.contains(word), "{case}: '{word}' is not in:\n{text}");
    }
}
