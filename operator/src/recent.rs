//! What this process saw of each Dataset lately, apart from what the API server keeps: numbers and decisions over time.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use penstock_plan::{autoscaling::Past, numbers::History};

/// By the Dataset's UID.
#[derive(Default)]
pub struct Recent(Mutex<HashMap<String, Seen>>);

/// When a run of a load was seen first, and how many bytes were done then; by the run's id.
pub type Runs = HashMap<String, (Timestamp, u64)>;

struct Seen {
    numbers: History,
    past: Past,
    runs: Runs,
}

impl Recent {
    /// Looks at, or adds to, what is remembered of a Dataset.
    pub fn with<T>(&self, uid: &str, now: Timestamp, look: impl FnOnce(&mut History, &mut Past) -> T) -> T {
        self.of(uid, now, |seen| look(&mut seen.numbers, &mut seen.past))
    }

    /// The same of its loads.
    pub fn with_runs<T>(&self, uid: &str, now: Timestamp, look: impl FnOnce(&mut Runs) -> T) -> T {
        self.of(uid, now, |seen| look(&mut seen.runs))
    }

    fn of<T>(&self, uid: &str, now: Timestamp, look: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.0.lock();
        let begin = || Seen { numbers: History::default(), past: Past::new(now), runs: Runs::new() };
        look(all.entry(uid.to_owned()).or_insert_with(begin))
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}
