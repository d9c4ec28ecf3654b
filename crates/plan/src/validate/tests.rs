//! Every refusal names field, value and mend.

mod binding;
mod mounts;
mod tiers;

use std::fmt::Debug;

use serde_json::{Value, json};

use super::*;

/// What a message has to name: field, value, mend.
type Words = [&'static str; 3];

fn dataset_of(name: &str, spec: &Value) -> Dataset {
    let object = json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name, "namespace": "ns"},
        "spec": spec
    });
    serde_json::from_value(object).unwrap()
}

fn runtime_of(name: &str, spec: &Value) -> CacheRuntime {
    let object = json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "CacheRuntime", "metadata": {"name": name, "namespace": "ns"},
        "spec": spec
    });
    serde_json::from_value(object).unwrap()
}

#[track_caller]
fn refused<T: Debug>(case: &str, got: Result<T, Invalid>, reason: Reason, words: Words) {
    let invalid = got.expect_err(case);
    assert_eq!(invalid.reason, reason, "{case}: {invalid}");
    for word in words {
        assert!(invalid.message.contains(word), "{case}: '{word}' is not in: {invalid}");
    }
}

fn one_mount() -> Value {
    json!({"mounts": [{"mountPoint": "s3://b"}]})
}

fn one_level() -> Value {
    json!({"tieredStore": {"levels": [{"mediumType": "MEM", "quota": "64Mi"}]}})
}

#[test]
fn a_name_that_others_are_made_from_may_not_be_too_long() {
    let (longest, longer) = ("d".repeat(45), "d".repeat(46));
    let none = Secrets::new();
    assert!(dataset(&dataset_of(&longest, &one_mount()), &none).is_ok());
    assert!(runtime(&runtime_of(&longest, &one_level())).is_ok());
    let words = ["metadata.name", "46 characters", "a shorter name"];
    refused("Dataset", dataset(&dataset_of(&longer, &one_mount()), &none), Reason::InvalidSpec, words);
    refused("CacheRuntime", runtime(&runtime_of(&longer, &one_level())), Reason::InvalidSpec, words);
}

#[test]
fn how_long_metadata_stays_good() {
    for (consistency, expected) in [
        (json!({}), Some(30)),
        (json!({"mode": "Revalidate"}), Some(30)),
        (json!({"interval": "1h30m"}), Some(5400)),
        (json!({"mode": "Static"}), None),
    ] {
        let mut spec = one_mount();
        spec["consistency"] = consistency;
        let valid = dataset(&dataset_of("a", &spec), &Secrets::new()).unwrap();
        assert_eq!(valid.revalidate, expected.map(Duration::from_secs), "{}", spec["consistency"]);
    }
    for interval in ["", "0s", "999ms", "-5s", "soon", "5 parsecs"] {
        let mut spec = one_mount();
        spec["consistency"] = json!({"interval": interval});
        let got = dataset(&dataset_of("a", &spec), &Secrets::new());
        refused(interval, got, Reason::InvalidSpec, ["spec.consistency.interval", interval, "write one such as 30s"]);
    }
}

#[test]
fn files_belong_to_root_unless_an_owner_is_named() {
    let mut spec = one_mount();
    let valid = dataset(&dataset_of("a", &spec), &Secrets::new()).unwrap();
    assert_eq!((valid.uid, valid.gid, valid.names), (0, 0, Names::new("ns", "a")));
    spec["owner"] = json!({"uid": 7, "gid": 4_294_967_295_u32});
    let valid = dataset(&dataset_of("a", &spec), &Secrets::new()).unwrap();
    assert_eq!((valid.uid, valid.gid), (7, u32::MAX));
}

#[test]
fn only_what_is_wrong_is_a_failure_and_what_is_missing_is_waited_for() {
    for (reason, missing) in [
        (Reason::RuntimeNotFound, true),
        (Reason::RuntimeTaken, true),
        (Reason::SecretNotFound, true),
        (Reason::SecretKeyNotFound, true),
        (Reason::SecretNotAllowed, true),
        (Reason::NameTaken, true),
        (Reason::InvalidSpec, false),
        (Reason::ApplyFailed, false),
    ] {
        assert_eq!(Invalid::new(reason, "m").is_missing(), missing, "{reason}");
    }
}
