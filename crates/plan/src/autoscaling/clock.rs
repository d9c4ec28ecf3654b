//! What schedules ask for.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_api::autoscaling::DueSchedule;

use super::{Scene, ValidAutoscaling, ValidSchedule};

/// The schedule that was due last; of several at the same instant, the last in the list.
pub(super) fn due(scene: &Scene<'_>) -> Option<DueSchedule> {
    let latest = |schedule: &ValidSchedule| Some(told(schedule, last(schedule, scene)?));
    let found = scene.spec.schedules.iter().filter(|schedule| !schedule.suspend).filter_map(latest);
    found.max_by_key(|due| due.time.0)
}

fn last(schedule: &ValidSchedule, scene: &Scene<'_>) -> Option<Timestamp> {
    let mut at = schedule.rule.last(scene.now)?;
    if schedule.run_once {
        // Its first time only.
        at = schedule.rule.next(scene.created).filter(|first| *first <= scene.now)?;
    }
    if at <= scene.created {
        return None;
    }
    is_in_time(schedule, at, scene).then_some(at)
}

/// A time that was acted on, or that is seen before its deadline.
fn is_in_time(schedule: &ValidSchedule, at: Timestamp, scene: &Scene<'_>) -> bool {
    let Some(deadline) = schedule.starting_deadline else { return true };
    let acted_on = scene.kept.schedule.as_ref().is_some_and(|kept| kept.name == schedule.name && kept.time.0 == at);
    acted_on || scene.now <= at + deadline
}

fn told(schedule: &ValidSchedule, at: Timestamp) -> DueSchedule {
    DueSchedule { name: schedule.name.clone(), time: Time(at), replicas: schedule.replicas }
}

/// The next `count` times, the earliest first.
pub(super) fn upcoming(spec: &ValidAutoscaling, now: Timestamp, count: usize) -> Vec<DueSchedule> {
    let mut all = Vec::new();
    for schedule in spec.schedules.iter().filter(|schedule| !schedule.suspend) {
        let mut at = now;
        let times = if schedule.run_once { 1 } else { count };
        for _ in 0..times {
            let Some(next) = schedule.rule.next(at) else { break };
            all.push(told(schedule, next));
            at = next;
        }
    }
    all.sort_by_key(|due| due.time.0);
    all.truncate(count);
    all
}
