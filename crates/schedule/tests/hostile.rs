//! No text and no instant is too much.

use jiff::{Timestamp, tz::TimeZone};
use penstock_schedule::{Calendar, Days, Rule, Schedule, zone};
use proptest::{prelude::*, test_runner::RngSeed};

fn seeded() -> ProptestConfig {
    ProptestConfig { cases: 1000, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

/// Lines of iCalendar files, whole and broken.
fn ics_lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        3 => prop::sample::select(vec![
            "BEGIN:VCALENDAR", "END:VCALENDAR", "BEGIN:VEVENT", "END:VEVENT", "VERSION:2.0", "SUMMARY:day", " folded",
            "DTSTART;VALUE=DATE:20261001", "DTEND;VALUE=DATE:20261009", "DTSTART:20260230", "DTEND:1", "DURATION:P1D",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..20).prop_map(|lines| format!("BEGIN:VCALENDAR\r\n{}", lines.join("\r\n")))
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn texts_are_read_or_refused(text in "\\PC{0,40}", cron in "@?[-*/?,0-9a-z: ]{0,30}", ics in ics_lines()) {
        let _ = Schedule::parse(&text);
        let _ = Schedule::parse(&cron);
        let _ = Schedule::parse(&format!("@every {cron}"));
        let _ = Schedule::parse(&format!("@date {cron}"));
        let _ = Calendar::parse(&text);
        let _ = Calendar::parse(&ics);
        let _ = zone(&text);
    }
}

#[test]
fn the_first_and_last_instants_of_all_have_no_more_before_and_after_them() {
    for text in ["* * * * * *", "@yearly", "@every 1s", "@every 100000h", "@date 9999-12-31 23:59:59"] {
        for zone in [TimeZone::UTC, zone("Asia/Shanghai").unwrap(), zone("America/New_York").unwrap()] {
            let rule = Rule { schedule: Schedule::parse(text).unwrap(), zone, days: Days::default() };
            assert_eq!(rule.next(Timestamp::MAX), None, "{text}");
            assert_eq!(rule.last(Timestamp::MIN).filter(|last| *last > Timestamp::MIN), None, "{text}");
            let _ = (rule.last(Timestamp::MAX), rule.next(Timestamp::MIN));
        }
    }
}
