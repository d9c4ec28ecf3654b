//! What this worker found to have changed, for mounts that keep names and attributes: a numbered, bounded record.

use std::{
    collections::VecDeque,
    time::{Duration, UNIX_EPOCH},
};

use parking_lot::Mutex;
pub(crate) use penstock_wire::message::Change;
use penstock_wire::message::Failure;
use tokio::{sync::watch, time::timeout};

/// Changes that are remembered.
const REMEMBERED: usize = 4096;
/// In one answer.
const AT_ONCE: usize = 1024;
/// How long a question is left without an answer when there is nothing to tell.
const PATIENCE: Duration = Duration::from_secs(25);

pub(crate) struct Changes {
    record: Mutex<VecDeque<Change>>,
    /// The number of the next change; `None` when the worker stops.
    next: watch::Sender<Option<u64>>,
}

/// What followed a number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) next: u64,
    /// `None`: more than is remembered.
    pub(crate) changes: Option<Vec<Change>>,
}

impl Default for Changes {
    /// Numbers begin with the time, so that those of an earlier life of the worker are all lower.
    fn default() -> Self {
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
        Self { record: Mutex::default(), next: watch::Sender::new(Some(now << 20)) }
    }
}

impl Changes {
    pub(crate) fn note(&self, changes: impl IntoIterator<Item = Change>) {
        let mut record = self.record.lock();
        let before = record.len() as u64;
        record.extend(changes);
        let added = record.len() as u64 - before;
        let forgotten = record.len().saturating_sub(REMEMBERED);
        record.drain(..forgotten);
        // Under the lock: numbers and record go together.
        self.next.send_if_modified(|next| {
            *next = next.map(|next| next + added);
            added > 0
        });
    }

    /// Anything may have changed.
    pub(crate) fn note_all(&self) {
        let mut record = self.record.lock();
        record.clear();
        self.next.send_modify(|next| *next = next.map(|next| next + 1));
    }

    /// Waits until there is something after `since`, or for a while. Without a number: the present one, at once.
    pub(crate) async fn since(&self, since: Option<u64>) -> Result<Since, Failure> {
        let stopping = || Failure::Unavailable("the worker stops".into());
        let mut next = self.next.subscribe();
        let Some(since) = since else {
            let next = next.borrow().ok_or_else(stopping)?;
            return Ok(Since { next, changes: Some(Vec::new()) });
        };
        let _ = timeout(PATIENCE, next.wait_for(|next| *next != Some(since))).await;
        let record = self.record.lock();
        let next = next.borrow().ok_or_else(stopping)?;
        Ok(tell(&record, next, since))
    }

    /// Nobody waits any longer.
    pub(crate) fn close(&self) {
        self.next.send_replace(None);
    }
}

/// `record` ends before number `next`.
fn tell(record: &VecDeque<Change>, next: u64, since: u64) -> Since {
    let Some(first) = next.checked_sub(since).and_then(|count| (record.len() as u64).checked_sub(count)) else {
        return Since { next, changes: None };
    };
    let changes: Vec<_> = record.iter().skip(first as usize).take(AT_ONCE).cloned().collect();
    Since { next: since + changes.len() as u64, changes: Some(changes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: usize) -> Change {
        Change::Entry(number.to_string().into_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_told_once_and_in_order() {
        let changes = Changes::default();
        let mut at = changes.since(None).await.unwrap().next;
        changes.note((0..AT_ONCE + 5).map(change));
        let mut told = Vec::new();
        while told.len() < AT_ONCE + 5 {
            let since = changes.since(Some(at)).await.unwrap();
            told.extend(since.changes.unwrap());
            at = since.next;
        }
        assert_eq!(told, (0..AT_ONCE + 5).map(change).collect::<Vec<_>>());
        let (nothing, ()) = tokio::join!(changes.since(Some(at)), tokio::time::sleep(Duration::from_secs(1)));
        assert_eq!(nothing, Ok(Since { next: at, changes: Some(Vec::new()) }));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_at_once_and_who_comes_too_late_hears_that_he_does() {
        let changes = Changes::default();
        let at = changes.since(None).await.unwrap().next;
        let begun = tokio::time::Instant::now();
        let (heard, ()) = tokio::join!(changes.since(Some(at)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            changes.note([change(1)]);
        });
        assert_eq!((heard.unwrap().changes, begun.elapsed()), (Some(vec![change(1)]), Duration::from_secs(1)));
        changes.note((0..REMEMBERED).map(change));
        for old in [at, at - 1, at + 100_000] {
            assert_eq!(changes.since(Some(old)).await.unwrap().changes, None);
        }
        let end = changes.since(None).await.unwrap().next;
        changes.note_all();
        assert_eq!(changes.since(Some(end)).await.unwrap(), Since { next: end + 1, changes: None });
        let end = end + 1;
        let (stopped, ()) = tokio::join!(changes.since(Some(end)), async { changes.close() });
        assert!(stopped.is_err());
    }
}
