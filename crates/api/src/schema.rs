//! The CustomResourceDefinitions, made from the types.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{CacheRuntime, Dataset};

/// All CustomResourceDefinitions, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Dataset::crd(), CacheRuntime::crd()]
}

/// The files of `crds/`: name to content.
pub fn crd_yaml() -> BTreeMap<String, String> {
    crds()
        .iter()
        .map(|crd| {
            let file = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            (file, serde_saphyr::to_string(crd).expect("a CRD is plain data"))
        })
        .collect()
}
