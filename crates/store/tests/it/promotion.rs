use penstock_model::{BLOCK, EXTENT, Medium, Object};
use penstock_store::Store;
use tempfile::TempDir;

use crate::support::{MIB, content, object, ssd, tier, write_all};

/// A memory tier of 8 MiB over a disk of 64 MiB.
struct World {
    _dirs: [TempDir; 2],
    store: Store,
}

impl World {
    fn open(dirs: [TempDir; 2]) -> Self {
        let tiers = vec![tier(Medium::Mem, dirs[0].path(), 8 * MIB), tier(Medium::Ssd, dirs[1].path(), 64 * MIB)];
        Self { store: Store::open(tiers), _dirs: dirs }
    }

    /// `count` objects, of which the memory tier holds some and the disk the others.
    fn filled(count: u64, size: u64) -> (Self, Vec<Object>) {
        let world = Self::open([tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
        let objects: Vec<_> = (0..count).map(|n| object(n, size)).collect();
        objects.iter().for_each(|object| write_all(&world.store, object));
        (world, objects)
    }

    fn read(&self, object: &Object) {
        let range = 0..object.size.min(64 << 10);
        let bytes = self.store.read(&object.key, 0, range.end as usize).unwrap();
        assert!(bytes[..] == content(object, range)[..], "wrong bytes");
    }

    fn in_memory(&self, object: &Object) -> bool {
        self.store.lend(&object.key, 0..BLOCK).is_some()
    }

    fn promote_all(&self) {
        while self.store.promote_next() {}
        assert!(self.store.stats().tiers.iter().all(|tier| tier.used <= tier.quota));
    }
}

#[test]
fn what_is_read_again_and_again_moves_up_for_what_is_not() {
    let (world, objects) = World::filled(24, MIB);
    let before = world.store.stats();
    let (above, below): (Vec<_>, Vec<_>) = objects.iter().partition(|object| world.in_memory(object));
    assert!(above.len() >= 5 && below.len() >= 12);
    for _ in 0..8 {
        below[..3].iter().for_each(|object| world.read(object));
        world.promote_all();
    }
    assert!(below[..3].iter().all(|object| world.in_memory(object)));
    assert!(below[3..].iter().all(|object| !world.in_memory(object)));
    let after = world.store.stats();
    assert!(after.promoted_bytes >= 3 * MIB && after.demoted_bytes > before.demoted_bytes);
    assert_eq!((after.cached_bytes, after.evicted_bytes), (24 * MIB, 0));
    objects.iter().for_each(|object| world.read(object));
    assert!(objects.iter().all(|object| world.store.open_complete(&object.key).is_some()));
}

#[test]
fn a_scan_of_the_lower_tier_leaves_the_memory_tier_alone() {
    let (world, objects) = World::filled(40, MIB);
    let hot: Vec<_> = objects.iter().filter(|object| world.in_memory(object)).collect();
    for _ in 0..10 {
        // As often as the scan: a tie is no reason to copy.
        objects.iter().for_each(|object| world.read(object));
        world.promote_all();
    }
    assert!(hot.iter().all(|object| world.in_memory(object)));
    let moved = world.store.stats().promoted_bytes;
    assert!(moved <= MIB, "{moved} bytes moved up");
}

#[test]
fn an_object_that_is_whole_on_disk_stays_whole_and_one_that_is_not_rises_by_parts() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [whole, part] = [object(100, 2 * EXTENT + 5), object(101, 2 * EXTENT + 5)];
    let disk = ssd(dirs[1].path(), 64 * MIB);
    [&whole, &part].into_iter().for_each(|object| write_all(&disk, object));
    assert!(disk.remove_extent(&part.key, 1));
    drop(disk);
    let world = World::open(dirs);
    for _ in 0..10 {
        world.read(&whole);
        world.read(&part);
        world.promote_all();
    }
    assert!(!world.in_memory(&whole) && world.store.open_complete(&whole.key).is_some());
    assert!(world.in_memory(&part));
}

#[test]
fn nothing_of_a_pinned_object_moves() {
    let (world, objects) = World::filled(24, MIB);
    let below = objects.iter().find(|object| !world.in_memory(object)).unwrap();
    let visit = || {
        for object in objects.iter().chain(&objects) {
            world.read(object);
            world.read(below);
            world.promote_all();
        }
    };
    let pinned = world.store.open_complete(&below.key).unwrap();
    visit();
    assert!(!world.in_memory(below));
    let mut bytes = vec![0; MIB as usize];
    std::os::unix::fs::FileExt::read_exact_at(&*pinned, &mut bytes, 0).unwrap();
    assert!(bytes == content(below, 0..MIB));
    drop(pinned);
    visit();
    assert!(world.in_memory(below));
}
