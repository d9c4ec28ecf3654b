//! The CustomResourceDefinitions, made from the types.
//!
//! What a type cannot say is added afterwards: [`refine`] does what holds for every schema, and [`rules`] names places of a schema and
//! the CEL rules that hold there.

mod place;
mod refine;
mod rules;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{CacheRuntime, DataLoad, Dataset};

/// All CustomResourceDefinitions, ready to be applied. Use these: what `Dataset::crd()` gives lacks the rules.
///
/// # Panics
/// When rules and types do not fit; the tests would have shown it.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        complete(&Dataset::crd(), rules::dataset),
        complete(&CacheRuntime::crd(), rules::cache_runtime),
        complete(&DataLoad::crd(), rules::data_load),
    ]
}

/// The files of `crds/`: name to content.
///
/// # Panics
/// As [`crds`].
pub fn crd_yaml() -> BTreeMap<String, String> {
    crds()
        .iter()
        .map(|crd| {
            let file = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let yaml = serde_saphyr::to_string(crd).expect("a CRD is plain data");
            (file, format!("# Generated from crates/api by `cargo run -p penstock-api --example crds`.\n{yaml}"))
        })
        .collect()
}

fn complete(crd: &CustomResourceDefinition, add: fn(&mut Value)) -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    let schema = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").expect("a CRD has a schema");
    refine::general(schema);
    add(schema);
    serde_json::from_value(crd).expect("a CRD with rules is a CRD")
}
