//! When something is due: cron schedules, time zones, calendars. Knows nothing of Kubernetes.
//!
//! [`Schedule`] has the grammar, [`Rule`] adds the zone and the days. Fields are matched by croner on the clock's face, that
//! is, without a zone; what daylight saving does to a time is decided here, in one place: a time that the clock skips is due
//! at the first instant after the gap, and one that it repeats is due once, the first time.

mod calendar;
mod grammar;
mod rule;

pub use calendar::{Calendar, CalendarError, MAX_DAYS};
pub use grammar::{Schedule, ScheduleError};
pub use rule::{Days, Rule, UnknownZone, zone};

/// The beginning of a text, in one line: short enough for an error that is shown in a status.
fn clipped(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
