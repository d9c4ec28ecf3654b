//! Where a reader reads: the file system itself, or a mount of it.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use penstock_mount::{
    fs::{FileSystem, ROOT},
    tree::Found,
};
use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};

#[derive(Clone)]
pub enum Front {
    Direct(Arc<FileSystem>),
    Mounted(PathBuf),
}

/// An open file; closed when dropped.
pub enum Handle {
    Direct { fs: Arc<FileSystem>, handle: u64, ino: u64 },
    Mounted(Arc<File>),
}

impl Front {
    /// The handle and the size that it shows.
    pub async fn open(&self, name: &str) -> Result<(Handle, u64), Errno> {
        match self {
            Self::Direct(fs) => {
                // As the kernel does: a number that is out of date is looked up again.
                for _ in 0..5 {
                    match open_once(fs, name).await {
                        Err(Errno::STALE) => {}
                        opened => return opened,
                    }
                }
                open_once(fs, name).await
            }
            Self::Mounted(dir) => {
                let path = dir.join(name);
                blocking(move || {
                    let file = File::open(path)?;
                    let size = file.metadata()?.len();
                    // What the kernel keeps would hide the path.
                    fadvise(&file, 0, None, Advice::DontNeed)?;
                    Ok((Handle::Mounted(Arc::new(file)), size))
                })
                .await
            }
        }
    }
}

async fn open_once(fs: &Arc<FileSystem>, name: &str) -> Result<(Handle, u64), Errno> {
    let Found::Entry(stat) = fs.lookup(ROOT, name.as_bytes()).await? else { return Err(Errno::NOENT) };
    let opened = fs.open(stat.ino, false).await.inspect_err(|_| fs.forget(stat.ino, 1))?;
    Ok((Handle::Direct { fs: fs.clone(), handle: opened.handle, ino: stat.ino }, stat.attr.size))
}

impl Handle {
    /// Fewer bytes than asked for only at the end of the file.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes, Errno> {
        match self {
            Self::Direct { fs, handle, .. } => fs.read(*handle, offset, len as u32).await,
            Self::Mounted(file) => {
                let file = file.clone();
                blocking(move || read_all(&file, offset, len)).await
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Self::Direct { fs, handle, ino } = self {
            fs.release(*handle);
            fs.forget(*ino, 1);
        }
    }
}

fn read_all(file: &File, offset: u64, len: usize) -> std::io::Result<Bytes> {
    let (mut data, mut done) = (vec![0; len], 0);
    while done < len {
        match file.read_at(&mut data[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    data.truncate(done);
    Ok(data.into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Errno> {
    let done = tokio::task::spawn_blocking(work).await.unwrap();
    done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
