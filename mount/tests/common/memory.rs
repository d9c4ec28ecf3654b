//! A backend in memory, with faults on demand: for the unit tests and for the tests on real mounts.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use penstock_model::{Attr, EXTENT, Entry, Kind, Object, ObjectKey, Version};
use penstock_wire::message::Pattern;
use tokio::sync::Notify;

use penstock_mount::backend::{Backend, Changed, Facts, Listing, LocalFile, ReadError, Told};

/// The content of a file in memory.
#[derive(Clone, Debug)]
enum Content {
    Bytes(Bytes),
    /// So many bytes of [`MemoryBackend::pattern`], made when they are read.
    Pattern(u64),
    Link(Vec<u8>),
    Directory,
}

#[derive(Clone, Debug)]
struct Item {
    content: Content,
    version: u64,
}

/// A delay longer than any test takes: whoever waits for it is let go by something else.
pub const HELD: Duration = Duration::from_secs(40);

#[derive(Default)]
pub struct MemoryBackend {
    items: Mutex<BTreeMap<Vec<u8>, Item>>,
    failures: Mutex<(u32, Option<ReadError>)>,
    reads: Mutex<Vec<(u64, u64)>>,
    stats: Mutex<u64>,
    facts: Mutex<Option<Facts>>,
    delays: Mutex<BTreeMap<(Vec<u8>, bool), Duration>>,
    delayed: Mutex<u64>,
    changes: Mutex<Vec<Changed>>,
    noticed: Notify,
}

fn told(attr: Attr) -> Told {
    Told { attr, age: Duration::ZERO }
}

impl MemoryBackend {
    /// Adds or replaces a file, and the directories that lead to it.
    pub fn add(&self, path: &[u8], content: &[u8]) -> Object {
        self.put(path, Content::Bytes(Bytes::copy_from_slice(content)))
    }

    pub fn add_patterned(&self, path: &[u8], size: u64) -> Object {
        self.put(path, Content::Pattern(size))
    }

    pub fn add_link(&self, path: &[u8], target: &[u8]) {
        self.put(path, Content::Link(target.to_vec()));
    }

    pub fn add_directory(&self, path: &[u8]) {
        self.put(path, Content::Directory);
    }

    /// What the next who asks is told to have changed.
    pub fn tell(&self, changed: Changed) {
        self.changes.lock().push(changed);
        self.noticed.notify_one();
    }

    pub fn remove(&self, path: &[u8]) {
        self.items.lock().remove(path);
    }

    pub fn set_facts(&self, facts: Facts) {
        *self.facts.lock() = Some(facts);
    }

    /// Lets the next `times` reads of bytes fail.
    pub fn fail_reads(&self, times: u32, error: ReadError) {
        *self.failures.lock() = (times, Some(error));
    }

    /// Lets every question about `path` take this long.
    pub fn delay_stat(&self, path: &[u8], delay: Duration) {
        self.delays.lock().insert((path.to_vec(), false), delay);
    }

    /// Lets every read of `path` take this long.
    pub fn delay_read(&self, path: &[u8], delay: Duration) {
        self.delays.lock().insert((path.to_vec(), true), delay);
    }

    /// Lets every listing of `path` take this long.
    pub fn delay_list(&self, path: &[u8], delay: Duration) {
        self.delay_stat(&[path, b"/"].concat(), delay);
    }

    /// How often an answer was delayed so far.
    pub fn delayed(&self) -> u64 {
        *self.delayed.lock()
    }

    async fn pause(&self, path: &[u8], read: bool) {
        let (what, begun) = ((path.to_vec(), read), Instant::now());
        let is_over = || self.delays.lock().get(&what).is_none_or(|delay| begun.elapsed() >= *delay);
        if is_over() {
            return;
        }
        *self.delayed.lock() += 1;
        // A delay that is made shorter lets those go that wait already.
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Offset and length of every read so far.
    pub fn reads(&self) -> Vec<(u64, u64)> {
        self.reads.lock().clone()
    }

    /// How often attributes were asked for.
    pub fn stats(&self) -> u64 {
        *self.stats.lock()
    }

    /// Bytes that tell their own place, so that a shifted read is seen.
    pub fn pattern(offset: u64, len: u64) -> Bytes {
        (offset..offset + len).map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 20)) as u8).collect()
    }

    fn put(&self, path: &[u8], content: Content) -> Object {
        let mut items = self.items.lock();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let directory = Item { content: Content::Directory, version: 0 };
            items.entry(path[..at].to_vec()).or_insert(directory);
        }
        let version = items.get(path).map_or(1, |item| item.version + 1);
        let item = Item { content, version };
        let attr = item.attr(path);
        items.insert(path.to_vec(), item);
        let (key, version) = attr.object.unwrap_or((ObjectKey(0), Version(String::new())));
        Object { key, path: path.to_vec(), version, size: attr.size }
    }
}

impl Item {
    fn attr(&self, path: &[u8]) -> Attr {
        let (kind, size, mode) = match &self.content {
            Content::Bytes(data) => (Kind::File, data.len() as u64, 0o644),
            Content::Pattern(size) => (Kind::File, *size, 0o644),
            Content::Link(target) => (Kind::Symlink, target.len() as u64, 0o777),
            Content::Directory => (Kind::Directory, 0, 0o755),
        };
        let version = Version(self.version.to_string());
        let object = (kind == Kind::File).then(|| (ObjectKey::new("memory", path, &version), version));
        Attr { kind, size, mtime_ns: 1_700_000_000_000_000_000 + self.version as i64, mode, object }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn facts(&self) -> Option<Facts> {
        *self.facts.lock()
    }

    async fn stat(&self, path: &[u8]) -> Result<Told, ReadError> {
        *self.stats.lock() += 1;
        self.pause(path, false).await;
        if path.is_empty() {
            return Ok(told(Item { content: Content::Directory, version: 0 }.attr(path)));
        }
        self.items.lock().get(path).map(|item| told(item.attr(path))).ok_or(ReadError::NotFound)
    }

    async fn list(&self, path: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Listing, ReadError> {
        self.pause(&[path, b"/"].concat(), false).await;
        let items = self.items.lock();
        if !path.is_empty() && !matches!(items.get(path).ok_or(ReadError::NotFound)?.content, Content::Directory) {
            return Err(ReadError::NotADirectory);
        }
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let mut entries: Vec<Entry> = items
            .iter()
            .filter_map(|(path, item)| {
                let name = path.strip_prefix(&prefix[..])?;
                (!name.is_empty() && !name.contains(&b'/'))
                    .then(|| Entry { name: name.to_vec(), attr: item.attr(path) })
            })
            .filter(|entry| after.is_none_or(|after| *entry.listing_key() > *after))
            .collect();
        entries.sort_by_key(Entry::listing_key);
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(Listing { entries, more, age: Duration::ZERO })
    }

    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        match self.items.lock().get(path).map(|item| &item.content) {
            Some(Content::Link(target)) => Ok(target.clone()),
            _ => Err(ReadError::NotFound),
        }
    }

    async fn read(&self, object: &Object, offset: u64, len: u32, _: Pattern) -> Result<Bytes, ReadError> {
        assert!(offset / EXTENT == (offset + u64::from(len) - 1) / EXTENT, "a read crosses an extent");
        assert!(offset + u64::from(len) <= object.size, "a read crosses the end of the object");
        self.pause(&object.path, true).await;
        self.reads.lock().push((offset, u64::from(len)));
        {
            let mut failures = self.failures.lock();
            if let (1.., Some(error)) = &mut *failures {
                let error = error.clone();
                failures.0 -= 1;
                return Err(error);
            }
        }
        let item = self.items.lock().get(&object.path).cloned().ok_or(ReadError::Stale)?;
        if item.version.to_string() != object.version.0 {
            return Err(ReadError::Stale);
        }
        match item.content {
            Content::Bytes(data) => Ok(data.slice(offset as usize..offset as usize + len as usize)),
            Content::Pattern(_) => Ok(Self::pattern(offset, u64::from(len))),
            Content::Link(_) | Content::Directory => Err(ReadError::Stale),
        }
    }

    async fn open_local(&self, _: &Object) -> Option<LocalFile> {
        None
    }

    async fn changed(&self) -> Changed {
        loop {
            let told = self.changes.lock().pop();
            if let Some(changed) = told {
                return changed;
            }
            self.noticed.notified().await;
        }
    }
}
