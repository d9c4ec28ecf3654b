//! A schedule in a time zone, on some days: the instants at which it is due.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::{Calendar, Schedule, grammar::Times};

/// How far a due time is looked for, in years, in each direction.
const HORIZON_YEARS: i16 = 10;

/// No zone of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time zone '{0}' is not in the IANA database; write one such as UTC, Asia/Shanghai or America/New_York")]
pub struct UnknownZone(pub String);

/// The zone of an IANA name, from the database that is compiled in where the machine has none.
pub fn zone(name: &str) -> Result<TimeZone, UnknownZone> {
    TimeZone::get(name).map_err(|_| UnknownZone(name.to_owned()))
}

/// The days, by the rule's own clock, on which it may be due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Days {
    /// None of these days.
    pub skip: Vec<Calendar>,
    /// Only these days, if any calendar is given.
    pub only: Vec<Calendar>,
}

impl Days {
    fn admit(&self, day: Date) -> bool {
        let has = |calendars: &[Calendar]| calendars.iter().any(|calendar| calendar.contains(day));
        !has(&self.skip) && (self.only.is_empty() || has(&self.only))
    }
}

/// A schedule, the clock that it goes by, and the days.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub schedule: Schedule,
    pub zone: TimeZone,
    pub days: Days,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Backward,
}

impl Rule {
    /// The first instant after `after` at which the rule is due, within ten years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.schedule.times {
            Times::Every(seconds) => self.every(*seconds, after, Direction::Forward),
            Times::Once(at) => self.admitted(*at).filter(|instant| *instant > after),
            Times::Matching(_) => {
                let mut from = self.shown(after)?;
                loop {
                    let found = self.face(from, Direction::Forward)?;
                    // Several times of a gap are due together.
                    match self.instant(found).filter(|instant| *instant > after) {
                        Some(instant) => return Some(instant),
                        None => from = found,
                    }
                }
            }
        }
    }

    /// The last instant at or before `by` at which the rule was due, within ten years.
    pub fn last(&self, by: Timestamp) -> Option<Timestamp> {
        match &self.schedule.times {
            Times::Every(seconds) => self.every(*seconds, by, Direction::Backward),
            Times::Once(at) => self.admitted(*at).filter(|instant| *instant <= by),
            Times::Matching(_) => {
                let mut from = self.shown(by)?.checked_add(1.second()).ok()?;
                loop {
                    let found = self.face(from, Direction::Backward)?;
                    match self.instant(found).filter(|instant| *instant <= by) {
                        Some(instant) => return Some(instant),
                        None => from = found,
                    }
                }
            }
        }
    }

    /// The latest time that the clock's face has shown by `at`. In the second pass of an hour that is repeated, that is
    /// the end of the first: what is shown again was due before.
    fn shown(&self, at: Timestamp) -> Option<DateTime> {
        let local = self.zone.to_datetime(at);
        let is_repeated = self.zone.to_ambiguous_timestamp(local).is_ambiguous() && self.instant(local)? < at;
        if !is_repeated {
            return Some(local);
        }
        let second_pass = self.zone.preceding(at.checked_add(1.nanosecond()).ok()?).next()?.timestamp();
        Some(self.zone.to_datetime(second_pass.checked_sub(1.nanosecond()).ok()?))
    }

    fn admitted(&self, at: DateTime) -> Option<Timestamp> {
        self.days.admit(at.date()).then(|| self.instant(at)).flatten()
    }

    /// The next matching time of the clock's face, on a day that counts.
    fn face(&self, from: DateTime, direction: Direction) -> Option<DateTime> {
        let Times::Matching(cron) = &self.schedule.times else { return None };
        let mut at = from;
        loop {
            at = match direction {
                Direction::Forward => cron.find_next_occurrence(&at, false).ok()?,
                Direction::Backward => cron.find_previous_occurrence(&at, false).ok()?,
            };
            if (at.year() - from.year()).abs() > HORIZON_YEARS {
                return None;
            }
            if self.days.admit(at.date()) {
                return Some(at);
            }
            // No other time of that day counts.
            at = match direction {
                Direction::Forward => at.date().at(23, 59, 59, 0),
                Direction::Backward => at.date().at(0, 0, 0, 0),
            };
        }
    }

    /// When the clock shows `face`: the first time if it does so twice, and the end of the gap if it never does.
    fn instant(&self, face: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(face);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok(),
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
            AmbiguousOffset::Gap { before, .. } => {
                let passed = before.to_timestamp(face).ok()?.checked_add(1.nanosecond()).ok()?;
                self.zone.preceding(passed).next().map(|transition| transition.timestamp())
            }
        }
    }

    fn every(&self, seconds: i64, from: Timestamp, direction: Direction) -> Option<Timestamp> {
        let floor = from.as_nanosecond().div_euclid(i128::from(seconds) * 1_000_000_000) as i64;
        let mut tick = if direction == Direction::Forward { floor + 1 } else { floor };
        let day_of = |at: Timestamp| self.zone.to_datetime(at).date();
        let horizon = day_of(from).year();
        loop {
            let at = Timestamp::from_second(tick.checked_mul(seconds)?).ok()?;
            let day = day_of(at);
            if (day.year() - horizon).abs() > HORIZON_YEARS {
                return None;
            }
            if self.days.admit(day) {
                return Some(at);
            }
            tick = self.past(day, tick, seconds, direction)?;
        }
    }

    /// The first tick that is not on `day`, which does not count.
    fn past(&self, day: Date, tick: i64, seconds: i64, direction: Direction) -> Option<i64> {
        let edge = |day: Date| self.instant(day.at(0, 0, 0, 0));
        Some(match direction {
            Direction::Forward => {
                let end = edge(day.tomorrow().ok()?)?.as_second();
                (end.div_euclid(seconds) + i64::from(end.rem_euclid(seconds) > 0)).max(tick + 1)
            }
            Direction::Backward => (edge(day)?.as_second() - 1).div_euclid(seconds).min(tick - 1),
        })
    }
}
