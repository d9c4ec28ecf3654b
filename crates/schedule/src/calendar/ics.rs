//! iCalendar files whose events are whole days.

use icalendar::{Calendar, CalendarComponent, Component, Event, parser::unfold};
use jiff::civil::Date;

use super::{CalendarError, Range};
use crate::clipped;

const BEGIN: &str = "BEGIN:";
const END: &str = "END:";
/// Levels of a file: an alarm of an event is on the third.
const MAX_NESTED: usize = 8;

pub(super) fn is(text: &str) -> bool {
    after(text.trim_start(), "BEGIN:VCALENDAR").is_some()
}

/// The rest of a text that begins with `word`, in any case.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    begin.eq_ignore_ascii_case(word).then_some(rest)
}

/// The days of its events.
pub(super) fn events(text: &str) -> Result<Vec<Range>, CalendarError> {
    let text = unfold(text);
    check_nesting(&text)?;
    let calendar: Calendar = text.parse().map_err(|error: String| CalendarError::Ics(clipped(&error)))?;
    let events = calendar.components.iter().filter_map(|component| match component {
        CalendarComponent::Event(event) if event.property_value("STATUS") != Some("CANCELLED") => Some(event),
        _ => None,
    });
    events.map(range).collect()
}

/// The parser calls itself for what is nested, so that a hostile text could overflow the stack.
fn check_nesting(text: &str) -> Result<(), CalendarError> {
    let mut open = Vec::new();
    for line in text.lines() {
        if let Some(name) = after(line, BEGIN) {
            open.push(name);
        } else if after(line, END).is_some_and(|name| open.pop() != Some(name)) {
            return Err(CalendarError::Ics(format!("'{}' ends what did not begin", clipped(line))));
        }
        if open.len() > MAX_NESTED {
            return Err(CalendarError::Ics(format!("'{}' is nested too deeply", clipped(line))));
        }
    }
    Ok(())
}

/// The days of an event. The end of one of whole days is the day after.
fn range(event: &Event) -> Result<Range, CalendarError> {
    let name = || event.get_summary().map_or("without a summary".to_owned(), clipped);
    for property in ["RRULE", "RDATE"] {
        let rule =
            event.property_value(property).or_else(|| Some(event.multi_properties().get(property)?.first()?.value()));
        if let Some(rule) = rule {
            return Err(CalendarError::Repeats { event: name(), rule: clipped(rule) });
        }
    }
    let first = event.property_value("DTSTART").and_then(day).ok_or_else(|| CalendarError::Start { event: name() })?;
    let last = match (event.property_value("DTEND"), event.property_value("DURATION")) {
        (None, None) => first,
        (Some(end), _) => match (day(end), end.get(8..)) {
            // A day as the end, or its first instant, is not part of the event.
            (Some(end), Some("" | "T000000" | "T000000Z")) => end.yesterday().unwrap_or(end),
            (Some(end), _) => end,
            (None, _) => return Err(CalendarError::End { event: name(), value: clipped(end) }),
        },
        (None, Some(duration)) => return Err(CalendarError::End { event: name(), value: clipped(duration) }),
    };
    Ok((first, last.max(first)))
}

/// The day that a day or a time of an iCalendar file is on.
fn day(value: &str) -> Option<Date> {
    Date::strptime("%Y%m%d", value.get(..8)?).ok()
}
