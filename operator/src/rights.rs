//! The rights that the operator uses on the API server: what the chart grants, what tests compare it with, and what the
//! operator asks for before it says that it is ready.

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In each namespace that the operator looks after.
    Watched,
    /// In the operator's own namespace.
    Own,
    /// On objects that are in no namespace.
    Cluster,
}

/// Verbs on one kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub scope: Scope,
    pub group: &'static str,
    /// Plural, with `/SUBRESOURCE` if it is one.
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
}

const fn watched(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { scope: Scope::Watched, group, resource, verbs }
}

/// An object that is watched and written. It is read alone when its name may be someone else's. Server-side apply takes
/// `create` as well as `patch` where the object is new.
const MANAGED: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

pub const RIGHTS: &[Right] = &[
    // The finalizer is part of a Dataset's metadata, hence the patch.
    watched("penstock.dev", "datasets", &["list", "watch", "patch"]),
    watched("penstock.dev", "cacheruntimes", &["list", "watch"]),
    watched("penstock.dev", "datasets/status", &["patch"]),
    watched("penstock.dev", "cacheruntimes/status", &["patch"]),
    // Those that are to be deleted some time after their end.
    watched("penstock.dev", "dataloads", &["list", "watch", "delete"]),
    watched("penstock.dev", "dataloads/status", &["patch"]),
    // Owner references, where a cluster guards them (OwnerReferencesPermissionEnforcement).
    watched("penstock.dev", "datasets/finalizers", &["update"]),
    watched("penstock.dev", "cacheruntimes/finalizers", &["update"]),
    watched("apps", "statefulsets", MANAGED),
    watched("", "services", MANAGED),
    watched("", "configmaps", MANAGED),
    watched("", "serviceaccounts", MANAGED),
    watched("", "persistentvolumeclaims", MANAGED),
    watched("policy", "poddisruptionbudgets", MANAGED),
    // Those that Datasets name are read, the workers' and the mounts' own are written; none is listed or watched.
    watched("", "secrets", &["get", "create", "patch", "delete"]),
    // What Kubernetes says of pods that do not come up.
    watched("", "events", &["list"]),
    // The patch touches an annotation of workers.
    watched("", "pods", &["list", "watch", "patch", "delete"]),
    watched("events.k8s.io", "events", &["create", "patch"]),
    Right { scope: Scope::Cluster, group: "", resource: "persistentvolumes", verbs: MANAGED },
    Right { scope: Scope::Own, group: "coordination.k8s.io", resource: "leases", verbs: &["get", "create", "update"] },
];

impl Right {
    /// `RESOURCE.GROUP`, as kubectl takes it.
    pub fn object(&self) -> String {
        if self.group.is_empty() { self.resource.into() } else { format!("{}.{}", self.resource, self.group) }
    }
}
