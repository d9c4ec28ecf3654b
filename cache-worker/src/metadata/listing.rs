//! One directory's listing: told while it grows, to whoever asks for it, and not listed further than it is asked for.

use std::{
    cmp::Ordering,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use penstock_model::{Kind, listing_key};
use penstock_ufs::{ListedEntry, ListedPage};
use penstock_wire::message::Failure;
use tokio::{sync::watch, time::Instant};

use super::{Lifetime, packed::Packed, sorter::Sorter};

/// How many entries the store is asked for before anyone wants them.
const AHEAD: usize = 8_000;
/// Bytes of a listing besides its entries, with its place among others; estimated from above.
const OVERHEAD: usize = 512;

pub(super) struct Listing {
    state: watch::Sender<State>,
    /// Entries that somebody wants, from the first on.
    wanted: watch::Sender<usize>,
    begun: Instant,
    lifetime: Lifetime,
    memory: Memory,
}

#[derive(Debug, Default)]
struct State {
    stretches: Vec<Stretch>,
    /// Nothing more comes, or why.
    end: Option<Result<(), Failure>>,
    /// When something was last heard of it.
    touched: Option<Instant>,
}

#[derive(Debug)]
struct Stretch {
    /// How many entries stand before it.
    first: usize,
    /// Never empty.
    packed: Packed,
}

/// Bytes that one listing takes, and all listings together.
struct Memory {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

/// A part of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<ListedEntry>,
    pub(crate) more: bool,
    /// No entry was asked for before.
    pub(crate) asked: Instant,
}

/// What a listing knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Entry(ListedEntry, Instant),
    /// There was nothing at that moment.
    Nothing(Instant),
    Unknown,
}

/// What becomes of a listing that another one has followed: see [`Listing::differences`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Names(Vec<Vec<u8>>),
    /// More than are worth naming.
    Many,
}

/// Where the pages of a listing come from.
pub(super) trait Pages: Send + 'static {
    /// Hands page after page to `sink` until the end, or until it wants no more.
    fn feed(self, sink: &mut Sink) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Takes the pages of a listing, none before somebody wants it.
pub(super) struct Sink {
    listing: Weak<Listing>,
    wanted: watch::Receiver<usize>,
    sorter: Sorter,
    told: usize,
    asked: Instant,
}

impl Listing {
    /// Lists on a task of its own, for as long as the listing is held by someone; `done` is told of a listing that is complete.
    pub(super) fn begin(
        pages: impl Pages,
        sorter: Sorter,
        lifetime: Lifetime,
        all: Arc<AtomicUsize>,
        done: impl FnOnce(&Self) + Send + 'static,
    ) -> Arc<Self> {
        let listing = Arc::new(Self {
            state: watch::Sender::default(),
            wanted: watch::Sender::default(),
            begun: Instant::now(),
            lifetime,
            memory: Memory::new(all),
        });
        let (wanted, begun) = (listing.wanted.subscribe(), listing.begun);
        let sink = Sink { listing: Arc::downgrade(&listing), wanted, sorter, told: 0, asked: begun };
        tokio::spawn(grow(pages, sink, done));
        listing
    }

    /// Something was heard of it within its lifetime, or within `grace` where that is longer.
    pub(super) fn is_usable(&self, grace: Duration) -> bool {
        let state = self.state.borrow();
        let failed = matches!(state.end, Some(Err(_)));
        let life = match &state.end {
            // An empty directory is an absence too, of whatever will be put there.
            Some(Ok(())) if state.entries() == 0 => Some(self.lifetime.negative()),
            Some(end) => self.lifetime.of(end),
            None => self.lifetime.of(&Ok(())),
        };
        let grace = if failed { Duration::ZERO } else { grace };
        life.is_none_or(|life| Instant::now() < state.touched.unwrap_or(self.begun) + life.max(grace))
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.own.load(Relaxed)
    }

    /// Entries after the key `after`: at least one of them unless there is none.
    pub(super) async fn page(&self, after: Option<&[u8]>, limit: usize) -> Result<Page, Failure> {
        let mut state = self.state.subscribe();
        loop {
            {
                let state = state.borrow_and_update();
                let first = after.map_or(0, |after| state.after(after));
                let page = state.page(first, limit, self.begun);
                self.want(first + page.entries.len().max(1));
                match &state.end {
                    _ if !page.entries.is_empty() => return Ok(page),
                    Some(end) => return end.clone().map(|()| page),
                    None => {}
                }
            }
            // Never: the sender is ours.
            let _ = state.changed().await;
        }
    }

    fn want(&self, entries: usize) {
        self.wanted.send_if_modified(|wanted| {
            let more = entries > *wanted;
            *wanted = entries.max(*wanted);
            more
        });
    }

    pub(super) fn find(&self, name: &[u8]) -> Known {
        let state = self.state.borrow();
        let keys = [Kind::File, Kind::Directory].map(|kind| listing_key(name, kind));
        for key in &keys {
            let found =
                state.stretch_of(key).and_then(|stretch| Some((stretch.packed.find(key)?, stretch.packed.asked)));
            if let Some((entry, asked)) = found {
                return Known::Entry(entry, asked);
            }
        }
        match &state.end {
            Some(Ok(())) => Known::Nothing(self.begun),
            None if state.stretch_of(&keys[1]).is_some() => Known::Nothing(self.begun),
            _ => Known::Unknown,
        }
    }

    /// The names of which two complete listings do not say the same; `None` where one is not complete.
    pub(super) fn differences(&self, other: &Self, most: usize) -> Option<Difference> {
        let (a, b) = (self.state.borrow(), other.state.borrow());
        if a.end != Some(Ok(())) || b.end != Some(Ok(())) {
            return None;
        }
        Some(a.differences(&b, most))
    }

    fn append(&self, stretches: Vec<Packed>) {
        self.memory.add(stretches.iter().map(Packed::bytes).sum());
        self.state.send_modify(|state| {
            state.touched = Some(Instant::now());
            state.extend(stretches);
        });
    }

    /// Nothing more comes. Where entries came late, all of them are put in order once more.
    fn end(&self, mut sorter: Sorter, end: Result<(), Failure>) {
        self.state.send_modify(|state| {
            if !sorter.late.is_empty() {
                let told: Vec<_> = std::mem::take(&mut state.stretches);
                state.extend(sorter.mend(told.iter().map(|stretch| &stretch.packed), self.begun));
            }
            state.stretches.shrink_to_fit();
            state.touched = Some(Instant::now());
            state.end = Some(end);
        });
    }
}

impl Sink {
    /// Whether to go on: nobody holds the listing any more when this is false.
    pub(super) async fn take(&mut self, page: ListedPage) -> bool {
        let stretches = self.sorter.take(page, self.asked);
        self.told += stretches.iter().map(Packed::len).sum::<usize>();
        let Some(listing) = self.listing.upgrade() else { return false };
        listing.append(stretches);
        drop(listing);
        let told = self.told;
        let wanted = self.wanted.wait_for(|wanted| told < wanted + AHEAD).await.is_ok();
        self.asked = Instant::now();
        wanted
    }
}

async fn grow(pages: impl Pages, mut sink: Sink, done: impl FnOnce(&Listing)) {
    let end = pages.feed(&mut sink).await;
    let Some(listing) = sink.listing.upgrade() else { return };
    if end.is_ok() {
        listing.append(sink.sorter.finish(sink.asked));
    }
    listing.end(sink.sorter, end);
    done(&listing);
}

impl State {
    fn extend(&mut self, stretches: Vec<Packed>) {
        for packed in stretches {
            let first = self.entries();
            self.stretches.push(Stretch { first, packed });
        }
    }

    fn entries(&self) -> usize {
        self.stretches.last().map_or(0, |last| last.first + last.packed.len())
    }

    /// How many entries stand before `key`, or at it.
    fn after(&self, key: &[u8]) -> usize {
        let stretch = self.stretches.partition_point(|stretch| stretch.last_key() <= key);
        self.stretches.get(stretch).map_or(self.entries(), |stretch| stretch.first + stretch.packed.after(key))
    }

    /// The only stretch that can have `key`.
    fn stretch_of(&self, key: &[u8]) -> Option<&Stretch> {
        self.stretches.get(self.stretches.partition_point(|stretch| stretch.last_key() < key))
    }

    fn page(&self, first: usize, limit: usize, begun: Instant) -> Page {
        let last = self.entries().min(first + limit);
        let start = self.stretches.partition_point(|stretch| stretch.first + stretch.packed.len() <= first);
        let stretches = self.stretches[start..].iter().take_while(|stretch| stretch.first < last);
        let asked = stretches.clone().map(|stretch| stretch.packed.asked).min().unwrap_or(begun);
        let entries = stretches.flat_map(|Stretch { first: start, packed }| {
            (first.max(*start) - start..packed.len().min(last - start)).map(|at| packed.entry(at))
        });
        let more = last < self.entries() || self.end != Some(Ok(()));
        Page { entries: entries.collect(), more, asked }
    }

    fn walk(&self) -> impl Iterator<Item = (&Packed, usize)> {
        self.stretches.iter().flat_map(|Stretch { packed, .. }| (0..packed.len()).map(move |at| (packed, at)))
    }

    fn differences(&self, other: &Self, most: usize) -> Difference {
        let (mut ours, mut theirs) = (self.walk().peekable(), other.walk().peekable());
        let mut names = Vec::new();
        while names.len() <= most {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return Difference::Names(names),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, at)), Some((b, other_at))) => a.key(*at).cmp(b.key(*other_at)),
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            match (our, their) {
                (Some((a, at)), Some((b, other_at))) if a.same(at, b, other_at) => {}
                (our, their) => names.extend(our.or(their).map(|(packed, at)| packed.entry(at).name)),
            }
        }
        Difference::Many
    }
}

impl Stretch {
    fn last_key(&self) -> &[u8] {
        self.packed.key(self.packed.len() - 1)
    }
}

impl Memory {
    fn new(all: Arc<AtomicUsize>) -> Self {
        let memory = Self { own: AtomicUsize::new(0), all };
        memory.add(OVERHEAD);
        memory
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Relaxed);
        self.all.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests;
