//! What is wrong with worker pods, by what their status and the Events about them say.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use kube::ResourceExt;
use penstock_api::{Reason, names::CSI_DRIVER};

use crate::controller::refusal;

/// A pod whose volumes are not mounted after this time waits for something that may not come.
const SLOW: Duration = Duration::from_secs(10);

/// Why a worker pod does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    pub reason: Reason,
    pub message: String,
    /// No node has as much of it free as the pod asks for.
    pub lacks: Option<Scarce>,
}

/// What tiers take of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    Memory,
    Disk,
}

impl Scarce {
    /// The scheduler's word, for any resource, is "Insufficient NAME".
    fn of(why: &str) -> Option<Self> {
        let lacks = |resource: &str| why.contains(&format!("Insufficient {resource}"));
        if lacks("memory") { Some(Self::Memory) } else { lacks("ephemeral-storage").then_some(Self::Disk) }
    }
}

/// What keeps the workers from serving, by their pods and the Events about these and their StatefulSet.
pub fn trouble(pods: &[(u32, Arc<Pod>)], events: &[Event]) -> Option<PodTrouble> {
    let about = |pod: &Pod| -> Vec<&Event> {
        events.iter().filter(|event| event.involved_object.uid == pod.metadata.uid).collect()
    };
    let of_set: Vec<_> =
        events.iter().filter(|event| event.involved_object.kind.as_deref() == Some("StatefulSet")).collect();
    let pods = || pods.iter().map(|(_, pod)| pod);
    pods()
        .find_map(|pod| pod_trouble(pod))
        .or_else(|| pods().find_map(|pod| stuck_trouble(pod, &about(pod))))
        .or_else(|| missing_trouble(&of_set))
}

/// `None` for a pod that serves, or that has nothing to complain about yet.
pub(in crate::controller) fn pod_trouble(pod: &Pod) -> Option<PodTrouble> {
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
            lacks: Scarce::of(&why),
            message: format!("no node takes worker {name}: {}", why.trim_end_matches('.')),
        });
    }
    status.container_statuses.iter().flatten().find_map(|container| container_trouble(&name, container))
}

/// Whether the pod has a node and has waited for long to be started there.
pub fn is_stuck(pod: &Pod, now: Timestamp) -> bool {
    let Some(status) = pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Pending")) else { return false };
    let waited = status.start_time.as_ref().and_then(|at| Duration::try_from(now.duration_since(at.0)).ok());
    let waiting = |container: &ContainerStatus| {
        Some(container.state.as_ref()?.waiting.as_ref()?.reason.as_deref() == Some("ContainerCreating"))
    };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    waited.is_some_and(|waited| waited > SLOW) && containers.iter().all(|container| waiting(container) == Some(true))
}

/// Why a pod that is stuck does not start, by the Events about it.
fn stuck_trouble(pod: &Pod, events: &[&Event]) -> Option<PodTrouble> {
    let name = pod.name_any();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let why = newest(events, &["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"])?;
    let (reason, message) = if why.contains(&format!("driver name {CSI_DRIVER} not found")) {
        let message = format!(
            "node '{node}' of worker {name} runs no Penstock node plugin ({CSI_DRIVER}); let the chart's DaemonSet run \
             there (mount.nodeSelector, mount.tolerations), or keep workers off the node with spec.worker.nodeSelector"
        );
        (Reason::NodePluginMissing, message)
    } else {
        let mend = "correct spec.worker.volumes or the paths of spec.tieredStore, or mend the node";
        (Reason::VolumeUnavailable, format!("worker {name} cannot start on node '{node}': {why}; {mend}"))
    };
    Some(PodTrouble { reason, message, lacks: None })
}

/// Why pods are missing, by the Events about their StatefulSet.
fn missing_trouble(events: &[&Event]) -> Option<PodTrouble> {
    let why = newest(events, &["FailedCreate"])?;
    // What comes before is the StatefulSet controller's: "create Pod NAME in StatefulSet NAME failed error: ".
    let why = why.rsplit_once("failed error: ").map_or(why, |(_, why)| why).trim_end_matches('.');
    let message = format!("worker pods cannot be created: {why}; {}", refusal::mend(why));
    Some(PodTrouble { reason: Reason::PodsRefused, message, lacks: None })
}

/// What the newest Event with one of these reasons says.
fn newest<'a>(events: &[&'a Event], reasons: &[&str]) -> Option<&'a str> {
    let of_reason = |event: &&&Event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason));
    let at = |event: &&&Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    let newest: &'a Event = events.iter().filter(of_reason).max_by_key(at)?;
    newest.message.as_deref()
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
    Some(PodTrouble { reason, message, lacks: None })
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
            assert_eq!(trouble.lacks == Some(Scarce::Memory), reason == Reason::Unschedulable);
        }
        assert_eq!(pod_trouble(&waiting("ContainerCreating", &Value::Null)), None);
    }

    fn event(reason: &str, message: &str, second: i64) -> Event {
        let at = Timestamp::from_second(second).unwrap().to_string();
        let kind = if reason.contains("Create") { "StatefulSet" } else { "Pod" };
        let event = json!({
            "metadata": {}, "involvedObject": {"kind": kind}, "reason": reason, "message": message, "lastTimestamp": at
        });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_pod_is_stuck_when_it_waits_on_its_node_for_long() {
        let creating = json!([{
            "name": "worker", "image": "img:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}}
        }]);
        let started = "1970-01-01T00:01:40Z";
        for (status, second, stuck) in [
            (json!({"phase": "Pending", "startTime": started, "containerStatuses": creating}), 111, true),
            (json!({"phase": "Pending", "startTime": started}), 111, true),
            (json!({"phase": "Pending", "startTime": started, "containerStatuses": creating}), 109, false),
            (json!({"phase": "Pending"}), 111, false),
            (json!({"phase": "Running", "startTime": started}), 111, false),
        ] {
            assert_eq!(is_stuck(&pod(&status), Timestamp::from_second(second).unwrap()), stuck, "{status} {second}");
        }
    }

    #[test]
    fn a_node_without_the_plugin_and_volumes_that_cannot_be_mounted_are_named() {
        let mut pod = pod(&json!({}));
        pod.spec = serde_json::from_value(json!({"nodeName": "n7", "containers": []})).unwrap();
        let driver = "MountVolume.SetUp failed for volume \"socket\" : kubernetes.io/csi: mounter.SetUpAt failed to get \
                      CSI client: driver name csi.penstock.dev not found in the list of registered CSI drivers";
        let path = "MountVolume.SetUp failed for volume \"tier\" : hostPath type check failed: /ssd is not a directory";
        for (events, expected) in [
            (vec![], None),
            (vec![event("Scheduled", "assigned", 1)], None),
            (
                vec![event("FailedMount", driver, 1)],
                Some((Reason::NodePluginMissing, ["node 'n7'", "a-worker-0", "mount.tolerations"])),
            ),
            (
                vec![event("FailedMount", path, 2), event("FailedMount", driver, 1)],
                Some((Reason::VolumeUnavailable, ["node 'n7'", "/ssd is not a directory", "spec.tieredStore"])),
            ),
        ] {
            let trouble = trouble(&[(0, Arc::new(pod.clone()))], &events);
            assert_eq!(trouble.as_ref().map(|trouble| trouble.reason), expected.map(|(reason, _)| reason));
            for word in expected.iter().flat_map(|(_, words)| words) {
                assert!(trouble.as_ref().unwrap().message.contains(word), "{trouble:?}");
            }
        }
    }

    #[test]
    fn pods_that_are_refused_are_told_with_the_words_of_the_api_server_and_the_mend() {
        let prefix = "create Pod a-worker-0 in StatefulSet a-worker failed error: pods \"a-worker-0\" is forbidden: ";
        for (why, mend) in [
            ("exceeded quota: compute, requested: pods=1, used: pods=5, limited: pods=5", "ResourceQuota"),
            (
                "violates PodSecurity \"restricted:latest\": restricted volume types",
                "pod-security.kubernetes.io/enforce",
            ),
            ("maximum memory usage per Container is 1Gi, but limit is 2Gi", "LimitRange"),
            ("admission webhook \"v.example.com\" denied the request: no", "webhook's rule"),
        ] {
            let events = [event("FailedCreate", "old", 1), event("FailedCreate", &format!("{prefix}{why}"), 2)];
            let trouble = trouble(&[], &events).unwrap();
            assert_eq!(trouble.reason, Reason::PodsRefused);
            assert!(trouble.message.contains(why) && trouble.message.contains(mend), "{}", trouble.message);
            assert!(trouble.message.starts_with("worker pods cannot be created: pods"), "{}", trouble.message);
        }
        assert_eq!(trouble(&[], &[event("SuccessfulCreate", "made", 1)]), None);
    }
}
