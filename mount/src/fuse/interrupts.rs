//! Giving up for those who were killed while they waited.
//!
//! The kernel says that a signal has come for someone who waits, not which. A signal that he survives must not fail his
//! read, so it is given up for a deadly one only: the kernel marks it as SIGKILL on every thread of the process. It says
//! so once per request: after a first signal, it has to be seen whether a deadly one follows.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::AbortHandle;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// How often someone is looked at who was interrupted and waits on.
const LOOK: Duration = Duration::from_millis(100);

/// The bit of SIGKILL in a set of signals.
const KILL: u64 = 1 << 8;

/// Who waits, by the number of his request.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<u64, Waiter>>);

#[derive(Debug)]
struct Waiter {
    thread: u32,
    abort: AbortHandle,
}

/// Forgets the waiter when it goes.
pub(super) struct Listed {
    waiting: Arc<Waiting>,
    unique: u64,
}

impl Waiting {
    pub(super) fn list(self: &Arc<Self>, unique: u64, thread: u32, abort: AbortHandle) -> Listed {
        self.0.lock().insert(unique, Waiter { thread, abort });
        Listed { waiting: self.clone(), unique }
    }

    /// Gives the request up once its waiter is killed: now, or at any time until it is answered.
    pub(super) fn interrupt(self: &Arc<Self>, unique: u64, runtime: &Handle) {
        if self.give_up_if_killed(unique) {
            runtime.spawn(watch(Arc::downgrade(self), unique));
        }
    }

    /// Whether it is still waited for.
    fn give_up_if_killed(&self, unique: u64) -> bool {
        let waiting = self.0.lock();
        let Some(waiter) = waiting.get(&unique) else { return false };
        let killed = is_killed(waiter.thread);
        if killed {
            waiter.abort.abort();
        }
        !killed
    }
}

async fn watch(waiting: Weak<Waiting>, unique: u64) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !waiting.upgrade().is_some_and(|waiting| waiting.give_up_if_killed(unique)) {
            return;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.unique);
    }
}

/// Threads of other namespaces of processes have no number here, and none is taken for killed.
fn is_killed(thread: u32) -> bool {
    thread != 0 && fs::read_to_string(format!("/proc/{thread}/status")).is_ok_and(|status| has_kill_pending(&status))
}

/// Reads `/proc/PID/status` (proc(5)).
fn has_kill_pending(status: &str) -> bool {
    let sets = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    let mut masks = sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok());
    masks.any(|mask| mask & KILL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_kill_counts() {
        let status = |own: &str, shared: &str| {
            format!("Name:\tx\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n")
        };
        let none = "0000000000000000";
        assert!(has_kill_pending(&status("0000000000000100", none)));
        assert!(has_kill_pending(&status(none, "0000000000004100")));
        assert!(!has_kill_pending(&status(none, "0000000000004000")), "SIGTERM with a handler");
        assert!(!has_kill_pending(&status(none, none)));
        assert!(!is_killed(std::process::id()) && !is_killed(0));
    }
}
