//! The API of Penstock: the custom resources of group `penstock.dev`, and the names, labels and reasons that go with
//! them.
//!
//! | kind | what it says |
//! |---|---|
//! | [`Dataset`] | a tree of files from one or more UFS, under one name |
//! | [`CacheRuntime`] | the workers that cache a Dataset: how many, with which tiers |
//! | [`DataLoad`] | part of a Dataset to be loaded or evicted, once, by calendar or on change |

pub mod condition;
mod dataset;
mod load;
pub mod names;
mod quantity;
mod runtime;
mod schema;

pub use condition::{ConditionType, Reason};
pub use dataset::{
    AccessMode, Consistency, ConsistencyMode, DEFAULT_REVALIDATE, Dataset, DatasetDisplay, DatasetNodeAffinity,
    DatasetPhase, DatasetSpec, DatasetStatus, EncryptOption, EncryptOptionSource, IntervalError, Mount, MountStatus,
    Owner, Placement, RuntimeReference, SCHEMES, Scheme, SecretKeySelector,
};
pub use load::{
    DataLoad, DataLoadDisplay, DataLoadPhase, DataLoadSpec, DataLoadStatus, FailedFile, LoadAction, LoadPolicy,
    LoadTarget, RunAfter,
};
pub use quantity::{QuantityError, Quota, human_bytes};
pub use runtime::autoscaling;
pub use runtime::{
    CacheRuntime, CacheRuntimeDisplay, CacheRuntimePhase, CacheRuntimeSpec, CacheRuntimeStatus, Client,
    DEFAULT_DRAIN_TIMEOUT_SECONDS, HandOverStatus, ImagePullPolicy, Level, MediumType, NetworkMode, PodMetadata,
    ReadsStatus, TierStatus, TieredStore, UpdateStatus, UpdateStrategy, VolumeClaimTemplate, VolumeSource, Worker,
    WorkerServiceAccount,
};
pub use schema::{crd_yaml, crds};

/// API group of all custom resources, and prefix of labels, annotations and finalizers.
pub const GROUP: &str = "penstock.dev";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
