//! What is wrong with worker pods and UFS, by what they say.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use penstock_api::Reason;

/// Why a worker pod does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    pub reason: Reason,
    pub message: String,
}

/// `None` for a pod that serves, or that has nothing to complain about yet.
pub fn pod_trouble(pod: &Pod) -> Option<PodTrouble> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable"));
    if let Some(condition) = unscheduled {
        let why = condition.message.clone().unwrap_or_default();
        return Some(PodTrouble {
            reason: Reason::Unschedulable,
            message: format!("no node takes worker {name}: {why}"),
        });
    }
    status.container_statuses.iter().flatten().find_map(|container| container_trouble(&name, container))
}

fn container_trouble(pod: &str, container: &ContainerStatus) -> Option<PodTrouble> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    let why = waiting.message.clone().unwrap_or_default();
    let image = &container.image;
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => Some(PodTrouble {
            reason: Reason::ImageUnavailable,
            message: format!("image '{image}' of worker {pod} cannot be had: {why}; mend spec.worker.image"),
        }),
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            let last = last.map(|t| format!("exit code {}, {}", t.exit_code, t.reason.clone().unwrap_or_default()));
            Some(PodTrouble {
                reason: Reason::WorkerCrashing,
                message: format!("worker {pod} ends again and again ({})", last.unwrap_or_default()),
            })
        }
        _ => None,
    }
}

/// The class of a UFS' complaint, by the words that stores use.
pub(super) fn of_ufs(text: &str) -> Reason {
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["denied", "forbidden", "credential", "signature", "accesskey", "access key", "401", "403", "permission"]) {
        Reason::UfsDenied
    } else if has(&["bucket", "not found", "no such", "not exist", "option", "scheme", "misconfigured"]) {
        Reason::UfsMisconfigured
    } else {
        Reason::UfsUnreachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        for (text, reason) in [
            ("access denied: SignatureDoesNotMatch", Reason::UfsDenied),
            ("the bucket 'x' does not exist", Reason::UfsMisconfigured),
            ("connection refused", Reason::UfsUnreachable),
        ] {
            assert_eq!(of_ufs(text), reason, "{text}");
        }
    }
}
