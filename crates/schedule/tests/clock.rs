//! Due times where the clock jumps: against a walk over every second, and by known dates.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use penstock_schedule::{Calendar, Days, Rule, Schedule, zone};
use proptest::{prelude::*, test_runner::RngSeed};

fn rule(schedule: &str, zone_name: &str) -> Rule {
    Rule { schedule: Schedule::parse(schedule).unwrap(), zone: zone(zone_name).unwrap(), days: Days::default() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn due(rule: &Rule, from: &str, until: &str) -> Vec<String> {
    let (mut now, end, mut found) = (at(from), at(until), Vec::new());
    while let Some(next) = rule.next(now).filter(|next| *next < end) {
        found.push(next.to_string());
        now = next;
    }
    found
}

#[test]
fn a_time_that_the_clock_skips_is_due_when_the_gap_ends() {
    // New York: 2026-03-08 02:00 EST is 03:00 EDT.
    let daily = rule("30 2 * * *", "America/New_York");
    assert_eq!(
        due(&daily, "2026-03-07T00:00:00Z", "2026-03-10T00:00:00Z"),
        ["2026-03-07T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
    );
    let often = rule("*/20 2 * * *", "America/New_York");
    assert_eq!(due(&often, "2026-03-08T00:00:00Z", "2026-03-09T00:00:00Z"), ["2026-03-08T07:00:00Z"]);
    // Both the skipped times and 03:00 itself are then due: once.
    let both = rule("0 2,3 * * *", "America/New_York");
    assert_eq!(due(&both, "2026-03-08T00:00:00Z", "2026-03-09T00:00:00Z"), ["2026-03-08T07:00:00Z"]);
}

#[test]
fn a_time_that_the_clock_repeats_is_due_once() {
    // New York: 2026-11-01 02:00 EDT is 01:00 EST.
    let daily = rule("30 1 * * *", "America/New_York");
    assert_eq!(
        due(&daily, "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z"),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    let hourly = rule("@hourly", "America/New_York");
    assert_eq!(
        due(&hourly, "2026-11-01T04:30:00Z", "2026-11-01T08:30:00Z"),
        ["2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z"]
    );
    // In the second pass, the last time that was due is of the first.
    let quarter = rule("*/15 * * * *", "America/New_York");
    assert_eq!(quarter.last(at("2026-11-01T06:20:00Z")), Some(at("2026-11-01T05:45:00Z")));
    assert_eq!(quarter.next(at("2026-11-01T06:20:00Z")), Some(at("2026-11-01T07:00:00Z")));
}

#[test]
fn fractions_of_a_second_count() {
    let each = rule("* * * * * *", "America/New_York");
    for (now, last, next) in [
        ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00Z", "2026-06-01T12:00:01Z"),
        ("2026-06-01T12:00:00.5Z", "2026-06-01T12:00:00Z", "2026-06-01T12:00:01Z"),
        // The clock shows 01:00 to 02:00 again from 06:00 on.
        ("2026-11-01T05:59:59.5Z", "2026-11-01T05:59:59Z", "2026-11-01T07:00:00Z"),
        ("2026-11-01T06:00:00Z", "2026-11-01T05:59:59Z", "2026-11-01T07:00:00Z"),
        ("2026-11-01T06:59:59.999Z", "2026-11-01T05:59:59Z", "2026-11-01T07:00:00Z"),
        ("2026-11-01T07:00:00Z", "2026-11-01T07:00:00Z", "2026-11-01T07:00:01Z"),
    ] {
        assert_eq!((each.last(at(now)), each.next(at(now))), (Some(at(last)), Some(at(next))), "{now}");
    }
}

#[test]
fn midnights_that_do_not_exist_are_due_when_the_day_begins() {
    // Sao Paulo: 2018-11-04 00:00 is 01:00. Beirut: 2026-03-29 00:00 is 01:00.
    assert_eq!(
        due(&rule("@daily", "America/Sao_Paulo"), "2018-11-03T12:00:00Z", "2018-11-05T12:00:00Z"),
        ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]
    );
    assert_eq!(
        due(&rule("0 0 * * 0", "Asia/Beirut"), "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z"),
        ["2026-03-28T22:00:00Z"]
    );
    // A day that was left out altogether: Samoa had no 2011-12-30.
    assert_eq!(
        due(&rule("0 12 * * *", "Pacific/Apia"), "2011-12-29T12:00:00Z", "2012-01-01T00:00:00Z"),
        ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z", "2011-12-31T22:00:00Z"]
    );
}

#[test]
fn zones_without_daylight_saving_have_even_days() {
    let all = due(&rule("0 0 7 ? * 1", "Asia/Shanghai"), "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    assert_eq!((all.len(), all[0].as_str()), (104, "2025-01-05T23:00:00Z"));
}

#[test]
fn days_are_those_of_the_rules_own_clock() {
    let calendar = Calendar::parse("2026-10-01..2026-10-08").unwrap();
    let skipping = Days { skip: vec![calendar.clone()], only: vec![] };
    let rule = Rule { days: skipping, ..rule("30 6 * * *", "Asia/Shanghai") };
    assert_eq!(rule.next(at("2026-09-30T00:00:00Z")), Some(at("2026-10-08T22:30:00Z")));
    assert_eq!(rule.last(at("2026-10-08T22:00:00Z")), Some(at("2026-09-29T22:30:00Z")));
    let only = Rule { days: Days { skip: vec![], only: vec![calendar] }, ..rule };
    assert_eq!(only.next(at("2026-01-01T00:00:00Z")), Some(at("2026-09-30T22:30:00Z")));
    assert_eq!(only.next(at("2026-10-09T00:00:00Z")), None);
}

#[test]
fn a_date_is_due_once_and_not_every_year() {
    let once = rule("@date 2026-12-24 18:00:00", "America/New_York");
    assert_eq!(once.next(at("2026-01-01T00:00:00Z")), Some(at("2026-12-24T23:00:00Z")));
    assert_eq!(once.next(at("2026-12-24T23:00:00Z")), None);
    assert_eq!(once.last(at("2030-01-01T00:00:00Z")), Some(at("2026-12-24T23:00:00Z")));
}

#[test]
fn every_goes_by_real_time_from_a_fixed_beginning() {
    let rule = rule("@every 1h30m", "America/New_York");
    assert_eq!(rule.next(at("1970-01-01T00:00:00Z")), Some(at("1970-01-01T01:30:00Z")));
    assert_eq!(rule.last(at("1970-01-01T01:29:59Z")), Some(at("1970-01-01T00:00:00Z")));
    let holiday = Days { skip: vec![Calendar::parse("2026-07-03").unwrap()], only: vec![] };
    let rule = Rule { days: holiday, ..rule };
    assert_eq!(rule.next(at("2026-07-03T05:00:00Z")), Some(at("2026-07-04T04:30:00Z")));
    assert_eq!(rule.last(at("2026-07-04T04:29:00Z")), Some(at("2026-07-03T03:00:00Z")));
}

#[test]
fn an_unknown_zone_is_named() {
    let error = zone("Asia/Shanghia").unwrap_err().to_string();
    assert!(error.starts_with("time zone 'Asia/Shanghia' is not in the IANA database; write one such as"), "{error}");
}

/// One field of a generated expression: the text, and the numbers that it means.
fn field(least: u8, most: u8) -> impl Strategy<Value = (String, Vec<u8>)> {
    let all: Vec<u8> = (least..=most).collect();
    let one = (least..=most).prop_map(|n| (n.to_string(), vec![n]));
    let range = (least..=most, least..=most).prop_map(|(a, b)| {
        let (a, b) = (a.min(b), a.max(b));
        (format!("{a}-{b}"), (a..=b).collect())
    });
    let step = (2u8..=20).prop_map(move |n| (format!("*/{n}"), (least..=most).step_by(n.into()).collect()));
    prop_oneof![3 => Just(("*".to_owned(), all)), 3 => one, 2 => range, 1 => step]
}

/// Whether the clock's face at `face` matches, by the rule of crontab.
fn matches(parts: &[(String, Vec<u8>)], day: Date, hour: i8, minute: i8) -> bool {
    let has = |index: usize, value: i8| parts[index].1.contains(&(value as u8));
    let stars = parts[2].0.starts_with('*') || parts[4].0.starts_with('*');
    let (dom, dow) = (has(2, day.day()), has(4, day.weekday().to_sunday_zero_offset()));
    has(0, minute) && has(1, hour) && has(3, day.month()) && if stars { dom && dow } else { dom || dow }
}

/// Due instants by a walk over the minutes: each face once, skipped ones at the first instant that shows a later one.
fn walked(parts: &[(String, Vec<u8>)], zone: &TimeZone, from: Timestamp, minutes: i64) -> Vec<Timestamp> {
    let mut latest = zone.to_datetime(from) - 1.minute();
    let mut found = Vec::new();
    for minute in 0..minutes {
        let now = from + minute.minutes();
        let shown = zone.to_datetime(now);
        let mut hit = false;
        while latest < shown {
            latest += 1.minute();
            hit |= matches(parts, latest.date(), latest.hour(), latest.minute());
        }
        if hit {
            found.push(now);
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: RngSeed::Fixed(13), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn due_times_are_those_of_a_walk_over_every_minute(
        parts in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
        place in prop::sample::select(vec![
            ("America/New_York", "2026-03-06T00:00:00Z"), ("America/New_York", "2026-10-30T00:00:00Z"),
            ("Europe/London", "2026-10-24T00:00:00Z"), ("Australia/Lord_Howe", "2026-04-03T00:00:00Z"),
            ("America/Sao_Paulo", "2018-11-02T00:00:00Z"), ("America/Sao_Paulo", "2018-02-16T00:00:00Z"),
            ("Asia/Shanghai", "2026-02-27T00:00:00Z"), ("Asia/Beirut", "2026-03-27T00:00:00Z"),
        ]),
    ) {
        let parts = [parts.0, parts.1, parts.2, parts.3, parts.4];
        let text = parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>().join(" ");
        let Ok(schedule) = Schedule::parse(&text) else { return Ok(()) };
        let rule = Rule { schedule, zone: zone(place.0).unwrap(), days: Days::default() };
        let (from, minutes) = (at(place.1), 4 * 24 * 60);
        let expected = walked(&parts, &rule.zone, from, minutes);
        let end = from + minutes.minutes();
        let mut now = from - 1.nanosecond();
        let mut found = Vec::new();
        while let Some(next) = rule.next(now).filter(|next| *next < end) {
            prop_assert_eq!(rule.last(next), Some(next));
            if let Some(before) = found.last() {
                prop_assert_eq!(rule.last(next - 1.nanosecond()), Some(*before));
            }
            found.push(next);
            now = next;
        }
        prop_assert_eq!(found, expected, "{} in {}", text, place.0);
    }
}
