//! What each metric wishes.

use std::time::Duration;

use penstock_api::{
    autoscaling::{MetricStatus, MetricType},
    human_bytes,
};

use super::{Scene, ValidMetric, workers};
use crate::numbers::Rates;

/// A wish for fewer workers counts only if it would also stand with so much more load.
const MARGIN: f64 = 1.1;

/// What was measured of a runtime; `None` where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Over the last minute and the last five.
    pub minute: Option<Rates>,
    pub five_minutes: Option<Rates>,
    /// How long ago a mount last asked any worker for anything.
    pub unused_for: Option<Duration>,
    /// Bytes that one worker's tiers may take.
    pub worker_capacity: u64,
    /// Bytes that all tiers take.
    pub used_bytes: Option<u64>,
    /// Bytes of the Dataset.
    pub dataset_bytes: Option<u64>,
    /// Pods that mount the Dataset and wait to start.
    pub waiting_pods: Option<u32>,
}

/// What one metric makes of what was measured.
struct Wish {
    current: String,
    replicas: u32,
    message: String,
}

/// One for each metric. A metric without data keeps its last wish, or else the present size.
pub(super) fn wishes(scene: &Scene<'_>) -> Vec<MetricStatus> {
    scene.spec.metrics.iter().map(|metric| status(scene, metric)).collect()
}

fn status(scene: &Scene<'_>, metric: &ValidMetric) -> MetricStatus {
    if let Some(Wish { current, replicas, message }) = wish(scene, metric) {
        let wish = Some(replicas.clamp(scene.spec.min, scene.spec.max));
        return MetricStatus { kind: metric.kind, current: Some(current), wish, message: Some(message) };
    }
    let kept = scene.kept.metrics.iter().find(|kept| kept.kind == metric.kind).and_then(|kept| kept.wish);
    let wish = kept.or(scene.current).or(Some(scene.replicas));
    let held = wish.map(|wish| format!("; it holds {}", workers(wish))).unwrap_or_default();
    MetricStatus { kind: metric.kind, current: None, wish, message: Some(format!("no data{held}")) }
}

fn wish(scene: &Scene<'_>, metric: &ValidMetric) -> Option<Wish> {
    let (measured, target) = (scene.measured, metric.target);
    match metric.kind {
        MetricType::HitRatio => {
            let forecast = scene.forecast?;
            let replicas = forecast.wish(target / 100.0, scene);
            let (current, then) = (scene.current.unwrap_or(0), percent(forecast.ratio(replicas)));
            let message = match percent(forecast.ratio(current)) {
                now if now == then => format!("{} hit {then} % of what is read", workers(replicas)),
                now => format!("{} would hit {then} % of what is read, {now} % with {current}", workers(replicas)),
            };
            Some(Wish { current: percent(forecast.ratio(current)).to_string(), replicas, message })
        }
        MetricType::Throughput => {
            let rate = measured.minute?.total().max(measured.five_minutes.map_or(0.0, |rates| rates.total()));
            let replicas = steady(scene.current, rate, target);
            let (rate, target) = (human_bytes(rounded(rate, 2)), human_bytes(target as u64));
            let message = format!("readers take {rate}/s; {} at {target}/s each", workers(replicas));
            Some(Wish { current: format!("{rate}/s"), replicas, message })
        }
        MetricType::CachedPercent => {
            let all = measured.dataset_bytes?;
            let replicas = whole(all as f64 * target / 100.0, measured.worker_capacity as f64);
            let message = format!("{} hold {target} % of {}", workers(replicas), human_bytes(all));
            let room = measured.worker_capacity.saturating_mul(scene.current.unwrap_or(0).into());
            let percent = (room as f64 * 100.0 / all.max(1) as f64).min(100.0).round();
            Some(Wish { current: percent.to_string(), replicas, message })
        }
        MetricType::Capacity => {
            let used = measured.used_bytes? as f64;
            let replicas = steady(scene.current, used, measured.worker_capacity as f64 * target / 100.0);
            let room = measured.worker_capacity as f64 * f64::from(scene.current.unwrap_or(0));
            let percent = if room > 0.0 { (used * 100.0 / room).round() } else { 0.0 };
            let message = format!("tiers are {percent} % full; {} at {target} %", workers(replicas));
            Some(Wish { current: percent.to_string(), replicas, message })
        }
        MetricType::WaitingPods => {
            let waiting = measured.waiting_pods?;
            let replicas = whole(waiting.into(), target);
            let message = format!("{waiting} pods wait to start; {} at {target} each", workers(replicas));
            Some(Wish { current: waiting.to_string(), replicas, message })
        }
    }
}

pub(super) fn percent(part: f64) -> u32 {
    (part * 100.0).round() as u32
}

/// To so many digits: a status is not written for less.
pub(super) fn rounded(rate: f64, digits: i32) -> u64 {
    let more = digits - 1;
    let unit = 10_f64.powf(rate.max(10_f64.powi(more)).log10().floor() - f64::from(more));
    ((rate / unit).round() * unit) as u64
}

fn whole(load: f64, each: f64) -> u32 {
    if each > 0.0 { (load / each).ceil().min(f64::from(u32::MAX)) as u32 } else { 0 }
}

/// As many as the load asks for; a size that is only just too large stays.
fn steady(current: Option<u32>, load: f64, each: f64) -> u32 {
    let (up, down) = (whole(load, each), whole(load * MARGIN, each));
    match current {
        Some(current) if (up..=down).contains(&current) => current,
        Some(current) if current > down => down,
        _ => up,
    }
}
