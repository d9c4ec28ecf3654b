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

/// The most pages: as many as the table holds without growing further.
const PAGES: usize = 7 << 10;
/// Moments until they are numbered anew.
const MOMENTS: u32 = 4 * PAGES as u32;
/// Of a full sample, this part of all pages stays.
const KEPT: f64 = 0.875;
/// A page that was not among so many reads of the sample, for each of its pages, is forgotten before any other.
const FORGOTTEN: u64 = 64;
/// Popularity halves after so many reads for each page.
const MEMORY: u64 = 16;

/// A sampled page is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// Uniform over all pages.
    pub(crate) hash: u64,
    /// What is read of it.
    pub(crate) bytes: u64,
    pub(crate) page_bytes: u64,
    /// The page stands for as many others, as every worker owns its part.
    pub(crate) members: u64,
}

#[derive(Debug)]
struct Page {
    moment: u32,
    page_bytes: u32,
    /// In the stack, scaled by the number of workers.
    weight: u64,
    /// How often it was read lately, but for the first time.
    times: f32,
    /// It came from the UFS after it was read last.
    fetched: bool,
    /// The number of the last read, in reads of the sample.
    read: u64,
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
    /// Until so many reads a page that is not in the sample may have been read before, at another worker.
    unknown_until: u64,
    members: u64,
    aged_at: u64,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self {
            pages: HashMap::with_capacity_and_hasher(PAGES, BuildHasherDefault::default()),
            stack: Stack::new(MOMENTS),
            next: 0,
            threshold: u64::MAX,
            reads: 0,
            sampled: 0.0,
            first: 0.0,
            again: vec![0.0; COUNT],
            hit: 0.0,
            missed: 0.0,
            unknown_until: 0,
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
        if self.members != read.members {
            self.resized(read.members);
        }
        self.reads += 1;
        let scaled = read.bytes as f64 / self.rate();
        self.sampled += scaled;
        let weight = read.page_bytes * read.members;
        let moment = self.moment();
        if let Some(page) = self.pages.get_mut(&read.hash) {
            let above = self.stack.above(page.moment);
            self.stack.remove(page.moment, page.weight);
            self.stack.add(moment, weight);
            let seen = if page.fetched { &mut self.missed } else { &mut self.hit };
            *seen += scaled;
            page.times += read.bytes as f32 / read.page_bytes.max(1) as f32;
            (page.moment, page.weight, page.fetched, page.read) = (moment, weight, false, self.reads);
            let distance = above as f64 / self.rate() + read.page_bytes as f64;
            self.again[distances::step(distance)] += scaled;
        } else {
            if self.reads > self.unknown_until {
                self.first += scaled;
                self.missed += scaled;
            }
            self.stack.add(moment, weight);
            let page_bytes = read.page_bytes as u32;
            let page = Page { moment, page_bytes, weight, times: 0.0, fetched: false, read: self.reads };
            self.pages.insert(read.hash, page);
            if self.pages.len() >= PAGES {
                self.shrink();
            }
        }
        if self.reads - self.aged_at >= MEMORY * self.pages.len().max(64) as u64 {
            self.age();
        }
    }

    /// The page came from the UFS.
    pub(crate) fn fetched(&mut self, hash: u64) {
        if let Some(page) = self.pages.get_mut(&hash) {
            page.fetched = true;
        }
    }

    /// Other pages than before are read here from now on, and were read elsewhere.
    fn resized(&mut self, members: u64) {
        if self.members > 0 {
            self.unknown_until = self.reads + self.pages.len() as u64;
        }
        self.members = members;
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
            self.stack.add(moment, page.weight);
        }
        self.next = pages.len() as u32;
    }

    /// Pages that nobody reads any more go first; else the sample is of a smaller part of all.
    fn shrink(&mut self) {
        let oldest = self.reads.saturating_sub(FORGOTTEN * PAGES as u64);
        let before = self.pages.len();
        self.drop_unless(|_, page| page.read > oldest);
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
                stack.remove(page.moment, page.weight);
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
        }
    }

    fn popular(&self) -> Vec<Popular> {
        let mut classes = BTreeMap::<i16, (f64, f64)>::new();
        for page in self.pages.values().filter(|page| page.times > 0.0) {
            let class = (4.0 * page.times.log2()).floor() as i16;
            let (bytes, read) = classes.entry(class).or_default();
            *bytes += f64::from(page.page_bytes);
            *read += f64::from(page.page_bytes) * f64::from(page.times);
        }
        let scaled = |bytes: f64| (bytes / self.rate()) as u64;
        let popular = classes.into_iter().rev();
        popular.map(|(class, (bytes, read))| Popular { class, bytes: scaled(bytes), read: scaled(read) }).collect()
    }
}
