//! The FUSE transport. All types of `fuser` stay inside this module and its children.
//!
//! An operation that needs no worker is answered on the thread that read it from the kernel; any other goes on as a task,
//! so nothing waits behind a slow read.

mod answer;
mod passthrough;

use std::{
    ffi::OsStr,
    future::Future,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use fuser::{
    AccessFlags, Config, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner,
    MountOption, Notifier, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session, SessionACL, SessionUnmounter,
};
use futures::FutureExt;
use tokio::runtime::Handle;

use self::passthrough::Backings;
use crate::{
    fs::{FileSystem, NAME_MAX},
    kernel,
    spec::Passthrough,
};

/// Threads that read requests from the kernel.
const THREADS: usize = 2;
/// Requests that the kernel may have under way by itself (readahead), not counting those that someone waits for.
const BACKGROUND: u16 = 64;

/// What the kernel is told of the mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// `namespace/name`, shown as the mount's source.
    pub dataset: String,
    pub allow_other: bool,
    pub passthrough: Passthrough,
}

/// A session whose handshake is done: the mount can be used.
pub struct Served {
    session: Session<Adapter>,
    in_flight: Arc<AtomicUsize>,
}

/// Ends a mount that this process made, from any thread.
pub struct Unmounter(SessionUnmounter);

impl Served {
    /// Serves an opened `/dev/fuse` that someone has mounted already.
    pub fn from_fd(fd: OwnedFd, fs: Arc<FileSystem>, runtime: Handle, options: &Options) -> io::Result<Self> {
        Self::start(fs, runtime, options, |adapter| Session::from_fd(adapter, fd, acl(options), config(options)))
    }

    /// Mounts at `dir`: with mount(2) where that is allowed, else by `fusermount3`.
    pub fn mount(dir: &Path, fs: Arc<FileSystem>, runtime: Handle, options: &Options) -> io::Result<Self> {
        Self::start(fs, runtime, options, |adapter| Session::new(adapter, dir, &config(options)))
    }

    fn start(
        fs: Arc<FileSystem>,
        runtime: Handle,
        options: &Options,
        session: impl FnOnce(Adapter) -> io::Result<Session<Adapter>>,
    ) -> io::Result<Self> {
        let adapter = Adapter::new(fs, runtime, options.passthrough);
        let (in_flight, notifier) = (adapter.in_flight.clone(), adapter.notifier.clone());
        let session = session(adapter)?;
        let _ = notifier.set(session.notifier());
        Ok(Self { session, in_flight })
    }

    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter(self.session.unmount_callable())
    }

    /// The number of the connection, where the kernel shows it.
    pub fn connection(&self) -> Option<u32> {
        kernel::connection_of(&self.session)
    }

    /// How many operations are being worked on.
    pub fn in_flight(&self) -> Arc<AtomicUsize> {
        self.in_flight.clone()
    }

    /// Until the file system is unmounted. Blocks the thread.
    pub fn run(self) -> io::Result<()> {
        match self.session.run() {
            // What a thread is told that was taking a request when the connection ended.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
            ended => ended,
        }
    }
}

impl Unmounter {
    /// `EBUSY` while someone uses the mount.
    pub fn unmount(&mut self) -> io::Result<()> {
        self.0.unmount()
    }
}

fn acl(options: &Options) -> SessionACL {
    if options.allow_other { SessionACL::All } else { SessionACL::Owner }
}

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("penstock:{}", options.dataset)),
        MountOption::Subtype("penstock".into()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    config.acl = acl(options);
    config.n_threads = Some(THREADS);
    config
}

struct Adapter {
    fs: Arc<FileSystem>,
    runtime: Handle,
    backings: Arc<Backings>,
    in_flight: Arc<AtomicUsize>,
    /// Set once the session stands.
    notifier: Arc<OnceLock<Notifier>>,
}

/// Puts the content of a file into the kernel's page cache.
fn give(notifier: &OnceLock<Notifier>, ino: INodeNo, content: &[u8]) {
    if let Some(Err(error)) = notifier.get().map(|notifier| notifier.store(ino, 0, content)) {
        tracing::debug!(%error, "the kernel does not take the content of a file, it will ask for it");
    }
}

/// Counts an operation for as long as it lives.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Adapter {
    fn new(fs: Arc<FileSystem>, runtime: Handle, passthrough: Passthrough) -> Self {
        let backings = Arc::new(Backings::new(passthrough));
        Self { fs, runtime, backings, in_flight: Arc::default(), notifier: Arc::default() }
    }

    /// Runs `operation` to its end: here when it needs not wait, else as a task.
    fn go<F: Future<Output = ()> + Send + 'static>(&self, operation: F) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let busy = Busy(self.in_flight.clone());
        let _runtime = self.runtime.enter();
        let mut operation = Box::pin(async move {
            let _busy = busy;
            operation.await;
        });
        if operation.as_mut().now_or_never().is_none() {
            self.runtime.spawn(operation);
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is worth having and none is needed: old kernels go without.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPORT_SUPPORT,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.set_congestion_threshold(BACKGROUND / 4 * 3);
        // Together with FUSE_MAX_PAGES this lets the kernel ask for 1 MiB at once.
        let _ = config.set_max_write(1 << 20);
        self.backings.negotiate(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs.clone(), name.as_bytes().to_vec());
        self.go(async move { answer::found(fs.lookup(parent.0, &name).await, reply) });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.fs.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.fs.clone();
        self.go(async move { answer::stat(fs.getattr(ino.0).await, reply) });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = self.fs.clone();
        self.go(async move { answer::data(fs.readlink(ino.0).await, reply) });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, backings, notifier) = (self.fs.clone(), self.backings.clone(), self.notifier.clone());
        let writable = flags.acc_mode() != OpenAccMode::O_RDONLY;
        self.go(async move {
            match fs.open(ino.0, writable).await {
                Ok(opened) => {
                    if let Some(content) = &opened.content {
                        give(&notifier, ino, content);
                    }
                    backings.reply(ino.0, &opened, reply);
                }
                Err(error) => reply.error(answer::errno(error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs.clone();
        self.go(async move { answer::data(fs.read(handle.0, offset, size).await, reply) });
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.backings.release(ino.0);
        self.fs.release(handle.0);
        reply.ok();
    }

    /// There is nothing to flush; the kernel does not ask again.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(answer::errno(error)),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let fs = self.fs.clone();
        self.go(answer::readdir(fs, handle.0, offset, reply));
    }

    fn readdirplus(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let fs = self.fs.clone();
        self.go(answer::readdirplus(fs, handle.0, offset, reply));
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.fs.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    /// The size of a Dataset is not known to its mounts: no blocks, none of them free.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, NAME_MAX as u32, 4096);
    }

    /// Everybody who may see the mount may read it: a pod got it by its claim. Only what is refused to all is refused.
    fn access(&self, _: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) {
            return reply.error(Errno::EROFS);
        }
        let fs = self.fs.clone();
        self.go(async move {
            match fs.getattr(ino.0).await {
                Ok(stat) if mask.contains(AccessFlags::X_OK) && !answer::executable(&stat) => {
                    reply.error(Errno::EACCES);
                }
                Ok(_) => reply.ok(),
                Err(error) => reply.error(answer::errno(error)),
            }
        });
    }

    /// `ENOSYS`: the kernel answers `EOPNOTSUPP` by itself from now on.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}
