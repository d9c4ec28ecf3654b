//! Who the worker process is.

use k8s_openapi::api::core::v1::{PodSecurityContext, SeccompProfile};

use super::super::Blueprint;

/// User and group of the worker process: nobody's in particular, and not root's.
const NOBODY: i64 = 65532;
/// Of files with keys: for the pod's group alone, or for whoever is in the pod where it has no group.
const GROUP_READS: i32 = 0o440;
const POD_READS: i32 = 0o444;

/// Who gives worker pods their user and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Ids {
    /// The same for all workers.
    #[default]
    Fixed,
    /// Whoever admits the pod, as OpenShift does from ranges of its own for each namespace.
    Platform,
}

/// The user's, and Penstock's own where that says nothing.
pub(super) fn context(blueprint: &Blueprint<'_>) -> PodSecurityContext {
    let user = blueprint.runtime.spec.worker.security_context.clone().unwrap_or_default();
    let id = (blueprint.defaults.ids == Ids::Fixed).then_some(NOBODY);
    let fs_group = user.fs_group.or(id);
    let change_policy = fs_group.map(|_| "OnRootMismatch".into());
    PodSecurityContext {
        fs_group,
        fs_group_change_policy: user.fs_group_change_policy.or(change_policy),
        run_as_group: user.run_as_group.or(id),
        run_as_non_root: user.run_as_non_root.or(Some(true)),
        run_as_user: user.run_as_user.or(id),
        seccomp_profile: user
            .seccomp_profile
            .or_else(|| Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() })),
        ..user
    }
}

/// Of the files in the configuration's volume, which the kubelet gives to root and the pod's `fsGroup`.
pub(super) fn secret_mode(blueprint: &Blueprint<'_>) -> i32 {
    if context(blueprint).fs_group.is_some() { GROUP_READS } else { POD_READS }
}
