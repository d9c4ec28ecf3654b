//! What every store must do alike, run over S3 and over a local directory.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt as _;
use penstock_model::{Kind, Version};
use penstock_testkit::s3::{S3Options, S3Server};
use penstock_ufs::{ListedEntry, OpenMount, Ufs, UfsError, open};

/// A store to fill and the same store to read.
struct Case {
    ufs: Arc<dyn Ufs>,
    filled: Filled,
}

enum Filled {
    S3(Box<S3Server>),
    Local(tempfile::TempDir),
}

impl Case {
    async fn both() -> [Self; 2] {
        let server = S3Server::start(S3Options::default()).await.unwrap();
        let mount = OpenMount {
            source: "s3://data/base".into(),
            options: BTreeMap::from([
                ("endpoint".into(), server.endpoint()),
                ("access-key".into(), server.access_key().into()),
                ("secret-key".into(), server.secret_key().into()),
            ]),
        };
        let s3 = Self { ufs: open(&mount).unwrap(), filled: Filled::S3(Box::new(server)) };
        let directory = tempfile::tempdir().unwrap();
        let source = format!("local://{}", directory.path().display());
        let ufs = open(&OpenMount { source, options: BTreeMap::new() }).unwrap();
        [s3, Self { ufs, filled: Filled::Local(directory) }]
    }

    fn put(&self, path: &str, data: impl Into<Vec<u8>>) {
        match &self.filled {
            Filled::S3(server) => server.put("data", &format!("base/{path}"), data.into()).unwrap(),
            Filled::Local(directory) => {
                let path = directory.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, data.into()).unwrap();
            }
        }
    }

    fn make_directory(&self, path: &str) {
        match &self.filled {
            Filled::S3(server) => server.put("data", &format!("base/{path}/"), "").unwrap(),
            Filled::Local(directory) => std::fs::create_dir_all(directory.path().join(path)).unwrap(),
        }
    }

    fn remove(&self, path: &str) {
        match &self.filled {
            Filled::S3(server) => server.remove("data", &format!("base/{path}")),
            Filled::Local(directory) => std::fs::remove_file(directory.path().join(path)).unwrap(),
        }
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let mut entries = list(&*self.ufs, path).await.unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    }

    async fn version(&self, path: &str) -> Version {
        self.ufs.stat(path.as_bytes()).await.unwrap().version.unwrap()
    }
}

async fn list(ufs: &dyn Ufs, path: &str) -> Result<Vec<ListedEntry>, UfsError> {
    let pages: Vec<_> = ufs.list(path.as_bytes()).try_collect().await?;
    Ok(pages.into_iter().flat_map(|page| page.entries).collect())
}

const ODD: [&str; 12] = [
    " leading",
    "trailing ",
    " ",
    "a+b&c=d?e#f%20g",
    "новости.csv",
    "quote\"'<>",
    "back\\slash",
    "...",
    "tab\there",
    "new\nline",
    "\n",
    "\u{1}\u{7f}",
];

#[tokio::test]
async fn odd_names_are_listed_found_and_read_as_they_are() {
    for case in Case::both().await {
        for name in ODD {
            case.put(&format!("odd/{name}"), name);
        }
        let mut wanted = ODD.map(String::from);
        wanted.sort();
        assert_eq!(case.names("odd").await, wanted);
        for name in ODD {
            let path = format!("odd/{name}");
            let version = case.version(&path).await;
            let data = case.ufs.read(path.as_bytes(), &version, 0, name.len() as u64).await.unwrap();
            assert_eq!(data, name, "{name:?}");
        }
        for neighbour in ["odd/leading", "odd/trailing", "odd"] {
            assert_ne!(case.ufs.stat(neighbour.as_bytes()).await.map(|status| status.kind), Ok(Kind::File));
        }
    }
}

#[tokio::test]
async fn directories_files_and_nothing_are_told_apart() {
    for case in Case::both().await {
        case.put("a/b/file", "12345");
        case.put("empty-file", "");
        case.make_directory("a/empty");
        let ufs = &*case.ufs;
        for directory in ["", "a", "a/b", "a/empty"] {
            let status = ufs.stat(directory.as_bytes()).await.unwrap();
            assert_eq!((status.kind, status.size, status.version), (Kind::Directory, 0, None), "{directory:?}");
        }
        let file = ufs.stat(b"a/b/file").await.unwrap();
        assert_eq!((file.kind, file.size), (Kind::File, 5));
        assert!(file.mtime_ns > 1_600_000_000_000_000_000);
        assert_eq!(case.names("").await, ["a", "empty-file"]);
        assert_eq!(case.names("a").await, ["b", "empty"]);
        assert_eq!(case.names("a/empty").await, [""; 0]);
        assert_eq!(list(ufs, "a/b").await.unwrap(), [ListedEntry { name: b"file".to_vec(), status: file }]);
        assert_eq!(ufs.stat(b"none").await, Err(UfsError::NotFound));
        assert_eq!(list(ufs, "none").await, Err(UfsError::NotFound));
        assert_eq!(list(ufs, "a/b/file").await, Err(UfsError::NotADirectory));
        assert_eq!(ufs.read_link(b"none").await, Err(UfsError::NotFound));
        assert_eq!(ufs.read_link(b"a/b/file").await, Err(UfsError::NotFound));
        for unsafe_path in ["..", "a/../a", "a//b", "./a", "/a", "a/", "a\0"] {
            assert_eq!(ufs.stat(unsafe_path.as_bytes()).await, Err(UfsError::NotFound), "{unsafe_path:?}");
        }
        ufs.probe().await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_store_has_an_empty_root() {
    for case in Case::both().await {
        assert_eq!(case.ufs.stat(b"").await.unwrap().kind, Kind::Directory);
        assert_eq!(case.names("").await, [""; 0]);
        case.ufs.probe().await.unwrap();
    }
}

#[tokio::test]
async fn ranges_are_read_exactly() {
    for case in Case::both().await {
        let data: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        case.put("big", data.clone());
        let version = case.version("big").await;
        for (offset, len) in [(0, 1), (0, 0), (999_999, 1), (123_456, 400_000), (0, 1_000_000)] {
            let read = case.ufs.read(b"big", &version, offset, len).await.unwrap();
            assert_eq!(read, data[offset as usize..(offset + len) as usize], "{offset}+{len}");
        }
        for (offset, len) in [(999_999, 2), (1_000_000, 1), (2_000_000, 10)] {
            assert_eq!(case.ufs.read(b"big", &version, offset, len).await, Err(UfsError::Changed), "{offset}+{len}");
        }
    }
}

#[tokio::test]
async fn another_version_is_never_read_for_this_one() {
    for case in Case::both().await {
        case.put("file", "old");
        let old = case.version("file").await;
        case.put("file", "newer");
        assert_eq!(case.ufs.read(b"file", &old, 0, 3).await, Err(UfsError::Changed));
        let new = case.version("file").await;
        assert_eq!(case.ufs.read(b"file", &new, 0, 5).await.unwrap(), "newer");
        case.remove("file");
        assert_eq!(case.ufs.read(b"file", &new, 0, 5).await, Err(UfsError::NotFound));
        case.put("file/below", "now a directory");
        assert!(matches!(case.ufs.read(b"file", &new, 0, 5).await, Err(UfsError::Changed | UfsError::NotFound)));
    }
}

#[tokio::test]
async fn many_entries_come_in_pages_each_once() {
    for case in Case::both().await {
        for at in 0..2500 {
            case.put(&format!("many/{at:05}"), "x");
        }
        let pages: Vec<_> = case.ufs.list(b"many").try_collect().await.unwrap();
        assert!(pages.iter().all(|page| page.entries.len() <= 1001));
        for (at, page) in pages.iter().enumerate() {
            let mut later = pages[at + 1..].iter().flat_map(|page| &page.entries);
            assert!(later.all(|entry| entry.name >= page.settled), "an entry after its turn");
        }
        let mut names: Vec<_> = pages.into_iter().flat_map(|page| page.entries).map(|entry| entry.name).collect();
        names.sort();
        assert!(names.into_iter().eq((0..2500).map(|at| format!("{at:05}").into_bytes())));
    }
}
