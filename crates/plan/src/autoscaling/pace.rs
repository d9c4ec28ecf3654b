//! How fast metrics may move the size: as a HorizontalPodAutoscaler's `behavior`.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use penstock_api::autoscaling::{ScalingPolicy, ScalingPolicyType, ScalingRules, SelectPolicy};

use super::Scene;

/// Metrics are looked at so often.
pub(super) const INTERVAL: Duration = Duration::from_secs(15);
/// The longest window and period.
const KEPT: Duration = Duration::from_hours(1);
const DOWN_WINDOW: Duration = Duration::from_mins(5);
const UP: [ScalingPolicy; 2] = [
    ScalingPolicy { kind: ScalingPolicyType::Percent, value: 100, period_seconds: 15 },
    ScalingPolicy { kind: ScalingPolicyType::Pods, value: 4, period_seconds: 15 },
];
const DOWN: [ScalingPolicy; 1] = [ScalingPolicy { kind: ScalingPolicyType::Percent, value: 100, period_seconds: 15 }];

/// What metrics wished, and how the size changed, of one runtime since this process began to look at it.
#[derive(Clone, Debug)]
pub struct Past {
    started: Timestamp,
    wishes: VecDeque<(Timestamp, u32)>,
    changes: VecDeque<(Timestamp, i64)>,
}

impl Past {
    pub fn new(now: Timestamp) -> Self {
        Self { started: now, wishes: VecDeque::new(), changes: VecDeque::new() }
    }

    /// Notes what was decided: the wish, and the sizes before and after.
    pub fn note(&mut self, now: Timestamp, wish: Option<u32>, before: Option<u32>, after: u32) {
        self.wishes.extend(wish.map(|wish| (now, wish)));
        let change = before.map(|before| i64::from(after) - i64::from(before)).filter(|change| *change != 0);
        self.changes.extend(change.map(|change| (now, change)));
        prune(&mut self.wishes, now);
        prune(&mut self.changes, now);
    }

    fn wishes_within(&self, window: Duration, now: Timestamp) -> impl Iterator<Item = u32> {
        self.wishes.iter().filter(move |(at, _)| *at + window > now).map(|(_, wish)| *wish)
    }

    fn changed(&self, period: Duration, now: Timestamp, keep: fn(i64) -> bool) -> i64 {
        let recent = self.changes.iter().filter(|(at, _)| *at + period > now);
        recent.map(|(_, change)| *change).filter(|change| keep(*change)).sum()
    }
}

fn prune<T>(entries: &mut VecDeque<(Timestamp, T)>, now: Timestamp) {
    while entries.front().is_some_and(|(at, _)| *at + KEPT < now) {
        entries.pop_front();
    }
}

/// The size on the way from the present one to `wish`.
pub(super) fn paced(scene: &Scene<'_>, wish: u32) -> u32 {
    let Some(current) = scene.current else { return wish };
    let (up, down) = (&scene.spec.behavior.scale_up, &scene.spec.behavior.scale_down);
    let stable = stabilized(scene, wish, current, up.as_ref(), down.as_ref());
    if stable > current {
        stable.min(most(scene, current, up.as_ref()))
    } else {
        stable.max(least(scene, current, down.as_ref()))
    }
}

/// Not more than the least wish of the window when growing, not less than the greatest when shrinking.
fn stabilized(
    scene: &Scene<'_>,
    wish: u32,
    current: u32,
    up: Option<&ScalingRules>,
    down: Option<&ScalingRules>,
) -> u32 {
    let window = |rules: Option<&ScalingRules>, default| {
        let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
        seconds.map_or(default, |seconds| Duration::from_secs(seconds.into()))
    };
    let (up, down) = (window(up, Duration::ZERO), window(down, DOWN_WINDOW));
    let ceiling = scene.past.wishes_within(up, scene.now).fold(wish, u32::min);
    let mut floor = scene.past.wishes_within(down, scene.now).fold(wish, u32::max);
    // What was wished before this process began is not known: the size itself stands for it.
    if scene.past.started + down > scene.now {
        floor = floor.max(current);
    }
    // As clamping does it: the floor counts first.
    if current < ceiling {
        ceiling
    } else if current > floor {
        floor
    } else {
        current
    }
}

fn most(scene: &Scene<'_>, current: u32, rules: Option<&ScalingRules>) -> u32 {
    limit(rules, &UP, |policy, period| {
        let begun = i64::from(current) - scene.past.changed(period, scene.now, |change| change > 0);
        begun + step(policy, begun, true)
    })
    .map_or(current, |(least, most)| pick(rules, least, most).max(current))
}

fn least(scene: &Scene<'_>, current: u32, rules: Option<&ScalingRules>) -> u32 {
    limit(rules, &DOWN, |policy, period| {
        let begun = i64::from(current) - scene.past.changed(period, scene.now, |change| change < 0);
        begun - step(policy, begun, false)
    })
    .map_or(current, |(least, most)| pick(rules, most, least).min(current))
}

fn step(policy: &ScalingPolicy, begun: i64, up: bool) -> i64 {
    let value = i64::from(policy.value);
    match policy.kind {
        ScalingPolicyType::Pods => value,
        // At least one, or a small runtime would never move.
        ScalingPolicyType::Percent if up => ((begun * value + 99) / 100).max(1),
        ScalingPolicyType::Percent => (begun * value + 99) / 100,
    }
}

/// The least and the greatest of what the policies allow; `None` where no change is allowed.
fn limit(
    rules: Option<&ScalingRules>,
    default: &[ScalingPolicy],
    allowed: impl Fn(&ScalingPolicy, Duration) -> i64,
) -> Option<(u32, u32)> {
    if rules.is_some_and(|rules| rules.select_policy == SelectPolicy::Disabled) {
        return None;
    }
    let policies = rules.map(|rules| rules.policies.as_slice()).filter(|policies| !policies.is_empty());
    let limits = policies.unwrap_or(default).iter().map(|policy| {
        let limit = allowed(policy, Duration::from_secs(policy.period_seconds.into()));
        u32::try_from(limit.max(0)).unwrap_or(u32::MAX)
    });
    let limits: Vec<u32> = limits.collect();
    Some((*limits.iter().min()?, *limits.iter().max()?))
}

/// Of the limits, the stricter or the wider one, as the rules say.
fn pick(rules: Option<&ScalingRules>, stricter: u32, wider: u32) -> u32 {
    match rules.map(|rules| rules.select_policy) {
        Some(SelectPolicy::Min) => stricter,
        _ => wider,
    }
}
