//! Random sequences of operations against a model that knows which pages may be there.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use penstock_model::{BLOCK, EXTENT, Medium, Object, PAGE, block_sums};
use penstock_store::{Store, WriteError};
use proptest::prelude::*;

use crate::support::{content, corrupt, disk_use, object, pages, tier};

#[derive(Clone, Debug)]
enum Op {
    Write { object: usize, page: u64, count: u64 },
    Read { object: usize, at: u64, len: u64 },
    Reopen,
    Corrupt { object: usize, at: u64 },
    RemoveExtent { object: usize, extent: u32 },
    RemoveObject { object: usize },
    OpenComplete { object: usize },
    Promote,
}

const SIZES: [u64; 6] = [1, 5000, PAGE, 3 * PAGE + 7, EXTENT, EXTENT + 5 * PAGE + 100];
const MEM: u64 = 3 << 20;
const SSD: u64 = 6 << 20;

fn op() -> impl Strategy<Value = Op> {
    let which = 0..SIZES.len();
    prop_oneof![
        6 => (which.clone(), 0u64..22, 1u64..8).prop_map(|(object, page, count)| Op::Write { object, page, count }),
        6 => (which.clone(), any::<u64>(), 1u64..600_000).prop_map(|(object, at, len)| Op::Read { object, at, len }),
        1 => Just(Op::Reopen),
        1 => (which.clone(), any::<u64>()).prop_map(|(object, at)| Op::Corrupt { object, at }),
        1 => (which.clone(), 0u32..2).prop_map(|(object, extent)| Op::RemoveExtent { object, extent }),
        1 => which.clone().prop_map(|object| Op::RemoveObject { object }),
        2 => which.prop_map(|object| Op::OpenComplete { object }),
        2 => Just(Op::Promote),
    ]
}

struct World {
    dirs: [tempfile::TempDir; 2],
    store: Option<Store>,
    objects: Vec<Object>,
    /// Pages written and not removed since: the store may have them, and no others.
    may: HashSet<(usize, u64)>,
    /// Pages harmed on disk and not seen to be dropped since.
    harmed: HashMap<usize, bool>,
}

impl World {
    fn new() -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let objects = SIZES.iter().enumerate().map(|(n, size)| object(n as u64, *size)).collect();
        let mut world = Self { dirs, store: None, objects, may: HashSet::new(), harmed: HashMap::new() };
        world.open();
        world
    }

    fn open(&mut self) {
        self.store = None;
        let [mem, ssd] = &self.dirs;
        self.store = Some(Store::open(vec![tier(Medium::Mem, mem.path(), MEM), tier(Medium::Ssd, ssd.path(), SSD)]));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Write { object, page, count } => self.write(object, page, count),
            Op::Read { object, at, len } => self.read(object, at, len),
            Op::Reopen => {
                let before = self.store().stats();
                self.open();
                let after = self.store().stats();
                assert_eq!(after.cached_bytes, before.cached_bytes);
                assert!(after.tiers.iter().zip(&before.tiers).all(|(after, before)| after.used <= before.used));
            }
            Op::Corrupt { object, at } => {
                let chosen = &self.objects[object];
                let at = at % chosen.size;
                if !self.store().missing(&chosen.key, chosen.size, at..at + 1).is_empty() {
                    // Harm in a hole would fill it.
                    return;
                }
                self.dirs.iter().for_each(|dir| corrupt(dir.path(), chosen, at));
                self.harmed.insert(object, true);
            }
            Op::RemoveExtent { object, extent } => {
                self.store().remove_extent(&self.objects[object].key, extent);
                self.may.retain(|(of, page)| *of != object || *page / 16 != u64::from(extent));
            }
            Op::RemoveObject { object } => {
                self.store().remove_object(&self.objects[object].key);
                self.may.retain(|(of, _)| *of != object);
                self.harmed.remove(&object);
            }
            Op::OpenComplete { object } => self.open_complete(object),
            Op::Promote => {
                let before = self.store().stats();
                while self.store().promote_next() {}
                // It may cost what is seen least, but never what moves.
                let after = self.store().stats();
                assert_eq!(after.cached_bytes + after.evicted_bytes, before.cached_bytes + before.evicted_bytes);
            }
        }
    }

    fn write(&mut self, which: usize, page: u64, count: u64) {
        let object = &self.objects[which];
        let total = object.size.div_ceil(PAGE);
        let page = page % total;
        let end = (page + count).min(total);
        let (at, data) = pages(object, page..end);
        let until = at + data.len() as u64;
        let evicted = self.store().stats().evicted_bytes;
        match self.store().write(object, at, &data) {
            Ok(()) => {
                let missing = self.store().missing(&object.key, object.size, at..until);
                let evicted = self.store().stats().evicted_bytes - evicted;
                let absent: u64 = missing.iter().map(|range| range.end - range.start).sum();
                assert!(absent <= evicted, "{absent} bytes are not there, {evicted} made room");
                let last = at.max((until - 1) / EXTENT * EXTENT);
                assert!(missing.iter().all(|range| range.end <= last), "{last} and on came last, but {missing:?}");
            }
            Err(WriteError::Full) => {}
            Err(error) => panic!("{error}"),
        }
        self.may.extend((page..end).map(|page| (which, page)));
    }

    fn read(&mut self, which: usize, at: u64, len: u64) {
        let object = &self.objects[which];
        let at = at % object.size;
        let end = (at + len).min(object.size);
        let missing = self.store().missing(&object.key, object.size, at..end);
        let got = self.store().read(&object.key, at, (end - at) as usize);
        if let Some(bytes) = &got {
            assert!(missing.is_empty(), "bytes of a missing page");
            assert!(bytes[..] == content(object, at..end)[..], "wrong bytes");
            assert!((at / PAGE..end.div_ceil(PAGE)).all(|page| self.may.contains(&(which, page))));
        } else if missing.is_empty() {
            assert!(self.harmed.contains_key(&which), "a present page was not read");
            let missing = self.store().missing(&object.key, object.size, at..end);
            assert!(!missing.is_empty(), "a bad page was not dropped");
        }
        self.lend(which, at..end);
        self.lend(which, at / BLOCK * BLOCK..end.next_multiple_of(BLOCK).min(object.size));
    }

    fn lend(&self, which: usize, range: Range<u64>) {
        let object = &self.objects[which];
        let Some(lent) = self.store().lend(&object.key, range.clone()) else { return };
        assert!(self.store().missing(&object.key, object.size, range.clone()).is_empty());
        if self.harmed.contains_key(&which) {
            return;
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*lent.file, &mut bytes, range.start).unwrap();
        assert!(lent.sums == block_sums(&bytes), "checksums of other blocks");
        assert!(bytes == content(object, range), "wrong bytes in a file that was lent");
        assert!(!self.store().remove_object(&object.key), "removed although lent");
    }

    fn open_complete(&self, which: usize) {
        let object = &self.objects[which];
        let complete = self.store().missing(&object.key, object.size, 0..object.size).is_empty();
        let Some(file) = self.store().open_complete(&object.key) else { return };
        assert!(complete);
        if self.harmed.contains_key(&which) {
            return;
        }
        let mut bytes = vec![0; object.size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, 0).unwrap();
        assert!(bytes == content(object, 0..object.size), "wrong bytes through a descriptor");
        assert!(!self.store().remove_object(&object.key), "removed although pinned");
    }

    fn check(&self) {
        let stats = self.store().stats();
        for (tier, dir) in stats.tiers.iter().zip(&self.dirs) {
            assert_eq!(tier.trouble, None);
            assert!(tier.used <= tier.quota);
            let on_disk = disk_use(dir.path());
            assert!(on_disk <= tier.used, "{on_disk} on disk, {} counted", tier.used);
        }
        let extents = self.store().extents();
        assert_eq!(extents.iter().map(|extent| extent.present).sum::<u64>(), stats.cached_bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_simple_model(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.step(&op);
            world.check();
        }
    }
}
