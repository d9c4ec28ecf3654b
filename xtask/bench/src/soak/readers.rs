//! Readers that compare every byte, for as long as they are let.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};

use super::files::{Files, Kind};

/// What one reader does over and over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    /// Large files in order, 1 MiB at a time.
    Sequential,
    /// 4 KiB anywhere in large files.
    Random,
    /// Files opened, read whole and closed.
    Whole(Kind),
}

impl Habit {
    pub(super) const ALL: [Self; 5] = [
        Self::Sequential,
        Self::Random,
        Self::Whole(Kind::Small),
        Self::Whole(Kind::Medium),
        Self::Whole(Kind::Medium),
    ];

    fn kind(self) -> Kind {
        match self {
            Self::Sequential | Self::Random => Kind::Large,
            Self::Whole(kind) => kind,
        }
    }

    /// Bytes of one read.
    fn piece(self) -> usize {
        match self {
            Self::Random => 4 << 10,
            Self::Sequential | Self::Whole(_) => 1 << 20,
        }
    }

    /// Between two reads: the machine's other work goes on.
    fn pause(self) -> Duration {
        match self {
            Self::Random => Duration::from_micros(500),
            Self::Sequential => Duration::from_millis(10),
            Self::Whole(_) => Duration::from_millis(2),
        }
    }
}

/// A change is known to everybody after this time: the Dataset's interval for a worker's answer and again for the mount's
/// copy of it, and as much for a machine that is busy.
const SEEN_WITHIN: Duration = Duration::from_secs(8);

/// Of all readers together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) reads: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Bytes of reads that were not of the handle's version.
    pub(super) wrong: AtomicU64,
    pub(super) errors: AtomicU64,
    /// Handles whose file was replaced, as they were told.
    pub(super) stale: AtomicU64,
}

pub(super) struct Reader {
    pub(super) root: PathBuf,
    pub(super) files: Arc<Files>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Arc<AtomicBool>,
}

/// What an open file has shown.
struct Open {
    file: File,
    kind: Kind,
    index: usize,
    /// The newest version when it was opened.
    since: u64,
    /// Of which version all reads so far may have been.
    candidates: Option<Vec<u64>>,
}

impl Reader {
    /// Reads until it is stopped. Blocks.
    pub(super) fn run(&self, habit: Habit, seed: u64) {
        let mut number = seed;
        while !self.stop.load(Relaxed) {
            // A linear congruential generator (Knuth, MMIX).
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (kind, index) = (habit.kind(), (number >> 33) as usize % habit.kind().count());
            if let Some(open) = self.open(kind, index) {
                self.read(habit, open, number);
            }
        }
    }

    fn open(&self, kind: Kind, index: usize) -> Option<Open> {
        let path = self.root.join(kind.path(index));
        let since = self.files.newest(kind, index);
        let opened = File::open(&path).and_then(|file| {
            // What the kernel keeps would leave nothing to do.
            fadvise(&file, 0, None, Advice::DontNeed)?;
            Ok(file)
        });
        match opened {
            Ok(file) => Some(Open { file, kind, index, since, candidates: None }),
            Err(error) => {
                self.fail(&format!("opening {}", path.display()), &error);
                None
            }
        }
    }

    fn read(&self, habit: Habit, mut open: Open, seed: u64) {
        let size = open.file.metadata().map_or(0, |metadata| metadata.len() as usize);
        let pieces = size / habit.piece();
        let random = |turn: usize| (seed as usize >> 7).wrapping_mul(turn + 1) % pieces.max(1) * habit.piece();
        let offsets: Vec<usize> = match habit {
            Habit::Random => (0..64).map(random).collect(),
            Habit::Sequential | Habit::Whole(_) => (0..size).step_by(habit.piece()).collect(),
        };
        let mut data = vec![0; habit.piece()];
        for offset in offsets {
            let data = &mut data[..habit.piece().min(size - offset)];
            if self.stop.load(Relaxed) || !self.judge(&mut open, offset, data) {
                return;
            }
            thread::sleep(habit.pause());
        }
    }

    /// Reads into `data` and judges it. Whether the handle is still good.
    fn judge(&self, open: &mut Open, offset: usize, data: &mut [u8]) -> bool {
        self.tally.reads.fetch_add(1, Relaxed);
        match open.file.read_exact_at(data, offset as u64) {
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::STALE) && self.was_replaced(open) => {
                self.tally.stale.fetch_add(1, Relaxed);
                return false;
            }
            Err(error) => {
                self.fail(&format!("reading {:?} {} at {offset}", open.kind, open.index), &error);
                return false;
            }
        }
        self.tally.bytes.fetch_add(data.len() as u64, Relaxed);
        let mut now = self.files.matching(open.kind, open.index, offset, data);
        if let Some(before) = &open.candidates {
            now.retain(|version| before.contains(version));
        }
        if now.is_empty() {
            eprintln!("{:?} {} at {offset}: not the bytes of {:?}", open.kind, open.index, open.candidates);
            self.tally.wrong.fetch_add(data.len() as u64, Relaxed);
        }
        let good = !now.is_empty();
        open.candidates = Some(now);
        good
    }

    fn was_replaced(&self, open: &Open) -> bool {
        let newest = self.files.newest(open.kind, open.index);
        match open.candidates.as_ref().and_then(|candidates| candidates.first()) {
            Some(seen) => newest > *seen,
            // Nothing of it was seen: it may have been opened as what it was before.
            None => newest > open.since || self.files.changed_within(open.kind, open.index, SEEN_WITHIN),
        }
    }

    fn fail(&self, what: &str, error: &io::Error) {
        eprintln!("{what}: {error}");
        self.tally.errors.fetch_add(1, Relaxed);
    }
}
