//! Ending a FUSE connection that nobody serves any more: everyone who waits on it gets an error.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags};

/// Where the kernel's control file system usually is. A container's `/sys` does not have it.
const USUAL: &str = "/sys/fs/fuse/connections";

/// Aborts the connection with this number (the minor device number of its mounts). `scratch` is a directory in which
/// the control file system may be mounted for a moment. A connection that is gone already is no error.
pub fn abort(connection: u32, scratch: &Path) -> io::Result<()> {
    if write_abort(Path::new(USUAL), connection)? {
        return Ok(());
    }
    let control = Control::mount(scratch.join("fusectl"))?;
    write_abort(&control.path, connection).map(|_| ())
}

fn write_abort(connections: &Path, connection: u32) -> io::Result<bool> {
    match fs::write(connections.join(connection.to_string()).join("abort"), "1") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

struct Control {
    path: PathBuf,
}

impl Control {
    fn mount(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("fusectl", &path, "fusectl", flags, None)?;
        Ok(Self { path })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.path, UnmountFlags::DETACH).ok();
        fs::remove_dir(&self.path).ok();
    }
}
