//! What admission refuses, and how it says so. Every message names the field, its value and what to write instead; for
//! each rule there is a file in `crds/testdata/invalid`.

mod autoscaling;
mod cache_runtime;
mod data_load;
mod dataset;

pub(super) use cache_runtime::cache_runtime;
pub(super) use data_load::data_load;
pub(super) use dataset::dataset;

use serde_json::{Value, json};

use super::place::{Rule, add_rules, set};
use crate::names::MAX_NAME;

/// Names of services and pods are made from the object's name.
fn object_name(schema: &mut Value) {
    let long = Rule::new(
        format!("self.metadata.name.size() <= {MAX_NAME}"),
        format!(
            "\"metadata.name '%s' has %d characters; choose a name of at most {MAX_NAME}\"
             .format([self.metadata.name, self.metadata.name.size()])"
        ),
    );
    let odd = Rule::new(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "\"metadata.name '%s' cannot become the name of a service; use lower-case letters, digits and '-', begin with a \
         letter and do not end in '-'\".format([self.metadata.name])",
    );
    add_rules(schema, "", [long, odd]);
}

/// Conditions are keyed by type, so that appliers merge them.
fn conditions(schema: &mut Value) {
    keyed(schema, "status.conditions", "type");
}

/// The list at `path` has one element for each value of `key`; the API server refuses a second.
fn keyed(schema: &mut Value, path: &str, key: &str) {
    set(schema, path, &json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key] }));
}

/// The map of strings at `path` has bounds, without which rules over it would count as too costly.
fn bounded_map(schema: &mut Value, path: &str, entries: u32, length: u32) {
    set(
        schema,
        path,
        &json!({ "maxProperties": entries, "additionalProperties": { "type": "string", "maxLength": length } }),
    );
}

/// An absolute path without `.`, `..`, empty parts and trailing slash; `/` itself where `root` says so.
fn absolute_path(field: &str, example: &str, root: bool) -> Rule {
    let root = if root { "self == '/' || " } else { "" };
    Rule::new(
        format!("{root}(self.matches('^(/[^/]+)+$') && !self.matches('/[.][.]?(/|$)'))"),
        format!(
            "\"{field} '\" + self + \"' is not an absolute path without '.', '..', '//' and trailing '/'; write one such \
             as {example}\""
        ),
    )
}

/// A quantity within bounds, both included.
fn quantity(field: &str, least: &str, most: &str, example: &str) -> Rule {
    Rule::new(
        format!(
            "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('{least}')) >= 0
             && quantity(string(self)).compareTo(quantity('{most}')) <= 0"
        ),
        format!(
            "\"{field} '%s' is not a quantity of bytes from {least} to {most}; write one such as {example}\"
             .format([string(self)])"
        ),
    )
}
