//! What `docs/schedules.md` says of other parsers, and its examples.

use std::fs;

use penstock_schedule::Schedule;
use penstock_tools as tools;

use crate::{croniter_says, go_says, ours};

/// What a parser makes of an expression.
#[derive(Clone, Copy)]
enum Read {
    /// The same as we do.
    Same,
    /// What we make of this text.
    As(&'static str),
    Refused,
    /// It is never due.
    Never,
    /// It is taken, for something that we have no words for.
    Taken,
}
use Read::{As, Never, Refused, Same, Taken};

/// An expression of the page's table (on one line of it, with what it begins with), and how ringtail, robfig and
/// croniter read it.
const ROWS: [(&str, &str, [Read; 3]); 14] = [
    ("five fields", "0 9 * * 1", [As("0 9 * * 1 *"), Same, Same]),
    ("day of week 7", "0 0 9 * * 7", [Refused, Refused, Same]),
    ("`7/2` as day of week", "0 0 9 * * 7/2", [Refused, Refused, As("0 0 9 * * 0/2")]),
    ("`*/2` in a day field", "0 0 9 */2 * 1", [Same, As("0 0 9 1-31/2 * 1"), As("0 0 9 1-31/2 * 1")]),
    ("`?`", "0 ? 9 * * *", [Same, Same, Refused]),
    ("`5-2`", "0 0 9 * * 5-2", [Refused, Refused, As("0 0 9 * * 5-6,0-2")]),
    ("`2-2`", "0 0 2-2 * * *", [Same, Same, As("0 0 * * * *")]),
    ("`1,,2`", "0 1,,2 9 * * *", [As("0 1,2 9 * * *"), As("0 1,2 9 * * *"), Refused]),
    ("`1,,2`", "0 +1 9 * * *", [As("0 1 9 * * *"), As("0 1 9 * * *"), Refused]),
    ("`L`", "0 0 9 L * *", [Refused, Refused, Taken]),
    ("a day that never comes", "0 0 9 30 2 *", [Never, Never, Refused]),
    ("the next time is more", "0 0 9 29 2 */6", [Never, As("0 0 9 29 2 0,6"), As("0 0 9 29 2 0,6")]),
    ("`@date`", "@date 2026-12-24 18:00:00", [As("0 0 18 24 12 *"), Refused, Refused]),
    ("`@every`", "@every 7m31s", [Taken, Taken, Refused]),
];

fn page() -> String {
    fs::read_to_string(tools::workspace_root().join("docs/schedules.md")).unwrap()
}

#[test]
fn the_table_of_the_page_tells_how_other_parsers_read() {
    let page = page();
    let expressions = ROWS.map(|(_, text, _)| text.to_owned());
    let (robfig, ringtail) = go_says(&expressions);
    let croniter = croniter_says(&expressions);
    for (index, (line, text, reads)) in ROWS.into_iter().enumerate() {
        assert!(page.contains(&format!("\n| {line}")), "the page has no line '{line}'");
        for (read, said) in reads.into_iter().zip([&ringtail[index], &robfig[index], &croniter[index]]) {
            let is_so = match read {
                Same => *said == ours(text),
                As(other) => *said == ours(other) && *said != ours(text),
                Refused => said == "-",
                Never => said.is_empty(),
                Taken => said != "-" && *said != ours(text),
            };
            assert!(is_so, "'{text}': {said}");
        }
    }
}

#[test]
fn the_examples_of_the_page_are_schedules() {
    let page = page();
    let spans: Vec<&str> = page.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect();
    let is_example =
        |span: &&&str| span.split_whitespace().count() >= 5 || (span.starts_with('@') && !span.contains("DURATION"));
    let examples: Vec<_> =
        spans.iter().filter(is_example).filter(|span| !["@date", "@every"].contains(*span)).collect();
    assert!(examples.len() > 10, "{examples:?}");
    for example in examples {
        assert!(Schedule::parse(example).is_ok(), "'{example}' is no schedule");
    }
}
