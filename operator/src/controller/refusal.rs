//! What the API server refuses, in words for whoever can mend it. Pure.

use kube::core::Status;
use penstock_api::Reason;
use penstock_plan::validate::Invalid;

/// Whether the same request will not do later either, unless someone changes something.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 405 | 413 | 422) || status.message.contains("webhook")
}

/// One sentence with the object, the fields that the API server names, its own words, and the mend.
pub(super) fn sentence(kind: &str, name: &str, status: &Status) -> Invalid {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<_> = causes.map(|cause| cause.field.as_str()).filter(|field| !field.is_empty()).collect();
    let at = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
    let why = status.message.trim_end_matches('.');
    let message = format!("the API server refuses {kind} '{name}'{at}: {why}; {}", mend(why));
    Invalid::new(Reason::ApplyFailed, message)
}

/// Words of the API server, and what mends the refusals that hold them; the first that fits counts.
const MENDS: [(&str, &str); 8] = [
    (
        "exceeded quota",
        "raise the namespace's ResourceQuota, or lower spec.replicas, spec.worker.resources or the quotas of \
         spec.tieredStore",
    ),
    (
        "violates PodSecurity",
        "take what it names out of spec.worker and spec.tieredStore, or let the namespace's label \
         pod-security.kubernetes.io/enforce allow it",
    ),
    ("usage per", "raise the namespace's LimitRange, or change spec.worker.resources"),
    ("limit to request ratio", "raise the namespace's LimitRange, or change spec.worker.resources"),
    ("failed calling webhook", "see that the service behind the webhook answers"),
    ("webhook", "meet the webhook's rule, or exempt objects labelled app.kubernetes.io/managed-by=penstock-operator"),
    ("Policy", "meet the policy's rule, or exempt objects labelled app.kubernetes.io/managed-by=penstock-operator"),
    ("in API group", "upgrade the Helm release, or grant this right to the operator's ServiceAccount"),
];

/// What mends a refusal with these words.
pub(super) fn mend(words: &str) -> &'static str {
    let known = MENDS.iter().find(|(part, _)| words.contains(part));
    known.map_or("correct what the Dataset or its CacheRuntime says there", |(_, mend)| mend)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(code: u16, message: &str, causes: &Value) -> Status {
        let status = json!({
            "status": "Failure", "code": code, "message": message, "reason": "", "details": {"causes": causes}
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn what_a_repeated_request_does_not_mend_is_a_refusal() {
        for (code, message, refused) in [
            (400, "bad", true),
            (403, "forbidden", true),
            (422, "invalid", true),
            (500, "Internal error occurred: failed calling webhook \"v.example.com\"", true),
            (409, "the object has been modified", false),
            (404, "not found", false),
            (429, "too many requests", false),
            (500, "etcdserver: request timed out", false),
            (503, "unavailable", false),
        ] {
            assert_eq!(is_refusal(&status(code, message, &json!([]))), refused, "{code} {message}");
        }
    }

    #[test]
    fn a_refusal_names_object_field_and_mend() {
        let field =
            json!([{"field": "spec.volumeClaimTemplates", "message": "immutable", "reason": "FieldValueForbidden"}]);
        let none = json!([]);
        for (code, message, causes, words) in [
            (422, "updates to it are forbidden", &field, ["(spec.volumeClaimTemplates)", "CacheRuntime says there"]),
            (403, "services \"a\" is forbidden: exceeded quota: q", &none, ["exceeded quota: q", "ResourceQuota"]),
            (403, "admission webhook \"v.example.com\" denied the request: no", &none, ["v.example.com", "exempt"]),
            (500, "failed calling webhook \"v\": refused", &none, ["failed calling", "webhook answers"]),
            (403, "User \"o\" cannot patch resource \"secrets\" in API group \"\"", &none, ["patch", "Helm release"]),
        ] {
            let refusal = sentence("StatefulSet", "a-worker", &status(code, message, causes));
            assert_eq!(refusal.reason, Reason::ApplyFailed);
            for word in words.into_iter().chain(["StatefulSet 'a-worker'"]) {
                assert!(refusal.message.contains(word), "'{word}' is not in: {refusal}");
            }
        }
    }
}
