//! Labels and annotations that only the operator knows.

use std::collections::BTreeMap;

/// On the `PersistentVolume`, which has no namespace of its own.
pub const NAMESPACE_LABEL: &str = "penstock.dev/namespace";
/// Selects what the operator watches.
pub const SELECTOR: &str = "app.kubernetes.io/managed-by=penstock-operator";

/// On worker pods: their tiers in words.
pub const TIERS: &str = "penstock.dev/tiers";
/// Hash of what was applied: equal means that there is nothing to write.
pub const APPLIED_HASH: &str = "penstock.dev/applied-hash";
/// On the `StatefulSet`, seconds since the epoch: when the hand-over of the leaving workers began.
pub const DRAIN_STARTED: &str = "penstock.dev/drain-started";
/// Beside it: how many workers the hand-over leaves.
pub const DRAIN_TARGET: &str = "penstock.dev/drain-target";

/// On worker pods: hash of what a user wrote that takes a new pod.
pub const REVISION: &str = "penstock.dev/revision";
/// On worker pods, seconds since the epoch: when the image was changed.
pub const UPDATED_AT: &str = "penstock.dev/updated-at";
/// On worker pods: the container that ran when the image was changed.
pub const REPLACED_CONTAINER: &str = "penstock.dev/replaced-container";
/// On worker pods, seconds since the epoch: when a worker that is to get a new pod began to hand over.
pub const HAND_OVER_STARTED: &str = "penstock.dev/hand-over-started";

/// Component of the volume, its claim, and what the mounts need.
pub const VOLUME: &str = "volume";

/// Label values of a selector, as `kubectl -l` takes them.
pub fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}
