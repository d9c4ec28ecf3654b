//! `Dataset`: a tree of files that live in one or more under file systems.

// One of clippy's rules takes the columns' equal keys for mistakes.
#![allow(clippy::duplicated_attributes)]

mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::{NodeSelector, Toleration};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

pub use status::{DatasetDisplay, DatasetPhase, DatasetStatus, MountStatus};

/// A kind of UFS that can be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// What a mount point begins with, `://` included.
    pub prefix: &'static str,
    /// How a whole mount point looks, for people.
    pub example: &'static str,
}

/// Every scheme that `mounts[].mountPoint` may have; admission refuses the others by naming these.
pub const SCHEMES: &[Scheme] = &[
    Scheme { prefix: "s3://", example: "s3://BUCKET/PREFIX" },
    Scheme { prefix: "local://", example: "local:///PATH" },
];

/// How long metadata stays good when nothing else is said.
pub const DEFAULT_REVALIDATE: Duration = Duration::from_secs(30);

/// What a Dataset consists of and how it is shown to pods.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "penstock.dev",
    version = "v1alpha1",
    kind = "Dataset",
    plural = "datasets",
    shortname = "pds",
    category = "penstock",
    namespaced,
    status = "DatasetStatus",
    derive = "PartialEq",
    doc = "A tree of files that live in one or more under file systems (UFS), cached by the workers of a CacheRuntime \
           and mounted by pods through the PersistentVolumeClaim of the same name.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether workers serve this Dataset"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.display.ufsTotal",
        description = "Bytes in the UFS"
    ),
    printcolumn(
        name = "Cached",
        type_ = "string",
        json_path = ".status.display.cached",
        description = "Bytes in the cache"
    ),
    printcolumn(
        name = "Cached%",
        type_ = "number",
        json_path = ".status.cachedPercent",
        description = "How much of the UFS's bytes is in the cache"
    ),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.ufsFiles", priority = 1),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.display.cacheCapacity", priority = 1),
    printcolumn(name = "Hit%", type_ = "number", json_path = ".status.hitRatioPercent", priority = 1),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DatasetSpec {
    /// The under file systems that make up the tree, 1 to 64. May be changed while the Dataset serves.
    #[schemars(length(min = 1, max = 64))]
    pub mounts: Vec<Mount>,

    /// Options that hold for every mount; an option of the same name in a mount wins. Not for secrets:
    /// `sharedEncryptOptions` is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared_options: BTreeMap<String, String>,

    /// Options from Secrets that hold for every mount; an option of the same name in a mount wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub shared_encrypt_options: Vec<EncryptOption>,

    /// How pods may mount the Dataset. ReadOnlyMany is the only mode today, and the default.
    #[serde(default = "default_access_modes")]
    #[schemars(length(min = 1, max = 1))]
    pub access_modes: Vec<AccessMode>,

    /// Nodes that workers may run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<DatasetNodeAffinity>,

    /// Taints that workers tolerate, besides those in the CacheRuntime's `worker.tolerations`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// Whether this Dataset's workers share nodes with those of other Datasets. Exclusive keeps them apart: a node
    /// with a worker of an Exclusive Dataset takes no worker of another. Default: Shared.
    #[serde(default)]
    pub placement: Placement,

    /// Who owns the files as pods see them. Default: root (uid 0, gid 0); all may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,

    /// How soon a change in the UFS shows. Default: within 30 s.
    #[serde(default)]
    pub consistency: Consistency,

    /// The CacheRuntime that serves this Dataset, in the same namespace. Default: the one of the Dataset's own name.
    /// Cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeReference>,
}

/// One UFS in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where the data is: `s3://BUCKET`, `s3://BUCKET/PREFIX`, or `local:///PATH` for a directory that the worker pods
    /// see at PATH (an NFS export, a PersistentVolumeClaim or a directory of the node, brought in by the CacheRuntime's
    /// `worker.volumes`).
    #[schemars(length(min = 1, max = 2048))]
    pub mount_point: String,

    /// A short name for the mount, unique within the Dataset. Required unless `path` is given or it is the only mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,

    /// Where the mount appears in the Dataset: an absolute path without `.` and `..`, not ending in `/` unless it is
    /// `/` itself. Default: `/NAME`, or `/` for an only mount without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,

    /// Whether writes to this mount are refused. Every mount is read-only as long as ReadOnlyMany is the only access
    /// mode, so nothing depends on it yet.
    #[serde(default)]
    pub read_only: bool,

    /// Accepted so that manifests written for Fluid apply unchanged. Every mount is shared by all pods that may mount the
    /// Dataset, whatever stands here.
    #[serde(default)]
    pub shared: bool,

    /// Options of the UFS, not secret. For s3: `endpoint`, `region`, `path-style`,
    /// `anonymous`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,

    /// Options of the UFS whose values are in Secrets. For s3: `access-key`, `secret-key`,
    /// `session-token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub encrypt_options: Vec<EncryptOption>,
}

/// An option whose value is in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptOption {
    /// Name of the option.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Where its value is.
    pub value_from: EncryptOptionSource,
}

/// Where the value of an option is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptOptionSource {
    /// A key of a Secret in the Dataset's namespace.
    pub secret_key_ref: SecretKeySelector,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeySelector {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How pods may mount a Dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum AccessMode {
    /// Many nodes, read-only.
    #[default]
    ReadOnlyMany,
}

fn default_access_modes() -> Vec<AccessMode> {
    vec![AccessMode::default()]
}

/// Nodes that workers may run on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetNodeAffinity {
    /// Workers run only on nodes that match, whatever the CacheRuntime's own affinity says besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<NodeSelector>,
}

/// Whether workers of different Datasets share nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum Placement {
    /// A node with a worker of this Dataset takes no worker of another.
    Exclusive,
    /// Workers of several Datasets may share a node.
    #[default]
    Shared,
}

/// Owner of the files as pods see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Numeric user.
    #[serde(default)]
    pub uid: u32,
    /// Numeric group.
    #[serde(default)]
    pub gid: u32,
}

/// How soon a change in the UFS shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consistency {
    /// Static: files never change once they exist, and names and sizes are asked of the UFS once. Revalidate: names,
    /// sizes and versions are good for `interval`, then asked again. A reader never sees bytes of two versions of a file
    /// mixed, in either mode.
    #[serde(default)]
    pub mode: ConsistencyMode,

    /// How long metadata stays good in mode Revalidate, as a duration such as `30s`, `5m` or `1h30m`; at least `1s`.
    /// Default: 30s. Not for mode Static.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub interval: Option<String>,
}

impl Default for Consistency {
    fn default() -> Self {
        Self { mode: ConsistencyMode::Revalidate, interval: Some(format!("{}s", DEFAULT_REVALIDATE.as_secs())) }
    }
}

/// Whether metadata is asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum ConsistencyMode {
    /// Files never change.
    Static,
    /// Files may change; metadata is asked again after an interval.
    #[default]
    Revalidate,
}

/// The CacheRuntime that serves a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeReference {
    /// Name of a CacheRuntime in the Dataset's namespace.
    #[schemars(length(min = 1, max = 45))]
    pub name: String,
}

/// An interval that is no duration; admission refuses these, so only manifests that never met an API server have them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.consistency.interval '{value}' is not a duration of at least 1s; write one such as 30s, 5m or 1h30m")]
pub struct IntervalError {
    pub value: String,
}

impl Dataset {
    /// Name of the CacheRuntime that serves this Dataset: `spec.runtime.name`, else the Dataset's own.
    pub fn runtime_name(&self) -> &str {
        let own = || self.metadata.name.as_deref().unwrap_or_default();
        self.spec.runtime.as_ref().map_or_else(own, |runtime| &runtime.name)
    }
}

impl DatasetSpec {
    /// The names of the Secrets that the mounts take options from.
    pub fn secret_names(&self) -> BTreeSet<String> {
        let options = self.mounts.iter().flat_map(|mount| self.effective_options(mount).1.into_values());
        options.map(|key| key.name).collect()
    }

    /// The options and secret options in force for one mount: its own win over the shared ones, across both kinds.
    pub fn effective_options(&self, mount: &Mount) -> (BTreeMap<String, String>, BTreeMap<String, SecretKeySelector>) {
        let own = |name: &str| {
            mount.options.contains_key(name) || mount.encrypt_options.iter().any(|option| option.name == name)
        };
        let mut plain: BTreeMap<String, String> = self.shared_options.clone();
        plain.retain(|name, _| !own(name));
        plain.extend(mount.options.clone());
        let secret = self
            .shared_encrypt_options
            .iter()
            .filter(|option| !own(&option.name))
            .chain(&mount.encrypt_options)
            .map(|option| (option.name.clone(), option.value_from.secret_key_ref.clone()))
            .collect();
        (plain, secret)
    }
}

impl Mount {
    /// Where the mount appears: `path`, else `/NAME`, else `/`.
    pub fn effective_path(&self) -> String {
        match (&self.path, &self.name) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => format!("/{name}"),
            (None, None) => "/".to_owned(),
        }
    }
}

impl Consistency {
    /// How long metadata stays good; `None` for a static Dataset.
    pub fn revalidate(&self) -> Result<Option<Duration>, IntervalError> {
        if self.mode == ConsistencyMode::Static {
            return Ok(None);
        }
        let Some(value) = &self.interval else {
            return Ok(Some(DEFAULT_REVALIDATE));
        };
        let refuse = || IntervalError { value: value.clone() };
        let parsed: kube::core::Duration = value.parse().map_err(|_| refuse())?;
        if parsed.is_negative() || parsed < kube::core::Duration::from(Duration::from_secs(1)) {
            return Err(refuse());
        }
        Ok(Some(parsed.into()))
    }
}
