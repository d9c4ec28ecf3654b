//! `CacheRuntime`: the workers that cache a Dataset.

// One of clippy's rules takes the columns' equal keys for mistakes.
#![allow(clippy::duplicated_attributes)]

pub mod autoscaling;
mod status;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, CSIVolumeSource, EmptyDirVolumeSource, EnvVar, EphemeralVolumeSource, HostPathVolumeSource,
        LocalObjectReference, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodSecurityContext,
        ResourceRequirements, Toleration, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

use crate::{QuantityError, Quota};

use autoscaling::Autoscaling;
pub use status::{
    CacheRuntimeDisplay, CacheRuntimePhase, CacheRuntimeStatus, HandOverStatus, ReadsStatus, TierStatus, UpdateStatus,
};

/// Seconds that a leaving worker has to hand its extents over, unless told otherwise.
pub const DEFAULT_DRAIN_TIMEOUT_SECONDS: u32 = 600;

/// How many workers, with which tiers, in which pods.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "penstock.dev",
    version = "v1alpha1",
    kind = "CacheRuntime",
    plural = "cacheruntimes",
    shortname = "crt",
    category = "penstock",
    namespaced,
    status = "CacheRuntimeStatus",
    derive = "PartialEq",
    doc = "The workers that cache a Dataset: how many, with which tiers, in which pods. It serves the Dataset of its own \
           name, or the one whose `spec.runtime.name` names it.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Workers that serve"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.desiredReplicas",
        description = "Workers that there shall be"
    ),
    printcolumn(
        name = "Updated",
        type_ = "integer",
        json_path = ".status.updatedReplicas",
        description = "Workers that run as specified"
    ),
    printcolumn(
        name = "Cached",
        type_ = "string",
        json_path = ".status.display.cached",
        description = "Bytes in the tiers"
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = ".status.display.cacheCapacity",
        description = "Bytes that the tiers may take"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.autoscaling.reason",
        description = "Why so many workers",
        priority = 1
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.autoscaling.next[0].time",
        description = "Next change by the clock",
        priority = 1
    ),
    printcolumn(name = "Hit%", type_ = "number", json_path = ".status.hitRatioPercent", priority = 1),
    printcolumn(name = "Dataset", type_ = "string", json_path = ".status.dataset", priority = 1),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.workerImage",
        description = "Image that new workers start from",
        priority = 1
    ),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CacheRuntimeSpec {
    /// Number of workers, 0 to 1000. 0 keeps the Dataset mountable but unserved. Default: 1. `kubectl scale` and
    /// autoscalers set it through the scale subresource.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,

    /// The worker pods.
    #[serde(default)]
    pub worker: Worker,

    /// Where workers keep what they cache.
    pub tiered_store: TieredStore,

    /// How pods' mounts read.
    #[serde(default)]
    pub client: Client,

    /// Seconds that a worker which leaves on scaling in has to hand what it owns over to the others, 0 to 86400; what
    /// is left then is fetched from the UFS again. 0 removes it at once. Default: 600.
    #[serde(default = "default_drain_timeout")]
    #[schemars(range(min = 0, max = 86_400))]
    pub drain_timeout_seconds: u32,

    /// The most bytes per second that one leaving worker hands over, as a quantity such as `200Mi`, from `1Mi`. Default:
    /// what readers leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_bandwidth: Option<Quantity>,

    /// What moves the number of workers besides `replicas`: the clock, metrics, and who mounts the Dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

fn default_replicas() -> u32 {
    1
}

fn default_drain_timeout() -> u32 {
    DEFAULT_DRAIN_TIMEOUT_SECONDS
}

/// The worker pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Image of the worker. Default: the operator's own version of it, or the one before while the runtime waits for
    /// its turn; `status.workerImage` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When to pull the image. Default: as Kubernetes does, Always for the tag `latest`, else IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets to pull the image with. Default: those that the operator was installed with, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Who workers are to the platform, for stores that grant rights to ServiceAccounts (IRSA, workload identity).
    #[serde(default, skip_serializing_if = "WorkerServiceAccount::is_default")]
    pub service_account: WorkerServiceAccount,

    /// User, groups and SELinux labels of the worker pods, as in a pod's `securityContext`. Default of each field that is
    /// not set: user, group and fsGroup 65532, or the platform's where the operator was installed so; runAsNonRoot; the
    /// runtime's seccomp profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodSecurityContext>,

    /// CPU and memory of a worker. The quotas of MEM tiers are added to the memory request and limit; those of emptyDir
    /// tiers on disk are the request of ephemeral-storage, unless that is set here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Labels of the nodes that workers may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Affinity of the worker pods. Default: workers of one runtime prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Taints that workers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// Labels and annotations for the worker pods. Those of `penstock.dev/` and `app.kubernetes.io/` are Penstock's own.
    #[serde(default, skip_serializing_if = "PodMetadata::is_empty")]
    pub pod_metadata: PodMetadata,

    /// Environment variables of the worker, such as `RUST_LOG` or a proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,

    /// Volumes to bring in, for `local://` mounts. Names that begin with `penstock-` are Penstock's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub volumes: Vec<Volume>,

    /// Where the worker container sees `volumes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub volume_mounts: Vec<VolumeMount>,

    /// How workers come to run as a changed specification or a new default image says. A change of the image alone
    /// restarts the container in its pod, and what is cached stays; any other change needs a new pod, whose worker hands
    /// over first. Default: Staged.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,

    /// Whether workers have addresses of the pod network or of their node. HostNetwork allows one worker per node and
    /// needs a namespace that admits privileged pods. Default: PodNetwork.
    #[serde(default)]
    pub network_mode: NetworkMode,
}

/// The ServiceAccount of worker pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerServiceAccount {
    /// A ServiceAccount of this namespace. Default: one without rights, which the operator makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,

    /// Annotations for the one that the operator makes, such as `eks.amazonaws.com/role-arn`. Not beside `name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Whether pods get a token for the API server. What workload identity takes is added by its own webhook and needs none.
    /// Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automount_token: bool,
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum ImagePullPolicy {
    /// Whenever a pod starts.
    Always,
    /// When the node has none.
    IfNotPresent,
    /// The node must have it.
    Never,
}

/// How workers are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum UpdateStrategy {
    /// One after the other, each when all serve; it stops where a worker does not come back. Runtimes without an image of
    /// their own take a new default in turns, a few at once.
    #[default]
    Staged,
    /// When their pods are deleted.
    OnDelete,
}

/// Which network worker pods are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum NetworkMode {
    /// The pod network.
    #[default]
    PodNetwork,
    /// The node's.
    HostNetwork,
}

/// Labels and annotations to add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where workers keep what they cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TieredStore {
    /// The tiers of each worker, fastest first, 1 to 4.
    #[schemars(length(min = 1, max = 4))]
    pub levels: Vec<Level>,
}

/// One tier: a medium with a quota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    /// MEM, SSD or HDD. A MEM tier counts into the memory of the pod.
    pub medium_type: MediumType,

    /// A directory of the node, which workers must be able to write. At most one of `path`, `volumeSource` and
    /// `volumeClaimTemplate`; with none of them the tier is an emptyDir, in memory for MEM and on the node's disk else.
    /// In local mode it is a directory of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,

    /// A volume source as in a pod's `volumes[]`: emptyDir, hostPath, ephemeral, csi or persistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_source: Option<VolumeSource>,

    /// A PersistentVolumeClaim for each worker. Cannot be changed, added or removed later. Without a storage request it asks
    /// for an eighth more than the quota, and keeps that when the quota changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<VolumeClaimTemplate>,

    /// Bytes that the tier of one worker may take, overhead included, as a quantity such as `40Gi`; from `16Mi` to `1Pi`.
    pub quota: Quantity,

    /// Fraction of the quota, above 0 and up to 1, at which eviction starts. Default: 0.95.
    #[serde(default = "default_high")]
    pub high: f64,

    /// Fraction of the quota, above 0 and below `high`, at which eviction stops. Default: 0.9.
    #[serde(default = "default_low")]
    pub low: f64,
}

fn default_high() -> f64 {
    0.95
}

fn default_low() -> f64 {
    0.9
}

/// What a tier's bytes are on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum MediumType {
    /// Memory (tmpfs).
    Mem,
    /// Flash.
    Ssd,
    /// Spinning disk.
    Hdd,
}

/// One volume source, as in a pod's `volumes[]`. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSource {
    /// A directory that lives as long as the pod, on disk or (medium Memory) in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
    /// A directory of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPathVolumeSource>,
    /// A claim that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralVolumeSource>,
    /// An inline volume of a CSI driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi: Option<CSIVolumeSource>,
    /// An existing claim. All workers would share it, so it fits a runtime of one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
}

/// A claim for each worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimTemplate {
    /// Labels and annotations of the claims.
    #[serde(default, skip_serializing_if = "PodMetadata::is_empty")]
    pub metadata: PodMetadata,
    /// As in a PersistentVolumeClaim. The storage request defaults to the quota, the access mode to ReadWriteOnce.
    pub spec: PersistentVolumeClaimSpec,
}

/// How pods' mounts read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// The most bytes that a mount fetches ahead of one sequential reader, as a quantity from `0` (none) to `1Gi`. The
    /// window grows up to it as the reader goes on. Default: 8Mi for each worker, but from 48Mi to 64Mi. A Dataset keeps
    /// what it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readahead: Option<Quantity>,
}

impl CacheRuntime {
    /// Name of the Dataset that this runtime serves when no other one names it in `spec.runtime.name`: its own name.
    pub fn dataset_name(&self) -> String {
        self.name_any()
    }
}

impl Level {
    /// The quota in bytes.
    pub fn quota_bytes(&self) -> Result<u64, QuantityError> {
        Quota::bytes(&self.quota)
    }
}

impl VolumeSource {
    /// The pod volume of this source.
    pub fn into_volume(self, name: impl Into<String>) -> Volume {
        Volume {
            name: name.into(),
            empty_dir: self.empty_dir,
            host_path: self.host_path,
            ephemeral: self.ephemeral,
            csi: self.csi,
            persistent_volume_claim: self.persistent_volume_claim,
            ..Volume::default()
        }
    }
}

impl WorkerServiceAccount {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl PodMetadata {
    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}
