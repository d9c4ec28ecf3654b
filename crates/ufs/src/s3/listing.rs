//! What a listing's keys are in a file system: pure, fed entry by entry in the order of the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::key::showable;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The key of the directory itself.
    Marker,
    File(&'a str),
    Directory(&'a str),
    Unshowable,
}

/// `found` is a key or, with a trailing `/`, a common prefix under `directory`.
pub(super) fn locate<'a>(directory: &str, found: &'a str) -> Found<'a> {
    let Some(rest) = found.strip_prefix(directory) else {
        // The service tells "/" for the empty key.
        return Found::Unshowable;
    };
    match rest.strip_suffix('/') {
        None if rest.is_empty() => Found::Marker,
        None if showable(rest) => Found::File(rest),
        Some(name) if showable(name) && !name.contains('/') => Found::Directory(name),
        _ => Found::Unshowable,
    }
}

/// Drops files whose name a directory has too. Within each page of a listing all common prefixes come first, then all
/// keys; either kind in byte order, and pages in byte order. So a file `a` is sure once anything beyond `a/` is seen.
pub(super) struct Merge<S> {
    /// Files for which a directory may still come.
    pending: BTreeMap<String, S>,
    /// Directories whose file may still come, by name with `/`.
    directories: BTreeSet<String>,
}

impl<S> Default for Merge<S> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), directories: BTreeSet::new() }
    }
}

impl<S> Merge<S> {
    /// `emit` takes a name and, for a file, its status.
    pub(super) fn directory(&mut self, name: &str, mut emit: impl FnMut(String, Option<S>)) {
        self.pending.remove(name);
        let slashed = format!("{name}/");
        self.release(&slashed, &mut emit);
        self.directories.insert(slashed);
        emit(name.to_owned(), None);
    }

    pub(super) fn file(&mut self, name: &str, status: S, mut emit: impl FnMut(String, Option<S>)) {
        self.release(name, &mut emit);
        while self.directories.first().is_some_and(|directory| directory.as_str() < name) {
            self.directories.pop_first();
        }
        if !self.directories.contains(&format!("{name}/")) {
            self.pending.insert(name.to_owned(), status);
        }
    }

    pub(super) fn finish(&mut self, mut emit: impl FnMut(String, Option<S>)) {
        for (name, status) in std::mem::take(&mut self.pending) {
            emit(name, Some(status));
        }
    }

    /// The first of the files for which a directory may still come.
    pub(super) fn first_pending(&self) -> Option<&str> {
        self.pending.first_key_value().map(|(name, _)| name.as_str())
    }

    fn release(&mut self, reached: &str, emit: &mut impl FnMut(String, Option<S>)) {
        let sure = |name: &str| name.bytes().chain([b'/']).lt(reached.bytes());
        for (name, status) in self.pending.extract_if(.., |name, _| sure(name)) {
            emit(name, Some(status));
        }
    }
}

/// How far a listing has come. It holds in the order of keys, and also where a store orders by names without `/`.
#[derive(Default)]
pub(super) struct Progress {
    reached: String,
    /// Directories since the last file: the files before them in their page may still come.
    directories: VecDeque<String>,
}

impl Progress {
    /// `page`: the most entries in one page. Whatever came so many entries ago was in an earlier one.
    pub(super) fn directory(&mut self, name: &str, page: usize) {
        self.directories.push_back(name.to_owned());
        if self.directories.len() > page {
            self.reached = self.directories.pop_front().unwrap_or_default().max(std::mem::take(&mut self.reached));
        }
    }

    pub(super) fn file(&mut self, name: &str) {
        self.directories.clear();
        if *name > *self.reached {
            name.clone_into(&mut self.reached);
        }
    }

    /// No entry to come stands before this key.
    pub(super) fn reached(&self) -> &str {
        &self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_located() {
        for (directory, found, wanted) in [
            ("", "a", Found::File("a")),
            ("", "a/", Found::Directory("a")),
            ("", "/", Found::Unshowable),
            ("p/", "p/", Found::Marker),
            ("p/", "p//", Found::Unshowable),
            ("p/", "p/ x ", Found::File(" x ")),
            ("p/", "p/../", Found::Unshowable),
            ("p/", "p/.", Found::Unshowable),
            ("p/", "q", Found::Unshowable),
        ] {
            assert_eq!(locate(directory, found), wanted, "{directory:?} {found:?}");
        }
    }

    /// Lists by the rules of S3 with pages of each size, and compares with the plain definition.
    #[test]
    fn a_directory_hides_the_file_of_its_name_wherever_pages_end() {
        let keys = ["a", "a b", "a-", "a-/x", "a.b", "a/1", "a/2", "a0", "b", "b!", "b!/x", "b!0", "b/x", "c", "c/"];
        let mut items: Vec<&str> = Vec::new();
        for key in keys {
            let item = key.find('/').map_or(key, |at| &key[..=at]);
            if items.last() != Some(&item) {
                items.push(item);
            }
        }
        let directories: BTreeSet<_> = items.iter().filter_map(|item| item.strip_suffix('/')).collect();
        let files = items.iter().filter(|item| !item.ends_with('/') && !directories.contains(**item));
        let wanted: BTreeSet<(String, bool)> = files
            .map(|file| ((*file).to_owned(), true))
            .chain(directories.iter().map(|directory| ((*directory).to_owned(), false)))
            .collect();
        for size in 1..=items.len() {
            let (mut merge, mut progress) = (Merge::default(), Progress::default());
            let mut told: Vec<(String, bool)> = Vec::new();
            // How many had come when nothing was to come before that key any more.
            let mut promises = Vec::new();
            for page in items.chunks(size) {
                for directory in page.iter().filter_map(|item| item.strip_suffix('/')) {
                    progress.directory(directory, size);
                    merge.directory(directory, |name, file: Option<()>| told.push((name, file.is_some())));
                }
                for file in page.iter().filter(|item| !item.ends_with('/')) {
                    progress.file(file);
                    merge.file(file, (), |name, file| told.push((name, file.is_some())));
                    let settled = merge.first_pending().map_or(progress.reached(), |file| progress.reached().min(file));
                    promises.push((told.len(), settled.to_owned()));
                }
            }
            merge.finish(|name, file| told.push((name, file.is_some())));
            assert_eq!(told.len(), wanted.len(), "page size {size}");
            for (at, settled) in promises {
                let key = |(name, file): &(String, bool)| if *file { name.clone() } else { format!("{name}/") };
                assert!(told[at..].iter().all(|late| key(late) >= settled), "page size {size}: {settled}");
            }
            assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), wanted, "page size {size}");
        }
    }
}
