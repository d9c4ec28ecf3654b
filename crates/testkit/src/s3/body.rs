//! What is sent as an object's body: counted chunk by chunk, throttled, or cut.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio::time::Instant;

/// One step of a body: small, so that an aborted response is not counted far beyond what left.
const CHUNK: u64 = 64 << 10;

/// What goes wrong, until changed again.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The next so many `GetObject`s answer 500.
    pub fail_gets: u32,
    /// The next so many `ListObjectsV2`s answer 500.
    pub fail_lists: u32,
    /// The next so many `GetObject`s are answered with 503 `SlowDown`.
    pub throttle_gets: u32,
    /// The next so many `GetObject`s with a range of several bytes are answered with the first half of it.
    pub short_bodies: u32,
    /// The next so many bodies longer than [`Self::cut_after`] end there by a closed connection.
    pub cut_bodies: u32,
    /// Bytes of a body that is cut.
    pub cut_after: u64,
    /// Time before each `GetObject` is answered.
    pub delay: Option<Duration>,
    /// All bodies together.
    pub bytes_per_second: Option<u64>,
}

impl Faults {
    /// Takes one of `count`, if there is one.
    pub(super) fn take(count: &mut u32) -> bool {
        let any = *count > 0;
        *count = count.saturating_sub(1);
        any
    }
}

#[derive(Clone)]
pub(super) enum Content {
    Memory(Bytes),
    File(Arc<File>, u64),
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    fn chunk(&self, range: Range<u64>) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Self::File(file, _) => {
                let mut chunk = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut chunk, range.start)?;
                Ok(chunk.into())
            }
        }
    }
}

/// Shares a rate among all bodies by booking time.
#[derive(Default)]
pub(super) struct Throttle {
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    async fn wait(&self, bytes: u64, bytes_per_second: u64) {
        let until = {
            let mut free_at = self.free_at.lock();
            let start = free_at.unwrap_or_else(Instant::now).max(Instant::now());
            let end = start + Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
            *free_at = Some(end);
            end
        };
        tokio::time::sleep_until(until).await;
    }
}

pub(super) struct Sending {
    pub(super) content: Content,
    pub(super) range: Range<u64>,
    /// Where the connection breaks.
    pub(super) cut_at: Option<u64>,
    pub(super) faults: Arc<Mutex<Faults>>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) sent: Arc<AtomicU64>,
}

pub(super) fn stream(sending: Sending) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    futures::stream::try_unfold(sending, |mut sending| async move {
        let at = sending.range.start;
        if at >= sending.range.end {
            return Ok(None);
        }
        let mut end = (at + CHUNK).min(sending.range.end);
        if let Some(cut_at) = sending.cut_at {
            if at >= cut_at {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut as asked for"));
            }
            end = end.min(cut_at);
        }
        let rate = sending.faults.lock().bytes_per_second;
        if let Some(rate) = rate {
            sending.throttle.wait(end - at, rate).await;
        }
        let chunk = sending.content.chunk(at..end)?;
        sending.sent.fetch_add(end - at, Ordering::Relaxed);
        sending.range.start = end;
        Ok(Some((chunk, sending)))
    })
}
