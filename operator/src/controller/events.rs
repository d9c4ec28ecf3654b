//! Events, on transitions only.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use penstock_api::{Reason, human_bytes};
use penstock_plan::scaling::Step;
use tokio::sync::mpsc;

use super::sizing::Sizing;
use crate::tasks::Tasks;

/// Type, reason, and what to tell.
type News = (EventType, String, String);

/// Reasons for a condition to be False that are part of a normal life.
const BENIGN: [Reason; 10] = [
    Reason::WorkersNotReady,
    Reason::NotReported,
    Reason::NoWorkers,
    Reason::Draining,
    Reason::DatasetNotFound,
    Reason::Deleting,
    Reason::VolumePending,
    Reason::RollingOut,
    Reason::WaitingForTurn,
    Reason::WaitingForDeletion,
];

/// What is worth an Event between two sets of conditions.
pub(super) fn transitions(old: &[Condition], new: &[Condition]) -> Vec<News> {
    let mut events: Vec<News> = Vec::new();
    for condition in new {
        let before = old.iter().find(|c| c.type_ == condition.type_);
        if before.is_some_and(|b| b.status == condition.status && b.reason == condition.reason) {
            continue;
        }
        let benign = BENIGN.iter().any(|reason| condition.reason == reason.as_ref());
        let news = match condition.status.as_str() {
            // Good news at the start are no news, but for the one that users wait for.
            "True" => before.is_some_and(|b| b.status == "False") || condition.type_ == "Bound",
            "False" => !benign || before.is_some_and(|b| b.status == "True"),
            _ => false,
        };
        // Several conditions may fail for one reason: one Event says it.
        if news && events.iter().all(|(_, reason, _)| *reason != condition.reason) {
            let normal = condition.status == "True" || benign;
            let kind = if normal { EventType::Normal } else { EventType::Warning };
            events.push((kind, condition.reason.clone(), condition.message.clone()));
        }
    }
    events
}

/// What is worth an Event about the number of workers. `was_draining` tells what the last status said.
pub(super) fn scaling(was_draining: bool, wanted: u32, step: &Step) -> Option<News> {
    let news = |type_, reason: &str, note: String| Some((type_, reason.to_owned(), note));
    match step {
        Step::Steady => None,
        Step::ScalingOut { from } => news(
            EventType::Normal,
            "ScalingOut",
            format!("from {from} workers to {wanted}; new ones join once they are ready"),
        ),
        Step::Draining { .. } if was_draining => None,
        Step::Draining { left_bytes } => {
            let note = format!(
                "to {wanted} workers; the leaving ones hand over {} first, and serve meanwhile",
                human_bytes(*left_bytes)
            );
            news(EventType::Normal, "Draining", note)
        }
        Step::Drained => news(EventType::Normal, "Drained", format!("the leaving workers go; {wanted} stay")),
        Step::TimedOut { left_bytes } => {
            let note = format!(
                "the leaving workers go, although they still hold {} that others will fetch from the UFS: \
                 spec.drainTimeoutSeconds is over; raise it to wait longer",
                human_bytes(*left_bytes)
            );
            news(EventType::Warning, "DrainTimedOut", note)
        }
    }
}

/// What is worth an Event about why there shall be another number of workers.
pub(super) fn sizing(sizing: &Sizing) -> Option<News> {
    let (before, now) = (sizing.before?, sizing.decision.replicas);
    let why = sizing.decision.status.message.as_deref().unwrap_or_default();
    (before != now).then(|| (EventType::Normal, "Resized".to_owned(), format!("from {before} workers to {now}: {why}")))
}

/// For a pod that mounts a Dataset whose workers were let go.
pub(super) fn waking(dataset: &str) -> News {
    let note = format!(
        "it waits for the workers of Dataset '{dataset}', which were let go while nobody used it and are being started; \
         reads wait for them"
    );
    (EventType::Normal, "WakingWorkers".to_owned(), note)
}

/// Publishes in the background, one at a time: an Event must not delay what it tells of, and one that is lost, as in a
/// namespace that is going, changes nothing.
pub struct EventRecorder(mpsc::UnboundedSender<(ObjectReference, News)>);

impl EventRecorder {
    pub fn start(client: Client, tasks: &mut Tasks) -> Self {
        let reporter = Reporter { controller: "penstock-operator".into(), instance: None };
        let recorder = Recorder::new(client, reporter);
        let (sender, mut queue) = mpsc::unbounded_channel::<(ObjectReference, News)>();
        tasks.spawn("events", async move {
            while let Some((regarding, (type_, reason, mut note))) = queue.recv().await {
                // The API server's limit is 1 kB.
                note.truncate(note.floor_char_boundary(1000));
                let event = Event { type_, reason, note: Some(note), action: "Reconcile".into(), secondary: None };
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    let (kind, name) = (regarding.kind.unwrap_or_default(), regarding.name.unwrap_or_default());
                    tracing::warn!(kind, name, reason = event.reason, %error, "an Event was not recorded");
                }
            }
        });
        Self(sender)
    }

    pub(super) fn publish(&self, regarding: &ObjectReference, events: impl IntoIterator<Item = News>) {
        for event in events {
            // Closed means that the operator stops.
            let _ = self.0.send((regarding.clone(), event));
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: "m".into(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn each_step_of_scaling_is_told_once() {
        for (was_draining, step, reason) in [
            (false, Step::Steady, None),
            (false, Step::ScalingOut { from: 1 }, Some("ScalingOut")),
            (false, Step::Draining { left_bytes: 5 }, Some("Draining")),
            (true, Step::Draining { left_bytes: 5 }, None),
            (true, Step::Drained, Some("Drained")),
            (true, Step::TimedOut { left_bytes: 5 }, Some("DrainTimedOut")),
        ] {
            assert_eq!(scaling(was_draining, 2, &step).map(|(_, reason, _)| reason).as_deref(), reason, "{step:?}");
        }
    }

    #[test]
    fn only_transitions_make_events() {
        let bad = condition("Ready", "False", "SecretNotFound");
        let starting = condition("Ready", "False", "WorkersNotReady");
        let good = condition("Ready", "True", "WorkersReady");
        for (old, new, expected) in [
            (vec![], vec![starting.clone()], vec![]),
            (vec![], vec![bad.clone()], vec!["SecretNotFound"]),
            (vec![bad.clone()], vec![bad.clone()], vec![]),
            (vec![bad.clone()], vec![good.clone()], vec!["WorkersReady"]),
            (vec![good.clone()], vec![starting], vec!["WorkersNotReady"]),
            (vec![], vec![bad.clone(), condition("Bound", "False", "SecretNotFound")], vec!["SecretNotFound"]),
            (vec![], vec![condition("Bound", "True", "Bound")], vec!["Bound"]),
            (vec![], vec![condition("Bound", "False", "VolumePending")], vec![]),
            (vec![], vec![condition("Bound", "False", "ApplyFailed")], vec!["ApplyFailed"]),
        ] {
            let got: Vec<_> = transitions(&old, &new).into_iter().map(|(_, reason, _)| reason).collect();
            assert_eq!(got, expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn what_someone_has_to_mend_is_a_warning_even_when_nothing_was_well_before() {
        for reason in [
            Reason::ApplyFailed,
            Reason::PodsRefused,
            Reason::NodePluginMissing,
            Reason::VolumeUnavailable,
            Reason::SecretNotAllowed,
            Reason::Unschedulable,
            Reason::WorkersUnreachable,
        ] {
            let news = transitions(&[], &[condition("Ready", "False", reason.as_ref())]);
            assert!(matches!(news.as_slice(), [(EventType::Warning, ..)]), "{reason}: {news:?}");
        }
    }
}
