//! The inode table: which numbers the kernel knows, and what they stand for.
//!
//! A number is the hash of what it names: the path and, for a file, the version of its content. So a file that changed in
//! the UFS is another inode, as if it had been replaced by rename: the kernel's page cache of the old version is never
//! shown to who opens the new one, nor the other way round, and numbers are the same in every mount of the Dataset.

use std::{collections::HashMap, sync::Arc};

use penstock_wire::message::{Attr, Kind, Object};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// FUSE's number of the root.
pub const ROOT: u64 = 1;

#[derive(Clone, Debug)]
pub struct Node {
    pub ino: u64,
    pub path: Arc<[u8]>,
    pub attr: Attr,
    /// Until when `attr` needs no question to a worker.
    pub fresh_until: Instant,
    /// How often the kernel was told of this number and has not yet forgotten it.
    lookups: u64,
    /// Open handles on it.
    pub opens: u32,
    /// The kernel was given its content.
    pub given: bool,
}

impl Node {
    /// What to ask bytes by; `None` for what is not a file.
    pub fn object(&self) -> Option<Object> {
        object_of(&self.path, &self.attr)
    }
}

/// What to ask bytes by; `None` for what is not a file.
pub fn object_of(path: &[u8], attr: &Attr) -> Option<Object> {
    let (key, version) = attr.object.clone()?;
    Some(Object { key, path: path.to_vec(), version, size: attr.size })
}

#[derive(Debug)]
pub struct Inodes {
    nodes: HashMap<u64, Node>,
    /// The newest number of each path.
    by_path: HashMap<Arc<[u8]>, u64>,
}

impl Inodes {
    /// A table that knows the root only, with attributes that are already old.
    pub fn new(root: Attr, now: Instant) -> Self {
        let path: Arc<[u8]> = Arc::from(&[][..]);
        let node =
            Node { ino: ROOT, path: path.clone(), attr: root, fresh_until: now, lookups: 1, opens: 0, given: false };
        Self { nodes: HashMap::from([(ROOT, node)]), by_path: HashMap::from([(path, ROOT)]) }
    }

    pub fn get(&self, ino: u64) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub fn get_mut(&mut self, ino: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    pub fn find(&self, path: &[u8]) -> Option<&Node> {
        self.by_path.get(path).and_then(|ino| self.nodes.get(ino))
    }

    /// Counts one more lookup of a known number.
    pub fn again(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// The number of `path` as it is now, with one more lookup counted.
    pub fn remember(&mut self, path: &[u8], attr: Attr, fresh_until: Instant) -> u64 {
        let ino = self.slot(path, &attr);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.attr = attr;
            node.fresh_until = fresh_until;
            node.lookups += 1;
            self.by_path.insert(node.path.clone(), ino);
        } else {
            let path: Arc<[u8]> = Arc::from(path);
            let node = Node { ino, path: path.clone(), attr, fresh_until, lookups: 1, opens: 0, given: false };
            self.nodes.insert(ino, node);
            self.by_path.insert(path, ino);
        }
        ino
    }

    /// A number that a former process gave out. How often is not known: the kernel forgets it all at once.
    pub fn restore(&mut self, ino: u64, path: &[u8], attr: Attr, fresh_until: Instant) -> &mut Node {
        let path: Arc<[u8]> = Arc::from(path);
        self.by_path.insert(path.clone(), ino);
        let node = Node { ino, path, attr, fresh_until, lookups: 1, opens: 0, given: false };
        self.nodes.entry(ino).or_insert(node)
    }

    /// Takes back `count` lookups; a number without any is gone.
    pub fn forget(&mut self, ino: u64, count: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0 && ino != ROOT {
            let path = node.path.clone();
            self.nodes.remove(&ino);
            if self.by_path.get(&path) == Some(&ino) {
                self.by_path.remove(&path);
            }
        }
    }

    /// The number that `path` has or would get. Distinct things with one hash take the numbers that follow.
    pub fn slot(&self, path: &[u8], attr: &Attr) -> u64 {
        if path.is_empty() {
            return ROOT;
        }
        let mut ino = number(path, attr);
        while self.nodes.get(&ino).is_some_and(|node| *node.path != *path || !same_content(&node.attr, attr)) {
            ino = ino.wrapping_add(1).max(ROOT + 1);
        }
        ino
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// Whether two answers about one path speak of the same content.
pub fn same_content(a: &Attr, b: &Attr) -> bool {
    a.kind == b.kind
        && match a.kind {
            Kind::Directory => true,
            Kind::Symlink => (a.size, a.mtime_ns) == (b.size, b.mtime_ns),
            Kind::File => a.object == b.object && a.size == b.size,
        }
}

fn number(path: &[u8], attr: &Attr) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(path);
    match (attr.kind, &attr.object) {
        (Kind::Directory, _) => {}
        (Kind::File, Some((key, _))) => {
            hash.update(&key.0.to_le_bytes());
            hash.update(&attr.size.to_le_bytes());
        }
        (Kind::File, None) | (Kind::Symlink, _) => {
            hash.update(&attr.size.to_le_bytes());
            hash.update(&attr.mtime_ns.to_le_bytes());
        }
    }
    hash.digest().max(ROOT + 1)
}

#[cfg(test)]
mod tests {
    use penstock_wire::message::{ObjectKey, Version};
    use proptest::prelude::*;

    use super::*;

    fn file(version: u8) -> Attr {
        Attr {
            kind: Kind::File,
            size: 1,
            mtime_ns: 0,
            mode: 0o644,
            object: Some((ObjectKey(u128::from(version)), Version(version.to_string()))),
        }
    }

    fn table() -> Inodes {
        Inodes::new(Attr { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: 0o755, object: None }, Instant::now())
    }

    #[test]
    fn a_changed_file_is_another_inode_and_the_old_one_stays_until_it_is_forgotten() {
        let mut inodes = table();
        let old = inodes.remember(b"a", file(1), Instant::now());
        let new = inodes.remember(b"a", file(2), Instant::now());
        assert_ne!(old, new);
        assert_eq!(inodes.find(b"a").unwrap().ino, new);
        assert_eq!(inodes.get(old).unwrap().attr, file(1));
        inodes.forget(old, 1);
        assert!(inodes.get(old).is_none());
        assert_eq!(inodes.find(b"a").unwrap().ino, new);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let mut inodes = table();
        inodes.forget(ROOT, 99);
        assert!(inodes.get(ROOT).is_some());
    }

    #[test]
    fn two_tables_give_the_same_numbers() {
        let now = Instant::now();
        assert_eq!(table().remember(b"a/b", file(1), now), table().remember(b"a/b", file(1), now));
    }

    proptest! {
        /// The model: a number lives exactly as long as lookups of it exceed what was forgotten.
        #[test]
        fn lookups_and_forgets_balance(steps in prop::collection::vec((0u8..6, 0u8..3, 1u64..4, any::<bool>()), 1..60)) {
            let mut inodes = table();
            let mut model: HashMap<(u8, u8), u64> = HashMap::new();
            for (name, version, count, look) in steps {
                let held = model.entry((name, version)).or_default();
                if look {
                    inodes.remember(&[b'a' + name], file(version), Instant::now());
                    *held += 1;
                } else if *held > 0 {
                    let count = count.min(*held);
                    inodes.forget(inodes.slot(&[b'a' + name], &file(version)), count);
                    *held -= count;
                }
            }
            prop_assert_eq!(inodes.len(), 1 + model.values().filter(|held| **held > 0).count());
        }
    }
}
