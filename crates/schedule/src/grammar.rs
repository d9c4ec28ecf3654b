//! The grammar of schedules: that of the kubernetes-cronhpa-controller with six fields, that of crontab with five.

use std::fmt;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::civil::{DateTime, date};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The longest pause between two times that match: 29 February over a year like 2100.
const LONGEST_PAUSE_YEARS: i16 = 9;

/// The longest text, in bytes; six fields that list all their numbers have half as many.
const LONGEST_TEXT: usize = 1000;

/// Times of the clock's face.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    pub(crate) times: Times,
}

#[derive(Clone)]
pub(crate) enum Times {
    Matching(Box<Cron>),
    /// Every so many seconds of real time, counted from the Unix epoch so that a restart does not move them.
    Every(i64),
    Once(DateTime),
}

/// Why a text is no schedule, in a sentence that names value and mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a schedule of {length} bytes is too long; write at most 1000")]
    TooLong { length: usize },
    #[error(
        "'{text}' has {count} fields; write five (minute hour day-of-month month day-of-week) or six, with the second first, \
         as in '30 8 * * 1-5' or '0 30 8 ? * MON-FRI'"
    )]
    Fields { text: String, count: usize },
    #[error(
        "'{value}' is no {field}; write {allowed}, '*', a range such as 1-5, a step such as */2, or a list of these"
    )]
    Field { field: &'static str, value: String, allowed: &'static str },
    #[error("'{value}' goes backwards; write the smaller number first")]
    Backwards { value: String },
    #[error(
        "'{text}' is not known; write @yearly, @monthly, @weekly, @daily, @hourly, @every 1h30m or @date 2026-12-24 18:00:00"
    )]
    Word { text: String },
    #[error("'{text}' is no duration of at least 1s; write one such as @every 90s or @every 1h30m")]
    Every { text: String },
    #[error("'{text}' is no day and time; write one such as @date 2026-12-24 18:00:00")]
    Date { text: String },
    #[error("'{text}' is never due, as there is no such day; correct day and month")]
    Never { text: String },
}

impl Schedule {
    /// Reads five fields (minute first), six (second first) or a word that begins with `@`. `?` means `*`. A day is due
    /// when day of month and day of week both match if one of them begins with `*` or is `?`, else when either does.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.len() > LONGEST_TEXT {
            return Err(ScheduleError::TooLong { length: text.len() });
        }
        let times = match text.strip_prefix('@') {
            Some(word) => word_times(text, word)?,
            None => Times::Matching(Box::new(cron(text)?)),
        };
        Ok(Self { text: text.to_owned(), times })
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?})", self.text)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn word_times(text: &str, word: &str) -> Result<Times, ScheduleError> {
    let fields = match word.split_whitespace().next().unwrap_or_default() {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        "every" => return every(text, word["every".len()..].trim()),
        "date" => return once(text, word["date".len()..].trim()),
        _ => return Err(ScheduleError::Word { text: text.to_owned() }),
    };
    if word.split_whitespace().count() > 1 {
        return Err(ScheduleError::Word { text: text.to_owned() });
    }
    Ok(Times::Matching(Box::new(cron(fields)?)))
}

/// A duration of Go: numbers with the units h, m and s, and the smaller ones, which are cut off.
fn every(text: &str, duration: &str) -> Result<Times, ScheduleError> {
    let refuse = || ScheduleError::Every { text: text.to_owned() };
    let (mut seconds, mut rest) = (0.0, duration);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let number: f64 = rest[..digits].parse().map_err(|_| refuse())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(refuse()),
        };
        seconds += number * unit;
        rest = &rest[unit_end..];
    }
    let seconds = seconds.trunc();
    if (1.0..1e9).contains(&seconds) { Ok(Times::Every(seconds as i64)) } else { Err(refuse()) }
}

fn once(text: &str, when: &str) -> Result<Times, ScheduleError> {
    let at: Result<DateTime, _> = DateTime::strptime("%Y-%m-%d %H:%M:%S", when);
    at.map(Times::Once).map_err(|_| ScheduleError::Date { text: text.to_owned() })
}

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Where `*` and `N/STEP` end.
    end: u32,
    names: &'static [&'static str],
    allowed: &'static str,
}

const SECOND: Field = Field { name: "second", least: 0, most: 59, end: 59, names: &[], allowed: "0-59" };
const MINUTE: Field = Field { name: "minute", least: 0, most: 59, end: 59, names: &[], allowed: "0-59" };
const HOUR: Field = Field { name: "hour", least: 0, most: 23, end: 23, names: &[], allowed: "0-23" };
const DAY: Field = Field { name: "day of month", least: 1, most: 31, end: 31, names: &[], allowed: "1-31" };
const MONTH: Field = Field { name: "month", least: 1, most: 12, end: 12, names: &MONTHS, allowed: "1-12 or jan-dec" };
// 7 is Sunday, too.
const WEEKDAY: Field = Field {
    name: "day of week",
    least: 0,
    most: 7,
    end: 6,
    names: &WEEKDAYS,
    allowed: "0-7 (0 and 7 are Sunday) or sun-sat",
};

fn cron(text: &str) -> Result<Cron, ScheduleError> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [second, minute, hour, day, month, weekday] = match *fields.as_slice() {
        [minute, hour, day, month, weekday] => ["0", minute, hour, day, month, weekday],
        [second, minute, hour, day, month, weekday] => [second, minute, hour, day, month, weekday],
        _ => return Err(ScheduleError::Fields { text: text.to_owned(), count: fields.len() }),
    };
    let is_star = |field: &str| field.split(',').any(|item| item.starts_with(['*', '?']));
    let pattern = [
        SECOND.explicit(second)?,
        MINUTE.explicit(minute)?,
        HOUR.explicit(hour)?,
        DAY.explicit(day)?,
        MONTH.explicit(month)?,
        WEEKDAY.explicit(weekday)?,
    ]
    .join(" ");
    let never = || ScheduleError::Never { text: text.to_owned() };
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Disallowed)
        .dom_and_dow(is_star(day) || is_star(weekday))
        .build();
    let cron = parser.parse(&pattern).map_err(|_| never())?;
    let start = date(2024, 1, 1).at(0, 0, 0, 0);
    let first = cron.find_next_occurrence(&start, true).map_err(|_| never())?;
    if first.year() > start.year() + LONGEST_PAUSE_YEARS { Err(never()) } else { Ok(cron) }
}

impl Field {
    /// The field as a list of numbers, which all parsers read alike.
    fn explicit(&self, text: &str) -> Result<String, ScheduleError> {
        let mut numbers = Vec::new();
        for item in text.split(',') {
            numbers.extend(self.item(item)?);
        }
        numbers.sort_unstable();
        numbers.dedup();
        // Never as a star: whether a field is one was decided before, for the rule of days.
        Ok(numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
    }

    fn item(&self, item: &str) -> Result<Vec<u32>, ScheduleError> {
        let refuse = || ScheduleError::Field { field: self.name, value: item.to_owned(), allowed: self.allowed };
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0).ok_or_else(refuse)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (self.least, self.end),
            Some((first, last)) => (self.number(first).ok_or_else(refuse)?, self.number(last).ok_or_else(refuse)?),
            None => {
                let first = self.number(range).ok_or_else(refuse)?;
                (first, if step.is_some() { self.end.max(first) } else { first })
            }
        };
        if first > last {
            return Err(ScheduleError::Backwards { value: item.to_owned() });
        }
        Ok((first..=last).step_by(step.unwrap_or(1) as usize).map(|n| self.canonical(n)).collect())
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let value = named.map_or_else(|| number(text), |index| Some(index as u32 + self.least))?;
        (self.least..=self.most).contains(&value).then_some(value)
    }

    fn canonical(&self, number: u32) -> u32 {
        if self.most == 7 { number % 7 } else { number }
    }
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Schedule::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn five_and_six_fields_are_told_apart_by_their_number() {
        for text in
            ["30 8 * * 1-5", "0 30 8 ? * MON-FRI", "0 30 8 * * mon,tue,wed,thu,fri", "  @daily ", "@every 1h30m"]
        {
            Schedule::parse(text).unwrap();
        }
        assert!(refusal("30 8 * *").contains("has 4 fields; write five"));
        assert!(refusal("0 0 30 8 * * *").contains("has 7 fields"));
        assert!(refusal("").contains("has 0 fields"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_mend() {
        for (text, expected) in [
            ("60 8 * * *", "'60' is no minute; write 0-59"),
            ("0 24 * * *", "'24' is no hour"),
            ("0 8 0 * *", "'0' is no day of month"),
            ("0 8 * 13 *", "'13' is no month"),
            ("0 8 * * 8", "'8' is no day of week; write 0-7"),
            ("0 8 L * *", "'L' is no day of month"),
            ("0 8 15W * *", "'15W' is no day of month"),
            ("0 8 * * 5#2", "'5#2' is no day of week"),
            ("5-2 8 * * *", "'5-2' goes backwards"),
            ("*/0 8 * * *", "'*/0' is no minute"),
            ("1,,2 8 * * *", "'' is no minute"),
            ("+1 8 * * *", "'+1' is no minute"),
            ("0 8 30 2 *", "is never due"),
            ("@reboot", "'@reboot' is not known"),
            ("@daily 8", "'@daily 8' is not known"),
            ("@every 10", "is no duration"),
            ("@every 0.5s", "is no duration of at least 1s"),
            (&"0,".repeat(1000), "of 2000 bytes is too long"),
            ("@date 2026-02-30 08:00:00", "is no day and time"),
        ] {
            let message = refusal(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn a_day_that_comes_once_in_four_years_is_a_day() {
        assert!(Schedule::parse("0 0 29 2 *").is_ok());
    }
}
