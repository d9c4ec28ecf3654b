//! How much of a tier is the window, found by trying: the share moves one level where that gives clearly more hits, and back
//! where it gives clearly fewer (after Einziger and others, "Adaptive Software Cache Management", 2018).

/// Shares of the capacity, smallest first. Loops and steady popularity want the first, a moving working set the last.
const LEVELS: [f64; 4] = [0.01, 0.1, 0.35, 0.8];
/// Visits of one period, per resident.
const PERIOD: u64 = 2;
/// Fewer would only measure chance.
const LEAST: u64 = 1000;
/// Periods of rest after a trial that failed double up to this, so that trials cost next to nothing where they never help.
const MAX_REST: u32 = 16;
/// A hit ratio that moves this far by itself tells of other readers.
const UPHEAVAL: f64 = 0.05;

#[derive(Debug)]
pub(crate) struct Window {
    level: usize,
    phase: Phase,
    /// Hit ratio of the last period at the level that is kept.
    base: f64,
    /// Whether the next trial is of a larger window.
    grow: bool,
    wait: u32,
    asked: u64,
    hits: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Periods until the next trial.
    Rest(u32),
    /// The level before the trial.
    Trial(usize),
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { level: 0, phase: Phase::Rest(1), base: 0.0, grow: true, wait: 1, asked: 0, hits: 0 }
    }

    /// The window's part of the capacity.
    pub(crate) fn share(&self) -> f64 {
        LEVELS[self.level]
    }

    /// One more request, which was a hit or not, with so many extents resident.
    pub(crate) fn asked(&mut self, hit: bool, resident: usize) {
        self.asked += 1;
        self.hits += u64::from(hit);
        if self.asked >= (PERIOD * resident as u64).max(LEAST) {
            let ratio = self.hits as f64 / self.asked as f64;
            // Two standard deviations of the difference of two periods, at a ratio of one half.
            let chance = 1.5 / (self.asked as f64).sqrt();
            (self.asked, self.hits) = (0, 0);
            self.judge(ratio, chance);
        }
    }

    fn judge(&mut self, ratio: f64, chance: f64) {
        match self.phase {
            Phase::Rest(left) => {
                let upheaval = (ratio - self.base).abs() > UPHEAVAL;
                self.base = ratio;
                let left = if upheaval { 1 } else { left };
                self.wait = if upheaval { 1 } else { self.wait };
                if left <= 1 { self.try_next() } else { self.phase = Phase::Rest(left - 1) }
            }
            // What makes no difference is decided for the smaller window.
            Phase::Trial(from) if ratio > self.base + if self.level > from { chance } else { -chance } => {
                (self.base, self.wait) = (ratio, 1);
                self.try_next();
            }
            Phase::Trial(from) => {
                (self.level, self.grow) = (from, !self.grow);
                self.wait = (self.wait * 2).min(MAX_REST);
                self.phase = Phase::Rest(self.wait);
            }
        }
    }

    fn try_next(&mut self) {
        let last = LEVELS.len() - 1;
        self.grow = self.level == 0 || (self.level < last && self.grow);
        self.phase = Phase::Trial(self.level);
        self.level = if self.grow { self.level + 1 } else { self.level - 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The level that is kept after `periods` in which a share gives `ratio(share)` hits.
    fn settled(periods: usize, ratio: fn(f64) -> f64) -> usize {
        let mut window = Window::new();
        for _ in 0..periods {
            let hits = (4000.0 * ratio(window.share())) as u64;
            (0..4000).for_each(|at| window.asked(at < hits, 2000));
        }
        match window.phase {
            Phase::Trial(from) => from,
            Phase::Rest(_) => window.level,
        }
    }

    #[test]
    fn the_share_that_gives_most_hits_is_found() {
        assert_eq!(settled(12, |share| 0.2 + share / 2.0), 3);
        assert_eq!(settled(12, |share| 0.6 - share / 2.0), 0);
        assert_eq!(settled(40, |share| 0.7 - (share - 0.35).abs()), 2);
        assert_eq!(settled(40, |_| 0.5), 0, "no difference is decided for the smaller");
    }

    #[test]
    fn trials_that_fail_become_rare() {
        let mut window = Window::new();
        let mut larger = 0;
        for _ in 0..200 {
            larger += usize::from(window.share() > LEVELS[0]);
            let hits = if window.share() > LEVELS[0] { 300 } else { 600 };
            (0..1000).for_each(|at| window.asked(at < hits, 500));
        }
        assert!(larger <= 16, "{larger} of 200 periods");
    }
}
