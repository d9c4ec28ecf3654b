//! What is particular to local paths: names of any bytes, links, special files.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt as _;
use penstock_model::Kind;
use penstock_ufs::{OpenMount, Ufs, UfsError, open};

fn mount(path: &Path) -> Arc<dyn Ufs> {
    let source = format!("local://{}", path.display());
    open(&OpenMount { source, options: BTreeMap::new() }).unwrap()
}

async fn names(ufs: &dyn Ufs) -> Vec<Vec<u8>> {
    let pages: Vec<_> = ufs.list(b"").try_collect().await.unwrap();
    let mut names: Vec<_> = pages.into_iter().flat_map(|page| page.entries).map(|entry| entry.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn names_may_be_any_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let name = b"\xff\xfe\n";
    std::fs::write(directory.path().join(OsStr::from_bytes(name)), "data").unwrap();
    let ufs = mount(directory.path());
    assert_eq!(names(&*ufs).await, [name]);
    let version = ufs.stat(name).await.unwrap().version.unwrap();
    assert_eq!(ufs.read(name, &version, 0, 4).await.unwrap(), "data");
}

#[tokio::test]
async fn links_are_shown_and_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let directory = tempfile::tempdir().unwrap();
    symlink(outside.path(), directory.path().join("out")).unwrap();
    symlink("/etc/passwd", directory.path().join("link")).unwrap();
    let ufs = mount(directory.path());
    let status = ufs.stat(b"link").await.unwrap();
    assert_eq!((status.kind, status.size, status.version), (Kind::Symlink, 11, None));
    assert_eq!(ufs.read_link(b"link").await.unwrap(), b"/etc/passwd");
    assert_eq!(names(&*ufs).await, [&b"link"[..], b"out"]);
    assert_eq!(ufs.stat(b"out/secret").await, Err(UfsError::NotADirectory));
    let version = mount(outside.path()).stat(b"secret").await.unwrap().version.unwrap();
    symlink(outside.path().join("secret"), directory.path().join("same")).unwrap();
    for path in [&b"out/secret"[..], b"same"] {
        let read = ufs.read(path, &version, 0, 6).await;
        assert_eq!(read, Err(UfsError::Changed), "{}", path.escape_ascii());
    }
    let listed: Result<Vec<_>, _> = ufs.list(b"out").try_collect().await;
    assert_eq!(listed, Err(UfsError::NotADirectory));
}

#[tokio::test]
async fn special_files_are_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let ufs = mount(directory.path());
    assert_eq!(names(&*ufs).await, [b"file"]);
    assert_eq!(ufs.stat(b"socket").await, Err(UfsError::NotFound));
}

#[tokio::test]
async fn holes_read_as_zeros_and_truncation_as_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("sparse")).unwrap();
    file.set_len(10 << 20).unwrap();
    file.write_all_at(b"end", (10 << 20) - 3).unwrap();
    let ufs = mount(directory.path());
    let version = ufs.stat(b"sparse").await.unwrap().version.unwrap();
    assert_eq!(ufs.read(b"sparse", &version, 5 << 20, 4096).await.unwrap(), vec![0; 4096]);
    file.set_len(1 << 20).unwrap();
    assert_eq!(ufs.read(b"sparse", &version, 0, 4096).await, Err(UfsError::Changed));
}

#[tokio::test]
async fn a_missing_root_is_told_and_a_replaced_one_found() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let ufs = mount(&root);
    let error = ufs.probe().await.unwrap_err();
    assert!(matches!(&error, UfsError::Misconfigured(text) if text.contains("root")), "{error:?}");
    std::fs::create_dir(&root).unwrap();
    ufs.probe().await.unwrap();
    std::fs::rename(&root, directory.path().join("old")).unwrap();
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("new"), "").unwrap();
    assert_eq!(names(&*ufs).await, [b"new"]);
}
