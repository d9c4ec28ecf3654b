//! The FUSE transport: the kernel's protocol on one side, a [`Tree`] on the other.
//!
//! An operation that needs no worker is answered on the thread that read it from the kernel; any other goes on as a task,
//! so nothing waits behind a slow read. A session outlives its process: what was agreed on and what is open stand in a
//! [`Journal`], and who takes the connection over with it goes on without a second INIT.

mod abi;
mod answer;
mod device;
mod dispatch;
mod interrupts;
mod passthrough;
pub mod point;
mod reply;
mod session;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use tokio::{runtime::Handle, sync::mpsc::UnboundedReceiver};

pub use self::session::SessionError;
use self::{device::Device, dispatch::Dispatcher, passthrough::Backings};
use crate::{
    kernel,
    session::journal::{Journal, Key, Record, Records},
    spec::Passthrough,
    tree::{Invalidation, Tree},
};

/// Threads that read requests from the kernel.
const THREADS: usize = 2;

/// What the kernel is told of the mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// `namespace/name`, shown as the mount's source.
    pub dataset: String,
    pub allow_other: bool,
    pub passthrough: Passthrough,
}

/// A session whose beginning is over: the mount can be used.
pub struct Served<T> {
    dispatcher: Dispatcher<T>,
    invalidations: UnboundedReceiver<Invalidation>,
}

/// Ends a mount that this process made, from any thread.
pub struct Unmounter(PathBuf);

impl Unmounter {
    /// `EBUSY` while someone uses the mount.
    pub fn unmount(&self) -> io::Result<()> {
        point::unmount(&self.0)
    }
}

impl<T: Tree> Served<T> {
    /// Serves an opened `/dev/fuse` that someone has mounted already: from its beginning, or, where `records` tell of a
    /// session, from where a former process ended.
    pub fn from_fd(
        fuse: OwnedFd,
        fs: Arc<T>,
        runtime: Handle,
        passthrough: Passthrough,
        journal: Arc<Journal>,
        records: &Records,
    ) -> Result<Self, SessionError> {
        let device = Arc::new(Device::new(fuse));
        let agreement = if let Some(Record::Session(agreement)) = records.get(&Key::Session) {
            session::resume(&device, *agreement)?;
            tracing::info!(files = records.len(), "took a session over");
            *agreement
        } else {
            let agreement = session::greet(&device, passthrough)?;
            journal.put(Key::Session, Record::Session(agreement));
            agreement
        };
        if passthrough == Passthrough::Auto && !agreement.passthrough {
            tracing::info!("this kernel has no FUSE passthrough: local files are read through this process");
        }
        let backings = Arc::new(Backings::new(agreement.passthrough, journal, records));
        let (in_flight, waiting) = (Arc::default(), Arc::default());
        let invalidations = fs.invalidations();
        Ok(Self { dispatcher: Dispatcher { device, fs, runtime, backings, in_flight, waiting }, invalidations })
    }

    /// Mounts at `dir`.
    pub fn mount(
        dir: &Path,
        fs: Arc<T>,
        runtime: Handle,
        options: &Options,
    ) -> Result<(Self, Unmounter), SessionError> {
        let fuse = point::mount_anyhow(dir, options)?;
        let served = Self::from_fd(fuse, fs, runtime, options.passthrough, Arc::default(), &Records::new())?;
        Ok((served, Unmounter(dir.to_owned())))
    }

    /// The number of the connection, where the kernel shows it.
    pub fn connection(&self) -> Option<u32> {
        kernel::connection_of(&*self.dispatcher.device)
    }

    /// How many operations are being worked on.
    pub fn in_flight(&self) -> Arc<AtomicUsize> {
        self.dispatcher.in_flight.clone()
    }

    /// Until the file system is unmounted. Blocks the thread.
    pub fn run(self) -> io::Result<()> {
        let device = self.dispatcher.device.clone();
        let mut invalidations = self.invalidations;
        thread::Builder::new().name("fuse-notify".into()).spawn(move || {
            while let Some(Invalidation { parent, name }) = invalidations.blocking_recv() {
                device.forget_entry(parent, &name);
            }
        })?;
        let dispatcher = &self.dispatcher;
        thread::scope(|scope| {
            let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(move || dispatcher.run())).collect();
            let own = dispatcher.run();
            let joined = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
            joined.fold(own, Result::and)
        })
    }
}
