//! Paths within a Dataset: names with a `/` between, the root is empty.

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// The directory that holds `path`; the root's is the root.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    split(path).0
}

/// Directory and name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|byte| *byte == b'/').map_or((&[], path), |at| (&path[..at], &path[at + 1..]))
}
