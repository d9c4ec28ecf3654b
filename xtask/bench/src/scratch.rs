//! Folders of one run. They go with whatever is mounted in them, also when the run that made them was killed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

const PREFIX: &str = "penstock-bench.";
const MEMORY: &str = "/dev/shm";

/// A folder that is removed when dropped.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn in_memory() -> anyhow::Result<Self> {
        Self::create(Path::new(MEMORY))
    }

    pub(super) fn on_disk() -> anyhow::Result<Self> {
        Self::create(&env::temp_dir())
    }

    fn create(base: &Path) -> anyhow::Result<Self> {
        sweep(base)?;
        let prefix = format!("{PREFIX}{}.", std::process::id());
        Ok(Self(tempfile::Builder::new().prefix(&prefix).tempdir_in(base)?))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes away what is mounted below, for nobody reads it any more.
    pub(super) fn detach(&self) {
        detach_below(self.path());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Removes what runs left that are no more.
fn sweep(base: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        let maker = entry.file_name().to_str().and_then(maker);
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            detach_below(&entry.path());
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The process that made a folder of this name.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('.')?.0.parse().ok()
}

fn detach_below(folder: &Path) {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The latest first: one may stand upon another.
    for point in mount_points(&mounted, folder).into_iter().rev() {
        if let Err(error) = unmount(&point, UnmountFlags::DETACH) {
            eprintln!("unmounting {}: {error}", point.display());
        }
    }
}

/// Mount points below `folder` (proc(5): the fifth field; names of ours have nothing that is escaped there).
fn mount_points(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_its_maker() {
        assert_eq!(maker("penstock-bench.17.AbCdEf"), Some(17));
        assert_eq!(["penstock-bench.AbCdEf", "penstock-peer.17.x", "other"].map(maker), [None, None, None]);
    }

    #[test]
    fn only_mounts_below_the_folder_are_taken_away() {
        let mountinfo = "1 0 0:1 / /a rw - x x rw\n2 1 0:2 / /a/b rw - fuse x rw\n3 1 0:3 / /ab rw - x x rw\n";
        assert_eq!(mount_points(mountinfo, Path::new("/a")), [PathBuf::from("/a"), PathBuf::from("/a/b")]);
    }

    #[test]
    fn what_a_dead_process_left_goes_and_what_a_living_one_uses_stays() {
        let base = tempfile::tempdir().unwrap();
        // The largest number that Linux gives to a process is 2^22.
        let [dead, alive] = [4_194_305, std::process::id()].map(|pid| base.path().join(format!("{PREFIX}{pid}.x")));
        for folder in [&dead, &alive] {
            fs::create_dir_all(folder.join("tier")).unwrap();
        }
        sweep(base.path()).unwrap();
        assert!(!dead.exists() && alive.exists());
    }
}
