//! Whole objects against the ones in `tests/golden`, and what varies in them.

use penstock_placement::{Member, MemberList};
use penstock_plan::{
    config,
    validate::{self, NamedSecret, SecretData, Secrets, UsableBy},
};
use penstock_wire::Credential;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

macro_rules! golden {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/", $path, ".json"))
    };
}

// It uses the macro.
mod parts;

/// What a blueprint borrows.
struct Plans {
    dataset: Dataset,
    runtime: CacheRuntime,
    valid: ValidDataset,
    valid_runtime: ValidRuntime,
    files: ConfigFiles,
    keys: Keys,
    scaling: Scaling,
    defaults: WorkerDefaults,
}

const SECRET: &str = "hush";

impl Plans {
    fn new(dataset: &Value, runtime: &Value) -> Self {
        let dataset: Dataset = read(dataset);
        let runtime: CacheRuntime = read(runtime);
        let data = SecretData([("secret".to_owned(), SECRET.as_bytes().to_vec())].into());
        let secret = NamedSecret { data, usable_by: UsableBy::All };
        let secrets: Secrets = [("s3-keys".to_owned(), secret)].into();
        let valid = validate::dataset(&dataset, &secrets).unwrap();
        let valid_runtime = validate::runtime(&runtime).unwrap();
        let config = config::worker_config(&valid, &valid_runtime, |index, _| config::tier_dir(index));
        let key = |digit: &str| Credential::from_hex(&digit.repeat(64)).unwrap();
        let keys = Keys { client: key("c"), peer: key("d") };
        let member = Member { id: valid.names.worker_pod(0), addr: "198.18.0.1:9440".into(), weight: 10 };
        let scaling = Scaling {
            replicas: valid_runtime.replicas,
            members: MemberList { epoch: 7, members: vec![member], former: Vec::new() },
            ..Scaling::default()
        };
        let files = config::config_files(&config, &valid, &keys);
        let defaults = WorkerDefaults::default();
        Self { dataset, runtime, valid, valid_runtime, files, keys, scaling, defaults }
    }

    fn full() -> Self {
        Self::new(&parse(golden!("full/dataset")), &parse(golden!("full/runtime")))
    }

    fn minimal() -> Self {
        Self::new(&parse(golden!("minimal/dataset")), &parse(golden!("minimal/runtime")))
    }

    /// The minimal pair with one level as `level` says.
    fn with_level(level: &Value) -> Self {
        let mut runtime = parse(golden!("minimal/runtime"));
        runtime["spec"]["tieredStore"]["levels"] = json!([level]);
        Self::new(&parse(golden!("minimal/dataset")), &runtime)
    }

    /// The minimal pair with `worker` as the worker's specification.
    fn with_worker(worker: &Value) -> Self {
        let mut runtime = parse(golden!("minimal/runtime"));
        runtime["spec"]["worker"] = worker.clone();
        Self::new(&parse(golden!("minimal/dataset")), &runtime)
    }

    fn blueprint(&self) -> Blueprint<'_> {
        Blueprint {
            dataset: &self.dataset,
            runtime: &self.runtime,
            valid: &self.valid,
            valid_runtime: &self.valid_runtime,
            files: &self.files,
            keys: &self.keys,
            scaling: &self.scaling,
            observed: None,
            image: self.runtime.spec.worker.image.as_deref().unwrap_or("penstock:test"),
            revision: "f00d",
            defaults: &self.defaults,
        }
    }

    /// Every object but the two Secrets.
    fn objects(&self) -> Vec<(&'static str, Value)> {
        let b = self.blueprint();
        vec![
            ("statefulset", json!(statefulset(&b))),
            ("headless-service", json!(headless_service(&b))),
            ("cache-service", json!(cache_service(&b, None))),
            ("budget", json!(budget(&b))),
            ("service-account", json!(service_account(&b))),
            ("members", json!(members(&b))),
            ("claim", json!(claim(&b))),
            ("volume", json!(bound_volume(&b, "198.19.0.7", None))),
        ]
    }
}

/// Bound to a claim with UID `claim-uid`.
fn bound_volume(b: &Blueprint<'_>, address: &str, observed: Option<&PersistentVolume>) -> PersistentVolume {
    let claim = read(&json!({"metadata": {"uid": "claim-uid"}}));
    persistent_volume(b, observed).bind(&read(&json!({"spec": {"clusterIP": address}})), &claim).unwrap()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Where two objects differ, one line each.
fn differences(at: &str, expected: &Value, got: &Value) -> Vec<String> {
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let child = |key: &&String| differences(&format!("{at}/{key}"), &expected[*key], &got[*key]);
            keys.iter().flat_map(child).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(index, (a, b))| differences(&format!("{at}/{index}"), a, b)).collect()
        }
        _ if expected == got => Vec::new(),
        _ => vec![format!("{at}: expected {expected}, got {got}")],
    }
}

#[track_caller]
fn same(name: &str, expected: &Value, got: &Value) {
    let differences = differences("", expected, got);
    assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    assert_eq!(expected, got, "{name}");
}

#[test]
fn the_objects_of_a_pair_that_uses_every_field_are_these() {
    let expected = [
        golden!("full/statefulset"),
        golden!("full/headless-service"),
        golden!("full/cache-service"),
        golden!("full/budget"),
        golden!("full/service-account"),
        golden!("full/members"),
        golden!("full/claim"),
        golden!("full/volume"),
    ];
    let objects = Plans::full().objects();
    assert_eq!(objects.len(), expected.len());
    for ((name, got), expected) in objects.iter().zip(expected) {
        same(name, &parse(expected), got);
    }
}

#[test]
fn the_stateful_set_of_the_smallest_pair_is_this() {
    let plans = Plans::minimal();
    same("statefulset", &parse(golden!("minimal/statefulset")), &json!(statefulset(&plans.blueprint())));
}

#[test]
fn the_workers_secret_has_configuration_and_keys_and_the_mounts_secret_nothing_that_makes_a_worker() {
    let plans = Plans::full();
    let (worker, client) = (worker_secret(&plans.blueprint()), client_secret(&plans.blueprint()));
    let owner = |secret: &k8s_openapi::api::core::v1::Secret| secret.owner_references()[0].kind.clone();
    assert_eq!((worker.name_any().as_str(), owner(&worker).as_str()), ("research-worker", "Dataset"));
    assert_eq!((client.name_any().as_str(), owner(&client).as_str()), ("research-client", "Dataset"));
    let (worker, client) = (worker.data.unwrap(), client.data.unwrap());
    let keys: Vec<_> = worker.keys().map(String::as_str).collect();
    assert_eq!(keys, ["client.key", "peer.key", "ufs-0-secret-key", "worker.json"]);
    assert_eq!(worker["ufs-0-secret-key"].0, SECRET.as_bytes());
    assert_eq!(client.keys().collect::<Vec<_>>(), ["client.key", "peer.pub"]);
    assert_eq!(client["client.key"], worker["client.key"]);
    assert_eq!(client["peer.pub"].0, plans.keys.peer.public().to_hex().into_bytes());
}

#[test]
fn no_secret_is_in_anything_but_secrets() {
    let plans = Plans::full();
    let secrets = [SECRET.to_owned(), plans.keys.client.to_hex(), plans.keys.peer.to_hex()];
    for (name, object) in plans.objects() {
        let text = object.to_string();
        assert!(!secrets.iter().any(|secret| text.contains(secret.as_str())), "{name} has a secret: {text}");
    }
    let files = worker_secret(&plans.blueprint()).data.unwrap();
    assert!(!String::from_utf8_lossy(&files["worker.json"].0).contains(SECRET));
    let shown = format!("{:?}", plans.blueprint());
    assert!(!secrets.iter().any(|secret| shown.contains(secret.as_str())), "{shown}");
}
