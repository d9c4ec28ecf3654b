//! Paths and keys, versions and `ETag`s.

use opendal::Metadata;
use penstock_model::Version;

/// The longest key of S3, in bytes.
const LONGEST_KEY: usize = 1024;

/// What all keys of the mount begin with: empty, or ending in `/`.
pub(super) struct Prefix(String);

impl Prefix {
    pub(super) fn new(given: &str) -> Self {
        let slash = if given.is_empty() || given.ends_with('/') { "" } else { "/" };
        Self(format!("{given}{slash}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the file at `path`; `None` when no key can be meant.
    pub(super) fn file(&self, path: &[u8]) -> Option<String> {
        let path = std::str::from_utf8(path).ok()?;
        let key = format!("{}{path}", self.0);
        (path.split('/').all(showable) && key.len() <= LONGEST_KEY).then_some(key)
    }

    /// What the keys in the directory at `path` begin with.
    pub(super) fn directory(&self, path: &[u8]) -> Option<String> {
        if path.is_empty() { Some(self.0.clone()) } else { self.file(path).map(|key| key + "/") }
    }
}

/// Whether a segment of a key can be a name in a file system.
pub(super) fn showable(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && !segment.contains('\0')
}

/// Some stores quote `ETag`s in headers and not in listings, or the other way round: versions go without quotes.
pub(super) fn version(metadata: &Metadata) -> Version {
    match metadata.etag().map(unquoted).filter(|etag| !etag.is_empty()) {
        Some(etag) => Version(etag.to_owned()),
        None => Version(format!("{NO_ETAG}{}-{}", mtime_ns(metadata), metadata.content_length())),
    }
}

/// Marks versions of stores that tell no `ETag`; such reads are checked by the answer's headers alone.
const NO_ETAG: &str = "mtime-size:";

fn unquoted(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag)
}

/// The `ETag` as `If-Match` takes it.
pub(super) fn etag(version: &Version) -> Option<String> {
    match version.0.as_str() {
        made if made.starts_with(NO_ETAG) => None,
        weak if weak.starts_with("W/") => Some(weak.to_owned()),
        plain => Some(format!("\"{plain}\"")),
    }
}

/// Whole seconds: headers tell no more, and a listing must agree with them.
pub(super) fn mtime_ns(metadata: &Metadata) -> i64 {
    let modified = metadata.last_modified().map(std::time::SystemTime::from);
    let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs() as i64 * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_keys_as_they_are() {
        let prefix = Prefix::new("a/b");
        assert_eq!(prefix.as_str(), "a/b/");
        assert_eq!(Prefix::new("a/b/").as_str(), "a/b/");
        assert_eq!(Prefix::new("").as_str(), "");
        assert_eq!(prefix.file(b" x ").as_deref(), Some("a/b/ x "));
        assert_eq!(prefix.directory(b"").as_deref(), Some("a/b/"));
        assert_eq!(prefix.directory("é/ü".as_bytes()).as_deref(), Some("a/b/é/ü/"));
        for none in [&b"x//y"[..], b"/x", b"x/", b".", b"x/..", b"nul\0", b"\xff", &[b'x'; 1024]] {
            assert_eq!(prefix.file(none), None, "{}", none.escape_ascii());
        }
    }

    #[test]
    fn etags_survive_the_way_there_and_back() {
        assert_eq!(etag(&Version("abc-2".into())).as_deref(), Some("\"abc-2\""));
        assert_eq!(etag(&Version("W/\"x\"".into())).as_deref(), Some("W/\"x\""));
        assert_eq!(etag(&Version("mtime-size:1-2".into())), None);
        assert_eq!(unquoted("\"abc\""), "abc");
        assert_eq!(unquoted("abc"), "abc");
    }
}
