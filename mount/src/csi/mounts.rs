//! The mount table, and the few changes that we make to it.
//!
//! Nothing here may touch the inside of a FUSE mount except [`probe`]: a hanging file system would hang us too. What is
//! mounted where is read from `/proc/self/mountinfo`, and what may block runs on a thread of its own with a time limit.

use std::{
    ffi::{CString, OsString},
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::StatVfs,
    mount::{MountFlags, UnmountFlags},
};

pub use crate::fuse::point::FS_TYPE;

/// How long a call into a mount may take before we call it hanging.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// One line of mountinfo, as far as we read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor device number. The minor number of a FUSE mount is the number of its connection.
    pub device: (u32, u32),
    /// The directory inside the file system that is mounted here.
    pub root: PathBuf,
    pub mount_point: PathBuf,
    pub fs_type: String,
    pub source: OsString,
}

/// Parses mountinfo (proc(5)). Lines of another shape are skipped.
pub fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    let after = fields.iter().position(|field| *field == b"-")?;
    Some(MountEntry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: unescape(fields.get(3)?).into(),
        mount_point: unescape(fields.get(4)?).into(),
        fs_type: String::from_utf8_lossy(fields.get(after + 1)?).into_owned(),
        source: unescape(fields.get(after + 2)?),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        out.push(value.unwrap_or(byte));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(out)
}

/// The mount that one sees at `path`: the last of those stacked there.
pub fn top_at<'a>(entries: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    entries.iter().rev().find(|entry| entry.mount_point == path)
}

/// What is mounted at `path` in our mount namespace now.
pub fn at(path: &Path) -> Result<Option<MountEntry>, MountError> {
    let entries = fs::read("/proc/self/mountinfo").map(|text| parse(&text));
    let entries = entries.map_err(|source| MountError::Table { source })?;
    Ok(top_at(&entries, path).cloned())
}

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot read the mount table: {source}")]
    Table { source: io::Error },
    #[error("cannot open /dev/fuse: {source}; the plugin must be privileged, and the node's kernel must have FUSE")]
    Device { source: io::Error },
    #[error("cannot mount {dataset} at {}: {source}", path.display())]
    Mount { dataset: String, path: PathBuf, source: io::Error },
    #[error("cannot mount a file system in memory at {}: {source}", at.display())]
    Memory { at: PathBuf, source: io::Error },
    #[error("cannot bind {} at {}: {source}", from.display(), to.display())]
    Bind { from: PathBuf, to: PathBuf, source: io::Error },
    #[error("cannot unmount {}: {source}", path.display())]
    Unmount { path: PathBuf, source: io::Error },
    #[error("cannot create the directory {}: {source}", path.display())]
    CreateDir { path: PathBuf, source: io::Error },
    #[error("cannot remove the directory {}: {source}", path.display())]
    RemoveDir { path: PathBuf, source: io::Error },
}

/// Binds `from` at `to` with further `flags`. A mount whose flags cannot be set does not stay.
pub fn bind(from: &Path, to: &Path, flags: MountFlags) -> Result<(), MountError> {
    let failed = |error: rustix::io::Errno| MountError::Bind { from: from.into(), to: to.into(), source: error.into() };
    rustix::mount::mount_bind(from, to).map_err(failed)?;
    rustix::mount::mount_remount(to, MountFlags::BIND | flags, "").map_err(|error| {
        rustix::mount::unmount(to, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        failed(error)
    })
}

/// Mounts an empty file system in memory. In it nobody follows links, runs programs or uses devices.
pub fn memory(at: &Path, options: &str) -> Result<(), MountError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSYMFOLLOW;
    let options = CString::new(options).ok();
    rustix::mount::mount("penstock", at, "tmpfs", flags, options.as_deref())
        .map_err(|error| MountError::Memory { at: at.into(), source: error.into() })
}

/// Creates the directory unless it exists. Its parent must.
pub fn create_dir(path: &Path) -> Result<(), MountError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(MountError::CreateDir { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Removes an empty directory, if it exists.
pub fn remove_dir(path: &Path) -> Result<(), MountError> {
    match fs::remove_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(MountError::RemoveDir { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Unmounts everything at `path`. What is busy or hangs is detached: it goes when its last user does.
pub async fn unmount_all(path: &Path) -> Result<(), MountError> {
    // More than one mount is stacked only after a call was cut short; the bound is against an endless loop.
    for _ in 0..16 {
        if at(path)?.is_none() {
            return Ok(());
        }
        if !matches!(unmount(path, UnmountFlags::NOFOLLOW).await, Some(Ok(()))) {
            detach(path).await?;
        }
    }
    Ok(())
}

/// Detaches the mount at `path` without waiting for its users.
pub async fn detach(path: &Path) -> Result<(), MountError> {
    let timeout = || io::Error::from(io::ErrorKind::TimedOut);
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).await.unwrap_or_else(|| Err(timeout())) {
        // Not a mount point any more: the slow first attempt got through.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
        Err(source) => Err(MountError::Unmount { path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

async fn unmount(path: &Path, flags: UnmountFlags) -> Option<io::Result<()>> {
    let path = path.to_owned();
    patiently(move || rustix::mount::unmount(path, flags).map_err(io::Error::from)).await
}

/// Asks the file system at `path` for its size: `None` when it does not answer in time.
pub async fn probe(path: &Path) -> Option<io::Result<StatVfs>> {
    let path = path.to_owned();
    patiently(move || rustix::fs::statvfs(path).map_err(io::Error::from)).await
}

/// Runs what may block. Not on the runtime's own threads: these are waited for when it ends.
async fn patiently<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> Option<io::Result<T>> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("may-block".to_owned());
    if let Err(error) = thread.spawn(move || tell.send(call()).ok()) {
        return Some(Err(error));
    }
    tokio::time::timeout(PATIENCE, told).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        40 22 0:33 / /a\\040b\\134c ro,nosuid,nodev shared:5 master:2 - fuse.penstock penstock:ns/d rw,user_id=0\n\
        41 22 8:1 /s/x /t rw - ext4 /dev/root rw\n\
        42 41 0:34 / /t ro - fuse.penstock penstock:ns/e ro\n\
        broken line\n";

    #[test]
    fn entries_are_read_with_any_number_of_optional_fields_and_escapes() {
        let entries = parse(TABLE);
        assert_eq!(entries.len(), 4);
        let fuse = top_at(&entries, Path::new("/a b\\c")).unwrap();
        assert_eq!((fuse.device, fuse.fs_type.as_str()), ((0, 33), FS_TYPE));
        assert_eq!(fuse.source, "penstock:ns/d");
        assert_eq!(entries[2].root, Path::new("/s/x"));
    }

    #[test]
    fn of_stacked_mounts_the_last_one_is_seen() {
        let entries = parse(TABLE);
        assert_eq!(top_at(&entries, Path::new("/t")).unwrap().device, (0, 34));
        assert_eq!(top_at(&entries, Path::new("/u")), None);
    }

    #[test]
    fn a_lone_backslash_stays() {
        assert_eq!(unescape(b"a\\0x\\"), "a\\0x\\");
    }
}
