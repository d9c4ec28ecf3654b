use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan, Zoned, civil::date, tz::TimeZone};
use penstock_api::autoscaling::{Autoscaling, CurvePoint, MetricType};
use penstock_curve::{Fleet, Reuse, Sampler};
use penstock_model::{ObjectKey, PAGE};
use serde_json::{Value, json};

use super::*;
use crate::numbers::Rates;

const GIB: u64 = 1 << 30;

/// A runtime in a world whose clock the test moves.
struct World {
    spec: Value,
    replicas: u32,
    by: Option<&'static str>,
    measured: Measured,
    users: u32,
    past: Past,
    learned: Learned,
    kept: AutoscalingStatus,
    current: Option<u32>,
    created: Timestamp,
    now: Timestamp,
}

impl World {
    fn new(spec: Value, now: &str) -> Self {
        let now: Timestamp = now.parse().unwrap();
        let measured = Measured { worker_capacity: 100 * GIB, ..Measured::default() };
        Self {
            spec,
            replicas: 1,
            by: None,
            measured,
            users: 0,
            past: Past::new(now),
            learned: Learned::new(now),
            kept: AutoscalingStatus::default(),
            current: None,
            created: now,
            now,
        }
    }

    /// One pass: the decision is carried out, and its status kept.
    fn pass(&mut self) -> Decision {
        let spec: Autoscaling = serde_json::from_value(self.spec.clone()).unwrap();
        let spec = ValidAutoscaling::new(&spec, &BTreeMap::new());
        assert_eq!(spec.problems, []);
        let forecast = self.learned.forecast(self.current, self.measured.worker_capacity, self.measured.used_bytes);
        let decision = decide(&Scene {
            spec: &spec,
            replicas: self.replicas,
            changed_by: self.by,
            kept: &self.kept,
            current: self.current,
            measured: &self.measured,
            forecast: forecast.as_ref(),
            past: &self.past,
            users: self.users,
            created: self.created,
            now: self.now,
        });
        self.past.note(self.now, decision.wish, self.current, decision.replicas);
        (self.current, self.kept) = (Some(decision.replicas), decision.status.clone());
        decision
    }

    fn pass_at(&mut self, now: &str) -> (u32, SizeReason) {
        self.now = now.parse().unwrap();
        let decision = self.pass();
        (decision.replicas, decision.status.reason.unwrap())
    }

    fn after(&mut self, seconds: i64) -> (u32, SizeReason) {
        self.now += seconds.seconds();
        let decision = self.pass();
        (decision.replicas, decision.status.reason.unwrap())
    }

    fn restart(&mut self) {
        (self.past, self.learned) = (Past::new(self.now), Learned::new(self.now));
    }

    fn reads(&mut self, bytes_per_second: f64) {
        let rates = Some(Rates { hit: bytes_per_second, ..Rates::default() });
        (self.measured.minute, self.measured.five_minutes) = (rates, rates);
    }
}

fn week() -> Value {
    json!({"maxReplicas": 20, "timeZone": "Asia/Shanghai", "schedules": [
        {"name": "scale-down", "schedule": "0 0 7 ? * 1", "replicas": 10},
        {"name": "scale-up", "schedule": "0 0 18 ? * 5-6", "replicas": 20},
    ]})
}

#[test]
fn the_schedule_that_was_due_last_is_in_force() {
    let mut world = World::new(week(), "2026-11-25T00:00:00Z");
    world.replicas = 5;
    assert_eq!(world.after(0), (5, SizeReason::Specified), "what was due before it was made does not count");
    assert_eq!(world.pass_at("2026-11-27T09:59:59Z"), (5, SizeReason::Specified));
    assert_eq!(world.pass_at("2026-11-27T10:00:00Z"), (20, SizeReason::Scheduled));
    assert_eq!(world.pass_at("2026-11-29T23:00:00Z"), (10, SizeReason::Scheduled));
    let next: Vec<_> =
        world.kept.next.iter().map(|next| (next.name.as_str(), next.time.0.to_string(), next.replicas)).collect();
    let expected = [
        ("scale-up", "2026-12-04T10:00:00Z", 20),
        ("scale-up", "2026-12-05T10:00:00Z", 20),
        ("scale-down", "2026-12-06T23:00:00Z", 10),
    ];
    assert_eq!(next, expected.map(|(name, time, replicas)| (name, time.to_owned(), replicas)));
    assert_eq!(world.pass().look_again, Some(Duration::from_hours(107)));
}

#[test]
fn missed_ticks_and_clock_jumps_land_on_the_right_size() {
    let mut world = World::new(week(), "2026-11-25T00:00:00Z");
    world.pass();
    world.restart();
    assert_eq!(world.pass_at("2027-03-01T00:00:00Z"), (10, SizeReason::Scheduled), "a Monday, after months of silence");
    assert_eq!(world.pass_at("2027-02-28T00:00:00Z"), (20, SizeReason::Scheduled), "the clock was set back to Sunday");
}

#[test]
fn an_order_holds_until_the_next_due_schedule() {
    let mut world = World::new(week(), "2026-11-25T00:00:00Z");
    world.pass();
    world.pass_at("2026-11-27T10:00:00Z");
    (world.replicas, world.by) = (3, Some("kubectl-scale"));
    assert_eq!(world.after(60), (3, SizeReason::Ordered));
    assert!(world.kept.message.as_deref().unwrap().contains("ordered by kubectl-scale"), "{:?}", world.kept);
    world.restart();
    assert_eq!(world.pass_at("2026-11-28T09:59:59Z"), (3, SizeReason::Ordered));
    assert_eq!(world.pass_at("2026-11-28T10:00:00Z"), (20, SizeReason::Scheduled));
    assert_eq!(world.after(60), (20, SizeReason::Scheduled), "an old order does not come back");
    world.replicas = 0;
    world.users = 1;
    assert_eq!(world.after(1), (0, SizeReason::Ordered), "also to nothing, which a pod does not undo");
}

#[test]
fn run_once_deadline_and_suspend_are_heeded() {
    let schedules = json!([
        {"name": "once", "schedule": "0 8 * * *", "replicas": 9, "runOnce": true},
        {"name": "prompt", "schedule": "0 12 * * *", "replicas": 5, "startingDeadlineSeconds": 600},
        {"name": "off", "schedule": "* * * * *", "replicas": 7, "suspend": true},
        {"name": "late", "schedule": "0 18 * * *", "replicas": 3},
    ]);
    let mut world = World::new(json!({"maxReplicas": 20, "schedules": schedules}), "2026-11-25T06:00:00Z");
    world.pass();
    assert_eq!(world.pass_at("2026-11-25T08:00:00Z").0, 9);
    assert_eq!(world.pass_at("2026-11-25T12:10:00Z").0, 5, "within the deadline");
    assert_eq!(world.pass_at("2026-11-25T13:00:00Z").0, 5, "and it stays in force");
    assert_eq!(world.pass_at("2026-11-25T18:00:00Z").0, 3);
    assert_eq!(world.pass_at("2026-11-26T09:00:00Z").0, 3, "once was yesterday");
    assert_eq!(world.pass_at("2026-11-26T12:10:01Z").0, 3, "too late to begin");
}

#[test]
fn a_time_that_nobody_saw_before_its_deadline_changes_nothing() {
    let schedules = json!([
        {"name": "prompt", "schedule": "0 12 * * *", "replicas": 5, "startingDeadlineSeconds": 600},
        {"name": "once", "schedule": "0 18 * * *", "replicas": 9, "runOnce": true, "startingDeadlineSeconds": 600},
    ]);
    let mut world = World::new(json!({"maxReplicas": 20, "schedules": schedules}), "2026-11-25T06:00:00Z");
    world.replicas = 2;
    assert_eq!(world.pass_at("2026-11-25T12:10:01Z").0, 2, "too late, and nothing was in force");
    assert_eq!(world.pass_at("2026-11-26T12:05:00Z").0, 5);
    assert_eq!(world.pass_at("2026-11-27T13:00:00Z").0, 5, "too late, and what was in force stays");
    let next: Vec<_> = world.kept.next.iter().map(|next| next.name.as_str()).collect();
    assert_eq!(next, ["prompt", "prompt", "prompt"], "once was on the first day, and is not to come again");
}

#[test]
fn of_two_schedules_at_one_instant_the_last_in_the_list_counts() {
    let both =
        json!([{"name": "a", "schedule": "@daily", "replicas": 4}, {"name": "b", "schedule": "@daily", "replicas": 2}]);
    let mut world = World::new(json!({"maxReplicas": 9, "schedules": both}), "2026-11-25T06:00:00Z");
    assert_eq!(world.pass_at("2026-11-26T00:00:00Z").0, 2);
}

fn by_throughput() -> Value {
    json!({"minReplicas": 2, "maxReplicas": 20, "metrics": [{"type": "Throughput", "target": "100Mi"}]})
}

const MIB: f64 = (1 << 20) as f64;

#[test]
fn a_metric_grows_at_once_and_shrinks_after_the_window() {
    let mut world = World::new(by_throughput(), "2026-11-25T00:00:00Z");
    world.replicas = 3;
    assert_eq!(world.after(0), (3, SizeReason::NoData), "it begins where spec.replicas says");
    world.reads(550.0 * MIB);
    assert_eq!(world.after(15), (6, SizeReason::Metric));
    world.reads(100.0 * MIB);
    assert_eq!(world.after(15).0, 6);
    for _ in 0..18 {
        assert_eq!(world.after(15).0, 6);
    }
    assert_eq!(world.after(15), (2, SizeReason::AtMinimum), "five minutes after the last wish for 6");
}

#[test]
fn growth_is_limited_to_doubling_or_four_in_fifteen_seconds() {
    let mut world = World::new(by_throughput(), "2026-11-25T00:00:00Z");
    world.replicas = 2;
    world.pass();
    world.reads(1990.0 * MIB);
    let sizes: Vec<u32> = (0..4).map(|_| world.after(15).0).collect();
    assert_eq!(sizes, [6, 12, 20, 20]);
}

#[test]
fn no_data_holds_and_so_does_a_restart() {
    let mut world = World::new(by_throughput(), "2026-11-25T00:00:00Z");
    world.reads(800.0 * MIB);
    world.pass();
    assert_eq!(world.current, Some(8));
    (world.measured.minute, world.measured.five_minutes) = (None, None);
    for _ in 0..100 {
        assert_eq!(world.after(60), (8, SizeReason::NoData));
    }
    world.restart();
    world.reads(100.0 * MIB);
    assert_eq!(world.after(15).0, 8, "what was wished before the restart is not known");
    for _ in 0..18 {
        assert_eq!(world.after(15).0, 8);
    }
    assert_eq!(world.after(15).0, 2);
}

#[test]
fn noise_within_the_margin_changes_nothing() {
    let mut world = World::new(by_throughput(), "2026-11-25T00:00:00Z");
    world.reads(790.0 * MIB);
    world.pass();
    for second in 0..1000 {
        world.reads((760.0 + f64::from((second * 7919) % 41)) * MIB);
        assert_eq!(world.after(15).0, 8, "{second}");
    }
}

#[test]
fn a_rate_that_moves_a_little_writes_no_status() {
    let mut world = World::new(by_throughput(), "2026-11-25T00:00:00Z");
    world.reads(1_230_000_000.0);
    world.pass();
    let first = world.kept.clone();
    for rate in [1_240_000_000.0, 1_190_000_000.0, 1_249_999_999.0, 1_151_000_000.0] {
        world.reads(rate);
        world.after(15);
        assert_eq!(world.kept, first, "{rate}");
    }
    world.reads(1_260_000_000.0);
    world.after(15);
    assert_ne!(world.kept, first);
}

#[test]
fn the_schedule_is_a_floor_for_metrics() {
    let mut spec = by_throughput();
    spec["schedules"] = json!([
        {"name": "day", "schedule": "0 8 * * *", "replicas": 5}, {"name": "night", "schedule": "0 20 * * *", "replicas": 2},
    ]);
    spec["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    let mut world = World::new(spec, "2026-11-25T00:00:00Z");
    world.reads(300.0 * MIB);
    assert_eq!(world.pass_at("2026-11-25T08:00:00Z"), (5, SizeReason::Scheduled));
    world.reads(700.0 * MIB);
    assert_eq!(world.after(15), (7, SizeReason::Metric));
    world.reads(300.0 * MIB);
    assert_eq!(world.after(15), (5, SizeReason::Scheduled));
    assert_eq!(world.pass_at("2026-11-25T20:00:00Z"), (4, SizeReason::Metric), "not more than the margin too many");
}

#[test]
fn behavior_is_as_in_a_horizontal_pod_autoscaler() {
    let mut spec = by_throughput();
    spec["behavior"] = json!({
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 3, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60},
        ]},
    });
    let mut world = World::new(spec.clone(), "2026-11-25T00:00:00Z");
    world.replicas = 2;
    world.pass();
    world.reads(1000.0 * MIB);
    let sizes: Vec<u32> = (0..8).map(|_| world.after(30).0).collect();
    assert_eq!(sizes, [3, 3, 4, 4, 5, 5, 6, 6]);
    assert!(world.kept.message.as_deref().unwrap().contains("held at 6 workers by spec.autoscaling.behavior"));
    world.reads(0.0);
    assert_eq!([world.after(60).0, world.after(60).0, world.after(60).0], [3, 2, 2]);
    spec["behavior"] = json!({"scaleDown": {"selectPolicy": "Disabled"}});
    world.spec = spec;
    world.reads(500.0 * MIB);
    world.after(60);
    world.reads(0.0);
    assert_eq!(world.after(3600).0, 5);
}

#[test]
fn other_metrics_wish_what_they_say() {
    let spec = |kind: &str, target: u32| {
        json!({"maxReplicas": 20, "metrics": [{"type": kind, "target": target.to_string()}],
               "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}})
    };
    let mut cached = World::new(spec("CachedPercent", 80), "2026-11-25T00:00:00Z");
    cached.measured.dataset_bytes = Some(1000 * GIB);
    assert_eq!(cached.after(0), (8, SizeReason::Metric));
    let mut capacity = World::new(spec("Capacity", 80), "2026-11-25T00:00:00Z");
    capacity.measured.used_bytes = Some(390 * GIB);
    assert_eq!(capacity.after(0), (5, SizeReason::Metric));
    let mut waiting = World::new(spec("WaitingPods", 20), "2026-11-25T00:00:00Z");
    waiting.measured.waiting_pods = Some(101);
    assert_eq!(waiting.after(0), (6, SizeReason::Metric));
    waiting.measured.waiting_pods = Some(900);
    assert_eq!(waiting.after(15), (12, SizeReason::Metric), "at most doubled");
    assert_eq!(waiting.kept.metrics[0].kind, MetricType::WaitingPods);
}

/// What a worker tells that owns all and was asked for these pages, one after the other.
fn reuse(pages: impl IntoIterator<Item = u64>) -> Reuse {
    let sampler = Sampler::default();
    for page in pages {
        sampler.read(ObjectKey(1), u64::MAX, page * PAGE..(page + 1) * PAGE, Fleet::ALONE);
    }
    sampler.told()
}

/// Rounds over 1,000 pages, by workers of which each holds a little over 100.
fn rounds(target: u32) -> World {
    let spec = json!({"maxReplicas": 20, "metrics": [{"type": "HitRatio", "target": target.to_string()}]});
    let mut world = World::new(spec, "2026-11-25T00:00:00Z");
    (world.measured.worker_capacity, world.current) = (105 * PAGE, Some(2));
    world.learned.add(0, world.now, 1, &reuse((0..20_000).map(|read| read % 1000)));
    world
}

#[test]
fn the_smallest_size_that_reaches_the_hit_ratio_is_wished() {
    // What tiers keep of rounds gives hits, and all of it is hit by 10 workers, but for the first round.
    let mut world = rounds(90);
    world.replicas = 2;
    assert_eq!((world.after(0).0, world.after(15).0, world.after(15).0), (6, 10, 10));
    let curve = world.kept.curve.clone().unwrap();
    assert_eq!(
        (curve.points.len(), curve.points[15], curve.seen_percent),
        (16, CurvePoint { replicas: 20, hit_percent: 95 }, None)
    );
    let wish = world.kept.metrics[0].clone();
    assert_eq!(
        (wish.current.as_deref(), wish.message.as_deref()),
        (Some("95"), Some("10 workers hit 95 % of what is read"))
    );
}

#[test]
fn a_hit_ratio_out_of_reach_is_not_chased() {
    let mut world = rounds(99);
    let sizes: Vec<u32> = (0..4).map(|_| world.after(15).0).collect();
    assert_eq!(sizes, [6, 10, 10, 10], "no size has the first round; more than 10 workers gain nothing");
}

#[test]
fn too_few_reads_hold_the_size() {
    let mut world = rounds(90);
    world.learned = Learned::new(world.now);
    world.learned.add(0, world.now, 1, &reuse(0..400));
    assert_eq!(world.after(0), (2, SizeReason::NoData));
    assert_eq!(world.kept.curve, None);
}

#[test]
fn restarts_of_workers_and_operator_count_nothing_twice() {
    let mut world = rounds(90);
    world.after(0);
    let before = world.kept.curve.clone().unwrap().points;
    // The same told again, another process that has read little yet, and an operator that knows nothing.
    world.learned.add(0, world.now, 1, &reuse((0..20_000).map(|read| read % 1000)));
    world.learned.add(0, world.now, 2, &reuse(0..3));
    world.restart();
    world.learned.add(0, world.now, 1, &reuse((0..20_000).map(|read| read % 1000)));
    world.after(15);
    assert_eq!(world.kept.curve.clone().unwrap().points, before);
}

#[test]
fn what_was_seen_corrects_the_prediction() {
    let sampler = Sampler::default();
    // The tiers keep the first 300 pages, and fetch all others each time.
    for page in (0..20_000).map(|read| read % 1000) {
        let range = page * PAGE..(page + 1) * PAGE;
        if page >= 300 {
            sampler.fetched(ObjectKey(1), &range);
        }
        sampler.read(ObjectKey(1), u64::MAX, range, Fleet::ALONE);
    }
    let mut learned = Learned::new(Timestamp::UNIX_EPOCH);
    learned.forecast(Some(5), 100 * PAGE, None);
    learned.add(0, Timestamp::UNIX_EPOCH, 1, &sampler.told());
    let corrected = learned.forecast(Some(5), 100 * PAGE, Some(500 * PAGE)).unwrap().ratio(5);
    assert!((corrected - 0.285).abs() < 0.01, "{corrected}");
}

#[test]
fn nobody_there_is_no_worker_and_a_pod_wakes_one() {
    let spec = json!({"minReplicas": 2, "maxReplicas": 9, "idle": {"afterSeconds": 600}});
    let mut world = World::new(spec, "2026-11-25T00:00:00Z");
    world.replicas = 3;
    world.users = 1;
    assert_eq!(world.after(0).0, 3);
    (world.users, world.measured.unused_for) = (0, Some(Duration::ZERO));
    world.after(60);
    world.measured.unused_for = Some(Duration::from_secs(539));
    assert_eq!(world.after(539).0, 3);
    assert_eq!(world.pass().look_again, Some(Duration::from_secs(61)));
    world.measured.unused_for = None;
    assert_eq!(world.after(10_000).0, 3, "while no worker says anything, nothing is concluded");
    world.restart();
    world.measured.unused_for = Some(Duration::from_mins(10));
    assert_eq!(world.after(0), (0, SizeReason::Idle));
    world.measured.unused_for = None;
    assert_eq!(world.after(86_400), (0, SizeReason::Idle), "it sleeps on");
    world.users = 2;
    assert_eq!(world.after(1), (3, SizeReason::Specified));
    (world.users, world.measured.unused_for) = (0, Some(Duration::ZERO));
    assert_eq!(world.after(1).0, 3, "it stays awake for a while");
}

#[test]
fn a_pod_wakes_a_size_of_zero_by_the_clock_too() {
    let night = json!([{"name": "night", "schedule": "0 20 * * *", "replicas": 0}]);
    let mut world = World::new(json!({"minReplicas": 0, "maxReplicas": 9, "schedules": night}), "2026-11-25T00:00:00Z");
    assert_eq!(world.pass_at("2026-11-25T20:00:00Z"), (0, SizeReason::Scheduled));
    world.users = 1;
    assert_eq!(world.after(1), (1, SizeReason::Woken));
    world.users = 0;
    assert_eq!(world.after(1), (0, SizeReason::Scheduled));
}

/// A production user's week over two years, against a walk over the days; the operator starts again at odd moments.
#[test]
fn two_years_of_a_funds_week_are_right_at_every_instant() {
    for zone in ["Asia/Shanghai", "America/New_York"] {
        let mut spec = week();
        spec["timeZone"] = json!(zone);
        let mut world = World::new(spec, "2025-01-01T12:00:00Z");
        world.replicas = 5;
        world.pass();
        let mut random = 17_u64;
        for (instant, size) in fund_week(&TimeZone::get(zone).unwrap(), world.now) {
            let (before, wait) = (world.current, world.pass().look_again.unwrap());
            assert!(world.now + wait <= instant, "{zone}: it looks again after {instant}");
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if random >> 62 == 0 {
                world.restart();
            }
            world.now = instant - 1.nanosecond();
            assert_eq!(Some(world.pass().replicas), before, "{zone}: before {instant}");
            // Now and then it comes late.
            world.now = instant + ((random >> 40) % 3000 * u64::from(random.is_multiple_of(3))).cast_signed().seconds();
            assert_eq!(world.pass().replicas, size, "{zone}: at {instant}");
        }
    }
}

fn fund_week(zone: &TimeZone, from: Timestamp) -> Vec<(Timestamp, u32)> {
    let days = date(2025, 1, 1).series(1.day()).take(730);
    let changes = days.filter_map(|day| {
        let (hour, size) = match day.weekday().to_monday_one_offset() {
            1 => (7, 10),
            5 | 6 => (18, 20),
            _ => return None,
        };
        let at: Zoned = day.at(hour, 0, 0, 0).to_zoned(zone.clone()).unwrap();
        Some((at.timestamp(), size))
    });
    changes.filter(|(at, _)| *at > from).collect()
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_goes_on() {
    let spec = json!({"maxReplicas": 9, "timeZone": "Asia/Shanghai", "schedules": [
        {"name": "bad", "schedule": "0 25 * * *", "replicas": 2},
        {"name": "nowhere", "schedule": "@daily", "replicas": 2, "timeZone": "Asia/Shanghia"},
        {"name": "closed", "schedule": "@daily", "replicas": 2, "skipCalendars": ["xshg"]},
        {"name": "good", "schedule": "@daily", "replicas": 4},
    ], "calendars": [{"name": "xshg", "configMap": {"name": "holidays", "key": "xshg.ics"}}]});
    let spec = ValidAutoscaling::new(&serde_json::from_value(spec).unwrap(), &BTreeMap::new());
    let said: Vec<_> = spec.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(spec.schedules.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["good"]);
    for (said, expected) in said.iter().zip([
        "spec.autoscaling.schedules 'bad': '25' is no hour; write 0-23",
        "spec.autoscaling.schedules 'nowhere': time zone 'Asia/Shanghia' is not in the IANA database; write",
        "'xshg' names key 'xshg.ics' of ConfigMap 'holidays', which is not there; create it",
    ]) {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(said.len(), 3);
}
