//! How many workers there shall be: decided anew each time from what is written, what is kept in the status, what was
//! measured, and the clock.
//!
//! An order by hand holds until a schedule is due. Else it is the greatest of what the schedule in force and the metrics
//! wish, between the least and the most; nothing at all when nobody uses the Dataset and `idle` is set; and at least one
//! worker while a pod mounts it.

mod clock;
mod forecast;
mod pace;
mod valid;
mod wish;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_api::autoscaling::{AutoscalingStatus, DueSchedule, MetricStatus, Order, SizeReason};

pub use forecast::{Forecast, Learned};
pub use pace::Past;
pub(crate) use valid::calendar;
pub use valid::{CalendarTexts, ValidAutoscaling, ValidMetric, ValidSchedule};
pub use wish::Measured;

/// How many changes to come are told.
const TOLD: usize = 3;

/// What the size is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub spec: &'a ValidAutoscaling,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Who changed it last, as the API server has it.
    pub changed_by: Option<&'a str>,
    /// What the last decision left.
    pub kept: &'a AutoscalingStatus,
    /// The size decided last; `None` before the first decision.
    pub current: Option<u32>,
    pub measured: &'a Measured,
    /// What other sizes would give; `None` until enough was read.
    pub forecast: Option<&'a Forecast<'a>>,
    /// What metrics wished, and changes, since `started`.
    pub past: &'a Past,
    /// Pods that mount the Dataset and have not ended, and loads that are under way.
    pub users: u32,
    /// When the runtime was made: what was due before does not count.
    pub created: Timestamp,
    pub now: Timestamp,
}

/// How many workers there shall be, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub replicas: u32,
    pub status: AutoscalingStatus,
    /// What metrics wish, before it is slowed down: to be noted in [`Past`].
    pub wish: Option<u32>,
    /// When something changes by the clock alone.
    pub look_again: Option<Duration>,
}

struct Size {
    replicas: u32,
    reason: SizeReason,
    message: String,
}

/// Decides the size.
pub fn decide(scene: &Scene<'_>) -> Decision {
    let due = clock::due(scene);
    let next = clock::upcoming(scene, TOLD);
    let order = order(scene);
    let is_new = order.as_ref().is_some_and(|order| order.time.0 == scene.now);
    // Where no schedule ends it, an order is where metrics go on from.
    let scene = &Scene { current: if is_new { Some(scene.replicas) } else { scene.current }, ..*scene };
    let is_scheduled = due.is_some() || !next.is_empty();
    let holding = order.as_ref().filter(|order| is_scheduled && due.as_ref().is_none_or(|due| due.time <= order.time));
    let wishes = wish::wishes(scene);
    let wish = wishes.iter().filter_map(|metric| metric.wish).max();
    let idle_since = idle_since(scene);
    let size = match holding {
        Some(order) => Size {
            replicas: order.replicas,
            reason: SizeReason::Ordered,
            message: format!("{} ordered{}, until a schedule is due", workers(order.replicas), by(order)),
        },
        None => automatic(scene, due.as_ref(), wish, &wishes, idle_since.as_ref()),
    };
    let changed = is_new || scene.current.is_some_and(|current| current != size.replicas);
    let status = AutoscalingStatus {
        reason: Some(size.reason),
        message: Some(size.message),
        observed_replicas: Some(scene.replicas),
        order,
        schedule: due,
        next: next.clone(),
        metrics: wishes,
        curve: scene.forecast.map(|forecast| forecast.told(scene)),
        last_scale_time: if changed { Some(Time(scene.now)) } else { scene.kept.last_scale_time.clone() },
        idle_since,
    };
    Decision { replicas: size.replicas, look_again: look_again(scene, &status), status, wish }
}

fn workers(number: u32) -> String {
    if number == 1 { "1 worker".to_owned() } else { format!("{number} workers") }
}

fn by(order: &Order) -> String {
    order.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default()
}

/// Another value of `spec.replicas` than the last one seen is an order. The first one is none: it is where things begin.
fn order(scene: &Scene<'_>) -> Option<Order> {
    match scene.kept.observed_replicas {
        Some(seen) if seen != scene.replicas => {
            Some(Order { replicas: scene.replicas, time: Time(scene.now), by: scene.changed_by.map(str::to_owned) })
        }
        Some(_) => scene.kept.order.clone(),
        None => None,
    }
}

fn automatic(
    scene: &Scene<'_>,
    due: Option<&DueSchedule>,
    wish: Option<u32>,
    wishes: &[MetricStatus],
    idle_since: Option<&Time>,
) -> Size {
    let spec = scene.spec;
    let floor = floor(scene, due);
    if let Some((after, since)) = spec.idle.zip(idle_since)
        && due.is_none_or(|due| due.replicas == 0)
        && since.0 + after <= scene.now
        && (scene.measured.unused_for.is_some() || scene.current == Some(0))
    {
        let message = format!("nobody has used the Dataset since {}; a pod that mounts it wakes the workers", since.0);
        return Size { replicas: 0, reason: SizeReason::Idle, message };
    }
    let paced = wish.map(|wish| pace::paced(scene, wish));
    let size = match paced {
        Some(paced) if paced > floor.replicas => {
            let (kind, why) = leading(wishes);
            let is_held = Some(paced) != wish;
            let held = if is_held {
                format!("; held at {} by spec.autoscaling.behavior", workers(paced))
            } else {
                String::new()
            };
            Size { replicas: paced, reason: kind, message: format!("{why}{held}") }
        }
        _ => floor,
    };
    woken(scene, clamped(spec, size))
}

/// What holds without any metric.
fn floor(scene: &Scene<'_>, due: Option<&DueSchedule>) -> Size {
    match due {
        Some(due) => Size {
            replicas: due.replicas,
            reason: SizeReason::Scheduled,
            message: format!("schedule '{}' asks for {} since {}", due.name, workers(due.replicas), due.time.0),
        },
        None if scene.spec.metrics.is_empty() => Size {
            replicas: scene.replicas,
            reason: SizeReason::Specified,
            message: format!("spec.replicas is {}, and no schedule was due yet", scene.replicas),
        },
        None => Size {
            replicas: scene.spec.min,
            reason: SizeReason::AtMinimum,
            message: format!("no metric wishes more than minReplicas {}", scene.spec.min),
        },
    }
}

/// Of the metrics with the greatest wish: one with data, if there is one.
fn leading(wishes: &[MetricStatus]) -> (SizeReason, String) {
    let greatest = wishes.iter().filter_map(|metric| metric.wish).max();
    let mut leaders = wishes.iter().filter(|metric| metric.wish == greatest);
    let leader = leaders.clone().find(|metric| metric.current.is_some()).or_else(|| leaders.next());
    let Some(leader) = leader else { return (SizeReason::NoData, String::new()) };
    let reason = if leader.current.is_some() { SizeReason::Metric } else { SizeReason::NoData };
    (reason, format!("{}: {}", leader.kind, leader.message.as_deref().unwrap_or_default()))
}

fn clamped(spec: &ValidAutoscaling, size: Size) -> Size {
    let bound = |replicas: u32, reason: SizeReason, name: &str| Size {
        replicas,
        reason,
        message: format!("{}; {name} is {replicas}", size.message),
    };
    if size.replicas > spec.max {
        bound(spec.max, SizeReason::AtMaximum, "maxReplicas")
    } else if size.replicas < spec.min {
        bound(spec.min, SizeReason::AtMinimum, "minReplicas")
    } else {
        size
    }
}

fn woken(scene: &Scene<'_>, size: Size) -> Size {
    if size.replicas > 0 || scene.users == 0 {
        return size;
    }
    let message = format!("pods or DataLoads use the Dataset ({})", scene.users);
    Size { replicas: 1, reason: SizeReason::Woken, message }
}

/// Since when nobody uses the Dataset. While no worker says whether files are open, nothing is concluded.
fn idle_since(scene: &Scene<'_>) -> Option<Time> {
    scene.spec.idle?;
    if scene.users > 0 {
        return None;
    }
    let kept = scene.kept.idle_since.clone();
    let sleeps = scene.current == Some(0);
    match scene.measured.unused_for {
        Some(unused) => {
            let last = scene.now - unused;
            Some(Time(kept.map_or(scene.now, |kept| kept.0.max(last))))
        }
        None if sleeps => kept.or(Some(Time(scene.now))),
        None => kept,
    }
}

fn look_again(scene: &Scene<'_>, status: &AutoscalingStatus) -> Option<Duration> {
    let until = |at: Timestamp| Duration::try_from(at.duration_since(scene.now)).ok();
    let tick = status.next.first().and_then(|next| until(next.time.0));
    let idle = scene.spec.idle.zip(status.idle_since.as_ref()).and_then(|(after, since)| until(since.0 + after));
    let metrics = (!scene.spec.metrics.is_empty()).then_some(pace::INTERVAL);
    [tick, idle, metrics].into_iter().flatten().min().map(|pause| pause.max(Duration::from_millis(50)))
}

#[cfg(test)]
mod tests;
