//! From what a user wrote to what can be decided from. What cannot be read is named, and the rest goes on.

use std::{collections::BTreeMap, time::Duration};

use jiff::tz::TimeZone;
use penstock_api::{
    Quota, Reason,
    autoscaling::{Autoscaling, Behavior, Calendar, ConfigMapKey, Metric, MetricType, ScaleIn, ScheduledSize},
};
use penstock_schedule::{self as schedule, Days, Rule, Schedule};

use crate::validate::Invalid;

/// The texts of calendars that are in ConfigMaps; those that do not exist are absent.
pub type CalendarTexts = BTreeMap<ConfigMapKey, String>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValidAutoscaling {
    pub min: u32,
    pub max: u32,
    pub schedules: Vec<ValidSchedule>,
    pub metrics: Vec<ValidMetric>,
    pub behavior: Behavior,
    pub idle: Option<Duration>,
    pub scale_in: ScaleIn,
    /// What is left out, and why.
    pub problems: Vec<Invalid>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidSchedule {
    pub name: String,
    pub rule: Rule,
    pub replicas: u32,
    pub suspend: bool,
    pub run_once: bool,
    pub starting_deadline: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidMetric {
    pub kind: MetricType,
    /// In the unit of the metric: percent, bytes per second, or pods.
    pub target: f64,
}

impl ValidAutoscaling {
    pub fn new(spec: &Autoscaling, texts: &CalendarTexts) -> Self {
        let mut problems = Vec::new();
        if spec.min_replicas > spec.max_replicas {
            let (min, max) = (spec.min_replicas, spec.max_replicas);
            problems.push(invalid(format!(
                "spec.autoscaling.minReplicas {min} is above maxReplicas {max}; lower minReplicas or raise maxReplicas"
            )));
        }
        let mut keep = |result| match result {
            Ok(good) => Some(good),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let calendars: BTreeMap<&str, _> =
            spec.calendars.iter().map(|one| (one.name.as_str(), calendar(one, texts))).collect();
        let schedules = spec.schedules.iter().filter_map(|one| keep(scheduled(spec, one, &calendars))).collect();
        let metrics = spec.metrics.iter().map(metric);
        let mut good = Vec::new();
        for metric in metrics {
            match metric {
                Ok(metric) => good.push(metric),
                Err(problem) => problems.push(problem),
            }
        }
        Self {
            min: spec.min_replicas.min(spec.max_replicas),
            max: spec.max_replicas,
            schedules,
            metrics: good,
            behavior: spec.behavior.clone(),
            idle: spec.idle.as_ref().map(|idle| Duration::from_secs(idle.after_seconds.into())),
            scale_in: spec.scale_in,
            problems,
        }
    }
}

impl ValidAutoscaling {
    /// Whether it moves nothing by itself.
    pub fn is_idle(&self) -> bool {
        self.schedules.is_empty() && self.metrics.is_empty() && self.idle.is_none()
    }
}

fn invalid(message: impl Into<String>) -> Invalid {
    Invalid::new(Reason::InvalidSpec, message)
}

type Read = Result<schedule::Calendar, Invalid>;

pub(crate) fn calendar(calendar: &Calendar, texts: &CalendarTexts) -> Read {
    let name = &calendar.name;
    let read = |text: &str, place: &str| {
        let parsed = schedule::Calendar::parse(text);
        parsed.map_err(|error| invalid(format!("calendar '{name}'{place}: {error}")))
    };
    match &calendar.config_map {
        None => read(&calendar.dates.join("\n"), ""),
        Some(at) => match texts.get(at) {
            Some(text) => read(text, &format!(" (key '{}' of ConfigMap '{}')", at.key, at.name)),
            None => Err(invalid(format!(
                "calendar '{name}' names key '{}' of ConfigMap '{}', which is not there; create it, or \
                 correct configMap",
                at.key, at.name
            ))),
        },
    }
}

fn scheduled(
    spec: &Autoscaling,
    one: &ScheduledSize,
    calendars: &BTreeMap<&str, Read>,
) -> Result<ValidSchedule, Invalid> {
    let place = |what: String| invalid(format!("spec.autoscaling.schedules '{}': {what}", one.name));
    let schedule = Schedule::parse(&one.schedule).map_err(|error| place(error.to_string()))?;
    let zone = match one.time_zone.as_ref().or(spec.time_zone.as_ref()) {
        Some(name) => schedule::zone(name).map_err(|error| place(error.to_string()))?,
        None => TimeZone::UTC,
    };
    let named = |names: &[String]| -> Result<Vec<schedule::Calendar>, Invalid> {
        let find = |name: &String| match calendars.get(name.as_str()) {
            Some(read) => read.clone(),
            None => Err(place(format!("calendar '{name}' is not in spec.autoscaling.calendars; add it there"))),
        };
        names.iter().map(find).collect()
    };
    let days = Days { skip: named(&one.skip_calendars)?, only: named(&one.only_calendars)? };
    Ok(ValidSchedule {
        name: one.name.clone(),
        rule: Rule { schedule, zone, days },
        replicas: one.replicas,
        suspend: one.suspend,
        run_once: one.run_once,
        starting_deadline: one.starting_deadline_seconds.map(|seconds| Duration::from_secs(seconds.into())),
    })
}

fn metric(metric: &Metric) -> Result<ValidMetric, Invalid> {
    let problem = |error| invalid(format!("spec.autoscaling.metrics '{}': target: {error}", metric.kind));
    let target = Quota::bytes(&metric.target).map_err(problem)?;
    Ok(ValidMetric { kind: metric.kind, target: target as f64 })
}
