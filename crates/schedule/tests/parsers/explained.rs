//! How other parsers read: as we would read another text, or not at all.

use penstock_schedule::{Schedule, ScheduleError};

use crate::ours;

/// What explains that another parser says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// Five fields are minute first here, and second first there.
    SecondFirst,
    /// A step on a star still counts as a star for the rule of days here.
    StarWithStep,
    /// Empty list items and signs are refused here.
    Sloppy,
    /// Ranges that go backwards are refused here.
    Backwards,
    /// A range of one number is that number here.
    OneWide,
    /// `7/STEP` is Sunday here, and begins at 0 there.
    StepFromSeven,
    /// `@every` is counted from 1970 here, and from now there.
    EveryFromNow,
    /// `@date` is once here, and each year there.
    DateEachYear,
    /// 7 is Sunday here, and refused there.
    Sunday,
    /// `?` stands in any field here.
    QuestionMark,
    /// The word is not known there.
    Word,
    /// What never comes is refused here.
    Never,
    /// L, W and # are refused here.
    Quartz,
    /// Times are looked for further ahead here.
    Further,
}

/// The text that means here what `text` means there; `None` where that is the same text.
type Reads = fn(&[&str]) -> Option<Vec<String>>;
/// Whether a text is refused there.
type Refuses = fn(&[&str]) -> bool;

pub(crate) struct Witness {
    pub(crate) name: &'static str,
    reads: &'static [(Difference, Reads)],
    refuses: &'static [(Difference, Refuses)],
    /// Whether it counts `@every` from the moment at which it is asked.
    every_from_now: bool,
    /// Whether it takes `L`, `W` and `#`.
    takes_quartz: bool,
}

pub(crate) const RINGTAIL: Witness = Witness {
    name: "ringtail",
    reads: &[
        (Difference::SecondFirst, second_first),
        (Difference::Sloppy, tidied),
        (Difference::DateEachYear, date_each_year),
    ],
    refuses: &[(Difference::Sunday, has_seven)],
    every_from_now: true,
    takes_quartz: false,
};
pub(crate) const ROBFIG: Witness = Witness {
    name: "robfig",
    reads: &[(Difference::StarWithStep, star_with_step_as_range), (Difference::Sloppy, tidied)],
    refuses: &[(Difference::Sunday, has_seven), (Difference::Word, is_date)],
    every_from_now: true,
    takes_quartz: false,
};
pub(crate) const CRONITER: Witness = Witness {
    name: "croniter",
    reads: &[
        (Difference::StarWithStep, star_with_step_as_range),
        (Difference::OneWide, one_wide_as_all),
        (Difference::StepFromSeven, step_from_zero),
        (Difference::Backwards, wrapped),
    ],
    refuses: &[(Difference::QuestionMark, has_question_mark_elsewhere), (Difference::Word, is_date_or_every)],
    every_from_now: false,
    takes_quartz: true,
};

/// The fewest differences that explain what the witness says.
pub(crate) fn explained(witness: &Witness, text: &str, theirs: &str) -> Option<Vec<Difference>> {
    let mut choices: Vec<usize> = (0..1 << witness.reads.len()).collect();
    choices.sort_by_key(|choice| choice.count_ones());
    choices.into_iter().find_map(|choice| {
        let chosen = witness.reads.iter().enumerate().filter(|(index, _)| choice & (1 << index) != 0);
        let (mut read, mut found) = (text.to_owned(), Vec::new());
        for (_, (difference, reads)) in chosen {
            read = reads(&read.split_whitespace().collect::<Vec<_>>())?.join(" ");
            found.push(*difference);
        }
        found.extend(rest(witness, &read, theirs)?);
        Some(found)
    })
}

/// What explains `theirs` when `text` is what the witness reads; nothing where we say the same of it.
fn rest(witness: &Witness, text: &str, theirs: &str) -> Option<Vec<Difference>> {
    let ours = ours(text);
    let fields: Vec<&str> = text.split_whitespace().collect();
    if ours == theirs {
        return Some(Vec::new());
    }
    if theirs == "-" {
        return witness.refuses.iter().find(|(_, refuses)| refuses(&fields)).map(|(difference, _)| vec![*difference]);
    }
    if ours == "-" {
        let is_never = matches!(Schedule::parse(text), Err(ScheduleError::Never { .. })) && theirs.is_empty();
        let is_quartz = witness.takes_quartz && items(&fields).any(|item| ["L", "15W", "5#2"].contains(&item));
        return match (is_never, is_quartz) {
            (true, _) => Some(vec![Difference::Never]),
            (_, true) => Some(vec![Difference::Quartz]),
            _ => None,
        };
    }
    if witness.every_from_now && fields[0] == "@every" {
        let times = |text: &str| text.split(',').map(|time| time.parse().unwrap()).collect::<Vec<i64>>();
        let (ours, theirs) = (times(&ours), times(theirs));
        let is_as_far = theirs[0] - crate::BEGIN == theirs[1] - theirs[0] && theirs[1] - theirs[0] == ours[1] - ours[0];
        return is_as_far.then(|| vec![Difference::EveryFromNow]);
    }
    ours.starts_with(theirs).then(|| vec![Difference::Further])
}

fn items<'a>(fields: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    fields.iter().flat_map(|field| field.split(','))
}

/// Field by field from the right, the least and most number; 7 is no weekday of its own.
const BOUNDS: [(u32, u32); 6] = [(0, 6), (1, 12), (1, 31), (0, 23), (0, 59), (0, 59)];

/// Each item in another way, given its field's place from the right.
fn by_item(fields: &[&str], change: impl Fn(usize, &str) -> Option<String>) -> Option<Vec<String>> {
    let mut is_changed = false;
    let mut changed: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    for (place, field) in fields.iter().rev().enumerate().take(BOUNDS.len()) {
        let items = field.split(',').map(|item| match change(place, item) {
            Some(other) => {
                is_changed = true;
                other
            }
            None => item.to_owned(),
        });
        changed[fields.len() - 1 - place] = items.collect::<Vec<_>>().join(",");
    }
    is_changed.then_some(changed)
}

fn second_first(fields: &[&str]) -> Option<Vec<String>> {
    (fields.len() == 5).then(|| fields.iter().chain(&["*"]).map(|field| (*field).to_owned()).collect())
}

fn tidied(fields: &[&str]) -> Option<Vec<String>> {
    let tidy = |field: &&str| field.replace(",,", ",").replace('+', "");
    let tidied: Vec<String> = fields.iter().map(tidy).collect();
    (tidied != fields).then_some(tidied)
}

fn star_with_step_as_range(fields: &[&str]) -> Option<Vec<String>> {
    by_item(fields, |place, item| {
        let step = item.strip_prefix("*/").filter(|_| matches!(place, 0 | 2))?;
        Some(format!("{}-{}/{step}", BOUNDS[place].0, BOUNDS[place].1))
    })
}

fn ends(place: usize, item: &str) -> Option<(u32, u32, &str)> {
    let (range, step) = item.find('/').map_or((item, ""), |at| item.split_at(at));
    let (first, last) = range.split_once('-')?;
    Some((number(place, first)?, number(place, last)?, step))
}

/// As croniter has it: of weekdays, 7 is 0.
fn number(place: usize, text: &str) -> Option<u32> {
    const WEEKDAYS: &str = "sunmontuewedthufrisat";
    const MONTHS: &str = "janfebmaraprmayjunjulaugsepoctnovdec";
    let lower = text.to_ascii_lowercase();
    let named = |names: &str, least| names.find(&lower).map(|at| at as u32 / 3 + least);
    match (text.parse::<u32>(), place) {
        (Ok(7), 0) => Some(0),
        (Ok(number), _) => Some(number),
        (Err(_), 0) => named(WEEKDAYS, 0),
        (Err(_), 1) => named(MONTHS, 1),
        _ => None,
    }
}

fn one_wide_as_all(fields: &[&str]) -> Option<Vec<String>> {
    by_item(fields, |place, item| {
        let (first, last, step) = ends(place, item)?;
        (first == last).then(|| format!("{}-{}{step}", BOUNDS[place].0, BOUNDS[place].1))
    })
}

fn wrapped(fields: &[&str]) -> Option<Vec<String>> {
    by_item(fields, |place, item| {
        let (first, last, step) = ends(place, item)?;
        let bounds = BOUNDS[place];
        match step {
            "" if first > last => Some(format!("{first}-{},{}-{last}", bounds.1, bounds.0)),
            // 7-2 is 0-2.
            _ if place == 0 && item.starts_with('7') => Some(format!("{first}-{last}{step}")),
            _ => None,
        }
    })
}

fn step_from_zero(fields: &[&str]) -> Option<Vec<String>> {
    by_item(fields, |place, item| {
        let step = item.strip_prefix("7/").filter(|_| place == 0)?;
        Some(format!("0/{step}"))
    })
}

fn date_each_year(fields: &[&str]) -> Option<Vec<String>> {
    let ["@date", day, time] = fields else { return None };
    let (mut day, mut time) = (day.split('-').rev(), time.split(':').rev());
    let six = [time.next()?, time.next()?, time.next()?, day.next()?, day.next()?, "*"];
    Some(
        six.map(|field| field.trim_start_matches('0'))
            .map(|field| if field.is_empty() { "0" } else { field }.to_owned())
            .into(),
    )
}

fn has_seven(fields: &[&str]) -> bool {
    fields.last().is_some_and(|field| field.split([',', '-']).any(|part| part.split('/').next() == Some("7")))
}

fn has_question_mark_elsewhere(fields: &[&str]) -> bool {
    fields.iter().rev().enumerate().any(|(place, field)| field.contains('?') && !matches!(place, 0 | 2))
}

fn is_date(fields: &[&str]) -> bool {
    fields.first() == Some(&"@date")
}

fn is_date_or_every(fields: &[&str]) -> bool {
    is_date(fields) || fields.first() == Some(&"@every")
}
