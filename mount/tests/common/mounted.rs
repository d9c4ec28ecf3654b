//! A file system on a real mount, gone when the test ends, however it ends.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use penstock_mount::{
    backend::Backend,
    fs::FileSystem,
    fuse::{Options, Served},
    spec::{Passthrough, Tuning},
};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

pub struct Mounted {
    dir: TempDir,
    thread: Option<JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Mounted {
    pub fn new(backend: Arc<impl Backend>) -> Self {
        Self::with(backend, Tuning::default())
    }

    pub fn with(backend: Arc<impl Backend>, tuning: Tuning) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let passthrough = tuning.passthrough;
        let options = Options { dataset: "test/data".into(), allow_other: true, passthrough };
        let fs = Arc::new(FileSystem::new(backend, tuning));
        runtime.spawn(FileSystem::follow(Arc::downgrade(&fs)));
        let (served, _) = Served::mount(dir.path(), fs, runtime.handle().clone(), &options).unwrap();
        let thread = std::thread::spawn(move || served.run().unwrap());
        Self { dir, thread: Some(thread), runtime: Some(runtime) }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Mounted {
    fn ends_within(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        let finished = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while !finished() && begun.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        finished()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let clean = !std::thread::panicking() && unmount(self.dir.path(), UnmountFlags::empty()).is_ok();
        if !clean {
            // Force aborts the connection, so that nobody waits for an answer any more.
            let _ = unmount(self.dir.path(), UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
        let ended = self.ends_within(Duration::from_secs(5));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if !std::thread::panicking() {
            assert!(clean, "the mount was still in use");
            assert!(ended, "the session did not end with the mount");
            self.thread.take().unwrap().join().unwrap();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "the mount is still there");
        }
    }
}

/// Tuning for tests that look at what goes through this process.
pub fn without_passthrough() -> Tuning {
    Tuning { passthrough: Passthrough::Off, ..Tuning::default() }
}
