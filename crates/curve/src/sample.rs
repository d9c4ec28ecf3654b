//! The sample: some pages, when each was read last, and what became of it. One thread at a time.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

use crate::{
    distances::{self, COUNT},
    reuse::{Popular, Reuse},
    stack::Stack,
};

/// The most pages.
const PAGES: usize = 7 << 10;
/// The table has room for as many that were dropped: with less it would grow when pages come and go.
const ROOM: usize = 2 * PAGES;
/// Moments until they are numbered anew.
const MOMENTS: u32 = 2 * PAGES as u32;
/// Of a full sample, this part of all pages stays.
const KEPT: f64 = 0.875;
/// A page that was not among so many reads of the sample, for each of its pages, is forgotten before any other.
const FORGOTTEN: u64 = 64;
/// Ages are counted in so many reads of the sample.
const AGE: u64 = 64;
/// Of a sample of fewer pages so many reads are waited for all the same.
const FEW: usize = 64;
/// After so many reads the past is taken as known.
const LONGEST: u64 = 4 * PAGES as u64;
/// Popularity halves after so many reads for each page.
const MEMORY: u64 = 16;

/// The workers at the time of a read.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Of the member list: the first one is 1.
    pub epoch: u64,
    /// A page stands for as many others, as every worker owns its part.
    pub members: u64,
}

impl Fleet {
    /// One worker, which has always been alone.
    pub const ALONE: Self = Self { epoch: 1, members: 1 };
}

/// A sampled page is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// Uniform over all pages.
    pub(crate) hash: u64,
    /// What is read of it.
    pub(crate) bytes: u64,
    pub(crate) page_bytes: u64,
    pub(crate) fleet: Fleet,
}

#[derive(Debug)]
struct Page {
    moment: u32,
    bytes: u32,
    /// As at the last read.
    members: u16,
    /// How often it was read lately, but for the first time.
    times: f32,
    visit: Visit,
    /// Of the visit: as long as nothing is read twice, what is read of the page in parts was read at once.
    left: u32,
    /// It came from the UFS after it was read last.
    fetched: bool,
    /// When it was read last, in [`AGE`]s.
    age: u32,
}

/// What one reading of a page says.
#[derive(Clone, Copy, Debug)]
enum Visit {
    First,
    /// The page may have been read before, at another worker.
    Unknown,
    Again {
        /// Of the distance.
        step: u16,
        missed: bool,
    },
}

impl Read {
    fn weight(&self) -> u64 {
        self.page_bytes * u64::from(self.members())
    }

    fn members(&self) -> u16 {
        self.fleet.members.clamp(1, u16::MAX.into()) as u16
    }
}

impl Page {
    fn new(read: &Read, visit: Visit, moment: u32, age: u32) -> Self {
        let bytes = read.page_bytes as u32;
        let (left, members) = (bytes.saturating_sub(read.bytes as u32), read.members());
        Self { moment, bytes, members, times: 0.0, visit, left, fetched: false, age }
    }

    /// In the stack: it stands for its part of what all workers have.
    fn weight(&self) -> u64 {
        u64::from(self.bytes) * u64::from(self.members)
    }
}

/// Hashes are uniform as they are.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, hash: u64) {
        // The table looks at the highest bits first, and those are equal where only low hashes are sampled.
        self.0 = hash.rotate_left(32);
    }
}

/// A page that is not in the sample may have been read before: by another process, or at another worker. Over when as much
/// was read again as the sample has pages.
#[derive(Clone, Copy, Debug, Default)]
struct UnknownPast {
    reads: u64,
    again: u64,
}

pub(crate) struct Sample {
    pages: HashMap<u64, Page, BuildHasherDefault<AsItIs>>,
    stack: Stack,
    next: u32,
    /// Pages with a hash up to this are in.
    threshold: u64,
    reads: u64,
    sampled: f64,
    first: f64,
    again: Vec<f64>,
    hit: f64,
    missed: f64,
    unknown: Option<UnknownPast>,
    epoch: u64,
    members: u64,
    aged_at: u64,
}

impl Sample {
    /// What was read under the list of `epoch` begins with it; 0 when anything may have been read before.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            pages: HashMap::with_capacity_and_hasher(ROOM, BuildHasherDefault::default()),
            stack: Stack::new(MOMENTS),
            next: 0,
            threshold: u64::MAX,
            reads: 0,
            sampled: 0.0,
            first: 0.0,
            again: vec![0.0; COUNT],
            hit: 0.0,
            missed: 0.0,
            unknown: None,
            epoch,
            members: 0,
            aged_at: 0,
        }
    }

    pub(crate) fn threshold(&self) -> u64 {
        self.threshold
    }

    fn rate(&self) -> f64 {
        (self.threshold as f64 + 1.0) / 2_f64.powi(64)
    }

    pub(crate) fn read(&mut self, read: Read) {
        if read.hash > self.threshold {
            return;
        }
        if self.epoch != read.fleet.epoch {
            (self.epoch, self.unknown) = (read.fleet.epoch, Some(UnknownPast::default()));
        }
        self.members = read.fleet.members;
        self.reads += 1;
        self.sampled += read.bytes as f64 / self.rate();
        let moment = self.moment();
        let (visit, is_known) = self.visit(&read, moment);
        self.learn(is_known);
        self.count(visit, read.bytes as f64 / self.rate());
        if !is_known {
            self.stack.add(moment, read.weight());
            self.pages.insert(read.hash, Page::new(&read, visit, moment, (self.reads / AGE) as u32));
            if self.pages.len() >= PAGES {
                self.shrink();
            }
        }
        if self.reads - self.aged_at >= MEMORY * self.pages.len().max(64) as u64 {
            self.age();
        }
    }

    /// What the read is part of, and whether its page was in the sample.
    fn visit(&mut self, read: &Read, moment: u32) -> (Visit, bool) {
        let rate = self.rate();
        let Some(page) = self.pages.get_mut(&read.hash) else {
            return (if self.unknown.is_none() { Visit::First } else { Visit::Unknown }, false);
        };
        let above = self.stack.above(page.moment);
        self.stack.remove(page.moment, page.weight());
        self.stack.add(moment, read.weight());
        (page.moment, page.bytes, page.members) = (moment, read.page_bytes as u32, read.members());
        page.age = (self.reads / AGE) as u32;
        if page.fetched || u64::from(page.left) < read.bytes {
            let step = distances::step(above as f64 / rate + read.page_bytes as f64) as u16;
            page.visit = Visit::Again { step, missed: page.fetched };
            (page.fetched, page.left) = (false, page.bytes);
        }
        page.left = page.left.saturating_sub(read.bytes as u32);
        if !matches!(page.visit, Visit::First | Visit::Unknown) {
            page.times += read.bytes as f32 / page.bytes.max(1) as f32;
        }
        (page.visit, true)
    }

    fn count(&mut self, visit: Visit, bytes: f64) {
        match visit {
            Visit::Unknown => {}
            Visit::First => {
                self.first += bytes;
                self.missed += bytes;
            }
            Visit::Again { step, missed } => {
                self.again[usize::from(step)] += bytes;
                *(if missed { &mut self.missed } else { &mut self.hit }) += bytes;
            }
        }
    }

    /// The page came from the UFS.
    pub(crate) fn fetched(&mut self, hash: u64) {
        if let Some(page) = self.pages.get_mut(&hash) {
            page.fetched = true;
        }
    }

    fn learn(&mut self, is_again: bool) {
        let Some(unknown) = &mut self.unknown else { return };
        unknown.reads += 1;
        unknown.again += u64::from(is_again);
        if unknown.again >= self.pages.len().max(FEW) as u64 || unknown.reads >= LONGEST {
            self.unknown = None;
        }
    }

    fn moment(&mut self) -> u32 {
        if self.next == MOMENTS {
            self.number_anew();
        }
        self.next += 1;
        self.next - 1
    }

    fn number_anew(&mut self) {
        self.stack.clear();
        let mut pages: Vec<&mut Page> = self.pages.values_mut().collect();
        pages.sort_unstable_by_key(|page| page.moment);
        for (moment, page) in (0..).zip(&mut pages) {
            page.moment = moment;
            self.stack.add(moment, page.weight());
        }
        self.next = pages.len() as u32;
    }

    /// Pages that nobody reads any more go first; else the sample is of a smaller part of all.
    fn shrink(&mut self) {
        let oldest = (self.reads.saturating_sub(FORGOTTEN * PAGES as u64) / AGE) as u32;
        let before = self.pages.len();
        self.drop_unless(|_, page| oldest == 0 || page.age > oldest);
        if self.pages.len() * 8 > before * 7 {
            self.threshold = (self.threshold as f64 * KEPT) as u64;
            let threshold = self.threshold;
            self.drop_unless(|hash, _| hash <= threshold);
        }
    }

    fn drop_unless(&mut self, keep: impl Fn(u64, &Page) -> bool) {
        let stack = &mut self.stack;
        self.pages.retain(|hash, page| {
            let stays = keep(*hash, page);
            if !stays {
                stack.remove(page.moment, page.weight());
            }
            stays
        });
    }

    fn age(&mut self) {
        self.aged_at = self.reads;
        for page in self.pages.values_mut() {
            page.times /= 2.0;
        }
    }

    pub(crate) fn told(&self, asked: u64) -> Reuse {
        let again = self.again.iter().enumerate().filter(|(_, bytes)| **bytes > 0.0);
        Reuse {
            reads: self.reads,
            asked,
            sampled: self.sampled as u64,
            first: self.first as u64,
            again: again.map(|(step, bytes)| (step as u16, *bytes as u64)).collect(),
            hit: self.hit as u64,
            missed: self.missed as u64,
            popular: self.popular(),
            members: self.members,
        }
    }

    fn popular(&self) -> Vec<Popular> {
        let mut classes = BTreeMap::<i16, (f64, f64)>::new();
        for page in self.pages.values().filter(|page| page.times > 0.0) {
            let class = (4.0 * page.times.log2()).floor() as i16;
            let (bytes, read) = classes.entry(class).or_default();
            *bytes += f64::from(page.bytes);
            *read += f64::from(page.bytes) * f64::from(page.times);
        }
        let scaled = |bytes: f64| (bytes / self.rate()) as u64;
        let popular = classes.into_iter().rev();
        popular.map(|(class, (bytes, read))| Popular { class, bytes: scaled(bytes), read: scaled(read) }).collect()
    }
}
