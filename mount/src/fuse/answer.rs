//! From the file system's answers to the kernel's.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    Errno, FileAttr, FileType, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry,
};
use penstock_wire::message::Kind;

use crate::fs::{FileSystem, Found, Stat};

type Outcome<T> = Result<T, rustix::io::Errno>;

/// Numbers name contents (see [`crate::fs::inode`]), so that none is ever used again for another one.
const GENERATION: Generation = Generation(0);

pub(super) fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

pub(super) fn found(outcome: Outcome<Found>, reply: ReplyEntry) {
    match outcome {
        Ok(Found::Entry(stat)) => reply.entry(&stat.ttl, &file_attr(&stat), GENERATION),
        // Number 0 with a time to live: the kernel keeps "no such file".
        Ok(Found::Nothing(ttl)) if ttl.is_zero() => reply.error(Errno::ENOENT),
        Ok(Found::Nothing(ttl)) => reply.entry(&ttl, &nothing(), GENERATION),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn stat(outcome: Outcome<Stat>, reply: ReplyAttr) {
    match outcome {
        Ok(stat) => reply.attr(&stat.ttl, &file_attr(&stat)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn data(outcome: Outcome<impl AsRef<[u8]>>, reply: ReplyData) {
    match outcome {
        Ok(data) => reply.data(data.as_ref()),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) async fn readdir(fs: Arc<FileSystem>, handle: u64, offset: u64, mut reply: ReplyDirectory) {
    let mut taken = false;
    let outcome = fs
        .readdir(handle, offset, false, |entry| {
            let full = reply.add(INodeNo(entry.ino), entry.next, file_type(entry.kind), OsStr::from_bytes(entry.name));
            taken |= !full;
            !full
        })
        .await;
    match outcome {
        Err(error) if !taken => reply.error(errno(error)),
        // What there is goes out first; the error comes again with the next call.
        _ => reply.ok(),
    }
}

pub(super) async fn readdirplus(fs: Arc<FileSystem>, handle: u64, offset: u64, mut reply: ReplyDirectoryPlus) {
    let mut taken = false;
    let outcome = fs
        .readdir(handle, offset, true, |entry| {
            let Some(stat) = entry.stat else { return true };
            let (attr, name) = (file_attr(&stat), OsStr::from_bytes(entry.name));
            let full = reply.add(attr.ino, entry.next, name, &stat.ttl, &attr, GENERATION);
            taken |= !full;
            !full
        })
        .await;
    match outcome {
        Err(error) if !taken => reply.error(errno(error)),
        _ => reply.ok(),
    }
}

pub(super) fn executable(stat: &Stat) -> bool {
    stat.attr.kind == Kind::Directory || stat.attr.mode & 0o111 != 0
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

fn file_attr(stat: &Stat) -> FileAttr {
    let time = time(stat.attr.mtime_ns);
    FileAttr {
        ino: INodeNo(stat.ino),
        size: stat.attr.size,
        blocks: stat.attr.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(stat.attr.kind),
        perm: (stat.attr.mode & 0o7777) as u16,
        // For a directory: "not counted", so that nobody infers the number of subdirectories from it.
        nlink: 1,
        uid: stat.uid,
        gid: stat.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn nothing() -> FileAttr {
    let time = UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}
