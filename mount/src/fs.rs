//! The file system: names, numbers, handles and bytes. It is a [`Tree`] to whatever transport puts it before a kernel.

pub mod blocks;
mod dir;
mod file;
mod handles;
pub mod inode;
mod invalidation;
mod lookup;
mod names;
pub mod stream;
mod tree;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use penstock_model::{Attr, Kind};
use rustix::io::Errno;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

use self::{
    blocks::{OpenObject, OpenObjects},
    dir::OpenDir,
    handles::Handles,
    inode::Inodes,
    names::Names,
};
pub use self::{
    file::OpenFile,
    inode::{Node, ROOT},
};
use crate::{
    backend::{Backend, Facts, ReadError, Told},
    path::{join, parent, split},
    session::journal::{Journal, Key, Record, Records},
    spec::Tuning,
    tree::{DirEntry, Found, Invalidation, NAME_MAX, Opened, Stat, Tree},
};

/// How long the kernel may keep what a static Dataset says of a file.
const STATIC_FILE: Duration = Duration::from_hours(1);
/// Directories are asked for again more often, because the mounts of a Dataset can be changed while it serves.
const STATIC_DIRECTORY: Duration = Duration::from_secs(30);
/// While no worker has told its Dataset's facts.
const UNKNOWN: Duration = Duration::from_secs(1);
/// How long the root's attributes are waited for: kubelet looks at a mount point before workers need to exist.
const ROOT_PATIENCE: Duration = Duration::from_secs(1);
/// Reads of at most 1 MiB each that are worked on at once; the others wait their turn.
const READS_AT_ONCE: usize = 256;

pub struct FileSystem {
    backend: Arc<dyn Backend>,
    inodes: Mutex<Inodes>,
    names: Arc<Names>,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
    objects: OpenObjects,
    /// Small files that are fetched before they are opened.
    neighbours: Mutex<VecDeque<Arc<OpenObject>>>,
    reads: Semaphore,
    journal: Arc<Journal>,
    /// Who tells the kernel, if anyone does.
    kernel: Mutex<Option<mpsc::UnboundedSender<Invalidation>>>,
    tuning: Tuning,
}

impl FileSystem {
    pub fn new(backend: Arc<dyn Backend>, tuning: Tuning) -> Self {
        Self::resume(backend, tuning, Arc::default(), &Records::new())
    }

    /// With what a former process had told the kernel. What this one tells goes to the journal.
    pub fn resume(backend: Arc<dyn Backend>, tuning: Tuning, journal: Arc<Journal>, records: &Records) -> Self {
        let mounted = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as i64);
        let root = Attr { kind: Kind::Directory, size: 0, mtime_ns: mounted, mode: 0o755, object: None };
        let this = Self {
            inodes: Mutex::new(Inodes::new(&root, Instant::now())),
            names: Arc::default(),
            files: Handles::default(),
            dirs: Handles::default(),
            objects: OpenObjects::new(backend.clone(), tuning.readahead_total_bytes),
            neighbours: Mutex::default(),
            reads: Semaphore::new(READS_AT_ONCE),
            journal,
            kernel: Mutex::default(),
            backend,
            tuning,
        };
        this.restore(records);
        this
    }

    fn restore(&self, records: &Records) {
        let now = Instant::now();
        for (key, record) in records {
            match (key, record) {
                (Key::Directory(ino), Record::Directory { path, attr }) => {
                    self.inodes.lock().restore(*ino, path, attr, now);
                }
                (Key::File(handle), Record::File { ino, path, attr }) => {
                    self.inodes.lock().restore(*ino, path, attr, now).opens += 1;
                    self.reopen(*handle, *ino, inode::object_of(path, attr));
                }
                (Key::Reading(handle), Record::Reading { ino }) => {
                    let path = self.inodes.lock().get(*ino).map(|node| node.path);
                    if let Some(path) = path {
                        self.dirs.restore(*handle, OpenDir { ino: *ino, path, state: tokio::sync::Mutex::default() });
                    }
                }
                _ => {}
            }
        }
    }

    /// Drops readahead that nobody reads. To be called every few seconds.
    pub fn sweep(&self) {
        self.objects.sweep();
    }

    pub fn forget(&self, ino: u64, count: u64) {
        let mut inodes = self.inodes.lock();
        if inodes.forget(ino, count) {
            self.journal.remove(Key::Directory(ino));
        }
    }

    pub async fn getattr(&self, ino: u64) -> Result<Stat, Errno> {
        let mut node = self.node(ino)?;
        if Instant::now() < node.fresh_until {
            return Ok(self.stat_of(&node));
        }
        match self.refresh(&mut node).await {
            Ok(()) => Ok(self.stat_of(&node)),
            // As for a file that was replaced or removed while it was open on any file system.
            Err(Errno::STALE | Errno::NOENT) if node.opens > 0 => Ok(self.stat_of(&node)),
            Err(Errno::NOENT) => Err(Errno::STALE),
            Err(error) => Err(error),
        }
    }

    pub async fn readlink(&self, ino: u64) -> Result<Vec<u8>, Errno> {
        let node = self.node(ino)?;
        if node.attr.kind != Kind::Symlink {
            return Err(Errno::INVAL);
        }
        self.backend.read_link(&node.path).await.map_err(|error| refuse("readlink", &node.path, &error))
    }

    pub fn opendir(&self, ino: u64) -> Result<u64, Errno> {
        let node = self.node(ino)?;
        if node.attr.kind != Kind::Directory {
            return Err(Errno::NOTDIR);
        }
        let handle = self.dirs.insert(OpenDir { ino, path: node.path, state: tokio::sync::Mutex::default() });
        self.journal.put(Key::Reading(handle), Record::Reading { ino });
        Ok(handle)
    }

    pub fn releasedir(&self, handle: u64) {
        self.dirs.remove(handle);
        self.journal.remove(Key::Reading(handle));
    }

    /// Hands entries from `position` on to `take` until it refuses one or the directory ends. With `plus`, a lookup is
    /// counted for each entry that `take` has accepted, but for `.` and `..`.
    pub async fn readdir(
        &self,
        handle: u64,
        position: u64,
        plus: bool,
        mut take: impl FnMut(DirEntry<'_>) -> bool + Send,
    ) -> Result<(), Errno> {
        let dir = self.dirs.get(handle).ok_or(Errno::BADF)?;
        for (at, name) in [(0, &b"."[..]), (1, b"..")] {
            if at >= position && !take(self.dot(&dir, name, at + 1, plus)) {
                return Ok(());
            }
        }
        let mut pages = dir.state.lock().await;
        let mut at = position.saturating_sub(2);
        loop {
            let stretch = pages.at(&*self.backend, &dir.path, at).await;
            let stretch = stretch.map_err(|error| refuse("readdir", &dir.path, &error))?;
            let rest = &stretch.entries[stretch.skip..];
            if rest.is_empty() {
                return Ok(());
            }
            for entry in rest {
                at += 1;
                if nameable(&entry.name) && !self.hand_over(&dir, entry, stretch.since, at + 2, plus, &mut take) {
                    return Ok(());
                }
            }
        }
    }

    fn hand_over(
        &self,
        dir: &OpenDir,
        entry: &penstock_model::Entry,
        since: Instant,
        next: u64,
        plus: bool,
        take: &mut impl FnMut(DirEntry<'_>) -> bool,
    ) -> bool {
        let path = join(&dir.path, &entry.name);
        let kind = entry.attr.kind;
        if !plus {
            let ino = self.inodes.lock().slot(&path, &entry.attr);
            return take(DirEntry { name: &entry.name, kind, ino, next, stat: None });
        }
        let ttl = self.ttl(kind).saturating_sub(since.elapsed());
        let stat = self.remember(&path, entry.attr.clone(), ttl);
        let ino = stat.ino;
        let taken = take(DirEntry { name: &entry.name, kind, ino, next, stat: Some(stat) });
        if !taken {
            self.forget(ino, 1);
        }
        taken
    }

    fn dot(&self, dir: &OpenDir, name: &'static [u8], next: u64, plus: bool) -> DirEntry<'static> {
        let node = {
            let inodes = self.inodes.lock();
            let node = if name == b"." { inodes.get(dir.ino) } else { inodes.find(parent(&dir.path)) };
            node.or_else(|| inodes.get(ROOT))
        };
        let ino = node.as_ref().map_or(ROOT, |node| node.ino);
        let stat = node.filter(|_| plus).map(|node| self.stat_of(&node));
        DirEntry { name, kind: Kind::Directory, ino, next, stat }
    }

    /// Asks anew; the same content has its freshness prolonged, another one is [`Errno::STALE`].
    async fn refresh(&self, node: &mut Node) -> Result<(), Errno> {
        let asked = self.backend.stat(&node.path);
        let answer = if node.ino == ROOT {
            match tokio::time::timeout(ROOT_PATIENCE, asked).await {
                Ok(Ok(told)) if told.attr.kind == Kind::Directory => Ok(told),
                // Whatever is wrong: a mount point must be able to be looked at, and to be unmounted.
                _ => return Ok(()),
            }
        } else {
            asked.await
        };
        let Told { attr, age } = answer.map_err(|error| {
            self.distrust(&node.path);
            refuse("getattr", &node.path, &error)
        })?;
        if node.ino != ROOT && !inode::same_content(&node.attr, &attr) {
            self.distrust(&node.path);
            return Err(Errno::STALE);
        }
        node.fresh_until = Instant::now() + self.ttl(attr.kind).saturating_sub(age);
        node.attr = attr;
        if let Some(kept) = self.inodes.lock().get_mut(node.ino) {
            kept.renew(&node.attr, node.fresh_until);
        }
        Ok(())
    }

    fn remember(&self, path: &[u8], attr: Attr, ttl: Duration) -> Stat {
        let ino = {
            let mut inodes = self.inodes.lock();
            let unknown = attr.kind == Kind::Directory && inodes.find(path).is_none();
            let ino = inodes.remember(path, &attr, Instant::now() + ttl);
            if unknown {
                self.journal.put(Key::Directory(ino), Record::Directory { path: path.to_vec(), attr: attr.clone() });
            }
            ino
        };
        let (uid, gid) = self.owner();
        Stat { ino, attr, uid, gid, ttl }
    }

    /// A number that we do not know was forgotten, or comes from another life of the mount.
    fn node(&self, ino: u64) -> Result<Node, Errno> {
        self.inodes.lock().get(ino).ok_or(Errno::STALE)
    }

    fn stat_of(&self, node: &Node) -> Stat {
        let (uid, gid) = self.owner();
        // The remaining time, so that the kernel's copy never outlives ours. Old but still shown: ask again next time.
        let ttl = node.fresh_until.saturating_duration_since(Instant::now()).min(self.ttl(node.attr.kind));
        Stat { ino: node.ino, attr: node.attr.clone(), uid, gid, ttl }
    }

    fn owner(&self) -> (u32, u32) {
        self.backend.facts().map_or((0, 0), |facts| (facts.uid, facts.gid))
    }

    fn ttl(&self, kind: Kind) -> Duration {
        match self.backend.facts() {
            None => UNKNOWN,
            Some(Facts { revalidate: Some(interval), .. }) => interval,
            Some(_) if kind == Kind::Directory => STATIC_DIRECTORY,
            Some(_) => STATIC_FILE,
        }
    }
}

/// The errno of a failed operation; what nobody expects goes to the log.
fn refuse(operation: &str, path: &[u8], error: &ReadError) -> Errno {
    let path = path.escape_ascii();
    match error {
        ReadError::NotFound | ReadError::NotADirectory => {}
        ReadError::Stale => tracing::info!(operation, %path, "{error}"),
        _ => tracing::warn!(operation, %path, "{error}"),
    }
    error.errno()
}

/// Whether a name can stand in a directory. What the kernel could not name would spoil the whole listing.
fn nameable(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && name.len() <= NAME_MAX
        && !name.contains(&b'/')
        && !name.contains(&0)
}

#[cfg(test)]
mod tests;
