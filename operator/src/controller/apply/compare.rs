//! Whether an object is already what it shall be.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use penstock_api::Quota;
use serde::Serialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::names::APPLIED_HASH;

/// The hash of an object, and its fields.
pub(super) fn fingerprint(object: &impl Serialize) -> (String, Value) {
    // Objects are plain data, whose serialisation does not fail.
    let fields = serde_json::to_value(object).unwrap_or_default();
    let hash = xxh3_128(fields.to_string().as_bytes());
    (format!("{hash:032x}"), fields)
}

/// Whether the object is what was last applied: nothing else is wanted, and nobody changed what was.
pub(super) fn is_current<O: ResourceExt + Serialize>(observed: &O, hash: &str, desired: &Value) -> bool {
    if observed.annotations().get(APPLIED_HASH).map(String::as_str) != Some(hash) {
        return false;
    }
    let observed = serde_json::to_value(observed).unwrap_or_default();
    // Watched by its metadata alone, an object has neither.
    let fields = ["spec", "data"].into_iter().filter(|field| observed.get(field).is_some());
    fields.into_iter().all(|field| covers(&observed[field], &desired[field]))
}

/// Whether `observed` has everything that `desired` says; it may have more (defaults).
fn covers(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (_, Value::Null) => true,
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            let same = if matches!(key.as_str(), "resources" | "sizeLimit") { covers_quantities } else { covers };
            observed.get(key).map_or_else(|| is_empty(desired), |observed| same(observed, desired))
        }),
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() >= desired.len() && observed.iter().zip(desired).all(|(o, d)| covers(o, d))
        }
        (observed, desired) => observed == desired,
    }
}

/// The same for what holds quantities, which the API server writes in a form of its own.
fn covers_quantities(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            observed.get(key).map_or_else(|| is_empty(desired), |observed| covers_quantities(observed, desired))
        }),
        (Value::String(observed), Value::String(desired)) => {
            observed == desired || quantity(observed).is_some_and(|observed| Some(observed) == quantity(desired))
        }
        (observed, desired) => covers(observed, desired),
    }
}

/// The value of a quantity in thousandths, rounded up: as fine as CPUs are counted.
fn quantity(text: &str) -> Option<u64> {
    let thousandfold = match text.strip_suffix('m') {
        Some(thousandths) => return Quota::bytes(&Quantity(thousandths.to_owned())).ok(),
        None => Quantity(text.to_owned()),
    };
    let whole = Quota::bytes(&thousandfold).ok()?;
    match text.parse::<f64>() {
        // A decimal number of CPUs.
        Ok(number) => Some((number * 1000.0).ceil() as u64),
        Err(_) => whole.checked_mul(1000),
    }
}

/// What the API server leaves out when it writes an object back.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(array) => array.is_empty(),
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cpu(limit: &str) -> Value {
        json!({"resources": {"limits": {"cpu": limit}}})
    }

    #[test]
    fn an_object_covers_what_was_asked_for_when_only_defaults_were_added() {
        for (observed, desired, covered) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 2}), json!({"a": 1}), false),
            (json!({"b": 2}), json!({"a": 1}), false),
            (json!({}), json!({"a": false, "b": {}}), true),
            (json!({"l": [{"x": 1, "y": 2}]}), json!({"l": [{"x": 1}]}), true),
            (json!({"l": []}), json!({"l": [{"x": 1}]}), false),
            (json!({"replicas": 5}), json!({"replicas": 3}), false),
            (json!({"sizeLimit": "1Gi"}), json!({"sizeLimit": "1024Mi"}), true),
            (json!({"sizeLimit": "1Gi"}), json!({"sizeLimit": "2Gi"}), false),
            (cpu("500m"), cpu("0.5"), true),
            (cpu("1"), cpu("1000m"), true),
            (cpu("2"), cpu("1"), false),
            (cpu("1500m"), cpu("2"), false),
            (json!({"resources": {"limits": {"memory": "1Gi"}}}), cpu("1"), false),
            (json!({"resources": {"claims": []}}), json!({"resources": {}}), true),
        ] {
            assert_eq!(covers(&observed, &desired), covered, "{observed} {desired}");
        }
    }
}
