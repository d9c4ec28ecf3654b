//! What holds for every schema of ours.

use serde_json::{Map, Value, json};

use super::place;

/// Applies everything here to `schema` and all that is below it.
pub(super) fn general(schema: &mut Value) {
    walk(schema, &|keywords| {
        // A null then counts as absent: the API server prunes it, and `has()` in rules means what it says.
        keywords.remove("nullable");
        signed_format(keywords);
    });
}

/// Kubernetes knows signed formats only, and warns of others.
fn signed_format(keywords: &mut Map<String, Value>) {
    match keywords.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            keywords.insert("format".to_owned(), json!("int64"));
            keywords.entry("maximum").or_insert_with(|| json!(u32::MAX));
        }
        Some("uint64") => {
            keywords.insert("format".to_owned(), json!("int64"));
        }
        _ => {}
    }
}

/// Takes the descriptions out of a type of Kubernetes that is embedded at `path`, all but the first: `kubectl explain` of
/// the Pod has them, and with them the CRD would be too large for a client-side `kubectl apply`.
pub(super) fn embed(schema: &mut Value, path: &str) {
    let place = place::at(schema, path);
    let description = place.remove("description");
    let mut embedded = Value::Object(std::mem::take(place));
    walk(&mut embedded, &|keywords| {
        keywords.remove("description");
    });
    *place = std::mem::take(embedded.as_object_mut().expect("it was an object"));
    if let Some(description) = description {
        place.insert("description".to_owned(), description);
    }
}

fn walk(schema: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    let Some(keywords) = schema.as_object_mut() else { return };
    change(keywords);
    for group in ["properties", "patternProperties"] {
        for child in keywords.get_mut(group).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            walk(child, change);
        }
    }
    for single in ["items", "additionalProperties", "not"] {
        if let Some(child) = keywords.get_mut(single) {
            walk(child, change);
        }
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        for child in keywords.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            walk(child, change);
        }
    }
}
