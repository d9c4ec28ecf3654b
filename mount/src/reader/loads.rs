//! What it is like to ask each worker: bytes on their way, and how long they take.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use penstock_wire::Address;

use super::holders::Load;

/// A measure fades over about this time, so that who was slow is tried again.
const FADING: Duration = Duration::from_secs(3);
/// The part that the newest measure has in the pace.
const NEWEST: f64 = 0.2;
/// An answer takes as long as so many bytes, however few it has.
const ANSWER: u64 = 32 << 10;

#[derive(Debug, Default)]
pub(super) struct Loads(Mutex<HashMap<Address, Arc<Mutex<Measured>>>>);

#[derive(Debug)]
struct Measured {
    waiting: u64,
    pace: f64,
    at: Instant,
}

impl Loads {
    pub(super) fn of(&self, address: &Address, now: Instant) -> Load {
        let Some(measured) = self.0.lock().get(address).cloned() else { return Load::default() };
        let measured = measured.lock();
        let age = (now - measured.at).as_secs_f64();
        Load { waiting: measured.waiting, pace: measured.pace * (-age / FADING.as_secs_f64()).exp() }
    }

    /// `len` bytes are asked of `address`; they are on their way until the guard goes.
    pub(super) fn ask(&self, address: &Address, len: u64) -> Asked {
        let begun = Instant::now();
        let fresh = || Arc::new(Mutex::new(Measured { waiting: 0, pace: 0.0, at: begun }));
        let measured = self.0.lock().entry(address.clone()).or_insert_with(fresh).clone();
        measured.lock().waiting += len;
        Asked { measured, len, begun }
    }

    pub(super) fn retain(&self, wanted: impl Fn(&Address) -> bool) {
        self.0.lock().retain(|address, _| wanted(address));
    }
}

/// Bytes on their way. Whoever gives up on them has measured too: they take at least so long.
#[derive(Debug)]
pub(super) struct Asked {
    measured: Arc<Mutex<Measured>>,
    len: u64,
    begun: Instant,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut measured = self.measured.lock();
        measured.waiting -= self.len;
        let took = self.begun.elapsed().as_secs_f64() / self.len.max(ANSWER) as f64;
        measured.pace = if measured.pace == 0.0 { took } else { measured.pace + NEWEST * (took - measured.pace) };
        measured.at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_until_they_come_and_a_slow_worker_is_forgiven() {
        let (loads, address): (_, Address) = (Loads::default(), "a:1".parse().unwrap());
        assert_eq!(loads.of(&address, Instant::now()), Load::default());
        let (one, two) = (loads.ask(&address, 100), loads.ask(&address, 50));
        assert_eq!(loads.of(&address, Instant::now()).waiting, 150);
        drop(one);
        drop(two);
        let now = Instant::now();
        let load = loads.of(&address, now);
        assert!(load.waiting == 0 && load.pace > 0.0);
        assert!(loads.of(&address, now + 5 * FADING).pace < load.pace / 100.0);
    }
}
