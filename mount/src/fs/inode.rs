//! The inode table: which numbers the kernel knows, and what they stand for.
//!
//! A number is the hash of what it names: the path and, for a file, the version of its content. So a file that changed in
//! the UFS is another inode, as if it had been replaced by rename: the kernel's page cache of the old version is never
//! shown to who opens the new one, nor the other way round, and numbers are the same in every mount of the Dataset.
//!
//! A kernel that has walked a large Dataset knows millions of numbers. What is kept of each is small; a [`Node`] is made
//! when it is asked for.

use std::{collections::HashMap, sync::Arc};

use penstock_model::{Attr, Kind, Object, ObjectKey, Version};
use tokio::time::Instant;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// FUSE's number of the root.
pub const ROOT: u64 = 1;

/// What a number stands for.
#[derive(Clone, Debug)]
pub struct Node {
    pub ino: u64,
    pub path: Arc<[u8]>,
    pub attr: Attr,
    /// Until when `attr` needs no question to a worker.
    pub fresh_until: Instant,
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

/// What is kept of a number.
#[derive(Debug)]
pub struct Kept {
    /// The path, then the version.
    text: Box<[u8]>,
    path: u32,
    mode: u16,
    kind: Kind,
    has_object: bool,
    key: [u8; 16],
    size: u64,
    mtime_ns: i64,
    pub fresh_until: Instant,
    /// How often the kernel was told of this number and has not yet forgotten it.
    lookups: u32,
    pub opens: u32,
    pub given: bool,
}

impl Kept {
    fn new(path: &[u8], attr: &Attr, fresh_until: Instant) -> Self {
        let (key, version) = attr.object.as_ref().map_or((ObjectKey(0), ""), |(key, version)| (*key, &version.0));
        Self {
            text: [path, version.as_bytes()].concat().into(),
            path: path.len() as u32,
            mode: attr.mode as u16,
            kind: attr.kind,
            has_object: attr.object.is_some(),
            key: key.0.to_le_bytes(),
            size: attr.size,
            mtime_ns: attr.mtime_ns,
            fresh_until,
            lookups: 1,
            opens: 0,
            given: false,
        }
    }

    /// The same number is said to have these attributes now.
    pub fn renew(&mut self, attr: &Attr, fresh_until: Instant) {
        let (lookups, opens, given) = (self.lookups, self.opens, self.given);
        *self = Self { lookups, opens, given, ..Self::new(self.path(), attr, fresh_until) };
    }

    fn path(&self) -> &[u8] {
        &self.text[..self.path as usize]
    }

    fn attr(&self) -> Attr {
        let version = || Version(String::from_utf8_lossy(&self.text[self.path as usize..]).into_owned());
        Attr {
            kind: self.kind,
            size: self.size,
            mtime_ns: self.mtime_ns,
            mode: self.mode.into(),
            object: self.has_object.then(|| (ObjectKey(u128::from_le_bytes(self.key)), version())),
        }
    }

    fn node(&self, ino: u64) -> Node {
        let path = Arc::from(self.path());
        let Self { fresh_until, opens, given, .. } = *self;
        Node { ino, path, attr: self.attr(), fresh_until, opens, given }
    }
}

#[derive(Debug)]
pub struct Inodes {
    nodes: HashMap<u64, Box<Kept>>,
    /// The newest number of each path, by the path's hash. Where two paths have one hash, the older one is not found.
    by_path: HashMap<u64, u64>,
}

impl Inodes {
    /// A table that knows the root only, with attributes that are already old.
    pub fn new(root: &Attr, now: Instant) -> Self {
        let nodes = HashMap::from([(ROOT, Box::new(Kept::new(b"", root, now)))]);
        Self { nodes, by_path: HashMap::from([(xxh3_64(b""), ROOT)]) }
    }

    pub fn get(&self, ino: u64) -> Option<Node> {
        Some(self.nodes.get(&ino)?.node(ino))
    }

    pub fn get_mut(&mut self, ino: u64) -> Option<&mut Kept> {
        self.nodes.get_mut(&ino).map(|kept| &mut **kept)
    }

    pub fn find(&self, path: &[u8]) -> Option<Node> {
        let ino = *self.by_path.get(&xxh3_64(path))?;
        self.nodes.get(&ino).filter(|kept| kept.path() == path).map(|kept| kept.node(ino))
    }

    /// The numbers of what lies in a directory, with their names. Looks at all there is.
    pub fn children(&self, directory: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let name = |kept: &Kept| {
            let rest = kept.path().strip_prefix(directory)?;
            let name = if directory.is_empty() { rest } else { rest.strip_prefix(b"/")? };
            (!name.is_empty() && !name.contains(&b'/')).then(|| name.to_vec())
        };
        self.nodes.iter().filter_map(|(ino, kept)| Some((*ino, name(kept)?))).collect()
    }

    /// Nothing is fresh any more.
    pub fn expire(&mut self, now: Instant) {
        for kept in self.nodes.values_mut() {
            kept.fresh_until = kept.fresh_until.min(now);
        }
    }

    /// Counts one more lookup of a known number.
    pub fn again(&mut self, ino: u64) {
        if let Some(kept) = self.nodes.get_mut(&ino) {
            kept.lookups += 1;
        }
    }

    /// The number of `path` as it is now, with one more lookup counted.
    pub fn remember(&mut self, path: &[u8], attr: &Attr, fresh_until: Instant) -> u64 {
        let ino = self.slot(path, attr);
        if let Some(kept) = self.nodes.get_mut(&ino) {
            kept.renew(attr, fresh_until);
            kept.lookups += 1;
        } else {
            self.nodes.insert(ino, Box::new(Kept::new(path, attr, fresh_until)));
        }
        self.by_path.insert(xxh3_64(path), ino);
        ino
    }

    /// A number that a former process gave out. How often is not known: the kernel forgets it all at once.
    pub fn restore(&mut self, ino: u64, path: &[u8], attr: &Attr, fresh_until: Instant) -> &mut Kept {
        self.by_path.insert(xxh3_64(path), ino);
        self.nodes.entry(ino).or_insert_with(|| Box::new(Kept::new(path, attr, fresh_until)))
    }

    /// Takes back `count` lookups; a number without any is gone. True when that was a directory's.
    pub fn forget(&mut self, ino: u64, count: u64) -> bool {
        let Some(kept) = self.nodes.get_mut(&ino) else { return false };
        kept.lookups = u64::from(kept.lookups).saturating_sub(count) as u32;
        if kept.lookups > 0 || ino == ROOT {
            return false;
        }
        let (hash, directory) = (xxh3_64(kept.path()), kept.kind == Kind::Directory);
        self.nodes.remove(&ino);
        if self.by_path.get(&hash) == Some(&ino) {
            self.by_path.remove(&hash);
        }
        directory
    }

    /// The number that `path` has or would get. Distinct things with one hash take the numbers that follow.
    pub fn slot(&self, path: &[u8], attr: &Attr) -> u64 {
        if path.is_empty() {
            return ROOT;
        }
        let mut ino = number(path, attr);
        while self.nodes.get(&ino).is_some_and(|kept| kept.path() != path || !same_content(&kept.attr(), attr)) {
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
        Inodes::new(&Attr { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: 0o755, object: None }, Instant::now())
    }

    #[test]
    fn a_changed_file_is_another_inode_and_the_old_one_stays_until_it_is_forgotten() {
        let mut inodes = table();
        let old = inodes.remember(b"a", &file(1), Instant::now());
        let new = inodes.remember(b"a", &file(2), Instant::now());
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
        assert_eq!(table().remember(b"a/b", &file(1), now), table().remember(b"a/b", &file(1), now));
    }

    #[test]
    fn a_node_is_what_was_remembered_and_directories_know_their_children() {
        let mut inodes = table();
        let directory = Attr { kind: Kind::Directory, object: None, ..file(0) };
        for (path, attr) in
            [("a", &directory), ("a/b", &file(3)), ("a/b c", &directory), ("a/b c/d", &file(4)), ("ab", &file(5))]
        {
            let ino = inodes.remember(path.as_bytes(), attr, Instant::now());
            let node = inodes.find(path.as_bytes()).unwrap();
            assert_eq!((node.ino, &*node.path, &node.attr), (ino, path.as_bytes(), attr));
        }
        let names = |directory: &[u8]| {
            let mut names: Vec<_> = inodes.children(directory).into_iter().map(|(_, name)| name).collect();
            names.sort();
            names
        };
        assert_eq!(names(b""), [&b"a"[..], b"ab"]);
        assert_eq!(names(b"a"), [&b"b"[..], b"b c"]);
        assert!(names(b"a/b").is_empty());
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
                    inodes.remember(&[b'a' + name], &file(version), Instant::now());
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
