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
