//! One finding per condition type.

use penstock_api::{
    ConditionType, Quota, Reason, autoscaling::SizeReason, condition::Finding, human_bytes, names::ATTRIBUTE_READAHEAD,
};
use penstock_plan::{
    rollout::{self, Rollout},
    scaling::Step,
    validate::Invalid,
};
use penstock_wire::config::WIRE_PORT;
use penstock_wire::message::{MountHealth, MountStats, MountTrouble, TroubleKind};

use super::{
    super::build::claim_storage,
    View,
    trouble::{PodTrouble, Scarce},
};

fn finding(kind: ConditionType, holds: Option<bool>, reason: Reason, message: impl Into<String>) -> Finding {
    Finding { kind, holds, reason, message: message.into() }
}

pub(super) fn failed(kind: ConditionType, problem: &Invalid) -> Finding {
    finding(kind, Some(false), problem.reason, problem.message.clone())
}

pub(super) fn bound(view: &View<'_>) -> Finding {
    let kind = ConditionType::Bound;
    if view.is_deleting() {
        return deleting(kind, view);
    }
    match view.problem {
        // What stands keeps standing while the specification is mended.
        Some(_) if view.bound && view.runtime.is_some() => {
            finding(kind, Some(true), Reason::Bound, "pods can mount it, as it was before the last change")
        }
        Some(problem) => failed(kind, problem),
        None if view.bound => match other_readahead(view) {
            Some(message) => finding(kind, Some(true), Reason::ReadaheadKept, message),
            None => finding(kind, Some(true), Reason::Bound, "pods can mount it"),
        },
        None => finding(kind, Some(false), Reason::VolumePending, "its volume is being set up"),
    }
}

/// A volume keeps what it was made with.
fn other_readahead(view: &View<'_>) -> Option<String> {
    let attributes = view.volume?.spec.as_ref()?.csi.as_ref()?.volume_attributes.as_ref()?;
    let made_with = attributes.get(ATTRIBUTE_READAHEAD).map(String::as_str);
    let wanted = view.valid_runtime?.readahead.map(|bytes| bytes.to_string());
    (made_with != wanted.as_deref()).then(|| {
        let said = |bytes: Option<&str>| bytes.map_or("the default".to_owned(), |bytes| format!("{bytes} bytes"));
        format!(
            "pods can mount it; spec.client.readahead of the CacheRuntime is now {}, but the volume was made with {}, \
             and volumes cannot change; delete and create the Dataset to have it",
            said(wanted.as_deref()),
            said(made_with)
        )
    })
}

fn deleting(kind: ConditionType, view: &View<'_>) -> Finding {
    if !view.in_use {
        return finding(kind, Some(false), Reason::Deleting, "being deleted");
    }
    let (claim, namespace) = (&view.names.dataset, &view.names.namespace);
    let message = format!(
        "being deleted, but pods use its claim '{claim}' (kubectl describe pvc {claim} -n {namespace} names them); \
         delete them, or let them end; they are served meanwhile, and no other pod can start with it"
    );
    finding(kind, Some(false), Reason::InUse, message)
}

pub(super) fn ready(view: &View<'_>) -> Finding {
    let kind = ConditionType::Ready;
    if let Some(problem) = view.problem {
        return failed(kind, problem);
    }
    let (ready, wanted) = (view.ready(), view.wanted());
    if ready == 0 {
        return not_serving(kind, view);
    }
    match ufs(view) {
        // What is cached is served through an outage.
        Ufs::Trouble(_, trouble) if trouble.kind == TroubleKind::Unreachable && view.was_ready() => {}
        Ufs::Trouble(mount, trouble) => return in_trouble(kind, mount, trouble),
        Ufs::Unasked if !view.was_ready() => {
            let message = format!("{ready} of {wanted} workers serve; they are asking the UFS for the first time");
            return finding(kind, Some(false), Reason::WorkersNotReady, message);
        }
        Ufs::Unheard if !view.was_ready() => {
            return finding(kind, Some(false), Reason::WorkersUnreachable, unheard(view));
        }
        Ufs::Unheard | Ufs::Unasked | Ufs::Serving => {}
    }
    finding(kind, Some(true), Reason::WorkersReady, format!("{ready} of {wanted} workers serve"))
}

/// What the workers say of all UFS together.
enum Ufs<'a> {
    Serving,
    Unasked,
    /// No worker has answered the operator.
    Unheard,
    Trouble(&'a MountStats, &'a MountTrouble),
}

fn ufs<'a>(view: &'a View<'_>) -> Ufs<'a> {
    let told = || view.stats().flat_map(|s| &s.mounts);
    if let Some((mount, trouble)) = told().find_map(|m| Some((m, m.trouble()?))) {
        return Ufs::Trouble(mount, trouble);
    }
    if view.stats().next().is_none() {
        Ufs::Unheard
    } else if told().any(|m| m.health == MountHealth::Unknown) {
        Ufs::Unasked
    } else {
        Ufs::Serving
    }
}

fn unheard(view: &View<'_>) -> String {
    format!(
        "{} of {} workers are ready, but none answers the operator; let it reach port {WIRE_PORT} of the worker pods \
         (a NetworkPolicy may stand between them)",
        view.ready(),
        view.wanted()
    )
}

fn in_trouble(kind: ConditionType, mount: &MountStats, trouble: &MountTrouble) -> Finding {
    let reason = match trouble.kind {
        TroubleKind::Denied => Reason::UfsDenied,
        TroubleKind::Unreachable => Reason::UfsUnreachable,
        TroubleKind::Misconfigured => Reason::UfsMisconfigured,
    };
    finding(kind, Some(false), reason, format!("mount '/{}' ({}): {trouble}", mount.path, mount.source))
}

/// A runtime is ready when all its workers are.
pub(super) fn all_ready(view: &View<'_>) -> Finding {
    let kind = ConditionType::Ready;
    if let Some(problem) = view.problem {
        return failed(kind, problem);
    }
    let (ready, wanted) = (view.ready(), view.wanted());
    match view.scaling.map(|s| &s.step) {
        Some(Step::Draining { left_bytes }) if ready >= wanted => {
            let message = format!("leaving workers hand over before they go; {left_bytes} bytes are left");
            finding(kind, Some(true), Reason::Draining, message)
        }
        _ if ready >= wanted => {
            finding(kind, Some(true), Reason::WorkersReady, format!("{ready} of {wanted} workers serve"))
        }
        _ => not_serving(kind, view),
    }
}

pub(super) fn some_ready(view: &View<'_>) -> Finding {
    let kind = ConditionType::WorkersReady;
    match view.ready() {
        0 => view.problem.map_or_else(|| not_serving(kind, view), |problem| failed(kind, problem)),
        ready => finding(kind, Some(true), Reason::WorkersReady, format!("{ready} of {} workers serve", view.wanted())),
    }
}

/// Whether `spec.autoscaling` moves the size; nothing where there is none.
pub(super) fn scaling_active(view: &View<'_>) -> Option<Finding> {
    let kind = ConditionType::ScalingActive;
    let sizing = view.sizing?;
    let status = &sizing.decision.status;
    if let Some(problem) = sizing.problems.first() {
        let more = sizing.problems.len() - 1;
        let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        return Some(finding(
            kind,
            Some(false),
            problem.reason,
            format!("{}{others}; the rest goes on", problem.message),
        ));
    }
    if let Some(contender) = &sizing.contender {
        let message = format!(
            "'{contender}' sets spec.replicas through the scale subresource, as another autoscaler does, beside \
             spec.autoscaling; remove one of the two; each change of it is an order until a schedule is due"
        );
        return Some(finding(kind, Some(false), Reason::Contended, message));
    }
    let reason = match status.reason {
        Some(SizeReason::Ordered) => Reason::Ordered,
        Some(SizeReason::NoData) => Reason::NoData,
        _ => Reason::ScalingActive,
    };
    Some(finding(kind, Some(true), reason, status.message.clone().unwrap_or_default()))
}

/// Which quotas ask for more than the nodes have.
fn too_large(view: &View<'_>, trouble: &PodTrouble) -> Option<String> {
    let runtime = view.valid_runtime?;
    let (levels, bytes, what) = match trouble.lacks? {
        Scarce::Memory => ("MEM levels", runtime.memory(), "memory"),
        Scarce::Disk => ("SSD and HDD levels", runtime.disk(), "ephemeral storage"),
    };
    (bytes > 0).then(|| {
        format!(
            "the quotas of the {levels} in spec.tieredStore are {} ({bytes} bytes) for each worker: lower them, or add \
             nodes with more {what}",
            human_bytes(bytes)
        )
    })
}

fn not_serving(kind: ConditionType, view: &View<'_>) -> Finding {
    let (ready, wanted) = (view.ready(), view.wanted());
    if wanted == 0 {
        let why = view.sizing.and_then(|sizing| sizing.decision.status.message.clone());
        let message = "spec.replicas of the CacheRuntime is 0; raise it to have the Dataset served";
        return finding(kind, Some(false), Reason::NoWorkers, why.unwrap_or_else(|| message.to_owned()));
    }
    match view.trouble {
        Some(trouble) => {
            let message = [Some(trouble.message.clone()), too_large(view, trouble)].into_iter().flatten();
            finding(kind, Some(false), trouble.reason, message.collect::<Vec<_>>().join("; "))
        }
        None => finding(
            kind,
            Some(false),
            Reason::WorkersNotReady,
            format!("{ready} of {wanted} workers serve; they are starting"),
        ),
    }
}

pub(super) fn mounts(view: &View<'_>) -> Finding {
    let kind = ConditionType::MountsHealthy;
    let is_silent = view.ready() > 0 && view.stats().next().is_none();
    if !is_silent && view.stats().all(|s| s.mounts.is_empty()) {
        return finding(kind, None, Reason::NotReported, "no worker has reported yet");
    }
    match ufs(view) {
        Ufs::Unheard => finding(kind, None, Reason::WorkersUnreachable, unheard(view)),
        Ufs::Trouble(mount, trouble) => in_trouble(kind, mount, trouble),
        Ufs::Unasked => finding(kind, None, Reason::NotReported, "the workers are asking the UFS for the first time"),
        Ufs::Serving => finding(kind, Some(true), Reason::MountsHealthy, "every UFS answers"),
    }
}

pub(super) fn tiers(view: &View<'_>) -> Finding {
    let kind = ConditionType::TiersHealthy;
    let mut told = view.stats().flat_map(|s| s.tiers.iter().enumerate()).peekable();
    if told.peek().is_none() {
        return finding(kind, None, Reason::NotReported, "no worker has reported yet");
    }
    match told.find_map(|(index, tier)| tier.trouble.as_ref().map(|trouble| (index, tier, trouble))) {
        Some((index, tier, text)) => {
            let level = view.runtime.and_then(|r| r.spec.tiered_store.levels.get(index));
            let (path, mend) = match level.and_then(|level| level.path.as_deref()) {
                Some(path) => (
                    format!(", path '{path}' of the node"),
                    "let user 65532 write there and give it the room, or change path or quota",
                ),
                None => (String::new(), "lower the quota, or use a medium with more room"),
            };
            let message = format!(
                "spec.tieredStore.levels[{index}] ({}, quota {} bytes{path}): {text}; {mend}",
                tier.medium, tier.quota_bytes
            );
            finding(kind, Some(false), Reason::TierUnusable, message)
        }
        None => match outgrown(view) {
            Some(message) => finding(kind, Some(false), Reason::ClaimTooSmall, message),
            None => finding(kind, Some(true), Reason::TiersHealthy, "every tier can be used"),
        },
    }
}

/// A tier whose quota was raised above what the workers' claims were made for.
fn outgrown(view: &View<'_>) -> Option<String> {
    let quotas = view.valid_runtime?.tiers.iter().map(|tier| tier.quota);
    let levels = view.runtime?.spec.tiered_store.levels.iter().zip(quotas).enumerate();
    levels.filter(|(_, (level, _))| level.volume_claim_template.is_some()).find_map(|(index, (level, quota))| {
        let storage = claim_storage(view.statefulset?, index)?;
        let bytes = Quota::bytes(storage).ok()?;
        let (set, worker) = (view.names.worker(), view.names.worker_pod(0));
        (bytes < quota).then(|| {
            format!(
                "spec.tieredStore.levels[{index}].quota {} does not fit in the workers' claims, which were made with {} \
                 and cannot change with it; lower the quota, or delete StatefulSet '{set}' with --cascade=orphan, so that \
                 new claims are larger, and grow those that exist (penstock-tier-{index}-{worker} and so on)",
                level.quota.0, storage.0
            )
        })
    })
}

pub(super) fn updated(view: &View<'_>) -> Finding {
    use rollout::Step::{AwaitDeletion, AwaitTurn, Stopped, UpToDate};

    let kind = ConditionType::Updated;
    let Some(rollout) = view.rollout else {
        let reason = view.problem.map_or(Reason::NotReported, |problem| problem.reason);
        return finding(kind, None, reason, "workers are updated once they can be set up");
    };
    let (target, all) = (&rollout.target, view.wanted());
    let so_far = format!("{} of {all} workers run as specified", rollout.updated);
    match &rollout.step {
        UpToDate => finding(kind, Some(true), Reason::UpToDate, format!("workers run as specified, from '{target}'")),
        AwaitTurn => {
            let message = format!(
                "the default image is '{target}' now; workers run from '{}' until fewer other runtimes are being updated",
                rollout.image
            );
            finding(kind, Some(false), Reason::WaitingForTurn, message)
        }
        AwaitDeletion => {
            let message = format!(
                "{so_far}; spec.worker.updateStrategy is OnDelete: delete the pods of the others to update them"
            );
            finding(kind, Some(false), Reason::WaitingForDeletion, message)
        }
        Stopped { ordinal, why } => {
            let worker = view.names.worker_pod(*ordinal);
            let message = format!(
                "{so_far}; the update to '{target}' stopped at {worker}, which does not serve since: {why}; the other \
                 workers are left as they are"
            );
            finding(kind, Some(false), Reason::UpdateStopped, message)
        }
        _ => finding(kind, Some(false), Reason::RollingOut, format!("{so_far}; {}", next(view, rollout))),
    }
}

/// What an update that is under way does now.
fn next(view: &View<'_>, rollout: &Rollout) -> String {
    let target = &rollout.target;
    match &rollout.step {
        rollout::Step::SetImage { ordinal } => format!("{} goes over to '{target}'", view.names.worker_pod(*ordinal)),
        rollout::Step::Replace { ordinal } => format!("{} gets a new pod", view.names.worker_pod(*ordinal)),
        rollout::Step::AwaitWorker { ordinal } => format!("{} has to serve first", view.names.worker_pod(*ordinal)),
        _ => "leaving workers hand over first".to_owned(),
    }
}
