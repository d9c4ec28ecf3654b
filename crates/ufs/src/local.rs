//! A directory of this machine: a disk, an NFS export, a mounted volume.
//!
//! Every path is resolved by the kernel beneath the root and without following symlinks, so that no link in the data
//! leads out of it. Links are shown as links; who reads them resolves them on its own side.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use penstock_model::{Kind, Version};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::{ListedEntry, ListedPage, Status, Ufs, UfsError};

/// Entries handed over at once.
const PAGE: usize = 1000;

#[derive(Clone)]
pub(crate) struct Local {
    root: PathBuf,
}

impl Local {
    pub(crate) fn open(source: &str, rest: &str) -> Result<Self, UfsError> {
        let root = PathBuf::from(rest);
        if !root.is_absolute() {
            return Err(UfsError::Misconfigured(format!(
                "mountPoint {source:?} is not absolute: write local:///PATH, with three slashes"
            )));
        }
        if root.components().any(|component| component == Component::ParentDir) {
            return Err(UfsError::Misconfigured(format!("mountPoint {source:?} holds \"..\": write the plain path")));
        }
        Ok(Self { root })
    }

    /// Opened anew each time: a root that was replaced by another directory is found.
    fn root(&self) -> Result<OwnedFd, UfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.root, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => UfsError::Misconfigured(format!(
                "mountPoint \"local://{}\" is no directory on this node: correct it, or mount the volume there",
                self.root.display()
            )),
            error => self.failure(error),
        })
    }

    fn failure(&self, error: Errno) -> UfsError {
        match error {
            Errno::NOENT | Errno::NAMETOOLONG => UfsError::NotFound,
            // A link on the way is no directory here.
            Errno::NOTDIR | Errno::LOOP | Errno::XDEV => UfsError::NotADirectory,
            Errno::ACCESS | Errno::PERM => UfsError::Denied(format!(
                "a file under \"local://{}\" may not be read: let the worker's user read it",
                self.root.display()
            )),
            error => UfsError::Unavailable(format!("\"local://{}\" failed: {error}", self.root.display())),
        }
    }

    fn locate(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, UfsError> {
        let root = self.root()?;
        if !path.is_empty() && !path.split(|byte| *byte == b'/').all(showable) {
            return Err(UfsError::NotFound);
        }
        let path = if path.is_empty() { CString::from(c".") } else { name(path)? };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat2(&root, &path, flags, Mode::empty(), resolve))
            .map_err(|error| self.failure(error))
    }

    fn stat_now(&self, path: &[u8]) -> Result<Status, UfsError> {
        let found = self.locate(path, OFlags::PATH)?;
        let stat = rustix::fs::fstat(found).map_err(|error| self.failure(error))?;
        status(&stat).ok_or(UfsError::NotFound)
    }

    fn read_now(&self, path: &[u8], version: &Version, offset: u64, len: u64) -> Result<Bytes, UfsError> {
        // Non-blocking: a pipe put in the file's place must not hold us up.
        let file = match self.locate(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            // The path was a file when it was listed.
            Err(UfsError::NotADirectory) => return Err(UfsError::Changed),
            located => located?,
        };
        self.require_version(&file, version)?;
        let data = self.read_range(&file, offset, len)?;
        self.require_version(&file, version)?;
        Ok(data)
    }

    fn require_version(&self, file: &OwnedFd, version: &Version) -> Result<(), UfsError> {
        let stat = rustix::fs::fstat(file).map_err(|error| self.failure(error))?;
        let same = status(&stat).is_some_and(|status| status.version.as_ref() == Some(version));
        if same { Ok(()) } else { Err(UfsError::Changed) }
    }

    fn read_range(&self, file: impl AsFd, offset: u64, len: u64) -> Result<Bytes, UfsError> {
        let mut data = vec![0; len as usize];
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pread(&file, &mut data[done..], offset + done as u64) {
                Ok(0) => return Err(UfsError::Changed),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
        Ok(data.into())
    }

    fn read_link_now(&self, path: &[u8]) -> Result<Vec<u8>, UfsError> {
        let link = self.locate(path, OFlags::PATH)?;
        let target = rustix::fs::readlinkat(&link, c"", Vec::new());
        // EINVAL and, for an empty path, ENOENT: it is there and no link.
        target.map(CString::into_bytes).map_err(|error| match error {
            Errno::INVAL | Errno::NOENT => UfsError::NotFound,
            error => self.failure(error),
        })
    }

    fn open_directory(&self, path: &[u8]) -> Result<Directory, UfsError> {
        let fd = self.locate(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = Dir::read_from(&fd).map_err(|error| self.failure(error))?;
        Ok(Directory { fd, entries })
    }

    fn page(&self, directory: &mut Directory) -> Result<Vec<ListedEntry>, UfsError> {
        let mut page = Vec::new();
        while page.len() < PAGE {
            let Some(entry) = directory.entries.read() else { break };
            let entry = entry.map_err(|error| self.failure(error))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    page.extend(status(&stat).map(|status| ListedEntry { name: name.to_bytes().to_vec(), status }));
                }
                // Gone in between.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
        Ok(page)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &[u8],
        work: impl FnOnce(&Self, &[u8]) -> Result<T, UfsError> + Send + 'static,
    ) -> Result<T, UfsError> {
        let (local, path) = (self.clone(), path.to_vec());
        run(move || work(&local, &path)).await
    }
}

struct Directory {
    fd: OwnedFd,
    entries: Dir,
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T, UfsError> + Send + 'static) -> Result<T, UfsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(UfsError::Unavailable(format!("reading stopped: {error}"))))
}

fn showable(segment: &[u8]) -> bool {
    !matches!(segment, b"" | b"." | b"..") && !segment.contains(&0)
}

fn name(path: &[u8]) -> Result<CString, UfsError> {
    CString::new(path).map_err(|_| UfsError::NotFound)
}

/// `None` for what is neither file, directory nor symlink.
fn status(stat: &Stat) -> Option<Status> {
    let mtime_ns = stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64;
    let size = stat.st_size as u64;
    let (kind, size, version) = match FileType::from_raw_mode(stat.st_mode) {
        // No inode number: workers on several nodes may see copies of one tree.
        FileType::RegularFile => (Kind::File, size, Some(Version(format!("{mtime_ns}-{size}")))),
        FileType::Directory => (Kind::Directory, 0, None),
        FileType::Symlink => (Kind::Symlink, size, None),
        _ => return None,
    };
    Some(Status { kind, size, mtime_ns, mode: Some(stat.st_mode & 0o7777), version })
}

#[async_trait]
impl Ufs for Local {
    async fn stat(&self, path: &[u8]) -> Result<Status, UfsError> {
        self.blocking(path, Self::stat_now).await
    }

    fn list<'a>(&'a self, path: &'a [u8]) -> BoxStream<'a, Result<ListedPage, UfsError>> {
        stream::try_unfold(None, move |directory: Option<Directory>| async move {
            let mut directory = match directory {
                Some(directory) => directory,
                None => self.blocking(path, Self::open_directory).await?,
            };
            let local = self.clone();
            let (entries, directory) = run(move || local.page(&mut directory).map(|page| (page, directory))).await?;
            // The kernel tells names in no order.
            Ok((!entries.is_empty()).then_some((ListedPage { entries, settled: Vec::new() }, Some(directory))))
        })
        .boxed()
    }

    async fn read(&self, path: &[u8], version: &Version, offset: u64, len: u64) -> Result<Bytes, UfsError> {
        let version = version.clone();
        self.blocking(path, move |local, path| local.read_now(path, &version, offset, len)).await
    }

    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, UfsError> {
        self.blocking(path, Self::read_link_now).await
    }

    async fn probe(&self) -> Result<(), UfsError> {
        self.blocking(b"", |local, path| local.open_directory(path).map(|_| ())).await
    }
}
