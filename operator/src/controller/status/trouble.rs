//! What is wrong with worker pods, by what their status says.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;
use penstock_api::Reason;

/// Why a worker pod does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    pub reason: Reason,
    pub message: String,
    /// No node has as much memory free as the pod asks for.
    pub lacks_memory: bool,
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
            // The scheduler's word, for any resource: "Insufficient NAME".
            lacks_memory: why.contains("Insufficient memory"),
            message: format!("no node takes worker {name}: {}", why.trim_end_matches('.')),
        });
    }
    status.container_statuses.iter().flatten().find_map(|container| container_trouble(&name, container))
}

fn container_trouble(pod: &str, container: &ContainerStatus) -> Option<PodTrouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.message.clone().unwrap_or_default();
    let image = &container.image;
    let (reason, message) = match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => (
            Reason::ImageUnavailable,
            format!("image '{image}' of worker {pod} cannot be had: {why}; mend spec.worker.image"),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            (Reason::WorkerCrashing, cannot_start(pod, image, &why))
        }
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            (Reason::WorkerCrashing, crashing(pod, image, last))
        }
        _ => return None,
    };
    Some(PodTrouble { reason, message, lacks_memory: false })
}

fn cannot_start(pod: &str, image: &str, why: &str) -> String {
    format!("worker {pod} cannot be started from image '{image}': {why}; mend spec.worker")
}

fn crashing(pod: &str, image: &str, last: Option<&ContainerStateTerminated>) -> String {
    let Some(last) = last else { return format!("worker {pod} ends again and again; see its logs") };
    let (code, reason) = (last.exit_code, last.reason.as_deref().unwrap_or("Error"));
    match reason {
        // The program was never run.
        "StartError" | "ContainerCannotRun" => cannot_start(pod, image, last.message.as_deref().unwrap_or_default()),
        "OOMKilled" => format!(
            "worker {pod} ends again and again for want of memory (OOMKilled); raise \
             spec.worker.resources.limits.memory"
        ),
        _ => format!(
            "worker {pod} of image '{image}' ends again and again (exit code {code}, {reason}); see the logs of its \
             last run, or mend spec.worker.image"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a-worker-0"}, "status": status})).unwrap()
    }

    fn waiting(reason: &str, last: &Value) -> Pod {
        let state = json!({"waiting": {"reason": reason, "message": "why"}});
        let container = json!({
            "name": "worker", "image": "img:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": {"terminated": last}
        });
        pod(&json!({"containerStatuses": [container]}))
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_named() {
        let unscheduled = json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory."
        }]});
        for (pod, reason, words) in [
            (pod(&unscheduled), Reason::Unschedulable, ["a-worker-0", "Insufficient memory"]),
            (waiting("ErrImagePull", &Value::Null), Reason::ImageUnavailable, ["'img:1'", "spec.worker.image"]),
            (waiting("RunContainerError", &Value::Null), Reason::WorkerCrashing, ["'img:1'", "why"]),
            (
                waiting("CrashLoopBackOff", &json!({"exitCode": 128, "reason": "StartError", "message": "no program"})),
                Reason::WorkerCrashing,
                ["'img:1'", "no program"],
            ),
            (
                waiting("CrashLoopBackOff", &json!({"exitCode": 137, "reason": "OOMKilled"})),
                Reason::WorkerCrashing,
                ["want of memory", "limits.memory"],
            ),
            (
                waiting("CrashLoopBackOff", &json!({"exitCode": 3, "reason": "Error"})),
                Reason::WorkerCrashing,
                ["exit code 3", "logs"],
            ),
        ] {
            let trouble = pod_trouble(&pod).unwrap();
            assert_eq!(trouble.reason, reason);
            assert!(words.iter().all(|word| trouble.message.contains(word)), "{}", trouble.message);
            assert_eq!(trouble.lacks_memory, reason == Reason::Unschedulable);
        }
        assert_eq!(pod_trouble(&waiting("ContainerCreating", &Value::Null)), None);
    }
}
