//! What this process saw of each Dataset lately, apart from what the API server keeps: numbers and decisions over time.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use penstock_plan::{
    autoscaling::{Learned, Past},
    numbers::{History, Rates},
};

/// By the Dataset's UID.
#[derive(Default)]
pub struct Recent(Mutex<HashMap<String, Seen>>);

/// When a run of a load was seen first, and how many bytes were done then; by the run's id.
pub type Runs = HashMap<String, (Timestamp, u64)>;

/// What is remembered of a Dataset.
pub struct Seen {
    pub numbers: History,
    pub learned: Learned,
    pub past: Past,
    runs: Runs,
}

impl Recent {
    /// Looks at, or adds to, what is remembered of a Dataset.
    pub fn with<T>(&self, uid: &str, now: Timestamp, look: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.0.lock();
        look(all.entry(uid.to_owned()).or_insert_with(|| Seen::new(now)))
    }

    /// The same of its loads alone.
    pub fn with_runs<T>(&self, uid: &str, now: Timestamp, look: impl FnOnce(&mut Runs) -> T) -> T {
        self.with(uid, now, |seen| look(&mut seen.runs))
    }

    /// What readers took lately.
    pub fn rates(&self, uid: &str, now: Timestamp) -> Vec<(u32, Rates)> {
        self.0.lock().get(uid).map(|seen| seen.numbers.told(now)).unwrap_or_default()
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl Seen {
    fn new(now: Timestamp) -> Self {
        Self { numbers: History::default(), learned: Learned::new(now), past: Past::new(now), runs: Runs::new() }
    }
}
