//! Names, labels and keys that more than one part must agree on. `docs/architecture.md` tells what each object is for.

/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "penstock-operator";
/// Keeps a Dataset or CacheRuntime until what belongs to it is gone.
pub const FINALIZER: &str = "penstock.dev/protection";

/// On every object of a Dataset: the Dataset's name.
pub const LABEL_DATASET: &str = "penstock.dev/dataset";
/// Prefix of labels and annotations that users may not set through `podMetadata`.
pub const RESERVED_LABEL_PREFIXES: [&str; 2] = ["penstock.dev/", "app.kubernetes.io/"];
/// Prefix of volume names that users may not use in `worker.volumes`.
pub const RESERVED_VOLUME_PREFIX: &str = "penstock-";

/// The recommended labels and the values that are the same for all objects.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const PART_OF: &str = "penstock";
pub const MANAGED_BY: &str = "penstock-operator";
pub const COMPONENT_WORKER: &str = "worker";

/// Annotation on worker pods: hash of the configuration that asks for a restart when it changes.
pub const ANNOTATION_CONFIG_HASH: &str = "penstock.dev/config-hash";

/// On a Secret: `true` when every Dataset of the namespace may use it, or the name of the one that may.
pub const LABEL_USABLE_BY_DATASETS: &str = "penstock.dev/usable-by-datasets";

/// Name of the CSI driver.
pub const CSI_DRIVER: &str = "csi.penstock.dev";
/// Volume attribute: `NAMESPACE/NAME` of the Dataset.
pub const ATTRIBUTE_DATASET: &str = "dataset";
/// Volume attribute: `HOST:PORT` where any worker answers.
pub const ATTRIBUTE_ENDPOINT: &str = "endpoint";
/// Volume attribute: the most bytes to fetch ahead of a sequential reader, in decimal.
pub const ATTRIBUTE_READAHEAD: &str = "readaheadBytes";
/// Volume attribute of inline volumes: what they are for.
pub const ATTRIBUTE_PURPOSE: &str = "purpose";
/// [`ATTRIBUTE_PURPOSE`] of a worker pod's socket directory.
pub const PURPOSE_WORKER_SOCKET: &str = "worker-socket";

/// The longest name of a Dataset or CacheRuntime; the names that the operator makes from it must stay within Kubernetes' limits.
pub const MAX_NAME: usize = 45;
