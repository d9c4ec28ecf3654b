//! Finding a place in a schema by the path of a field, as `spec.mounts[].path`; the empty path is the whole.

use serde_json::{Map, Value, json};

/// The schema of the field at `path`.
///
/// # Panics
/// When there is none: the types changed and the rules did not.
pub(super) fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut here = schema;
    for field in path.split('.').filter(|field| !field.is_empty()) {
        let name = field.trim_end_matches("[]");
        here = here
            .pointer_mut(&format!("/properties/{name}"))
            .unwrap_or_else(|| panic!("the schema has no '{name}' on the way to '{path}'"));
        if field.ends_with("[]") {
            here = here.get_mut("items").unwrap_or_else(|| panic!("'{name}' on the way to '{path}' is no list"));
        }
    }
    here.as_object_mut().unwrap_or_else(|| panic!("'{path}' is no schema"))
}

/// A CEL rule.
pub(super) struct Rule {
    /// What must hold.
    pub(super) expression: String,
    /// An expression that gives the message: field, value, mend.
    pub(super) message: String,
    /// The field below the rule's place that is to blame.
    pub(super) field: Option<&'static str>,
}

impl Rule {
    pub(super) fn new(rule: impl Into<String>, message: impl Into<String>) -> Self {
        Self { expression: rule.into(), message: message.into(), field: None }
    }

    pub(super) fn blames(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}

/// Adds CEL rules to a place.
pub(super) fn add_rules(schema: &mut Value, path: &str, rules: impl IntoIterator<Item = Rule>) {
    let place = at(schema, path);
    let list = place.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    for rule in rules {
        let mut entry = json!({ "rule": one_line(&rule.expression), "messageExpression": one_line(&rule.message) });
        if let Some(field) = rule.field {
            entry["fieldPath"] = json!(field);
        }
        list.as_array_mut().expect("rules are a list").push(entry);
    }
}

/// Sets keywords of a place.
pub(super) fn set(schema: &mut Value, path: &str, keywords: &Value) {
    let place = at(schema, path);
    for (keyword, value) in keywords.as_object().expect("keywords are an object") {
        place.insert(keyword.clone(), value.clone());
    }
}

/// Expressions are written over several lines here; the API server shows them on one.
fn one_line(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ")
}
