//! Sets of days: exchange holidays, for example.

use icalendar::{Calendar as Ics, CalendarComponent, Component, Event};
use jiff::civil::Date;

/// The most days that a calendar may have.
pub const MAX_DAYS: usize = 20_000;

/// A set of days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// First and last day of each range, in order.
    ranges: Vec<(Date, Date)>,
}

/// Why a text is no calendar, in a sentence that names line, value and mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    #[error("line {line}: '{value}' is no day; write 2026-10-01 or a range such as 2026-10-01..2026-10-08")]
    Day { line: usize, value: String },
    #[error("line {line}: '{value}' ends before it begins; write the earlier day first")]
    Backwards { line: usize, value: String },
    #[error("it is no iCalendar file: {0}; export it anew, or write one day on a line")]
    Ics(String),
    #[error("event '{event}' has no DTSTART that is a day, such as 20261001; add it, or write one day on a line")]
    Start { event: String },
    #[error("event '{event}' repeats ({rule}), which is not supported; write each of its days out")]
    Repeats { event: String, rule: String },
    #[error("it has more than {MAX_DAYS} days; leave out those that are past")]
    TooLong,
}

impl Calendar {
    /// Reads an iCalendar file, or else days and ranges of days, one on a line; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let is_ics =
            text.trim_start_matches('\u{feff}').trim_start().to_ascii_uppercase().starts_with("BEGIN:VCALENDAR");
        let ranges = if is_ics { events(text)? } else { lines(text)? };
        let days = ranges.iter().map(|(first, last)| (*last - *first).get_days() as usize + 1).sum::<usize>();
        if days > MAX_DAYS {
            return Err(CalendarError::TooLong);
        }
        let mut ranges = ranges;
        ranges.sort_unstable();
        Ok(Self { ranges })
    }

    /// Whether `day` is one of its days.
    pub fn contains(&self, day: Date) -> bool {
        let begun = self.ranges.partition_point(|(first, _)| *first <= day);
        self.ranges[..begun].iter().any(|(_, last)| day <= *last)
    }
}

type Range = (Date, Date);

fn lines(text: &str) -> Result<Vec<Range>, CalendarError> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut ranges = Vec::new();
    for (line, written) in numbered {
        let value = written.split('#').next().unwrap_or_default().trim();
        if value.is_empty() {
            continue;
        }
        let day = |text: &str| {
            let parsed = Date::strptime("%Y-%m-%d", text.trim());
            parsed.map_err(|_| CalendarError::Day { line, value: value.to_owned() })
        };
        let (first, last) = value.split_once("..").unwrap_or((value, value));
        let range = (day(first)?, day(last)?);
        if range.1 < range.0 {
            return Err(CalendarError::Backwards { line, value: value.to_owned() });
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn events(text: &str) -> Result<Vec<Range>, CalendarError> {
    let calendar: Ics = text.trim_start_matches('\u{feff}').parse().map_err(CalendarError::Ics)?;
    let events = calendar.components.iter().filter_map(|component| match component {
        CalendarComponent::Event(event) => Some(event),
        _ => None,
    });
    events.map(range).collect()
}

/// The days of an event. The end of one of whole days is the day after.
fn range(event: &Event) -> Result<Range, CalendarError> {
    let name = || event.get_summary().unwrap_or("without a summary").to_owned();
    if let Some(rule) = event.property_value("RRULE") {
        return Err(CalendarError::Repeats { event: name(), rule: rule.to_owned() });
    }
    let day = |property: &str| {
        let value = event.property_value(property)?;
        Some((Date::strptime("%Y%m%d", value.get(..8)?).ok()?, value.len() == 8))
    };
    let (first, _) = day("DTSTART").ok_or_else(|| CalendarError::Start { event: name() })?;
    let last = match day("DTEND") {
        Some((end, true)) => end.yesterday().unwrap_or(end),
        Some((end, false)) => end,
        None => first,
    };
    Ok((first, last.max(first)))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const ICS: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//x//y//EN\r\nBEGIN:VEVENT\r\nUID:1\r\nSUMMARY:National Day\r\n\
        DTSTART;VALUE=DATE:20261001\r\nDTEND;VALUE=DATE:20261009\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nUID:2\r\n\
        DTSTART;VALUE=DATE:20270101\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

    fn days(calendar: &Calendar, year: i16) -> usize {
        date(year, 1, 1).series(jiff::Span::new().days(1)).take(365).filter(|day| calendar.contains(*day)).count()
    }

    #[test]
    fn days_ranges_and_comments_are_read() {
        let calendar = Calendar::parse("# holidays\n2026-10-01..2026-10-08 # golden week\n\n2026-12-25\n").unwrap();
        assert_eq!(days(&calendar, 2026), 9);
        assert!(calendar.contains(date(2026, 10, 8)) && !calendar.contains(date(2026, 10, 9)));
        assert!(!Calendar::default().contains(date(2026, 10, 8)));
    }

    #[test]
    fn a_day_within_a_range_that_begins_before_another_is_found() {
        let calendar = Calendar::parse("2026-01-01..2026-12-31\n2026-03-01").unwrap();
        assert_eq!(days(&calendar, 2026), 365);
    }

    #[test]
    fn whole_days_of_an_icalendar_file_end_before_their_end() {
        let calendar = Calendar::parse(ICS).unwrap();
        assert_eq!((days(&calendar, 2026), days(&calendar, 2027)), (8, 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_mend() {
        let repeating = ICS.replace("UID:2\r\n", "UID:2\r\nSUMMARY:New Year\r\nRRULE:FREQ=YEARLY\r\n");
        for (text, expected) in [
            ("2026-10-01\n1 Oct", "line 2: '1 Oct' is no day; write"),
            ("2026-02-30", "line 1: '2026-02-30' is no day"),
            ("2026-10-08..2026-10-01", "ends before it begins"),
            ("1900-01-01..2026-10-01", "more than 20000 days"),
            (&repeating, "event 'New Year' repeats (FREQ=YEARLY)"),
            (&ICS.replace("DTSTART;VALUE=DATE:20270101\r\n", ""), "has no DTSTART"),
        ] {
            let message = Calendar::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
