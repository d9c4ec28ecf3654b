//! `/dev/fuse`: requests come out of it, answers and notifications go in.

use std::{
    ffi::c_void,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl, opcode},
};
use zerocopy::IntoBytes;

use super::abi::{BackingMap, InvalEntryOut, OutHeader, StoreOut, notify};

const GROUP: u8 = 229;
const BACKING_OPEN: Opcode = opcode::write::<BackingMap>(GROUP, 1);
const BACKING_CLOSE: Opcode = opcode::write::<u32>(GROUP, 2);

/// The connection with the kernel. Shared by all threads; each read takes one request, each write is one answer.
#[derive(Debug)]
pub(super) struct Device(OwnedFd);

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device {
    pub(super) fn new(fuse: OwnedFd) -> Self {
        Self(fuse)
    }

    /// Waits for the next request; `None` when the file system has been unmounted or the connection was ended.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Ok(len) => return Ok(Some(&buffer[..len])),
                // Someone gave up before the request was taken.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                // The latter is told to a thread that was just taking a request.
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn answer(&self, unique: u64, parts: &[&[u8]]) {
        self.send(unique, 0, parts);
    }

    pub(super) fn refuse(&self, unique: u64, errno: Errno) {
        self.send(unique, -errno.raw_os_error(), &[]);
    }

    fn send(&self, unique: u64, error: i32, parts: &[&[u8]]) {
        match self.write(unique, error, parts) {
            // Nobody waits for it any more: interrupted, or unmounted.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(error) => tracing::warn!(%error, "the kernel does not take an answer"),
        }
    }

    fn write(&self, unique: u64, error: i32, parts: &[&[u8]]) -> Result<(), Errno> {
        let len = size_of::<OutHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
        let header = OutHeader { len: len as u32, error, unique };
        let mut slices = vec![IoSlice::new(header.as_bytes())];
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        rustix::io::writev(&self.0, &slices).map(drop)
    }

    /// Puts `content`, which begins at byte 0, into the page cache of a file.
    pub(super) fn store(&self, node: u64, content: &[u8]) -> io::Result<()> {
        let store = StoreOut { node, offset: 0, size: content.len() as u32, padding: 0 };
        Ok(self.write(0, notify::STORE, &[store.as_bytes(), content])?)
    }

    /// Has the kernel drop a name that it may know. May wait until requests about the directory are answered.
    pub(super) fn forget_entry(&self, parent: u64, name: &[u8]) {
        let entry = InvalEntryOut { parent, name_len: name.len() as u32, flags: 0 };
        // The kernel may have dropped the name by itself.
        let _ = self.write(0, notify::INVAL_ENTRY, &[entry.as_bytes(), name, &[0]]);
    }

    /// Asks for all requests that someone has taken and not answered.
    pub(super) fn resend(&self) -> io::Result<()> {
        Ok(self.write(0, notify::RESEND, &[])?)
    }

    /// A number by which an open can name `file` as what the kernel shall read by itself.
    #[allow(unsafe_code)]
    pub(super) fn open_backing(&self, file: BorrowedFd<'_>) -> io::Result<u32> {
        // SAFETY: the kernel reads one `BackingMap` behind this number and answers by the result alone.
        Ok(unsafe { ioctl(&self.0, OpenBacking(BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 })) }?)
    }

    /// The number means nothing from now on; files that were opened by it are read as before.
    #[allow(unsafe_code)]
    pub(super) fn close_backing(&self, id: u32) {
        // SAFETY: the kernel reads one `u32` behind this number.
        let closed = unsafe { ioctl(&self.0, Setter::<BACKING_CLOSE, u32>::new(id)) };
        if let Err(error) = closed {
            tracing::debug!(%error, id, "the kernel does not know a backing file");
        }
    }
}

struct OpenBacking(BackingMap);

// SAFETY: the number belongs to a call that reads a `BackingMap` and writes nothing.
#[allow(unsafe_code)]
unsafe impl Ioctl for OpenBacking {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        BACKING_OPEN
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| Errno::INVAL)
    }
}
