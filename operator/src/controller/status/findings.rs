//! One finding per condition type.

use penstock_api::{ConditionType, Reason, condition::Finding};

use super::{View, trouble};
use crate::controller::{plan::scaling::Step, validate::Invalid};

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
        None if view.bound => finding(kind, Some(true), Reason::Bound, "pods can mount it"),
        None => finding(kind, Some(false), Reason::ApplyFailed, "its volume is being set up"),
    }
}

fn deleting(kind: ConditionType, view: &View<'_>) -> Finding {
    if view.users.is_empty() {
        return finding(kind, Some(false), Reason::Deleting, "being deleted");
    }
    let (shown, more) = view.users.split_at(view.users.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let message = format!("being deleted, but pods use it: {}{more}; delete them, or let them end", shown.join(", "));
    finding(kind, Some(view.bound), Reason::InUse, message)
}

pub(super) fn ready(view: &View<'_>) -> Finding {
    let kind = ConditionType::Ready;
    if let Some(problem) = view.problem {
        return failed(kind, problem);
    }
    let (ready, wanted) = (view.ready(), view.wanted());
    if ready > 0 {
        return finding(kind, Some(true), Reason::WorkersReady, format!("{ready} of {wanted} workers serve"));
    }
    not_serving(kind, view)
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

fn not_serving(kind: ConditionType, view: &View<'_>) -> Finding {
    let (ready, wanted) = (view.ready(), view.wanted());
    if wanted == 0 {
        let message = "spec.replicas of the CacheRuntime is 0; raise it to have the Dataset served";
        return finding(kind, Some(false), Reason::NoWorkers, message);
    }
    match view.trouble {
        Some(trouble) => finding(kind, Some(false), trouble.reason, trouble.message.clone()),
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
    let mut told = view.stats().flat_map(|s| &s.mounts).peekable();
    if told.peek().is_none() {
        return finding(kind, None, Reason::NotReported, "no worker has reported yet");
    }
    match told.find_map(|m| m.trouble.as_ref().map(|trouble| (m, trouble))) {
        Some((mount, text)) => {
            let message = format!("mount '/{}' ({}): {text}", mount.path, mount.source);
            finding(kind, Some(false), trouble::of_ufs(text), message)
        }
        None => finding(kind, Some(true), Reason::MountsHealthy, "every UFS answers"),
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
            let message = format!(
                "spec.tieredStore.levels[{index}] ({}, quota {} bytes): {text}; mend the medium or the quota",
                tier.medium, tier.quota_bytes
            );
            finding(kind, Some(false), Reason::TierUnusable, message)
        }
        None => finding(kind, Some(true), Reason::TiersHealthy, "every tier can be used"),
    }
}
