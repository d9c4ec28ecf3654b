//! Sets of days: exchange holidays, for example.

mod ics;

use jiff::civil::Date;

use crate::clipped;

/// The most days that a calendar may have.
pub const MAX_DAYS: usize = 20_000;

/// A set of days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// First and last day of each range, in order; no two overlap.
    ranges: Vec<Range>,
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
    #[error(
        "event '{event}' ends at '{value}', which is no day; write a DTEND such as 20261009, the day after its last"
    )]
    End { event: String, value: String },
    #[error("event '{event}' repeats ({rule}), which is not supported; write each of its days out")]
    Repeats { event: String, rule: String },
    #[error("it has more than {MAX_DAYS} days; leave out those that are past")]
    TooLong,
}

impl Calendar {
    /// Reads an iCalendar file, or else days and ranges of days, one on a line; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let text = text.trim_start_matches('\u{feff}');
        let ranges = joined(if ics::is(text) { ics::events(text)? } else { lines(text)? });
        let days = ranges.iter().map(|(first, last)| (*last - *first).get_days() as usize + 1).sum::<usize>();
        if days > MAX_DAYS { Err(CalendarError::TooLong) } else { Ok(Self { ranges }) }
    }

    /// Whether `day` is one of its days.
    pub fn contains(&self, day: Date) -> bool {
        let begun = self.ranges.partition_point(|(first, _)| *first <= day);
        begun.checked_sub(1).is_some_and(|latest| day <= self.ranges[latest].1)
    }
}

type Range = (Date, Date);

fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlap = next.0 <= kept.1;
        if overlap {
            kept.1 = kept.1.max(next.1);
        }
        overlap
    });
    ranges
}

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
            parsed.map_err(|_| CalendarError::Day { line, value: clipped(value) })
        };
        let (first, last) = value.split_once("..").unwrap_or((value, value));
        let range = (day(first)?, day(last)?);
        if range.1 < range.0 {
            return Err(CalendarError::Backwards { line, value: clipped(value) });
        }
        ranges.push(range);
    }
    Ok(ranges)
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
    fn an_event_that_ends_at_midnight_or_is_cancelled_has_no_day_more() {
        let timed =
            ICS.replace(";VALUE=DATE:20261001", ":20261001T000000").replace(";VALUE=DATE:20261009", ":20261009T000000");
        assert_eq!(days(&Calendar::parse(&timed).unwrap(), 2026), 8);
        let cancelled = ICS.replace("UID:2\r\n", "UID:2\r\nSTATUS:CANCELLED\r\n");
        assert_eq!(days(&Calendar::parse(&cancelled).unwrap(), 2027), 0);
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_mend() {
        let repeating = ICS.replace("UID:2\r\n", "UID:2\r\nSUMMARY:New Year\r\nRRULE:FREQ=YEARLY\r\n");
        let listed = repeating.replace("RRULE:FREQ=YEARLY", "RDATE;VALUE=DATE:20280101");
        let nested = "BEGIN:VCALENDAR\n".to_owned() + &"BEGIN:VEVENT\n".repeat(10_000);
        // To the parser, an END of the same name and another BEGIN may stand on one line.
        let hidden = nested[..40].to_owned() + "\nEND:VEVENTBEGIN:VEVENT";
        for (text, expected) in [
            (nested.as_str(), "'BEGIN:VEVENT' is nested too deeply"),
            (&hidden, "'END:VEVENTBEGIN:VEVENT' ends what did not begin"),
            (&ICS[..ICS.len() - 15], "it is no iCalendar file: error: "),
            (&"x".repeat(10_000), "xxx…' is no day"),
            ("2026-10-01\n1 Oct", "line 2: '1 Oct' is no day; write"),
            ("2026-02-30", "line 1: '2026-02-30' is no day"),
            ("2026-10-08..2026-10-01", "ends before it begins"),
            ("1900-01-01..2026-10-01", "more than 20000 days"),
            (&listed, "event 'New Year' repeats (20280101)"),
            (
                &ICS.replace("DTEND;VALUE=DATE:20261009", "DURATION:P8D"),
                "event 'National Day' ends at 'P8D', which is no day",
            ),
            (&repeating, "event 'New Year' repeats (FREQ=YEARLY)"),
            (&ICS.replace("DTSTART;VALUE=DATE:20270101\r\n", ""), "has no DTSTART"),
        ] {
            let message = Calendar::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.len() < 300, "{message}");
        }
    }
}
