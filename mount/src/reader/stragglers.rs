//! When an answer has taken so long that another worker should be asked too: decided by how long others took.

use std::time::Duration;

use parking_lot::Mutex;

/// Answers up to so many bytes are compared with each other; the rest with each other.
const SIZES: [u64; 3] = [64 << 10, 512 << 10, 2 << 20];
/// Longer than this part of the answers of late is late.
const NEARLY_ALL: f64 = 0.98;
/// Fewer answers tell nothing.
const ENOUGH: u32 = 64;
/// Counts halve when there are so many, so that the past fades.
const FULL: u32 = 1024;
/// What takes less is never late.
const AT_LEAST: Duration = Duration::from_millis(2);
/// How much of a second request every request allows, and how many may be saved up.
const ALLOWANCE: f64 = 0.05;
const SAVINGS: f64 = 8.0;
/// Four buckets for each doubling of a time from 1 µs on, up to 67 s.
const BUCKETS: usize = 26 * 4;

#[derive(Debug)]
pub(super) struct Stragglers(Mutex<State>);

#[derive(Debug)]
struct State {
    times: [Times; SIZES.len() + 1],
    savings: f64,
}

#[derive(Clone, Debug)]
struct Times {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Times {
    fn add(&mut self, took: Duration) {
        let micros = (took.as_micros() as f64).max(1.0);
        let bucket = (micros.log2() * 4.0) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The upper end of the bucket under which nearly all lie.
    fn late(&self) -> Option<Duration> {
        let wanted = (f64::from(self.total) * NEARLY_ALL).ceil() as u32;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        let micros = ((bucket + 1) as f64 / 4.0).exp2();
        (self.total >= ENOUGH).then(|| Duration::from_micros(micros as u64).max(AT_LEAST))
    }
}

impl Default for Stragglers {
    fn default() -> Self {
        let times = std::array::from_fn(|_| Times { counts: [0; BUCKETS], total: 0 });
        Self(Mutex::new(State { times, savings: 1.0 }))
    }
}

fn class(len: u64) -> usize {
    SIZES.iter().position(|size| len <= *size).unwrap_or(SIZES.len())
}

impl Stragglers {
    /// After how long an answer of `len` bytes, asked for now, is late. `None` while that is not known.
    pub(super) fn late_after(&self, len: u64) -> Option<Duration> {
        let mut state = self.0.lock();
        state.savings = (state.savings + ALLOWANCE).min(SAVINGS);
        state.times[class(len)].late()
    }

    /// Whether one more second request may be sent now.
    pub(super) fn may_ask_again(&self) -> bool {
        let mut state = self.0.lock();
        let may = state.savings >= 1.0;
        state.savings -= f64::from(u8::from(may));
        may
    }

    pub(super) fn answered(&self, len: u64, took: Duration) {
        self.0.lock().times[class(len)].add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn late_is_what_takes_longer_than_nearly_all_of_its_size() {
        let stragglers = Stragglers::default();
        assert_eq!(stragglers.late_after(4096), None);
        for n in 0..400u32 {
            stragglers.answered(4096, if n % 100 == 0 { 900 * MS } else { 10 * MS });
            stragglers.answered(1 << 20, 50 * MS);
        }
        let (small, large) = (stragglers.late_after(4096).unwrap(), stragglers.late_after(1 << 20).unwrap());
        assert!(small > 10 * MS && small < 15 * MS, "{small:?}");
        assert!(large > 50 * MS && large < 70 * MS, "{large:?}");
        assert_eq!(stragglers.late_after(4 << 20), None, "no answer of this size yet");
    }

    #[test]
    fn what_was_slow_before_is_forgotten() {
        let stragglers = Stragglers::default();
        (0..1000).for_each(|_| stragglers.answered(1, 500 * MS));
        (0..8000).for_each(|_| stragglers.answered(1, 5 * MS));
        assert!(stragglers.late_after(1).unwrap() < 10 * MS);
    }

    #[test]
    fn one_in_twenty_requests_is_sent_twice_at_most() {
        let stragglers = Stragglers::default();
        let second = (0..10_000)
            .filter(|_| {
                stragglers.late_after(1);
                stragglers.may_ask_again()
            })
            .count();
        assert!((490..=510).contains(&second), "{second}");
    }
}
