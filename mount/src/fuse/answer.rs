//! From the file system's answers to the kernel's.

use std::{sync::Arc, time::Duration};

use penstock_model::Kind;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{
    abi::{Attr, AttrOut, Dirent, EntryOut},
    reply::Reply,
};
use crate::tree::{DirEntry, Found, Stat, Tree};

type Outcome<T> = Result<T, Errno>;

pub(super) fn found(outcome: Outcome<Found>, reply: Reply) {
    match outcome {
        // Number 0 with a time to live: the kernel keeps "no such file".
        Ok(Found::Nothing(ttl)) if ttl.is_zero() => reply.error(Errno::NOENT),
        Ok(Found::Nothing(ttl)) => {
            let (entry_valid, entry_valid_nsec) = (ttl.as_secs(), ttl.subsec_nanos());
            reply.value(&EntryOut { entry_valid, entry_valid_nsec, ..EntryOut::default() });
        }
        Ok(Found::Entry(stat)) => reply.value(&entry(&stat)),
        Err(error) => reply.error(error),
    }
}

pub(super) fn stat(outcome: Outcome<Stat>, reply: Reply) {
    reply.outcome(outcome, |stat| {
        let (attr_valid, attr_valid_nsec) = (stat.ttl.as_secs(), stat.ttl.subsec_nanos());
        AttrOut { attr_valid, attr_valid_nsec, padding: 0, attr: attr(&stat) }
    });
}

pub(super) fn data(outcome: Outcome<impl AsRef<[u8]>>, reply: Reply) {
    match outcome {
        Ok(data) => reply.bytes(data.as_ref()),
        Err(error) => reply.error(error),
    }
}

/// Answers with as many entries from `position` on as `size` bytes hold; with `plus` each with what a lookup would tell.
pub(super) async fn directory<T: Tree>(
    tree: Arc<T>,
    handle: u64,
    position: u64,
    size: usize,
    plus: bool,
    reply: Reply,
) {
    let mut entries = Entries { bytes: Vec::new(), size };
    let mut lookups = Lookups { tree, counted: Vec::new() };
    let tree = lookups.tree.clone();
    let take = |entry: DirEntry<'_>| {
        let taken = entries.add(&entry, plus);
        if taken && !is_dot(entry.name) {
            lookups.counted.extend(entry.stat.as_ref().map(|stat| stat.ino));
        }
        taken
    };
    let outcome = tree.readdir(handle, position, plus, take).await;
    lookups.counted.clear();
    match outcome {
        Err(error) if entries.bytes.is_empty() => reply.error(error),
        // What there is goes out first; the error comes again with the next call.
        _ => reply.bytes(&entries.bytes),
    }
}

/// Lookups that the kernel is about to be told of. Dropped before, as when the reader is killed, they did not happen.
struct Lookups<T: Tree> {
    tree: Arc<T>,
    counted: Vec<u64>,
}

impl<T: Tree> Drop for Lookups<T> {
    fn drop(&mut self) {
        for ino in &self.counted {
            self.tree.forget(*ino, 1);
        }
    }
}

fn is_dot(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

struct Entries {
    bytes: Vec<u8>,
    size: usize,
}

impl Entries {
    /// Whether there was room for it.
    fn add(&mut self, entry: &DirEntry<'_>, plus: bool) -> bool {
        let told = entry.stat.as_ref().map(self::entry).unwrap_or_default();
        let told = if plus { told.as_bytes() } else { &[] };
        let padded = (size_of::<Dirent>() + entry.name.len()).next_multiple_of(8);
        if self.bytes.len() + told.len() + padded > self.size {
            return false;
        }
        let (name_len, kind) = (entry.name.len() as u32, mode_of(entry.kind) >> 12);
        self.bytes.extend_from_slice(told);
        let end = self.bytes.len() + padded;
        let dirent = Dirent { ino: entry.ino, next: entry.next, name_len, kind };
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(entry.name);
        self.bytes.resize(end, 0);
        true
    }
}

pub(super) fn executable(stat: &Stat) -> bool {
    stat.attr.kind == Kind::Directory || stat.attr.mode & 0o111 != 0
}

/// The type's part of a mode, as in stat(2).
fn mode_of(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Symlink => 0o120_000,
    }
}

/// Numbers name contents, so that none is ever used again for another one: generation 0.
fn entry(stat: &Stat) -> EntryOut {
    let (seconds, nanos) = (stat.ttl.as_secs(), stat.ttl.subsec_nanos());
    EntryOut {
        node: stat.ino,
        generation: 0,
        entry_valid: seconds,
        attr_valid: seconds,
        entry_valid_nsec: nanos,
        attr_valid_nsec: nanos,
        attr: attr(stat),
    }
}

fn attr(stat: &Stat) -> Attr {
    let (seconds, nanos) = time(stat.attr.mtime_ns);
    Attr {
        ino: stat.ino,
        size: stat.attr.size,
        blocks: stat.attr.size.div_ceil(512),
        atime: seconds,
        mtime: seconds,
        ctime: seconds,
        atimensec: nanos,
        mtimensec: nanos,
        ctimensec: nanos,
        mode: mode_of(stat.attr.kind) | stat.attr.mode & 0o7777,
        // For a directory: "not counted", so that nobody infers the number of subdirectories from it.
        nlink: 1,
        uid: stat.uid,
        gid: stat.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Seconds, as the kernel takes those before 1970, and the nanoseconds after them.
fn time(ns: i64) -> (u64, u32) {
    let second = Duration::from_secs(1).as_nanos() as i64;
    (ns.div_euclid(second).cast_unsigned(), ns.rem_euclid(second) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_forward_from_their_second() {
        assert_eq!(time(1_500_000_001), (1, 500_000_001));
        assert_eq!(time(-1), (u64::MAX, 999_999_999));
    }

    #[test]
    fn entries_fill_what_was_asked_for_and_no_more() {
        let mut entries = Entries { bytes: Vec::new(), size: 100 };
        let entry = |name: &'static [u8]| DirEntry { name, kind: Kind::File, ino: 7, next: 1, stat: None };
        assert!(entries.add(&entry(b"12345678"), false));
        assert_eq!(entries.bytes.len(), 32);
        assert!(entries.add(&entry(b"123456789"), false) && !entries.add(&entry(b"12345"), false));
        assert!(entries.add(&entry(b""), false), "what fits still goes in");
        assert_eq!((entries.bytes.len(), &entries.bytes[24..32]), (96, &b"12345678"[..]));
    }
}
