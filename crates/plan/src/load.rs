//! What workers are to load for a DataLoad, and how far it is: decided anew each time from its status, what workers tell,
//! and the clock.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use penstock_api::{
    ConditionType, DataLoad, DataLoadPhase, DataLoadStatus, FailedFile, LoadAction, LoadPolicy, Quota, Reason,
    condition::{Finding, conditions},
    human_bytes,
};
use penstock_schedule::{self as schedule, Days, Rule, Schedule};
use penstock_wire::message::{LoadOrder, LoadProgress, LoadState, LoadTarget};

use crate::{autoscaling::CalendarTexts, scaling::WorkerSeen, validate::Invalid};

/// Failed files that are named.
const NAMED: usize = 10;

/// What a load is decided from.
pub struct Scene<'a> {
    pub load: &'a DataLoad,
    /// How many workers the runtime shall have.
    pub wanted: u32,
    /// Number of the member list in force.
    pub epoch: u64,
    pub workers: &'a [WorkerSeen],
    /// Phase of another DataLoad of the namespace; `None` when there is none of the name.
    pub phase_of: &'a dyn Fn(&str) -> Option<DataLoadPhase>,
    /// Texts of ConfigMaps that it names.
    pub texts: &'a CalendarTexts,
    /// Bytes per second of late.
    pub rate: Option<u64>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What workers shall do for it now.
    pub order: Option<LoadOrder>,
    pub status: DataLoadStatus,
    /// Whether it has something to do, for which workers have to be there.
    pub is_active: bool,
    /// When it begins by the clock.
    pub look_again: Option<Duration>,
}

/// What one run asks for, readable.
struct Wanted {
    targets: Vec<LoadTarget>,
    bandwidth: Option<u64>,
    rule: Option<Rule>,
}

/// The sum of what workers tell of a run.
#[derive(Default)]
struct Sum {
    total: LoadProgress,
    /// Every worker that shall be there is done by the list in force.
    is_done: bool,
    is_told: bool,
}

pub fn decide(scene: &Scene<'_>) -> Decision {
    let old = scene.load.status.clone().unwrap_or_default();
    let wanted = match wanted(scene) {
        Ok(wanted) => wanted,
        Err(problem) => return pending(scene, old, problem.reason, problem.message, None),
    };
    let next = wanted.rule.as_ref().and_then(|rule| rule.next(scene.now));
    let old = DataLoadStatus { next_time: next.map(Time), ..old };
    let phase = old.phase.unwrap_or(DataLoadPhase::Pending);
    let due = due(scene, &old, wanted.rule.as_ref());
    let is_changed = old.observed_generation.is_some_and(|seen| Some(seen) != scene.load.metadata.generation);
    let begins = match phase {
        DataLoadPhase::Running => is_changed,
        DataLoadPhase::Pending => wanted.rule.is_none() || due.is_some(),
        DataLoadPhase::Complete | DataLoadPhase::Failed => due.is_some() || (is_changed && wanted.rule.is_none()),
    };
    if begins {
        return begin(scene, old, &wanted, due);
    }
    match phase {
        DataLoadPhase::Running => go_on(scene, old, &wanted),
        DataLoadPhase::Complete if scene.load.spec.policy == LoadPolicy::OnChange => go_on(scene, old, &wanted),
        DataLoadPhase::Pending => {
            let message = next.map_or("it has no time to run any more".to_owned(), |next| format!("it runs at {next}"));
            pending(scene, old, Reason::Scheduled, message, next)
        }
        DataLoadPhase::Complete | DataLoadPhase::Failed => {
            let status = DataLoadStatus { observed_generation: scene.load.metadata.generation, ..old };
            Decision { order: None, status, is_active: false, look_again: until(next, scene.now) }
        }
    }
}

/// The time of the schedule that calls for a run: the last one, unless a run was for it.
fn due(scene: &Scene<'_>, old: &DataLoadStatus, rule: Option<&Rule>) -> Option<Timestamp> {
    let last = rule?.last(scene.now)?;
    let created = scene.load.creation_timestamp().map_or(scene.now, |created| created.0);
    let done = old.last_time.as_ref().map_or(created, |done| done.0.max(created));
    (last > done).then_some(last)
}

fn begin(scene: &Scene<'_>, old: DataLoadStatus, wanted: &Wanted, due: Option<Timestamp>) -> Decision {
    if let Some(before) = &scene.load.spec.run_after
        && (scene.phase_of)(&before.name) != Some(DataLoadPhase::Complete)
    {
        let message = format!("it waits until DataLoad '{}' is complete", before.name);
        return pending(scene, old, Reason::WaitingForLoad, message, None);
    }
    if !scene.workers.iter().any(|worker| worker.ready) {
        let message = "it waits for workers to serve the Dataset".to_owned();
        return Decision { is_active: true, ..pending(scene, old, Reason::WorkersNotReady, message, None) };
    }
    let status = DataLoadStatus {
        phase: Some(DataLoadPhase::Running),
        run: old.run + 1,
        start_time: Some(Time(scene.now)),
        last_time: due.map(Time).or(old.last_time),
        next_time: old.next_time,
        conditions: old.conditions,
        ..DataLoadStatus::default()
    };
    go_on(scene, status, wanted)
}

fn go_on(scene: &Scene<'_>, old: DataLoadStatus, wanted: &Wanted) -> Decision {
    let spec = &scene.load.spec;
    let members = scene.workers.iter().filter(|worker| worker.ready && worker.ordinal < scene.wanted).count().max(1);
    let order = LoadOrder {
        id: format!("{}/{}", scene.load.uid().unwrap_or_default(), old.run),
        targets: wanted.targets.clone(),
        evict: spec.action == LoadAction::Evict,
        load_metadata: spec.load_metadata || old.run > 1,
        bandwidth: wanted.bandwidth.map(|bytes| bytes.div_ceil(members as u64)),
        follow: spec.policy == LoadPolicy::OnChange,
    };
    let sum = sum(scene, &order.id);
    let mut status = numbers(scene, old, &sum);
    let finding = finding(scene, &status, &sum);
    let ends = sum.is_done && !order.follow;
    status.phase = Some(match finding.holds {
        Some(true) => DataLoadPhase::Complete,
        _ if ends => DataLoadPhase::Failed,
        _ => DataLoadPhase::Running,
    });
    if status.phase == Some(DataLoadPhase::Running) {
        status.completion_time = None;
    } else {
        (status.bytes_per_second, status.eta_seconds) = (None, None);
        status.completion_time = status.completion_time.or(Some(Time(scene.now)));
    }
    let order = (!ends).then_some(order);
    let is_active = status.phase == Some(DataLoadPhase::Running);
    Decision { order, status: told(scene, status, finding), is_active, look_again: None }
}

fn sum(scene: &Scene<'_>, id: &str) -> Sum {
    let mut sum = Sum { is_done: scene.wanted > 0, ..Sum::default() };
    for ordinal in 0..scene.wanted {
        let worker = scene.workers.iter().find(|worker| worker.ordinal == ordinal);
        let told = worker.and_then(|worker| worker.stats.as_ref()?.loads.iter().find(|load| load.id == id));
        let Some(part) = told else {
            sum.is_done = false;
            continue;
        };
        sum.is_told = true;
        sum.is_done &= part.state == LoadState::Done && part.epoch == scene.epoch;
        let total = &mut sum.total;
        total.files += part.files;
        total.bytes += part.bytes;
        total.done_bytes += part.done_bytes;
        total.cached_bytes += part.cached_bytes;
        for failure in &part.failures {
            if !total.failures.iter().any(|(path, _)| *path == failure.0) {
                total.failures.push(failure.clone());
            }
        }
        // A file that fails at several workers is one file, as far as it is named.
        total.failed_files = (total.failed_files + part.failed_files).max(total.failures.len() as u64);
        if total.failed_files <= NAMED as u64 * 2 {
            total.failed_files = total.failures.len() as u64;
        }
    }
    sum
}

fn numbers(scene: &Scene<'_>, old: DataLoadStatus, sum: &Sum) -> DataLoadStatus {
    if !sum.is_told {
        return old;
    }
    let total = &sum.total;
    let rest = total.bytes.saturating_sub(total.done_bytes);
    let rate = scene.rate.filter(|rate| *rate > 0);
    let failure = |(path, reason): &(String, String)| FailedFile { path: path.clone(), reason: reason.clone() };
    DataLoadStatus {
        files: Some(total.files),
        bytes: Some(total.bytes),
        done_bytes: Some(total.done_bytes),
        cached_bytes: Some(total.cached_bytes),
        bytes_per_second: rate,
        eta_seconds: rate.map(|rate| rest.div_ceil(rate)),
        failed_files: total.failed_files,
        failures: total.failures.iter().take(NAMED).map(failure).collect(),
        ..old
    }
}

fn finding(scene: &Scene<'_>, status: &DataLoadStatus, sum: &Sum) -> Finding {
    let say =
        |holds, reason, message: String| Finding { kind: ConditionType::Complete, holds: Some(holds), reason, message };
    let (total, spec) = (&sum.total, &scene.load.spec);
    let bytes = human_bytes(total.bytes);
    let failed = status
        .failures
        .first()
        .map(|first| format!("{} failed, first '{}': {}", files(status.failed_files), first.path, first.reason));
    if !sum.is_done {
        let message = format!("{} of {bytes} in {} files are done", human_bytes(total.done_bytes), total.files);
        return say(false, Reason::Loading, message);
    }
    let reached = match spec.action {
        LoadAction::Load if total.files == 0 && failed.is_some() => false,
        LoadAction::Load => {
            u128::from(total.cached_bytes) * 100 >= u128::from(total.bytes) * u128::from(spec.min_cached_percent)
        }
        LoadAction::Evict => total.cached_bytes == 0,
    };
    let percent = status.clone().with_derived().cached_percent.unwrap_or_default();
    match (reached, spec.action, failed) {
        (true, LoadAction::Load, failed) => {
            let failed = failed.map(|failed| format!("; {failed}")).unwrap_or_default();
            let message = format!("{percent} % of {bytes} in {} files are in the cache{failed}", total.files);
            say(true, Reason::Loaded, message)
        }
        (true, LoadAction::Evict, _) => say(true, Reason::Evicted, format!("{bytes} in {} files are out", total.files)),
        (false, _, Some(failed)) if total.files == 0 => say(false, Reason::FilesFailed, failed),
        (false, _, Some(failed)) => say(false, Reason::FilesFailed, format!("{percent} % are in the cache; {failed}")),
        (false, LoadAction::Load, None) => {
            let message = format!(
                "only {percent} % of {bytes} are in the cache, below minCachedPercent {}; give the workers more room \
                 (quota or replicas), or lower minCachedPercent",
                spec.min_cached_percent
            );
            say(false, Reason::Incomplete, message)
        }
        (false, LoadAction::Evict, None) => {
            let message =
                format!("{} are still in the cache, for pods have the files open", human_bytes(total.cached_bytes));
            say(false, Reason::Incomplete, message)
        }
    }
}

fn files(count: u64) -> String {
    format!("{count} file{}", if count == 1 { "" } else { "s" })
}

fn pending(
    scene: &Scene<'_>,
    old: DataLoadStatus,
    reason: Reason,
    message: String,
    next: Option<Timestamp>,
) -> Decision {
    let finding = Finding { kind: ConditionType::Complete, holds: Some(false), reason, message };
    let status = DataLoadStatus { phase: Some(DataLoadPhase::Pending), ..old };
    Decision { order: None, status: told(scene, status, finding), is_active: false, look_again: until(next, scene.now) }
}

fn told(scene: &Scene<'_>, status: DataLoadStatus, finding: Finding) -> DataLoadStatus {
    let generation = scene.load.metadata.generation;
    let conditions = conditions(&status.conditions, &[finding], generation, scene.now);
    DataLoadStatus { observed_generation: generation, conditions, ..status }.with_derived()
}

/// The status of a load whose Dataset is not there.
pub fn without_dataset(load: &DataLoad, now: Timestamp) -> DataLoadStatus {
    let old = load.status.clone().unwrap_or_default();
    let message = format!("no Dataset '{}' in this namespace; create it, or correct spec.dataset", load.spec.dataset);
    let finding =
        Finding { kind: ConditionType::Complete, holds: Some(false), reason: Reason::DatasetNotFound, message };
    let generation = load.metadata.generation;
    let conditions = conditions(&old.conditions, &[finding], generation, now);
    let phase = Some(DataLoadPhase::Pending);
    DataLoadStatus { observed_generation: generation, phase, conditions, ..old }.with_derived()
}

fn until(next: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    Duration::try_from(next?.duration_since(now)).ok()
}

fn wanted(scene: &Scene<'_>) -> Result<Wanted, Invalid> {
    let spec = &scene.load.spec;
    let invalid = |message: String| Invalid::new(Reason::InvalidSpec, message);
    let bandwidth = spec.bandwidth.as_ref().map(Quota::bytes).transpose();
    let rule = spec.schedule.as_ref().map(|text| rule(scene, text)).transpose()?;
    let mut targets = Vec::new();
    for target in &spec.targets {
        let relative = |path: &str| path.trim_matches('/').to_owned();
        targets.extend(target.path.iter().map(|path| LoadTarget::Path(relative(path).into_bytes())));
        targets.extend(target.glob.iter().map(|glob| LoadTarget::Glob(relative(glob))));
        if let Some(at) = &target.config_map {
            let text = scene.texts.get(at).ok_or_else(|| {
                let (key, name) = (&at.key, &at.name);
                invalid(format!(
                    "spec.targets names key '{key}' of ConfigMap '{name}', which is not there; create it, or correct configMap"
                ))
            })?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            targets.extend(lines.map(|line| LoadTarget::Path(relative(line).into_bytes())));
        }
    }
    let outside = targets.iter().find_map(|target| match target {
        LoadTarget::Path(path) if path.split(|b| *b == b'/').any(|part| matches!(part, b"." | b"..")) => Some(path),
        _ => None,
    });
    if let Some(path) = outside {
        let path = String::from_utf8_lossy(path);
        return Err(invalid(format!("target '{path}' leaves the Dataset; write a path without '.' and '..'")));
    }
    Ok(Wanted { targets, bandwidth: bandwidth.map_err(|error| invalid(format!("spec.bandwidth: {error}")))?, rule })
}

fn rule(scene: &Scene<'_>, text: &str) -> Result<Rule, Invalid> {
    let spec = &scene.load.spec;
    let invalid = |message: String| Invalid::new(Reason::InvalidSpec, format!("spec.schedule: {message}"));
    let schedule = Schedule::parse(text).map_err(|error| invalid(error.to_string()))?;
    let zone = spec.time_zone.as_deref().map_or(Ok(TimeZone::UTC), schedule::zone);
    let read = |calendars: &[penstock_api::autoscaling::Calendar]| -> Result<Vec<schedule::Calendar>, Invalid> {
        calendars.iter().map(|calendar| crate::autoscaling::calendar(calendar, scene.texts)).collect()
    };
    let days = Days { skip: read(&spec.skip_calendars)?, only: read(&spec.only_calendars)? };
    Ok(Rule { schedule, zone: zone.map_err(|error| invalid(error.to_string()))?, days })
}

#[cfg(test)]
mod tests;
