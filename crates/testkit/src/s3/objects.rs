//! The objects of a bucket in key order, and what a listing shows of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use super::body::Content;

#[derive(Clone)]
pub(super) struct StoredObject {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) modified: SystemTime,
    pub(super) storage_class: Option<&'static str>,
}

pub(super) type Bucket = BTreeMap<String, StoredObject>;

/// Requests by operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub get: u64,
    pub head: u64,
    pub list: u64,
    pub put: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Key(String),
    CommonPrefix(String),
}

impl Item {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::CommonPrefix(name) => name,
        }
    }
}

/// At most `limit` items after `after` (an earlier item's name), and whether more follow.
pub(super) fn page<V>(
    keys: &BTreeMap<String, V>,
    prefix: &str,
    delimiter: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> (Vec<Item>, bool) {
    let mut items = Vec::new();
    let mut from = match after {
        Some(after) if after >= prefix => beyond(after, prefix, delimiter),
        _ => Bound::Included(prefix.to_owned()),
    };
    loop {
        let Some((key, _)) = keys.range((from.clone(), Bound::Unbounded)).next() else { return (items, false) };
        let Some(rest) = key.strip_prefix(prefix) else { return (items, false) };
        if items.len() == limit {
            return (items, true);
        }
        let item = match delimiter.and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len())) {
            Some(end) => Item::CommonPrefix(key[..prefix.len() + end].to_owned()),
            None => Item::Key(key.clone()),
        };
        from = beyond(item.name(), prefix, delimiter);
        items.push(item);
    }
}

/// Where a listing goes on after the item of this name: a common prefix covers all keys that begin with it.
fn beyond(name: &str, prefix: &str, delimiter: Option<&str>) -> Bound<String> {
    let covers = |delimiter| name.len() > prefix.len() && name.ends_with(delimiter);
    if !delimiter.is_some_and(covers) {
        return Bound::Excluded(name.to_owned());
    }
    let mut next = name.to_owned();
    // Delimiters are ASCII in practice; the next character up begins the first key that the prefix does not cover.
    let last = next.pop().and_then(|last| char::from_u32(last as u32 + 1)).unwrap_or(char::MAX);
    next.push(last);
    Bound::Included(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(prefix: &str, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        let keys = ["a", "a/", "a/1", "a/2", "a0", "b//c", "b/x", "c "].map(|key| (key.to_owned(), ()));
        let (items, more) = page(&keys.into(), prefix, Some("/"), after, limit);
        (items.iter().map(|item| item.name().to_owned()).collect(), more)
    }

    #[test]
    fn common_prefixes_are_told_once_and_in_order() {
        assert_eq!(listed("", None, 10), (["a", "a/", "a0", "b/", "c "].map(String::from).into(), false));
        assert_eq!(listed("a/", None, 10), (["a/", "a/1", "a/2"].map(String::from).into(), false));
        assert_eq!(listed("b/", None, 10), (["b//", "b/x"].map(String::from).into(), false));
    }

    #[test]
    fn pages_join_without_gap_or_repetition() {
        assert_eq!(listed("", None, 2), (["a", "a/"].map(String::from).into(), true));
        assert_eq!(listed("", Some("a/"), 2), (["a0", "b/"].map(String::from).into(), true));
        assert_eq!(listed("", Some("b/"), 2), (["c "].map(String::from).into(), false));
    }
}
