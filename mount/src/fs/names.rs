//! Names known ahead: listings of directories in which one name after the other is looked up.
//!
//! Who opens the files of a directory one by one asks the kernel for each name, and the kernel asks here. A request to a
//! worker for each would cost more than the data of a small file does; the directory's listing tells a thousand at once.
//! It is asked for page by page, in the order of names, and never more of it than the lookups so far are worth.

use std::{sync::Arc, time::Duration};

use lru::LruCache;
use parking_lot::Mutex;
use penstock_model::{Attr, Entry, Kind, listing_key};
use tokio::time::Instant;

use crate::backend::Listing;

/// Lookups that had to ask a worker before the first page is asked for, and before each further one.
const MISSES_PER_PAGE: u32 = 8;
/// Names that change sooner than this are not worth a listing.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// Files opened in order before the next ones are worth being fetched, and how many of those.
const IN_ORDER: u32 = 3;
pub(super) const AHEAD: usize = 16;
/// What all listings may take, bytes.
const BOUND: usize = 32 << 20;
/// Of one directory and of one entry besides its name, bytes, estimated from above.
const DIRECTORY: usize = 256;
const ENTRY: usize = 192;

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Attributes as they were at that moment.
    Entry(Attr, Instant),
    /// There was no such name at that moment.
    Nothing(Instant),
    Unknown,
}

/// A page to ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The entries after this key, or the first ones.
    pub(super) after: Option<Vec<u8>>,
    /// Of the record that it is for; another one has begun since when this differs.
    since: Instant,
}

pub(super) struct Names {
    directories: Mutex<Directories>,
}

struct Directories {
    by_path: LruCache<Arc<[u8]>, Directory>,
    bytes: usize,
}

struct Directory {
    /// In the order of their keys, from the first on.
    entries: Vec<Entry>,
    /// There are names after the last of `entries`.
    more: bool,
    /// When the record began.
    since: Instant,
    /// Nothing here is older.
    oldest: Instant,
    misses: u32,
    /// The entry that was opened last, and how many were in order up to it.
    opened: usize,
    in_order: u32,
    /// Entries before this one have been told by [`Names::opened`].
    told: usize,
    /// A page is on its way.
    asking: bool,
    bytes: usize,
}

impl Directory {
    fn new(now: Instant) -> Self {
        Self {
            entries: Vec::new(),
            more: true,
            since: now,
            oldest: now,
            misses: 0,
            opened: 0,
            in_order: 0,
            told: 0,
            asking: false,
            bytes: DIRECTORY,
        }
    }

    fn find(&self, name: &[u8]) -> Known {
        let file = self.position(name);
        // A directory of this name stands elsewhere.
        let directory = self.position(&listing_key(name, Kind::Directory));
        match (file, directory) {
            (Ok(at), _) | (_, Ok(at)) => Known::Entry(self.entries[at].attr.clone(), self.oldest),
            (_, Err(at)) if at < self.entries.len() || !self.more => Known::Nothing(self.oldest),
            _ => Known::Unknown,
        }
    }

    fn opened(&mut self, name: &[u8]) -> Vec<Entry> {
        let Ok(at) = self.position(name) else { return Vec::new() };
        // Opening the same file once more changes nothing.
        if at != self.opened {
            self.in_order = if at == self.opened + 1 { self.in_order + 1 } else { 0 };
            self.opened = at;
        }
        if self.in_order < IN_ORDER {
            self.told = at + 1;
            return Vec::new();
        }
        let first = self.told.max(at + 1).min(self.entries.len());
        self.told = (at + 1 + AHEAD).min(self.entries.len()).max(first);
        self.entries[first..self.told].to_vec()
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| {
            let slash: &[u8] = if entry.attr.kind == Kind::Directory { b"/" } else { b"" };
            entry.name.iter().chain(slash).cmp(key)
        })
    }
}

impl Default for Names {
    fn default() -> Self {
        Self { directories: Mutex::new(Directories { by_path: LruCache::unbounded(), bytes: 0 }) }
    }
}

impl Names {
    /// `life`: how long what a worker tells stays good.
    pub(super) fn find(&self, directory: &[u8], name: &[u8], life: Duration, now: Instant) -> Known {
        let mut all = self.directories.lock();
        let known = all.by_path.get(directory).filter(|known| now < known.oldest + life);
        known.map_or(Known::Unknown, |known| known.find(name))
    }

    /// Counts a lookup that has to ask a worker. What is worth asking for meanwhile, if anything: the caller owes
    /// [`Self::tell`] for it.
    pub(super) fn missed(&self, directory: &Arc<[u8]>, life: Duration, now: Instant) -> Option<Wanted> {
        if life < SHORTEST_LIFE {
            return None;
        }
        let mut all = self.directories.lock();
        if all.by_path.peek(directory).is_none_or(|known| now >= known.oldest + life) {
            all.put(directory.clone(), Directory::new(now));
        }
        let known = all.by_path.get_mut(directory)?;
        known.misses += 1;
        if known.asking || !known.more || !known.misses.is_multiple_of(MISSES_PER_PAGE) {
            return None;
        }
        known.asking = true;
        Some(Wanted { after: known.entries.last().map(Entry::listing_key), since: known.since })
    }

    /// The answer to what [`Self::missed`] wanted, if there is one.
    pub(super) fn tell(&self, directory: &Arc<[u8]>, wanted: &Wanted, page: Option<Listing>, now: Instant) {
        let mut all = self.directories.lock();
        if all.by_path.peek(directory).is_none_or(|known| known.since != wanted.since) {
            return;
        }
        let Some(mut known) = all.take(directory) else { return };
        known.asking = false;
        if let Some(Listing { entries, more, age }) = page {
            known.oldest = known.oldest.min(now.checked_sub(age).unwrap_or(now));
            known.bytes += entries.iter().map(|entry| ENTRY + entry.name.len()).sum::<usize>();
            // A page without entries that promises more would be asked for again without end.
            known.more = more && !entries.is_empty();
            known.entries.extend(entries);
        }
        all.put(directory.clone(), known);
    }

    /// Notes that a file was opened. Where the files of a directory are opened in the order of their names: the entries
    /// that come next and have not been told before.
    pub(super) fn opened(&self, directory: &[u8], name: &[u8], life: Duration, now: Instant) -> Vec<Entry> {
        let mut all = self.directories.lock();
        let known = all.by_path.get_mut(directory).filter(|known| now < known.oldest + life);
        known.map_or_else(Vec::new, |known| known.opened(name))
    }

    pub(super) fn clear(&self) {
        let mut all = self.directories.lock();
        all.by_path.clear();
        all.bytes = 0;
    }

    /// Something in this directory is not as its listing says.
    pub(super) fn forget(&self, directory: &[u8]) {
        self.directories.lock().take(directory);
    }
}

impl Directories {
    fn put(&mut self, path: Arc<[u8]>, directory: Directory) {
        self.take(&path);
        self.bytes += path.len() + directory.bytes;
        self.by_path.put(path, directory);
        while self.bytes > BOUND
            && let Some((path, directory)) = self.by_path.pop_lru()
        {
            self.bytes -= path.len() + directory.bytes;
        }
    }

    fn take(&mut self, path: &[u8]) -> Option<Directory> {
        let directory = self.by_path.pop(path)?;
        self.bytes -= path.len() + directory.bytes;
        Some(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(30);

    fn entry(name: &str) -> Entry {
        let attr = Attr { kind: Kind::File, size: name.len() as u64, mtime_ns: 0, mode: 0o644, object: None };
        Entry { name: name.into(), attr }
    }

    fn page(names: &[&str], more: bool) -> Listing {
        Listing { entries: names.iter().map(|name| entry(name)).collect(), more, age: Duration::ZERO }
    }

    /// As many lookups that miss as a page is worth.
    fn miss(names: &Names, directory: &Arc<[u8]>, now: Instant) -> Option<Wanted> {
        let mut wanted: Vec<_> = (0..MISSES_PER_PAGE).map(|_| names.missed(directory, LIFE, now)).collect();
        let last = wanted.pop().unwrap();
        assert!(wanted.iter().all(Option::is_none), "a page before its time");
        last
    }

    #[test]
    fn pages_follow_each_other_and_tell_what_is_there_and_what_is_not() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let find = |name: &str| names.find(b"d", name.as_bytes(), LIFE, now);
        assert_eq!(find("b"), Known::Unknown);
        let wanted = miss(&names, &dir, now).expect("the first page");
        assert_eq!(wanted.after, None);
        assert_eq!(miss(&names, &dir, now), None, "one page at a time");
        names.tell(&dir, &wanted, Some(page(&["b", "d"], true)), now);
        assert_eq!(find("b"), Known::Entry(entry("b").attr, now));
        assert_eq!(find("c"), Known::Nothing(now));
        assert_eq!(find("e"), Known::Unknown, "after what is known");
        let wanted = miss(&names, &dir, now).expect("the second page");
        assert_eq!(wanted.after.as_deref(), Some(&b"d"[..]));
        names.tell(&dir, &wanted, Some(page(&["f"], false)), now);
        assert_eq!(find("f"), Known::Entry(entry("f").attr, now));
        assert_eq!(find("z"), Known::Nothing(now));
        assert_eq!(miss(&names, &dir, now), None, "there is nothing more to know");
    }

    #[test]
    fn a_directory_stands_behind_the_files_that_begin_with_its_name_and_a_dot() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let wanted = miss(&names, &dir, now).unwrap();
        let mut told = page(&["a", "a.b", "a"], true);
        told.entries[2].attr.kind = Kind::Directory;
        told.entries.remove(0);
        names.tell(&dir, &wanted, Some(told), now);
        let find = |name: &str| names.find(b"d", name.as_bytes(), LIFE, now);
        assert!(matches!(find("a"), Known::Entry(attr, _) if attr.kind == Kind::Directory));
        assert!(matches!(find("a.b"), Known::Entry(attr, _) if attr.kind == Kind::File));
        assert_eq!((find("A"), find("a.c"), find("a0")), (Known::Nothing(now), Known::Nothing(now), Known::Unknown));
    }

    #[test]
    fn what_was_old_when_it_was_told_stays_good_for_the_rest_of_its_time_only() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let wanted = miss(&names, &dir, now).unwrap();
        names.tell(&dir, &wanted, Some(Listing { age: LIFE / 3, ..page(&["a"], false) }), now);
        let find = |after: Duration| names.find(b"d", b"a", LIFE, now + after);
        assert!(matches!(find(LIFE / 2), Known::Entry(..)));
        assert_eq!(find(LIFE / 3 * 2), Known::Unknown);
    }

    #[test]
    fn what_is_known_ages_and_is_asked_for_anew() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let wanted = miss(&names, &dir, now).unwrap();
        names.tell(&dir, &wanted, Some(page(&["a"], false)), now);
        let later = now + LIFE;
        assert_eq!(names.find(b"d", b"a", LIFE, later), Known::Unknown);
        assert_eq!(miss(&names, &dir, later).expect("the first page").after, None);
        assert_eq!(names.missed(&dir, Duration::ZERO, later), None, "names that never stay good");
    }

    #[test]
    fn what_was_forgotten_does_not_come_back_with_a_page_that_was_on_its_way() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let wanted = miss(&names, &dir, now).unwrap();
        names.forget(&dir);
        names.missed(&dir, LIFE, now + Duration::from_millis(1));
        names.tell(&dir, &wanted, Some(page(&["a"], false)), now);
        assert_eq!(names.find(b"d", b"a", LIFE, now), Known::Unknown);
    }

    #[test]
    fn files_that_are_opened_in_order_tell_what_comes_next_and_each_once() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let list: Vec<String> = (10..60).map(|i| i.to_string()).collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let wanted = miss(&names, &dir, now).unwrap();
        names.tell(&dir, &wanted, Some(page(&list, false)), now);
        let opened = |name: &str| names.opened(b"d", name.as_bytes(), LIFE, now);
        let told: Vec<_> = ["13", "14", "15"].map(|name| opened(name).len()).into();
        assert_eq!(told, [0, 0, 0]);
        let next = opened("16");
        assert_eq!((next.len(), &next[0].name[..]), (AHEAD, &b"17"[..]));
        assert!(opened("16").is_empty(), "again");
        assert_eq!(opened("17").iter().map(|e| &e.name[..]).collect::<Vec<_>>(), [b"33"]);
        assert!(opened("50").is_empty() && opened("49").is_empty(), "out of order");
        for name in 50..56 {
            opened(&name.to_string());
        }
        assert!(opened("56").is_empty(), "nothing is left to tell");
    }

    #[test]
    fn a_page_that_failed_is_asked_for_again() {
        let (names, dir, now) = (Names::default(), Arc::from(&b"d"[..]), Instant::now());
        let wanted = miss(&names, &dir, now).unwrap();
        names.tell(&dir, &wanted, None, now);
        assert_eq!(names.find(b"d", b"a", LIFE, now), Known::Unknown);
        assert_eq!(miss(&names, &dir, now).expect("the first page").after, None);
    }

    #[test]
    fn listings_stay_within_their_bound_and_the_least_used_goes_first() {
        let (names, now) = (Names::default(), Instant::now());
        let long = "x".repeat(1 << 20);
        let directory = |index: usize| -> Arc<[u8]> { Arc::from(index.to_string().as_bytes()) };
        for index in 0..40 {
            let dir = directory(index);
            let wanted = miss(&names, &dir, now).unwrap();
            names.tell(&dir, &wanted, Some(page(&[&long], false)), now);
            assert!(names.directories.lock().bytes <= BOUND);
            // Used over and over.
            assert!(matches!(names.find(b"0", long.as_bytes(), LIFE, now), Known::Entry(..)));
        }
        assert_eq!(names.find(&directory(1), long.as_bytes(), LIFE, now), Known::Unknown);
    }
}
