//! The ways in which a reader reads.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, OFlags, fadvise};

use super::account::Account;
use super::{File, Tree};
use crate::noise;

/// Bytes of one read in order.
const BLOCK: usize = 1 << 20;
/// Bytes of one read at random.
const PIECE: usize = 64 << 10;
/// What direct reads want of memory and of places in a file.
const ALIGNMENT: usize = 4096;

/// Opens, reads to the end and closes; each other time past the kernel's page cache.
pub(super) struct Opened {
    tree: Arc<Tree>,
    chance: Chance,
    buffer: Buffer,
}

impl Opened {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self { tree, chance: Chance::new(1), buffer: Buffer::new(BLOCK) }
    }

    pub(super) fn run(mut self, account: &Account) {
        loop {
            let tree = self.tree.clone();
            let start = self.chance.below(tree.files.len() as u64) as usize;
            self.list(account);
            for index in 0..tree.files.len() {
                self.file(account, &tree.files[(start + index) % tree.files.len()]);
            }
            account.pass();
        }
    }

    fn list(&self, account: &Account) {
        let Some(found) = account.call(&"list", || listing(&self.tree.folder)) else { return };
        let wanted: BTreeSet<PathBuf> = self.tree.files.iter().map(|file| self.tree.folder.join(&file.path)).collect();
        if found != wanted {
            let difference: Vec<_> = found.symmetric_difference(&wanted).collect();
            account.wrong(&format!("the listing differs by {difference:?}"));
        }
    }

    fn file(&mut self, account: &Account, file: &File) {
        let flags = if self.chance.below(2) == 0 { OFlags::DIRECT } else { OFlags::empty() };
        let path = self.tree.folder.join(&file.path);
        let open = || OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&path);
        let Some(opened) = account.call(&format!("open {}", file.path), open) else { return };
        for offset in (0..file.length).step_by(BLOCK) {
            read(account, &self.tree, file, &opened, offset, self.buffer.all());
        }
    }
}

/// Keeps all files open and reads pieces from anywhere.
pub(super) struct Held {
    tree: Arc<Tree>,
    chance: Chance,
    buffer: Buffer,
    files: Vec<Option<fs::File>>,
}

impl Held {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        let files = tree.files.iter().map(|_| None).collect();
        Self { tree, chance: Chance::new(2), buffer: Buffer::new(PIECE), files }
    }

    pub(super) fn run(mut self, account: &Account) {
        let tree = self.tree.clone();
        loop {
            for index in 0..tree.files.len() {
                self.piece(account, &tree.files[index], index);
            }
        }
    }

    fn piece(&mut self, account: &Account, file: &File, index: usize) {
        if self.files[index].is_none() {
            let open = || fs::File::open(self.tree.folder.join(&file.path));
            self.files[index] = account.call(&format!("open {} to hold it", file.path), open);
        }
        let Some(opened) = &self.files[index] else { return };
        // A page cache that has the bytes would hide everything behind it.
        fadvise(opened, 0, None, Advice::DontNeed).ok();
        let offset = self.chance.below(file.length);
        read(account, &self.tree, file, opened, offset, self.buffer.all());
    }
}

fn read(account: &Account, tree: &Tree, file: &File, opened: &fs::File, offset: u64, buffer: &mut [u8]) {
    let what = format!("read {} at {offset}", file.path);
    let wanted = (buffer.len() as u64).min(file.length - offset) as usize;
    let Some(length) = account.call(&what, || whole(opened, offset, buffer, wanted)) else { return };
    let seed = noise::seed_of(tree.seed, &file.path);
    match noise::first_wrong(seed, offset, &buffer[..length]) {
        Some(at) => account.wrong(&format!("{what}: wrong from {at} on")),
        None if length != wanted => account.wrong(&format!("{what}: {length} bytes, not {wanted}")),
        None => account.right(length),
    }
}

/// Reads until `wanted` bytes or the end of the file; always asks for all of the buffer, as direct reads have to.
fn whole(file: &fs::File, offset: u64, buffer: &mut [u8], wanted: usize) -> io::Result<usize> {
    let mut length = 0;
    while length < wanted {
        match file.read_at(&mut buffer[length..], offset + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// All files below a folder.
fn listing(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(listing(&entry.path())?);
        } else {
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// Aligned memory.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, length }
    }

    fn all(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

/// Numbers by chance.
struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        noise::number(self.seed, self.drawn) % bound
    }
}
