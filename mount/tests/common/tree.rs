//! A backend that serves a local directory, for comparing a mount with what it shows.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt},
    },
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use penstock_model::{Attr, Entry, Kind, Object, ObjectKey, Version};
use penstock_mount::backend::{Backend, Facts, Listing, LocalFile, ReadError, Told};
use penstock_wire::message::Pattern;

pub struct Tree {
    pub root: PathBuf,
    /// Whether files are handed out as descriptors too.
    pub local: bool,
}

impl Tree {
    fn path(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

#[async_trait]
impl Backend for Tree {
    fn facts(&self) -> Option<Facts> {
        Some(Facts { revalidate: None, uid: 0, gid: 0, workers: 1 })
    }

    async fn stat(&self, path: &[u8]) -> Result<Told, ReadError> {
        let attr = attr(path, &fs::symlink_metadata(self.path(path)).map_err(failed)?);
        Ok(Told { attr, age: Duration::ZERO })
    }

    async fn list(&self, path: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Listing, ReadError> {
        let mut names: Vec<Vec<u8>> = fs::read_dir(self.path(path))
            .map_err(failed)?
            .map(|entry| Ok(entry?.file_name().into_vec()))
            .collect::<io::Result<_>>()
            .map_err(failed)?;
        names.sort();
        let mut entries = Vec::new();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            entries.push(Entry { name, attr: self.stat(&path).await?.attr });
        }
        entries.sort_by_key(Entry::listing_key);
        entries.retain(|entry| after.is_none_or(|after| *entry.listing_key() > *after));
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(Listing { entries, more, age: Duration::ZERO })
    }

    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        Ok(fs::read_link(self.path(path)).map_err(failed)?.into_os_string().into_vec())
    }

    async fn read(&self, object: &Object, offset: u64, len: u32, _: Pattern) -> Result<Bytes, ReadError> {
        let mut data = vec![0; len as usize];
        let file = File::open(self.path(&object.path)).map_err(failed)?;
        file.read_exact_at(&mut data, offset).map_err(failed)?;
        Ok(data.into())
    }

    async fn open_local(&self, object: &Object) -> Option<LocalFile> {
        let file = File::open(self.path(&object.path)).ok().filter(|_| self.local)?;
        Some(LocalFile { file })
    }
}

fn attr(path: &[u8], metadata: &Metadata) -> Attr {
    let kind = if metadata.is_dir() {
        Kind::Directory
    } else if metadata.is_symlink() {
        Kind::Symlink
    } else {
        Kind::File
    };
    let version = Version(format!("{}.{}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.len()));
    Attr {
        kind,
        size: if kind == Kind::Directory { 0 } else { metadata.len() },
        mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        mode: metadata.mode() & 0o7777,
        object: (kind == Kind::File).then(|| (ObjectKey::new("tree", path, &version), version)),
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound => ReadError::NotFound,
        io::ErrorKind::NotADirectory => ReadError::NotADirectory,
        _ => ReadError::Ufs(error.to_string()),
    }
}
