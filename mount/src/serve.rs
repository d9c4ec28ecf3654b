//! The process that serves one mounted Dataset, and the commands that start it.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use penstock_wire::{
    Address, Credential, PublicKey,
    config::{CLIENT_KEY_FILE, PEER_PUBLIC_FILE},
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    mount::{UnmountFlags, unmount},
};
use tokio::{
    runtime::{Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    fs::FileSystem,
    fuse::{Options, Served},
    kernel,
    reader::{Cluster, Workers},
    session::journal::{Journal, Records},
    spec::{KeyHex, MountSpec, Passthrough, Tuning},
};

/// How often readahead that nobody reads is dropped.
const SWEEP: Duration = Duration::from_secs(2);
/// How long a stopped process finishes what is in flight.
const GRACE: Duration = Duration::from_secs(5);

/// Serves a mount that someone else made: its specification (a JSON `MountSpec`) comes on standard input.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeOptions {
    /// The inherited descriptor of /dev/fuse, already mounted.
    #[arg(long)]
    pub fuse_fd: RawFd,
    /// The inherited descriptor of the journal: an empty file, or one that tells of the session to be taken over.
    #[arg(long)]
    pub journal_fd: Option<RawFd>,
    /// The inherited descriptor that gets the line READY once the mount can be used. Default: standard output.
    #[arg(long)]
    pub ready_fd: Option<RawFd>,
}

/// Mounts a Dataset in the foreground, without Kubernetes. Ends with the mount, or unmounts at SIGTERM and SIGINT.
#[derive(Clone, Debug, clap::Args)]
pub struct MountOptions {
    /// The Dataset, NAMESPACE/NAME.
    #[arg(long)]
    pub dataset: String,
    /// Workers to begin with, HOST:PORT; the others are learnt from them.
    #[arg(long, required = true, value_delimiter = ',')]
    pub endpoint: Vec<String>,
    /// The folder that holds the Dataset's client.key and peer.pub.
    #[arg(long)]
    pub key_dir: PathBuf,
    /// Where workers of this node have their sockets, each in a directory of its own.
    #[arg(long)]
    pub socket_dir: Option<PathBuf>,
    /// Whether the kernel may read complete local files by itself.
    #[arg(long, value_enum, default_value_t = Passthrough::Auto)]
    pub passthrough: Passthrough,
    /// Seconds to wait for workers before a read fails.
    #[arg(long, default_value_t = 60)]
    pub patience: u64,
    /// Gets the line READY once the mount can be used, on standard output.
    #[arg(long)]
    pub say_ready: bool,
    /// Where to mount: an existing directory.
    pub dir: PathBuf,
}

/// `penstock-mount serve`. Blocks until the file system is unmounted.
pub fn serve(options: &ServeOptions) -> anyhow::Result<()> {
    let spec: MountSpec = serde_json::from_reader(io::stdin()).context("failed to read the mount's specification")?;
    let fuse = inherit(options.fuse_fd)?;
    let (journal, records) = match options.journal_fd {
        Some(fd) => Journal::open(inherit(fd)?).context("failed to read the journal")?,
        None => (Journal::default(), Records::new()),
    };
    let mut ready: Box<dyn Write + Send> = match options.ready_fd {
        Some(fd) => Box::new(File::from(inherit(fd)?)),
        None => Box::new(io::stdout()),
    };
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let journal = Arc::new(journal);
        let fs = resume(&spec, journal.clone(), &records)?;
        let (handle, passthrough) = (Handle::current(), spec.tuning.passthrough);
        let begin = move || Served::from_fd(fuse, fs, handle, passthrough, journal, &records);
        let served = tokio::task::spawn_blocking(begin).await?.context("failed to begin the session")?;
        if let Some(connection) = served.connection() {
            kernel::widen_readahead(connection);
        }
        tell_ready(&mut ready)?;
        drop(ready);
        until_unmounted(served, || {}).await
    });
    runtime.shutdown_background();
    result
}

/// `penstock-mount mount`. Blocks until the file system is unmounted.
pub fn mount(options: MountOptions) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let key = Credential::from_file(&options.key_dir.join(CLIENT_KEY_FILE))?;
        let peers = PublicKey::from_file(&options.key_dir.join(PEER_PUBLIC_FILE))?;
        let root = rustix::process::geteuid().is_root();
        let spec = MountSpec {
            dataset: options.dataset,
            endpoints: options.endpoint,
            client_key: KeyHex(key.to_hex()),
            peer_public: peers.to_hex(),
            socket_dir: options.socket_dir,
            read_only: true,
            allow_other: root,
            tuning: Tuning {
                patience_ms: options.patience * 1000,
                passthrough: options.passthrough,
                ..Tuning::default()
            },
        };
        let fs = start(&spec)?;
        let (dir, shown, handle) = (options.dir.clone(), shown(&spec), Handle::current());
        let served = tokio::task::spawn_blocking(move || Served::mount(&dir, fs, handle, &shown)).await?;
        let (served, unmounter) = served.with_context(|| format!("failed to mount at {}", options.dir.display()))?;
        if let Some(connection) = served.connection() {
            kernel::widen_readahead(connection);
        }
        if options.say_ready {
            tell_ready(&mut io::stdout())?;
        }
        tracing::info!(dataset = spec.dataset, dir = %options.dir.display(), "mounted");
        let dir = options.dir;
        until_unmounted(served, move || {
            if let Err(error) = unmounter.unmount() {
                tracing::warn!(%error, "the mount is in use, detaching it");
                let _ = unmount(&dir, UnmountFlags::DETACH);
            }
        })
        .await
    });
    runtime.shutdown_background();
    result
}

/// The file system of a specification, on the current runtime.
pub fn start(spec: &MountSpec) -> anyhow::Result<Arc<FileSystem>> {
    resume(spec, Arc::default(), &Records::new())
}

fn resume(spec: &MountSpec, journal: Arc<Journal>, records: &Records) -> anyhow::Result<Arc<FileSystem>> {
    if !spec.read_only {
        bail!("dataset {}: mounts that can be written to are not supported: set readOnly", spec.dataset);
    }
    let endpoints = spec.endpoints.iter().map(|e| Address::Tcp(e.clone())).collect();
    let cluster = Cluster::start(spec.caller()?, endpoints, spec.socket_dir.clone(), &spec.tuning);
    let fs = Arc::new(FileSystem::resume(Arc::new(Workers(cluster)), spec.tuning.clone(), journal, records));
    tokio::spawn(FileSystem::follow(Arc::downgrade(&fs)));
    let swept = Arc::downgrade(&fs);
    tokio::spawn(async move {
        while let Some(fs) = swept.upgrade() {
            fs.sweep();
            drop(fs);
            sleep(SWEEP).await;
        }
    });
    Ok(fs)
}

fn shown(spec: &MountSpec) -> Options {
    Options { dataset: spec.dataset.clone(), allow_other: spec.allow_other, passthrough: spec.tuning.passthrough }
}

fn tell_ready(to: &mut dyn Write) -> anyhow::Result<()> {
    to.write_all(b"READY\n").and_then(|()| to.flush()).context("nobody hears that the mount is ready")
}

/// Serves until the file system is unmounted. At SIGTERM and SIGINT `stop` is called, what is in flight is finished, and
/// what was not unmounted meanwhile is left.
async fn until_unmounted(served: Served<FileSystem>, stop: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let in_flight = served.in_flight();
    let (done, mut ended) = oneshot::channel();
    std::thread::Builder::new().name("fuse".into()).spawn(move || {
        let _ = done.send(served.run());
    })?;
    tokio::select! {
        result = &mut ended => return Ok(result.context("the session's thread is gone")??),
        () = either(&mut term, &mut int) => {}
    }
    tracing::info!("stopping");
    tokio::task::spawn_blocking(stop).await?;
    tokio::select! {
        result = ended => Ok(result.context("the session's thread is gone")??),
        () = either(&mut term, &mut int) => Ok(()),
        () = idle(&in_flight) => Ok(()),
    }
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Until nothing is in flight, for a bounded time.
async fn idle(in_flight: &AtomicUsize) {
    let begun = Instant::now();
    // A moment for an unmount to end the session by itself.
    sleep(Duration::from_millis(200)).await;
    while in_flight.load(Ordering::Relaxed) > 0 && begun.elapsed() < GRACE {
        sleep(Duration::from_millis(20)).await;
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().context("failed to start the runtime")
}

/// Takes over a descriptor whose number the parent process has told.
#[allow(unsafe_code)]
fn inherit(number: RawFd) -> anyhow::Result<OwnedFd> {
    if number < 3 || !PathBuf::from(format!("/proc/self/fd/{number}")).exists() {
        bail!("descriptor {number} was not inherited: pass the number of an open descriptor above 2");
    }
    // SAFETY: the descriptor is open, it was opened before this program began, and nothing here knows it but by this
    // number, which is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC)?;
    Ok(fd)
}
