//! What a mount process leaves to who takes its session over: the few facts that the kernel relies on and that nobody
//! else knows. A small map, kept up to date in a file that outlives the process (memory that the plugin holds).
//!
//! ```text
//! 0   u64: where the records begin; all before is waste
//! …   records to the end of the file: u32 length, then that many bytes (postcard) of `Change`
//! ```
//!
//! Integers are little endian. Each change is one write, so a process may be killed at any time: half a record ends the
//! file. The next process may be of another release: kinds of keys and records are only ever added, at the end, and who does
//! not know one passes over it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use parking_lot::Mutex;
use penstock_model::Attr;
use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use super::Agreement;

const BEGIN: u64 = 8;
/// Waste that is not worth being cleared away, bytes.
const LEAST_WASTE: u64 = 1 << 20;

/// What a record is about: at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    Session,
    /// A directory that the kernel knows, by its number.
    Directory(u64),
    /// An open file, by its handle.
    File(u64),
    /// An open directory, by its handle.
    Reading(u64),
    /// A file that the kernel reads by itself, by its number.
    Backing(u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    Session(Agreement),
    Directory {
        path: Vec<u8>,
        attr: Attr,
    },
    File {
        ino: u64,
        path: Vec<u8>,
        attr: Attr,
    },
    Reading {
        ino: u64,
    },
    /// The kernel's number of the backing file.
    Backing {
        id: u32,
    },
}

#[derive(Serialize, Deserialize)]
enum Change {
    Put(Key, Record),
    Remove(Key),
}

pub type Records = BTreeMap<Key, Record>;

/// The writing side. Without a file it keeps nothing.
#[derive(Debug, Default)]
pub struct Journal(Option<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    file: File,
    begin: u64,
    end: u64,
    live: Records,
}

impl Journal {
    /// Reads what the file tells, an empty one nothing.
    pub fn open(file: OwnedFd) -> io::Result<(Self, Records)> {
        let file = File::from(file);
        let len = file.metadata()?.len();
        let mut begin = [0; BEGIN as usize];
        if len < BEGIN {
            file.write_all_at(&BEGIN.to_le_bytes(), 0)?;
            begin = BEGIN.to_le_bytes();
        } else {
            file.read_exact_at(&mut begin, 0)?;
        }
        let begin = u64::from_le_bytes(begin);
        let mut bytes = vec![0; len.saturating_sub(begin) as usize];
        file.read_exact_at(&mut bytes, begin)?;
        let (live, read) = replay(&bytes);
        file.set_len(begin + read as u64)?;
        let kept = Kept { file, begin, end: begin + read as u64, live: live.clone() };
        Ok((Self(Some(Mutex::new(kept))), live))
    }

    pub fn put(&self, key: Key, record: Record) {
        self.change(|kept| {
            kept.live.insert(key, record.clone());
            Change::Put(key, record)
        });
    }

    pub fn remove(&self, key: Key) {
        self.change(|kept| {
            kept.live.remove(&key);
            Change::Remove(key)
        });
    }

    fn change(&self, change: impl FnOnce(&mut Kept) -> Change) {
        let Some(kept) = &self.0 else { return };
        let mut kept = kept.lock();
        let change = change(&mut kept);
        if let Err(error) = kept.append(&change).and_then(|()| kept.tidy()) {
            tracing::warn!(%error, "who takes this session over will not know all of it");
        }
    }
}

impl Kept {
    fn append(&mut self, change: &Change) -> io::Result<()> {
        let bytes = encode(change)?;
        self.file.write_all_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes what is left anew once most of the file is waste. Whoever is killed on the way leaves the old records valid.
    fn tidy(&mut self) -> io::Result<()> {
        let len = self.end - self.begin;
        if len < LEAST_WASTE || len / 256 < self.live.len() as u64 {
            return Ok(());
        }
        let (old, begin) = (self.begin, self.end);
        let live: Vec<_> = self.live.iter().map(|(key, record)| Change::Put(*key, record.clone())).collect();
        let bytes = live.iter().map(encode).collect::<io::Result<Vec<_>>>()?.concat();
        self.file.write_all_at(&bytes, begin)?;
        self.file.write_all_at(&begin.to_le_bytes(), 0)?;
        (self.begin, self.end) = (begin, begin + bytes.len() as u64);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, hole, old, begin - old)?)
    }
}

/// Whether a process has begun a session with this journal.
pub fn tells_of_a_session(journal: &OwnedFd) -> bool {
    rustix::fs::fstat(journal).is_ok_and(|stat| stat.st_size > BEGIN as i64)
}

fn encode(change: &Change) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(change, vec![0; 4]).map_err(io::Error::other)?;
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

/// The map after all changes that are whole, and how many bytes these are.
fn replay(bytes: &[u8]) -> (Records, usize) {
    let (mut live, mut at) = (Records::new(), 0);
    while let Some((len, rest)) = bytes[at..].split_first_chunk() {
        let len = u32::from_le_bytes(*len) as usize;
        let Some(bytes) = rest.get(..len) else { break };
        match postcard::from_bytes(bytes) {
            Ok(Change::Put(key, record)) => drop(live.insert(key, record)),
            Ok(Change::Remove(key)) => drop(live.remove(&key)),
            Err(error) => tracing::warn!(%error, "a record of the session is not known to this release"),
        }
        at += 4 + len;
    }
    (live, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(file: &File) -> (Journal, Records) {
        Journal::open(file.try_clone().unwrap().into()).unwrap()
    }

    proptest! {
        /// The model: a map. Whoever opens the file later, however often, has the same.
        #[test]
        fn what_was_put_and_not_removed_is_read_back(steps in prop::collection::vec((0u64..9, any::<bool>(), 0u64..99), 0..60)) {
            let file = tempfile::tempfile().unwrap();
            let (mut journal, mut model) = (open(&file).0, Records::new());
            for (number, put, ino) in steps {
                let key = if number % 2 == 0 { Key::File(number) } else { Key::Reading(number) };
                if put {
                    journal.put(key, Record::Reading { ino });
                    model.insert(key, Record::Reading { ino });
                } else {
                    journal.remove(key);
                    model.remove(&key);
                }
                if ino % 10 == 0 {
                    let (again, records) = open(&file);
                    prop_assert_eq!(&records, &model);
                    journal = again;
                }
            }
            prop_assert_eq!(open(&file).1, model);
        }
    }

    #[test]
    fn half_a_record_at_the_end_is_as_if_it_had_not_been_begun() {
        let file = tempfile::tempfile().unwrap();
        let (journal, records) = open(&file);
        assert!(records.is_empty());
        journal.put(Key::Reading(1), Record::Reading { ino: 5 });
        let len = file.metadata().unwrap().len();
        journal.put(Key::Reading(2), Record::Reading { ino: 6 });
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        let (journal, records) = open(&file);
        assert_eq!(records, Records::from([(Key::Reading(1), Record::Reading { ino: 5 })]));
        journal.put(Key::Reading(3), Record::Reading { ino: 7 });
        assert!(file.metadata().unwrap().len() > len);
        assert_eq!(open(&file).1.len(), 2);
    }

    #[test]
    fn a_journal_of_the_first_release_is_read_and_records_of_later_ones_are_passed_over() {
        let attr = Attr { kind: penstock_model::Kind::Directory, size: 0, mtime_ns: -5, mode: 0o755, object: None };
        let session = Agreement { passthrough: true, resend: true };
        let directory = Record::Directory { path: b"a/b".to_vec(), attr };
        let records = Records::from([(Key::Session, Record::Session(session)), (Key::Directory(300), directory)]);
        let frozen = [
            &[8, 0, 0, 0, 0, 0, 0, 0][..],
            &[5, 0, 0, 0, 0, 0, 0, 1, 1],
            // Of a later kind.
            &[3, 0, 0, 0, 0, 99, 99],
            FROZEN_DIRECTORY,
        ]
        .concat();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&frozen, 0).unwrap();
        assert_eq!(open(&file).1, records);
    }

    const FROZEN_DIRECTORY: &[u8] = &[15, 0, 0, 0, 0, 1, 0xac, 2, 1, 3, b'a', b'/', b'b', 1, 0, 9, 0xed, 3, 0];

    #[test]
    fn files_that_come_and_go_do_not_make_it_grow() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let journal = open(&file).0;
        journal.put(Key::Reading(0), Record::Reading { ino: 1 });
        for handle in 1..200_000 {
            journal.put(Key::File(handle), Record::Reading { ino: handle });
            journal.remove(Key::File(handle));
        }
        assert!(file.metadata().unwrap().blocks() * 512 < 2 * LEAST_WASTE);
        assert_eq!(open(&file).1, Records::from([(Key::Reading(0), Record::Reading { ino: 1 })]));
    }
}
