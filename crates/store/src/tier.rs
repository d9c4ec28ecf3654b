//! One medium: its directory, its quota, its eviction, and every system call on its files.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use parking_lot::Mutex;
use penstock_model::{Medium, Object, ObjectKey, TierConfig};
use rustix::{
    fs::{FallocateFlags, FlockOperation, OFlags, flock},
    io::Errno,
};

use crate::{
    evict::{Eviction, TinyLfu},
    meta,
    quota::{Quota, Reservation},
};

/// The least that counts as a block, in bytes.
const BLOCK: u64 = 4096;

/// A tier to open; fields as in [`TierConfig`].
#[derive(Clone, Debug, PartialEq)]
pub struct TierOptions {
    pub medium: Medium,
    pub dir: PathBuf,
    /// Bytes, overhead included.
    pub quota: u64,
    /// Fractions of the quota: eviction starts above `high` and stops at `low`.
    pub high: f64,
    pub low: f64,
}

impl From<&TierConfig> for TierOptions {
    fn from(config: &TierConfig) -> Self {
        let TierConfig { medium, dir, quota, high, low } = config.clone();
        Self { medium, dir, quota, high, low }
    }
}

#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) medium: Medium,
    pub(crate) quota: Quota,
    pub(crate) evict: Eviction,
    /// Why the tier is not used, or not in full.
    trouble: Mutex<Option<String>>,
    /// Set once its directory is taken and its content is in the index.
    usable: AtomicBool,
    taken: OnceLock<Taken>,
    options: TierOptions,
    pub(crate) high: u64,
    pub(crate) low: u64,
    /// Between passing `high` and reaching `low`.
    pub(crate) shrinking: AtomicBool,
    objects: PathBuf,
}

/// A directory that is this process' own.
#[derive(Debug)]
struct Taken {
    /// Bytes of one block of the file system.
    block: u64,
    /// Held so that no second process uses the directory.
    _lock: File,
}

impl Tier {
    pub(crate) fn open(options: &TierOptions) -> Self {
        let part = |fraction: f64| (options.quota as f64 * fraction.clamp(0.0, 1.0)) as u64;
        let (high, low) = (part(options.high), part(options.low.min(options.high)));
        Self {
            medium: options.medium,
            quota: Quota::new(options.quota),
            evict: Eviction::new(Box::new(TinyLfu::new(low)), Box::new(TinyLfu::new(low / 8))),
            trouble: Mutex::default(),
            usable: AtomicBool::new(false),
            taken: OnceLock::new(),
            options: options.clone(),
            high,
            low,
            shrinking: AtomicBool::new(false),
            objects: options.dir.join("objects"),
        }
    }

    /// Takes the directory unless that is done already. When it returns true the content is to be taken stock of, and
    /// [`Tier::use_now`] called.
    pub(crate) fn take(&self) -> bool {
        if self.taken.get().is_some() {
            return false;
        }
        let taken = prepare(&self.options, &self.objects);
        self.note(taken.as_ref().err().cloned());
        taken.is_ok_and(|taken| self.taken.set(taken).is_ok())
    }

    pub(crate) fn use_now(&self) {
        self.usable.store(true, Release);
    }

    pub(crate) fn usable(&self) -> bool {
        self.usable.load(Acquire)
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    fn note(&self, now: Option<String>) {
        let mut trouble = self.trouble.lock();
        if *trouble != now {
            let medium = self.medium;
            if let Some(now) = &now {
                tracing::error!(?medium, trouble = now, "a tier cannot be used as configured");
            } else {
                tracing::info!(?medium, "a tier can be used as configured again");
            }
            *trouble = now;
        }
    }

    /// Compares what the tier may still take with what is free. Others may fill a medium at any time.
    pub(crate) fn check_space(&self) {
        let (used, limit) = (self.quota.used(), self.quota.limit());
        let Ok(medium) = rustix::fs::statvfs(&self.options.dir) else { return };
        let free = medium.f_bavail.saturating_mul(medium.f_frsize);
        let short = used.saturating_add(free) < limit;
        self.note(short.then(|| {
            format!(
                "quota {limit} of tier path {} is larger than what its medium has left for it ({used} bytes used, \
                 {free} free)",
                self.options.dir.display()
            )
        }));
    }

    /// Bytes of one block of the file system.
    pub(crate) fn block(&self) -> u64 {
        self.taken.get().map_or(BLOCK, |taken| taken.block)
    }

    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    fn folder(&self, key: ObjectKey) -> PathBuf {
        self.objects.join(format!("{:02x}", (key.0 >> 120) as u8))
    }

    pub(crate) fn data_path(&self, key: ObjectKey) -> PathBuf {
        self.folder(key).join(format!("{:032x}.data", key.0))
    }

    pub(crate) fn meta_path(&self, key: ObjectKey) -> PathBuf {
        self.folder(key).join(format!("{:032x}.meta", key.0))
    }

    pub(crate) fn open_data(&self, key: ObjectKey, write: bool) -> io::Result<File> {
        open_existing(&self.data_path(key), write)
    }

    /// Whether somebody keeps a lock (flock) on the object's file.
    pub(crate) fn is_locked(&self, key: ObjectKey) -> bool {
        let Ok(file) = self.open_data(key, false) else { return false };
        flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
    }

    /// Makes both files; the directory's block, when it is new, is committed from `space`.
    pub(crate) fn create(&self, object: &Object, space: &mut Reservation<'_>) -> io::Result<()> {
        let made = DirBuilder::new().mode(0o700).create(self.folder(object.key));
        match made {
            Ok(()) => space.commit(self.block()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let made = self.create_files(object);
        if made.is_err() {
            self.unlink(object.key);
        }
        made
    }

    fn create_files(&self, object: &Object) -> io::Result<()> {
        create(&self.data_path(object.key))?.set_len(object.size)?;
        let meta = create(&self.meta_path(object.key))?;
        meta.write_all_at(&meta::header(object), 0)?;
        meta.set_len(meta::file_len(object))
    }

    /// The checksum file first: data without it is garbage that the next start removes.
    pub(crate) fn unlink(&self, key: ObjectKey) {
        for path in [self.meta_path(key), self.data_path(key)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a cached file");
            }
        }
    }

    /// Marks pages as present. To be called after their bytes are written.
    pub(crate) fn write_records(&self, object: &Object, first: u64, sums: &[u64]) -> io::Result<()> {
        let records = meta::record_run(object.key, first..first + sums.len() as u64, sums);
        open_existing(&self.meta_path(object.key), true)?.write_all_at(&records, meta::record_at(object, first))
    }

    /// Marks pages as absent. To be called before their bytes go.
    pub(crate) fn clear_records(&self, object: &Object, pages: Range<u64>) -> io::Result<()> {
        let zeros = vec![0; ((pages.end - pages.start) * meta::RECORD) as usize];
        open_existing(&self.meta_path(object.key), true)?.write_all_at(&zeros, meta::record_at(object, pages.start))
    }

    pub(crate) fn punch(&self, key: ObjectKey, bytes: &Range<u64>) -> io::Result<()> {
        punch(&self.open_data(key, true)?, bytes, self.block())
    }
}

/// Frees the blocks of `bytes`; the end, when it is the end of the file, is rounded up to whole blocks.
pub(crate) fn punch(data: &File, bytes: &Range<u64>, block: u64) -> io::Result<()> {
    let end = bytes.end.next_multiple_of(block);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(data, flags, bytes.start, end - bytes.start)?)
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(Errno::NOSPC.raw_os_error()) || errno == Some(Errno::DQUOT.raw_os_error())
}

fn open_existing(path: &Path, write: bool) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    OpenOptions::new().read(true).write(write).custom_flags(flags.bits() as i32).open(path)
}

fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

/// Takes the directory, or says in words for the user why it cannot be used.
fn prepare(options: &TierOptions, objects: &Path) -> Result<Taken, String> {
    let dir = options.dir.display();
    let medium =
        rustix::fs::statvfs(&options.dir).map_err(|error| format!("tier path {dir} cannot be used: {error}"))?;
    let total = medium.f_blocks.saturating_mul(medium.f_frsize);
    if total < options.quota {
        return Err(format!("quota {} of tier path {dir} is larger than its medium ({total} bytes)", options.quota));
    }
    let unwritable = |error: io::Error| format!("tier path {dir} is not writable: {error}");
    let lock = create(&options.dir.join("lock")).map_err(unwritable)?;
    lock.try_lock().map_err(|_| format!("tier path {dir} is in use by another process"))?;
    match DirBuilder::new().mode(0o700).create(objects) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unwritable(error)),
        _ => {}
    }
    Ok(Taken { block: medium.f_frsize.max(BLOCK), _lock: lock })
}

impl Tier {
    pub(crate) fn start_shrinking(&self, need: u64) -> bool {
        let after = self.quota.used().saturating_add(need);
        if after > self.high {
            self.shrinking.store(true, Relaxed);
        } else if after <= self.low {
            self.shrinking.store(false, Relaxed);
        }
        self.shrinking.load(Relaxed)
    }
}
