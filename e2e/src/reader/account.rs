//! What the ways of reading add up.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Report;

/// Between two calls a reader rests longer than the last one took, within these bounds: it shares two cores with what it
/// watches.
const REST: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));

#[derive(Debug, Default)]
pub(super) struct Account {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    report: Report,
    /// When the calls under way began.
    calls: Vec<Instant>,
}

impl Account {
    /// Makes one call; an error is noted and gives `None`.
    pub(super) fn call<T, E: Display>(&self, what: &dyn Display, work: impl FnOnce() -> Result<T, E>) -> Option<T> {
        let begun = Instant::now();
        self.state.lock().calls.push(begun);
        let result = work();
        let took = begun.elapsed();
        let mut state = self.state.lock();
        if let Some(place) = state.calls.iter().position(|call| *call == begun) {
            state.calls.swap_remove(place);
        }
        state.report.longest_ms = state.report.longest_ms.max(took.as_millis() as u64);
        if let Err(error) = &result {
            state.report.errors += 1;
            state.report.first.get_or_insert_with(|| format!("{what}: {error}"));
        }
        drop(state);
        std::thread::sleep((took * 3).clamp(REST.0, REST.1));
        result.ok()
    }

    pub(super) fn wrong(&self, what: &dyn Display) {
        let mut state = self.state.lock();
        state.report.wrong += 1;
        state.report.first.get_or_insert_with(|| what.to_string());
    }

    pub(super) fn right(&self, bytes: usize) {
        self.state.lock().report.bytes += bytes as u64;
    }

    pub(super) fn pass(&self) {
        self.state.lock().report.passes += 1;
    }

    /// How it stands; the longest call is counted anew from now on.
    pub(super) fn report(&self) -> Report {
        let mut state = self.state.lock();
        let under_way = state.calls.iter().map(|begun| begun.elapsed().as_millis() as u64).max().unwrap_or(0);
        let mut report = state.report.clone();
        report.longest_ms = report.longest_ms.max(under_way);
        state.report.longest_ms = 0;
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_what_went_wrong_first_and_counts_the_longest_call_anew() {
        let account = Account::default();
        assert_eq!(account.call(&"open a", || Err::<(), _>("no such file")), None);
        assert_eq!(account.call(&"read b", || Ok::<_, String>(5)), Some(5));
        account.wrong(&"c is short");
        account.right(5);
        account.state.lock().report.longest_ms = 7;
        let report = account.report();
        assert_eq!((report.errors, report.wrong, report.bytes, report.longest_ms), (1, 1, 5, 7));
        assert_eq!(report.first.as_deref(), Some("open a: no such file"));
        assert_eq!(account.report().longest_ms, 0);
    }

    #[test]
    fn a_call_under_way_counts() {
        let account = Account::default();
        let begun = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        account.state.lock().calls.push(begun);
        assert!(account.report().longest_ms >= 5000);
    }
}
