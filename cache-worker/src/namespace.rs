//! The Dataset's tree: which mount holds a path, and the directories that exist only because mounts lie below them.

use std::{collections::BTreeSet, sync::Arc};

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Place<'a, M> {
    /// The mount that holds the path, and the path in it.
    pub(crate) mount: Option<(&'a Arc<M>, &'a [u8])>,
    /// Names below the path that lead to other mounts; they hide what the mount has of the same name.
    pub(crate) overlay: BTreeSet<&'a [u8]>,
}

/// Mounts by their paths; the longest path wins.
#[derive(Debug)]
pub(crate) struct Namespace<M> {
    mounts: Vec<(Vec<u8>, Arc<M>)>,
}

impl<M> Namespace<M> {
    pub(crate) fn new(mounts: impl IntoIterator<Item = (Vec<u8>, Arc<M>)>) -> Self {
        let mut mounts: Vec<_> = mounts.into_iter().collect();
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self { mounts }
    }

    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Arc<M>> {
        self.mounts.iter().map(|(_, mount)| mount)
    }

    pub(crate) fn resolve<'a>(&'a self, path: &'a [u8]) -> Place<'a, M> {
        let mount = self.mounts.iter().find_map(|(at, mount)| Some((mount, below(at, path)?)));
        let overlay = self.mounts.iter().filter_map(|(at, _)| {
            let rest = below(path, at).filter(|rest| !rest.is_empty())?;
            rest.split(|b| *b == b'/').next()
        });
        Place { mount, overlay: overlay.collect() }
    }
}

/// `path` relative to `top`, when it lies in it.
fn below<'a>(top: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    if top.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(top)? {
        [] => Some(b""),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Parent and last segment; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_holds_a_path_and_mounts_below_show_as_names() {
        let at = |path: &str| (path.as_bytes().to_vec(), Arc::new(path.to_owned()));
        let rooted = Namespace::new([at(""), at("a/b"), at("a/b/c/d"), at("ab")]);
        let bare = Namespace::new([at("a/b"), at("a/x")]);
        for (tree, path, mount, overlay) in [
            (&rooted, "", Some(("", "")), vec!["a", "ab"]),
            (&rooted, "a", Some(("", "a")), vec!["b"]),
            (&rooted, "a/b", Some(("a/b", "")), vec!["c"]),
            (&rooted, "a/b/c", Some(("a/b", "c")), vec!["d"]),
            (&rooted, "a/bc", Some(("", "a/bc")), vec![]),
            (&rooted, "ab/c", Some(("ab", "c")), vec![]),
            (&bare, "", None, vec!["a"]),
            (&bare, "a", None, vec!["b", "x"]),
            (&bare, "a/x/y", Some(("a/x", "y")), vec![]),
            (&bare, "z", None, vec![]),
        ] {
            let place = tree.resolve(path.as_bytes());
            let found = place.mount.map(|(m, inner)| (m.as_str(), std::str::from_utf8(inner).unwrap()));
            assert_eq!(found, mount, "{path}");
            assert_eq!(place.overlay, overlay.iter().map(|s| s.as_bytes()).collect(), "{path}");
        }
    }

    #[test]
    fn paths_split_at_their_last_slash() {
        for (path, expected) in [("", None), ("a", Some(("", "a"))), ("a/b/c", Some(("a/b", "c")))] {
            let expected = expected.map(|(p, n): (&str, &str)| (p.as_bytes(), n.as_bytes()));
            assert_eq!(split(path.as_bytes()), expected);
        }
    }
}
