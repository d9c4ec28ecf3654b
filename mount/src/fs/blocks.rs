//! Readahead: blocks of an open object that are here or on their way.
//!
//! All handles of one object share its blocks, so two readers of one file ask for each block once. The kernel's page cache
//! keeps what was read; a block is dropped soon after it was.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture, future::Shared};
use parking_lot::Mutex;
use penstock_model::{EXTENT, Object, ObjectKey};
use penstock_wire::message::Pattern;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::Instant,
};

use crate::backend::{Backend, ReadError};

/// Bytes of a block: the most that the kernel asks for at once. Blocks never cross an extent.
pub const BLOCK: u64 = 1 << 20;
const _: () = assert!(EXTENT.is_multiple_of(BLOCK));

/// Blocks that nobody touched for this long are dropped.
const IDLE: Duration = Duration::from_secs(5);

type Flight = Shared<BoxFuture<'static, Result<Bytes, ReadError>>>;

struct Block {
    flight: Flight,
    task: AbortHandle,
    touched: Instant,
    /// A read has asked for part of it; else it was fetched ahead.
    wanted: bool,
    /// A read has reached its end.
    done: bool,
    _room: OwnedSemaphorePermit,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One object that is open here, whatever the number of handles.
pub struct OpenObject {
    pub object: Object,
    backend: Arc<dyn Backend>,
    /// Counts bytes in KiB; shared by the whole mount.
    room: Arc<Semaphore>,
    /// The most bytes of blocks for this object.
    bound: u64,
    blocks: Mutex<BTreeMap<u64, Block>>,
}

impl OpenObject {
    /// Bytes `offset..offset + len`, within the object; the `ahead` bytes that follow are set on their way.
    pub async fn read(
        self: &Arc<Self>,
        offset: u64,
        len: u64,
        pattern: Pattern,
        ahead: u64,
    ) -> Result<Bytes, ReadError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let end = offset + len;
        if pattern == Pattern::Random {
            return self.read_exactly(offset, end, pattern).await;
        }
        let wanted: Option<Vec<(u64, Flight)>> =
            (offset / BLOCK..=(end - 1) / BLOCK).map(|index| Some((index, self.fetch(index)?))).collect();
        // Without room for whole blocks there is none for readahead either.
        let Some(wanted) = wanted else { return self.read_exactly(offset, end, pattern).await };
        self.fetch_ahead(end, ahead);
        let mut parts = Vec::with_capacity(wanted.len());
        for (index, flight) in wanted {
            let data = flight.await?;
            parts.push(cut(&data, index * BLOCK, offset, end)?);
        }
        self.drop_read(offset, end);
        Ok(join(parts))
    }

    /// Sets the first block on its way, without anyone waiting for it.
    pub fn prefetch(self: &Arc<Self>) {
        drop(self.fetch(0));
    }

    /// Only these bytes, from blocks that are here anyway or else straight from the workers.
    pub async fn read_exactly(&self, offset: u64, end: u64, pattern: Pattern) -> Result<Bytes, ReadError> {
        let known = self.known(offset / BLOCK, (end - 1) / BLOCK);
        if let Some(flights) = known {
            let mut parts = Vec::with_capacity(flights.len());
            for (index, flight) in flights {
                parts.push(cut(&flight.await?, index * BLOCK, offset, end)?);
            }
            return Ok(join(parts));
        }
        let parts = extents(offset, end)
            .map(|(from, to)| async move {
                let len = to - from;
                let data = self.backend.read(&self.object, from, len as u32, pattern).await?;
                whole(data, len)
            })
            .collect::<Vec<_>>();
        futures::future::try_join_all(parts).await.map(join)
    }

    fn known(&self, first: u64, last: u64) -> Option<Vec<(u64, Flight)>> {
        let blocks = self.blocks.lock();
        (first..=last).map(|index| Some((index, blocks.get(&index)?.flight.clone()))).collect()
    }

    /// The block, set on its way unless it is already; `None` when there is no room for it.
    fn fetch(self: &Arc<Self>, index: u64) -> Option<Flight> {
        let mut blocks = self.blocks.lock();
        if let Some(block) = blocks.get_mut(&index) {
            (block.touched, block.wanted) = (Instant::now(), true);
            return Some(block.flight.clone());
        }
        let room = self.make_room(&mut blocks, index, true)?;
        Some(self.start(&mut blocks, index, true, room))
    }

    fn fetch_ahead(self: &Arc<Self>, end: u64, ahead: u64) {
        if ahead == 0 || end >= self.object.size {
            return;
        }
        let last = (end + ahead).min(self.object.size) - 1;
        let mut blocks = self.blocks.lock();
        for index in end / BLOCK..=last / BLOCK {
            if blocks.contains_key(&index) {
                continue;
            }
            let Some(room) = self.make_room(&mut blocks, index, false) else { return };
            drop(self.start(&mut blocks, index, false, room));
        }
    }

    fn start(
        self: &Arc<Self>,
        blocks: &mut BTreeMap<u64, Block>,
        index: u64,
        wanted: bool,
        room: OwnedSemaphorePermit,
    ) -> Flight {
        let (offset, len) = (index * BLOCK, self.block_len(index));
        let this = Arc::downgrade(self);
        let (backend, object) = (self.backend.clone(), self.object.clone());
        let task = tokio::spawn(async move {
            let result = backend.read(&object, offset, len as u32, Pattern::Sequential).await;
            let result = result.and_then(|data| whole(data, len));
            if result.is_err()
                && let Some(this) = this.upgrade()
            {
                // Whoever waits sees the error; whoever comes later tries anew.
                this.blocks.lock().remove(&index);
            }
            result
        });
        let abort = task.abort_handle();
        let flight =
            async move { task.await.unwrap_or_else(|_| Err(ReadError::Unreachable("the read was given up".into()))) };
        let flight = flight.boxed().shared();
        let touched = Instant::now();
        let block = Block { flight: flight.clone(), task: abort, touched, wanted, done: false, _room: room };
        blocks.insert(index, block);
        flight
    }

    /// Room for one more block, if need be in place of those that were read. One that is `needed` now takes the place of
    /// the one that was fetched ahead last, which is needed last; and where every block is being read, each by a stream of
    /// its own, there is one more. An object may hold as much ahead as is still free for all: so many that are read at
    /// once have equal shares (A. K. Choudhury, E. L. Hahne: "Dynamic queue length thresholds", 1998).
    fn make_room(&self, blocks: &mut BTreeMap<u64, Block>, index: u64, needed: bool) -> Option<OwnedSemaphorePermit> {
        let mut held: u64 = blocks.keys().map(|index| self.block_len(*index)).sum();
        let len = self.block_len(index);
        while held + len > self.bound {
            let here = || blocks.iter().filter(|(_, block)| block.task.is_finished());
            let read = here().filter(|(_, block)| block.done).min_by_key(|(_, block)| block.touched);
            let ahead = || here().filter(|(_, block)| needed && !block.wanted).max_by_key(|(_, block)| block.touched);
            match read.or_else(ahead).map(|(index, _)| *index) {
                Some(leaving) => {
                    blocks.remove(&leaving);
                    held -= self.block_len(leaving);
                }
                None if needed => break,
                None => return None,
            }
        }
        if !needed && held + len > self.room.available_permits() as u64 * 1024 {
            return None;
        }
        self.room.clone().try_acquire_many_owned(len.div_ceil(1024) as u32).ok()
    }

    /// Forgets blocks that this read has finished: the page cache has them now.
    fn drop_read(&self, offset: u64, end: u64) {
        let mut blocks = self.blocks.lock();
        blocks.retain(|index, block| {
            block.done |= index * BLOCK >= offset / BLOCK * BLOCK && index * BLOCK + self.block_len(*index) <= end;
            // What is behind this read and was not read yet is another stream's.
            let behind = (index + 2) * BLOCK <= offset;
            !(block.task.is_finished() && block.done && behind)
        });
    }

    fn drop_idle(&self, now: Instant) {
        self.blocks.lock().retain(|_, block| !block.task.is_finished() || now - block.touched < IDLE);
    }

    fn block_len(&self, index: u64) -> u64 {
        BLOCK.min(self.object.size - index * BLOCK)
    }
}

/// All objects that are open in this mount.
pub struct OpenObjects {
    backend: Arc<dyn Backend>,
    room: Arc<Semaphore>,
    open: Mutex<HashMap<ObjectKey, Weak<OpenObject>>>,
}

impl OpenObjects {
    /// `total`: bytes of readahead for all objects.
    pub fn new(backend: Arc<dyn Backend>, total: u64) -> Self {
        let room = Arc::new(Semaphore::new((total / 1024) as usize));
        Self { backend, room, open: Mutex::default() }
    }

    /// `bound`: bytes of readahead for this object. It stays as it is while the object is open.
    pub fn open(&self, object: Object, bound: u64) -> Arc<OpenObject> {
        let mut open = self.open.lock();
        if let Some(known) = open.get(&object.key).and_then(Weak::upgrade)
            && known.object == object
        {
            return known;
        }
        let key = object.key;
        let opened = Arc::new(OpenObject {
            object,
            backend: self.backend.clone(),
            room: self.room.clone(),
            bound,
            blocks: Mutex::default(),
        });
        open.insert(key, Arc::downgrade(&opened));
        opened
    }

    /// Drops what nobody reads any more. To be called every few seconds.
    pub fn sweep(&self) {
        let now = Instant::now();
        let alive: Vec<Arc<OpenObject>> = {
            let mut open = self.open.lock();
            open.retain(|_, object| object.strong_count() > 0);
            open.values().filter_map(Weak::upgrade).collect()
        };
        for object in alive {
            object.drop_idle(now);
        }
    }
}

/// The part of `data`, which begins at `start`, that lies in `offset..end`.
fn cut(data: &Bytes, start: u64, offset: u64, end: u64) -> Result<Bytes, ReadError> {
    let from = offset.saturating_sub(start) as usize;
    let to = (end - start).min(data.len() as u64) as usize;
    if from > to {
        return Err(ReadError::Protocol("fewer bytes than asked for".into()));
    }
    Ok(data.slice(from..to))
}

fn whole(data: Bytes, len: u64) -> Result<Bytes, ReadError> {
    if data.len() as u64 == len {
        Ok(data)
    } else {
        Err(ReadError::Protocol(format!("{} bytes where {len} were asked for", data.len())))
    }
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        all.extend_from_slice(&part);
    }
    all.freeze()
}

/// `offset..end` cut at the borders of extents.
fn extents(offset: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut from = offset;
    std::iter::from_fn(move || {
        (from < end).then(|| {
            let to = ((from / EXTENT + 1) * EXTENT).min(end);
            (std::mem::replace(&mut from, to), to)
        })
    })
}

#[cfg(test)]
mod tests;
