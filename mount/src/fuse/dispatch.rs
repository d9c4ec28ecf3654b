//! From the kernel's requests to the file system.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use rustix::{fs::OFlags, io::Errno};
use tokio::runtime::Handle;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    abi::{AccessIn, BatchForgetIn, ForgetOne, InHeader, OpenIn, OpenOut, ReadIn, ReleaseIn, StatfsOut, op},
    answer,
    device::Device,
    interrupts::Waiting,
    passthrough::Backings,
    reply::Reply,
    session::BUFFER,
};
use crate::tree::{NAME_MAX, Tree};

/// Bits of ACCESS, as of access(2).
const EXECUTE: u32 = 1;
const WRITE: u32 = 2;

/// What all threads share.
pub(super) struct Dispatcher<T> {
    pub(super) device: Arc<Device>,
    pub(super) fs: Arc<T>,
    pub(super) runtime: Handle,
    pub(super) backings: Arc<Backings>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) waiting: Arc<Waiting>,
}

/// Counts an operation for as long as it lives.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Tree> Dispatcher<T> {
    /// Takes requests until the connection ends. Blocks the thread; several may do so.
    pub(super) fn run(&self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        while let Some(request) = self.device.receive(&mut buffer)? {
            let Ok((header, body)) = InHeader::read_from_prefix(request) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel sent half a request"));
            };
            match header.opcode {
                op::FORGET => self.forget(header.node, body),
                op::BATCH_FORGET => self.forget_many(body),
                op::INTERRUPT => self.interrupt(body),
                op::DESTROY => {
                    self.reply(&header).ok();
                    return Ok(());
                }
                _ => self.answer(&header, body),
            }
        }
        Ok(())
    }

    fn answer(&self, header: &InHeader, body: &[u8]) {
        // A request that is refused here gets its answer from the dropped reply.
        if self.take(header, body).is_none() {
            tracing::warn!(operation = header.opcode, "a request is shorter than its kind");
        }
    }

    fn take(&self, header: &InHeader, body: &[u8]) -> Option<()> {
        let reply = self.reply(header);
        match header.opcode {
            op::LOOKUP => self.lookup(header, body.split(|byte| *byte == 0).next()?, reply),
            op::GETATTR => self.getattr(header, reply),
            op::READLINK => self.readlink(header, reply),
            op::OPEN => self.open(header, argument(body)?, reply),
            op::READ => self.read(header, argument(body)?, reply),
            op::RELEASE => self.release(header, argument(body)?, reply),
            op::OPENDIR => self.opendir(header, reply),
            op::READDIR => self.readdir(header, argument(body)?, false, reply),
            op::READDIRPLUS => self.readdir(header, argument(body)?, true, reply),
            op::RELEASEDIR => self.releasedir(argument(body)?, reply),
            op::ACCESS => self.access(header, argument(body)?, reply),
            op::STATFS => statfs(reply),
            op::FSYNC | op::FSYNCDIR => reply.ok(),
            change if op::CHANGES.contains(&change) => reply.error(Errno::ROFS),
            // The kernel does not ask again: there is nothing to flush, and no extended attributes.
            _ => reply.error(Errno::NOSYS),
        }
        Some(())
    }

    fn reply(&self, header: &InHeader) -> Reply {
        Reply::new(self.device.clone(), header.unique)
    }

    /// Runs `operation`: here when it needs not wait, else as a task. It may be dropped wherever it waits, once nobody waits
    /// for it any more.
    fn go<F: Future<Output = ()> + Send + 'static>(&self, header: &InHeader, operation: F) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let busy = Busy(self.in_flight.clone());
        let _runtime = self.runtime.enter();
        let (abort, registration) = AbortHandle::new_pair();
        let listed = self.waiting.list(header.unique, header.pid, abort);
        let operation = Abortable::new(operation, registration);
        let mut operation = Box::pin(async move {
            let (_busy, _listed) = (busy, listed);
            let _ = operation.await;
        });
        if operation.as_mut().now_or_never().is_none() {
            self.runtime.spawn(operation);
        }
    }

    fn lookup(&self, header: &InHeader, name: &[u8], reply: Reply) {
        let (fs, parent, name) = (self.fs.clone(), header.node, name.to_vec());
        self.go(header, async move { answer::found(fs.lookup(parent, &name).await, reply) });
    }

    fn getattr(&self, header: &InHeader, reply: Reply) {
        let (fs, ino) = (self.fs.clone(), header.node);
        self.go(header, async move { answer::stat(fs.getattr(ino).await, reply) });
    }

    fn readlink(&self, header: &InHeader, reply: Reply) {
        let (fs, ino) = (self.fs.clone(), header.node);
        self.go(header, async move { answer::data(fs.readlink(ino).await, reply) });
    }

    fn open(&self, header: &InHeader, asked: OpenIn, reply: Reply) {
        let writable = OFlags::from_bits_retain(asked.flags).intersects(OFlags::WRONLY | OFlags::RDWR);
        let (fs, backings, ino) = (self.fs.clone(), self.backings.clone(), header.node);
        self.go(header, async move {
            match fs.open(ino, writable).await {
                Ok(opened) => backings.reply(ino, &opened, reply),
                Err(error) => reply.error(error),
            }
        });
    }

    fn read(&self, header: &InHeader, ReadIn { handle, offset, size, .. }: ReadIn, reply: Reply) {
        let fs = self.fs.clone();
        self.go(header, async move { answer::data(fs.read(handle, offset, size).await, reply) });
    }

    fn release(&self, header: &InHeader, released: ReleaseIn, reply: Reply) {
        self.fs.release(released.handle);
        self.backings.release(header.node, &self.device);
        reply.ok();
    }

    fn opendir(&self, header: &InHeader, reply: Reply) {
        reply.outcome(self.fs.opendir(header.node), |handle| OpenOut { handle, open_flags: 0, backing: 0 });
    }

    fn readdir(&self, header: &InHeader, asked: ReadIn, plus: bool, reply: Reply) {
        let ReadIn { handle, offset, size, .. } = asked;
        let fs = self.fs.clone();
        self.go(header, async move {
            answer::directory(fs, handle, offset, size as usize, plus, reply).await;
        });
    }

    fn releasedir(&self, released: ReleaseIn, reply: Reply) {
        self.fs.releasedir(released.handle);
        reply.ok();
    }

    /// Everybody who may see the mount may read it: a pod got it by its claim. Only what is refused to all is refused.
    fn access(&self, header: &InHeader, AccessIn { mask, .. }: AccessIn, reply: Reply) {
        if mask & WRITE != 0 {
            return reply.error(Errno::ROFS);
        }
        let (fs, ino) = (self.fs.clone(), header.node);
        self.go(header, async move {
            match fs.getattr(ino).await {
                Ok(stat) if mask & EXECUTE != 0 && !answer::executable(&stat) => reply.error(Errno::ACCESS),
                Ok(_) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn forget(&self, node: u64, body: &[u8]) {
        if let Some(lookups) = argument(body) {
            self.fs.forget(node, lookups);
        }
    }

    fn forget_many(&self, body: &[u8]) {
        let Ok((BatchForgetIn { count, .. }, mut rest)) = BatchForgetIn::read_from_prefix(body) else { return };
        for _ in 0..count {
            let Ok((one, left)) = ForgetOne::read_from_prefix(rest) else { return };
            self.fs.forget(one.node, one.lookups);
            rest = left;
        }
    }

    fn interrupt(&self, body: &[u8]) {
        if let Some(unique) = argument(body) {
            self.waiting.interrupt(unique, &self.runtime);
        }
    }
}

/// `None`: the request is shorter than its kind.
fn argument<A: FromBytes + Immutable + KnownLayout>(body: &[u8]) -> Option<A> {
    A::read_from_prefix(body).ok().map(|(argument, _)| argument)
}

/// The size of a Dataset is not known to its mounts: no blocks, none of them free.
fn statfs(reply: Reply) {
    let (name_len, block_size) = (NAME_MAX as u32, 4096);
    reply.value(&StatfsOut { block_size, name_len, fragment_size: block_size, ..StatfsOut::default() });
}
