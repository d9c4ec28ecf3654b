//! Two simulated years by the clock, in two zones with their exchanges' holidays; Python says what is due when.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use penstock_api::autoscaling::{Autoscaling, AutoscalingStatus, ConfigMapKey};
use penstock_plan::autoscaling::{CalendarTexts, Measured, Past, Scene, ValidAutoscaling, decide};
use penstock_tools as tools;
use serde::Deserialize;
use serde_json::json;

const PACKAGES: [&str; 9] = [
    "exchange-calendars==4.13.2",
    "korean-lunar-calendar==0.3.1",
    "numpy==2.3.5",
    "pandas==2.3.3",
    "pyluach==2.3.0",
    "python-dateutil==2.9.0.post0",
    "pytz==2025.2",
    "six==1.17.0",
    "toolz==1.1.0",
];
const FIRST: &str = "2025-01-01";
const LAST: &str = "2026-12-31";
/// Before any schedule was due.
const BEGUN: u32 = 5;

struct Desk {
    exchange: &'static str,
    zone: &'static str,
    jobs: &'static [Job],
}

struct Job {
    name: &'static str,
    schedule: &'static str,
    /// The schedule's hour, minute and weekdays (1 is Monday), for Python.
    time: (u32, u32, &'static [u8]),
    replicas: u32,
}

const fn job(name: &'static str, schedule: &'static str, time: (u32, u32, &'static [u8]), replicas: u32) -> Job {
    Job { name, schedule, time, replicas }
}

/// The week of `metabit.yaml`.
const SHANGHAI: Desk = Desk {
    exchange: "XSHG",
    zone: "Asia/Shanghai",
    jobs: &[
        job("scale-down", "0 0 7 ? * 1", (7, 0, &[1]), 10),
        job("scale-up", "0 0 18 ? * 5-6", (18, 0, &[5, 6]), 20),
    ],
};

/// Trading hours, and two jobs in hours that the clock skips in March and repeats in November.
const NEW_YORK: Desk = Desk {
    exchange: "XNYS",
    zone: "America/New_York",
    jobs: &[
        job("open", "30 9 * * MON-FRI", (9, 30, &[1, 2, 3, 4, 5]), 20),
        job("close", "0 16 * * MON-FRI", (16, 0, &[1, 2, 3, 4, 5]), 3),
        job("skipped", "30 2 * * SUN", (2, 30, &[7]), 2),
        job("repeated", "30 1 * * SUN", (1, 30, &[7]), 1),
    ],
};

#[derive(Deserialize)]
struct Said {
    holidays: Vec<String>,
    due: Vec<(i64, String, u32)>,
}

fn python_says(desk: &Desk) -> Said {
    let mut jobs = Vec::new();
    for Job { name, time: (hour, minute, weekdays), replicas, .. } in desk.jobs {
        let days = json!(weekdays);
        jobs.push(json!({"name": name, "hour": hour, "minute": minute, "weekdays": days, "replicas": replicas}));
    }
    let asked = json!({"exchange": desk.exchange, "zone": desk.zone, "first": FIRST, "last": LAST, "jobs": jobs});
    let (python, packages) = tools::python_packages("exchange-calendars-4.13.2", &PACKAGES).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/witness/exchanges_say.py");
    let mut command = Command::new(python);
    command.arg(script).env("PYTHONPATH", packages).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Python does not answer");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The holidays as a list of dates, or as an iCalendar file in a ConfigMap.
fn spec(desk: &Desk, holidays: &[String], as_file: bool) -> ValidAutoscaling {
    let at = ConfigMapKey { name: "days".into(), key: "holidays.ics".into() };
    let calendar = if as_file {
        json!({"name": "holidays", "configMap": {"name": at.name, "key": at.key}})
    } else {
        json!({"name": "holidays", "dates": holidays})
    };
    let mut schedules = Vec::new();
    for Job { name, schedule, replicas, .. } in desk.jobs {
        let skipped = json!(["holidays"]);
        schedules.push(json!({"name": name, "schedule": schedule, "replicas": replicas, "skipCalendars": skipped}));
    }
    let spec = json!({"maxReplicas": 30, "timeZone": desk.zone, "schedules": schedules, "calendars": [calendar]});
    let spec: Autoscaling = serde_json::from_value(spec).unwrap();
    let spec = ValidAutoscaling::new(&spec, &CalendarTexts::from([(at, ics(holidays))]));
    assert_eq!(spec.problems, []);
    spec
}

fn ics(holidays: &[String]) -> String {
    let event = |day: &String| {
        let day = day.replace('-', "");
        format!("BEGIN:VEVENT\r\nUID:{day}\r\nDTSTAMP:{day}T000000Z\r\nDTSTART;VALUE=DATE:{day}\r\nEND:VEVENT\r\n")
    };
    let events: String = holidays.iter().map(event).collect();
    format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\n{events}END:VCALENDAR\r\n")
}

/// A series of numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Lives through the two years: the operator looks when it said that it would, sometimes earlier, and sometimes it is
/// away for days and starts anew. Returns how many of the changes it saw to the second.
fn live(desk: &Desk, spec: &ValidAutoscaling, due: &[(i64, String, u32)], seed: u64) -> usize {
    let (mut random, measured) = (Random(seed), Measured { worker_capacity: 1 << 30, ..Measured::default() });
    let (start, end) = (due[0].0 - 3600, due[due.len() - 1].0);
    let created = Timestamp::from_second(start).unwrap();
    let (mut now, mut past) = (created, Past::new(created));
    let (mut kept, mut current, mut punctual) = (AutoscalingStatus::default(), None, 0);
    while now.as_second() < end {
        let decision = decide(&Scene {
            spec,
            replicas: BEGUN,
            changed_by: None,
            kept: &kept,
            current,
            measured: &measured,
            forecast: None,
            past: &past,
            users: 0,
            created,
            now,
        });
        let passed = due.partition_point(|(second, ..)| *second <= now.as_second());
        let wanted = passed.checked_sub(1).map_or(BEGUN, |last| due[last].2);
        let place = desk.zone;
        assert_eq!(decision.replicas, wanted, "{place} at {now}, seed {seed}: {:?}", decision.status);
        let next = &due[passed];
        let wait = Duration::from_secs((next.0 - now.as_second()) as u64);
        let told = &decision.status.next[0];
        assert_eq!((told.time.0.as_second(), &told.name), (next.0, &next.1), "{place} at {now}, seed {seed}");
        assert!(
            decision.look_again.is_some_and(|again| again <= wait),
            "{place} at {now}: looks too late for {next:?}"
        );
        past.note(now, decision.wish, current, decision.replicas);
        (current, kept) = (Some(decision.replicas), decision.status);
        now += match random.next() % 10 {
            0 => Duration::from_secs(1 + random.next() % wait.as_secs().max(1)),
            1 => {
                past = Past::new(now);
                Duration::from_secs(random.next() % (12 * 24 * 3600))
            }
            _ => {
                punctual += 1;
                wait
            }
        };
    }
    punctual
}

#[test]
fn every_change_of_two_years_comes_at_its_instant() {
    for (desk, as_file) in [(SHANGHAI, true), (NEW_YORK, false)] {
        let Said { holidays, due } = python_says(&desk);
        assert!(holidays.len() > 15, "{} has {} holidays", desk.exchange, holidays.len());
        let spec = spec(&desk, &holidays, as_file);
        let mut seen = 0;
        for seed in 0..20 {
            seen += live(&desk, &spec, &due, seed);
        }
        println!(
            "{}: {} changes, {} holidays; {seen} seen to the second in 20 lives",
            desk.zone,
            due.len(),
            holidays.len()
        );
    }
}
