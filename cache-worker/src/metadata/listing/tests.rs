use std::{collections::BTreeSet, collections::VecDeque};

use penstock_model::Version;
use penstock_ufs::Status;
use tokio::sync::mpsc;

use super::*;

/// Pages as a test hands them in; counts how many were asked for.
struct Fed {
    pages: mpsc::UnboundedReceiver<Result<ListedPage, Failure>>,
    asked: Arc<AtomicUsize>,
}

impl Pages for Fed {
    async fn feed(mut self, sink: &mut Sink) -> Result<(), Failure> {
        loop {
            self.asked.fetch_add(1, Relaxed);
            let Some(page) = self.pages.recv().await else { return Ok(()) };
            if !sink.take(page?).await {
                return Ok(());
            }
        }
    }
}

struct Rig {
    listing: Arc<Listing>,
    feed: Option<mpsc::UnboundedSender<Result<ListedPage, Failure>>>,
    asked: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

const LIFE: Duration = Duration::from_secs(30);

impl Rig {
    fn new() -> Self {
        let (feed, pages) = mpsc::unbounded_channel();
        let (asked, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pages = Fed { pages, asked: asked.clone() };
        let sorter = Sorter::new(BTreeSet::new(), Instant::now());
        let lifetime = Lifetime { revalidate: Some(LIFE) };
        let listing = Listing::begin(pages, sorter, lifetime, all.clone(), |_| {});
        Self { listing, feed: Some(feed), asked, all }
    }

    /// Files of these numbers, in order; whatever is before the last one is settled.
    fn feed(&self, numbers: std::ops::Range<u32>) {
        let settled = name(numbers.end - 1);
        let entries = numbers.map(|number| file(number, 1)).collect();
        self.feed.as_ref().unwrap().send(Ok(ListedPage { entries, settled })).unwrap();
    }

    async fn names(&self, after: Option<u32>, limit: usize) -> (Vec<Vec<u8>>, bool) {
        let page = self.listing.page(after.map(name).as_deref(), limit).await.unwrap();
        (page.entries.into_iter().map(|entry| entry.name).collect(), page.more)
    }
}

fn name(number: u32) -> Vec<u8> {
    format!("f{number:06}").into_bytes()
}

fn file(number: u32, version: u32) -> ListedEntry {
    let version = Some(Version(version.to_string()));
    let status = Status { kind: Kind::File, size: 1, mtime_ns: 2, mode: None, version };
    ListedEntry { name: name(number), status }
}

#[tokio::test(start_paused = true)]
async fn the_first_page_is_told_while_the_store_still_lists() {
    let mut rig = Rig::new();
    rig.feed(0..1000);
    let (names, more) = rig.names(None, 1000).await;
    assert_eq!((names.len(), more), (999, true), "the last one is not sure");
    assert!(matches!(rig.listing.find(&name(5)), Known::Entry(entry, _) if entry == file(5, 1)));
    assert!(matches!(rig.listing.find(b"f000005x"), Known::Nothing(_)));
    assert_eq!(rig.listing.find(&name(2000)), Known::Unknown);
    let waiting = tokio::time::timeout(Duration::from_secs(5), rig.names(Some(998), 10)).await;
    assert!(waiting.is_err(), "what is not there yet is waited for");
    rig.feed(1000..1500);
    assert_eq!(rig.names(Some(998), 3).await, ((999..1002).map(name).collect(), true));
    rig.feed = None;
    assert_eq!(rig.names(Some(1497), 10).await.0, [name(1498)]);
    assert_eq!(rig.names(Some(1498), 10).await, (vec![name(1499)], false));
    assert_eq!(rig.names(Some(1499), 10).await, (vec![], false));
    assert!(matches!(rig.listing.find(&name(2000)), Known::Nothing(_)));
}

#[tokio::test(start_paused = true)]
async fn the_store_is_not_asked_for_much_more_than_is_wanted() {
    let rig = Rig::new();
    for page in 0..50 {
        rig.feed(page * 1000..(page + 1) * 1000);
    }
    rig.names(None, 1000).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let asked = rig.asked.load(Relaxed);
    assert!((8..=11).contains(&asked), "{asked} pages");
    rig.names(Some(30_000), 1000).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!((38..=41).contains(&rig.asked.load(Relaxed)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_after_what_was_listed_and_is_not_kept() {
    let rig = Rig::new();
    rig.feed(0..10);
    let feed = rig.feed.as_ref().unwrap();
    feed.send(Err(Failure::Ufs("503".into()))).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.names(None, 100).await, ((0..9).map(name).collect(), true));
    assert_eq!(rig.listing.page(Some(&name(8)), 10).await, Err(Failure::Ufs("503".into())));
    assert!(!rig.listing.is_usable(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_listing_ages_and_gives_its_memory_back() {
    let mut rig = Rig::new();
    rig.feed(0..1000);
    rig.feed = None;
    rig.names(Some(0), 1).await;
    let begun = Instant::now();
    tokio::time::advance(LIFE / 2).await;
    assert!(rig.listing.is_usable(Duration::ZERO));
    assert_eq!(rig.listing.page(None, 1).await.unwrap().asked, begun);
    assert_eq!(rig.all.load(Relaxed), rig.listing.bytes());
    assert!((1000 * 39..1000 * 50).contains(&rig.listing.bytes()), "{}", rig.listing.bytes());
    tokio::time::advance(LIFE / 2 + Duration::from_millis(1)).await;
    assert!(!rig.listing.is_usable(Duration::ZERO));
    let all = rig.all.clone();
    drop(rig);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(all.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_directory_is_looked_at_again_soon() {
    let mut rig = Rig::new();
    rig.feed = None;
    assert_eq!(rig.names(None, 1).await, (vec![], false));
    tokio::time::advance(Duration::from_millis(4900)).await;
    assert!(rig.listing.is_usable(Duration::ZERO));
    tokio::time::advance(Duration::from_millis(200)).await;
    assert!(!rig.listing.is_usable(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn nobody_who_waits_means_nothing_more_is_asked_for() {
    let rig = Rig::new();
    rig.feed(0..10);
    let (asked, feed) = (rig.asked.clone(), rig.feed.clone().unwrap());
    drop(rig);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = asked.load(Relaxed);
    let _ = feed.send(Ok(ListedPage::default()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(asked.load(Relaxed), before);
}

async fn complete(entries: Vec<ListedEntry>) -> Arc<Listing> {
    let mut rig = Rig::new();
    let pages: VecDeque<_> = entries.chunks(3).map(<[_]>::to_vec).collect();
    for entries in pages {
        rig.feed.as_ref().unwrap().send(Ok(ListedPage { entries, settled: Vec::new() })).unwrap();
    }
    rig.feed = None;
    let _ = rig.listing.page(Some(b"z"), 1).await;
    rig.listing
}

#[tokio::test(start_paused = true)]
async fn what_differs_between_two_listings_is_named_up_to_a_bound() {
    let old = complete((0..10).map(|number| file(number, 1)).collect()).await;
    let new = complete((1..12).map(|number| file(number, if number == 5 { 2 } else { 1 })).collect()).await;
    let wanted = Difference::Names([0, 5, 10, 11].map(name).into());
    assert_eq!(old.differences(&new, 4), Some(wanted));
    assert_eq!(old.differences(&new, 3), Some(Difference::Many));
    assert_eq!(old.differences(&old, 0), Some(Difference::Names(Vec::new())));
    assert_eq!(old.differences(&Rig::new().listing, 4), None);
}
