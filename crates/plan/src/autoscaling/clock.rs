//! What schedules ask for.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_api::autoscaling::DueSchedule;

use super::{Scene, ValidSchedule};

/// The schedule that was due last; of several at the same instant, the last in the list.
pub(super) fn due(scene: &Scene<'_>) -> Option<DueSchedule> {
    let latest = |schedule: &ValidSchedule| Some(told(schedule, last(schedule, scene)?));
    let found = scene.spec.schedules.iter().filter(|schedule| !schedule.suspend).filter_map(latest);
    found.max_by_key(|due| due.time.0)
}

fn last(schedule: &ValidSchedule, scene: &Scene<'_>) -> Option<Timestamp> {
    let at = if schedule.run_once {
        // Its first time only.
        schedule.rule.next(scene.created).filter(|first| *first <= scene.now)?
    } else {
        schedule.rule.last(scene.now).filter(|last| *last > scene.created)?
    };
    let in_force = scene.kept.schedule.as_ref().filter(|kept| kept.name == schedule.name).map(|kept| kept.time.0);
    match schedule.starting_deadline {
        // Nobody saw it in time: what it asked for before stays.
        Some(deadline) if scene.now > at + deadline => in_force.filter(|before| *before <= at),
        _ => Some(at),
    }
}

fn told(schedule: &ValidSchedule, at: Timestamp) -> DueSchedule {
    DueSchedule { name: schedule.name.clone(), time: Time(at), replicas: schedule.replicas }
}

/// The next `count` times, the earliest first.
pub(super) fn upcoming(scene: &Scene<'_>, count: usize) -> Vec<DueSchedule> {
    let mut all = Vec::new();
    for schedule in scene.spec.schedules.iter().filter(|schedule| !schedule.suspend) {
        if schedule.run_once {
            let first = schedule.rule.next(scene.created).filter(|first| *first > scene.now);
            all.extend(first.map(|first| told(schedule, first)));
            continue;
        }
        let times = std::iter::successors(schedule.rule.next(scene.now), |at| schedule.rule.next(*at));
        all.extend(times.take(count).map(|at| told(schedule, at)));
    }
    all.sort_by_key(|due| due.time.0);
    all.truncate(count);
    all
}
