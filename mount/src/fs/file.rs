//! Open files.

use std::{os::unix::fs::FileExt, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use penstock_model::{Kind, Object};
use penstock_wire::message::Pattern;
use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use super::{
    FileSystem, Node, Opened, blocks::OpenObject, inode::object_of, join, names::AHEAD, refuse, split, stream::Streams,
};
use crate::{
    backend::{LocalFile, ReadError},
    session::journal::{Key, Record},
};

/// Objects of at most this many bytes are read over the wire also where a worker on this node has them whole: asking for
/// the descriptor, and the kernel's registration of it, cost more than the one request that brings all bytes.
const SMALL: u64 = 128 << 10;

/// How long an open waits for the content of a small file; reading it is more patient.
const CONTENT_PATIENCE: Duration = Duration::from_secs(1);

/// One open handle.
pub struct OpenFile {
    ino: u64,
    object: Arc<OpenObject>,
    streams: Mutex<Streams>,
    local: Option<Arc<LocalFile>>,
}

impl FileSystem {
    pub async fn open(&self, ino: u64, writable: bool) -> Result<Opened, Errno> {
        if writable {
            return Err(Errno::ROFS);
        }
        let mut node = self.node(ino)?;
        if Instant::now() >= node.fresh_until {
            // ESTALE makes the kernel look the name up again, which finds the new version.
            self.refresh(&mut node).await.map_err(|e| if e == Errno::NOENT { Errno::STALE } else { e })?;
        }
        let object = match node.attr.kind {
            Kind::File => node.object().ok_or(Errno::IO)?,
            Kind::Directory => return Err(Errno::ISDIR),
            Kind::Symlink => return Err(Errno::LOOP),
        };
        let small = object.size <= SMALL;
        let local = if small { None } else { self.backend.open_local(&object).await.map(Arc::new) };
        let file = self.open_file(ino, object, local.clone());
        let content = if small && !node.given { self.content_of(&file.object).await } else { None };
        if small {
            self.fetch_neighbours(&node);
        }
        if let Some(node) = self.inodes.lock().get_mut(ino) {
            node.opens += 1;
            node.given |= content.is_some();
        }
        let handle = self.files.insert(file);
        let record = Record::File { ino, path: node.path.to_vec(), attr: node.attr };
        self.journal.put(Key::File(handle), record);
        Ok(Opened { handle, local, content })
    }

    /// Under the handle that a former process gave out.
    pub(super) fn reopen(&self, handle: u64, ino: u64, object: Option<Object>) {
        if let Some(object) = object {
            self.files.restore(handle, self.open_file(ino, object, None));
        }
    }

    fn open_file(&self, ino: u64, object: Object, local: Option<Arc<LocalFile>>) -> OpenFile {
        let window = self.window();
        OpenFile { ino, object: self.objects.open(object, window), streams: Mutex::new(Streams::new(window)), local }
    }

    /// The most bytes of readahead for one object.
    fn window(&self) -> u64 {
        self.tuning.readahead(self.backend.facts().map_or(1, |facts| facts.workers))
    }

    /// Whoever opens a small file reads it. Why it cannot be had now, its reader is told.
    async fn content_of(&self, object: &Arc<OpenObject>) -> Option<Bytes> {
        let size = Some(object.object.size).filter(|size| *size > 0)?;
        let read = object.read_exactly(0, size, Pattern::Sequential);
        timeout(CONTENT_PATIENCE, read).await.ok()?.ok()
    }

    /// Where small files are opened in the order of their names, the next ones are fetched meanwhile.
    fn fetch_neighbours(&self, node: &Node) {
        let (directory, name) = split(&node.path);
        let next = self.names.opened(directory, name, self.ttl(Kind::Directory), Instant::now());
        let small = next.iter().filter(|entry| (1..=SMALL).contains(&entry.attr.size));
        let objects = small.filter_map(|entry| object_of(&join(directory, &entry.name), &entry.attr));
        let (window, mut kept) = (self.window(), self.neighbours.lock());
        for object in objects {
            let object = self.objects.open(object, window);
            object.prefetch();
            kept.push_back(object);
            if kept.len() > 2 * AHEAD {
                kept.pop_front();
            }
        }
    }

    pub fn release(&self, handle: u64) {
        self.journal.remove(Key::File(handle));
        if let Some(file) = self.files.remove(handle)
            && let Some(node) = self.inodes.lock().get_mut(file.ino)
        {
            node.opens = node.opens.saturating_sub(1);
        }
    }

    /// Fewer bytes than asked for only at the end of the file.
    pub async fn read(&self, handle: u64, offset: u64, len: u32) -> Result<Bytes, Errno> {
        let file = self.files.get(handle).ok_or(Errno::BADF)?;
        let len = file.object.object.size.saturating_sub(offset).min(u64::from(len));
        if len == 0 {
            return Ok(Bytes::new());
        }
        let _turn = self.reads.acquire().await;
        if let Some(local) = &file.local {
            match read_local(local.clone(), offset, len as usize).await {
                Ok(data) => return Ok(data),
                Err(error) => tracing::warn!(%error, "failed to read a local file, asking the workers instead"),
            }
        }
        let result = if file.object.object.size <= SMALL {
            file.object.read_exactly(offset, offset + len, Pattern::Sequential).await
        } else {
            let advice = file.streams.lock().observe(offset, len);
            file.object.read(offset, len, advice.pattern, advice.ahead).await
        };
        result.map_err(|error| {
            if error == ReadError::Stale {
                self.expire(&file);
            }
            refuse("read", &file.object.object.path, &error)
        })
    }

    /// The next who opens the name must ask what it is now.
    fn expire(&self, file: &OpenFile) {
        self.distrust(&file.object.object.path);
        if let Some(node) = self.inodes.lock().get_mut(file.ino) {
            node.fresh_until = Instant::now();
        }
    }
}

async fn read_local(local: Arc<LocalFile>, offset: u64, len: usize) -> std::io::Result<Bytes> {
    let read = move || {
        let mut data = vec![0; len];
        local.file.read_exact_at(&mut data, offset)?;
        Ok(Bytes::from(data))
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
}
