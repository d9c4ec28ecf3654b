use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use penstock_model::{Medium, Object, PAGE};
use penstock_store::Store;

use crate::support::{MIB, content, disk_use, files, object, pages, tier};

/// A generator of its own, so that a failure is not hidden by a seed of the day.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn write_at_random(store: &Store, objects: &[Object], seed: u64) {
    let mut state = seed;
    for _ in 0..150 {
        let object = &objects[next(&mut state) as usize % objects.len()];
        let total = object.size.div_ceil(PAGE);
        let page = next(&mut state) % total;
        let (at, data) = pages(object, page..(page + 1 + next(&mut state) % 6).min(total));
        let _ = store.write(object, at, &data);
        if next(&mut state).is_multiple_of(16) {
            store.remove_object(&object.key);
        }
    }
}

/// True when the bytes were there.
fn read_at_random(store: &Store, objects: &[Object], state: &mut u64) -> bool {
    let object = &objects[next(state) as usize % objects.len()];
    let at = next(state) % object.size;
    let end = (at + 1 + next(state) % 100_000).min(object.size);
    let bytes = store.read(&object.key, at, (end - at) as usize);
    assert!(bytes.as_ref().is_none_or(|bytes| bytes[..] == content(object, at..end)[..]), "wrong bytes");
    if let Some(_pinned) = store.open_complete(&object.key) {
        assert!(store.missing(&object.key, object.size, 0..object.size).is_empty());
    }
    assert!(store.stats().tiers.iter().all(|tier| tier.used <= tier.quota));
    bytes.is_some()
}

#[test]
fn writers_readers_and_promoters_see_right_bytes_within_the_quotas() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store =
        Store::open(vec![tier(Medium::Mem, dirs[0].path(), 8 * MIB), tier(Medium::Ssd, dirs[1].path(), 24 * MIB)]);
    let objects: Vec<_> = (0..40).map(|n| object(n, (n % 7) * MIB + 1 + n)).collect();
    let (done, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8u64)
            .map(|seed| {
                let (store, objects) = (&store, &objects);
                scope.spawn(move || write_at_random(store, objects, seed))
            })
            .collect();
        for seed in 100..108u64 {
            let (store, objects, done, hits) = (&store, &objects, &done, &hits);
            scope.spawn(move || {
                let mut state = seed;
                while !done.load(Relaxed) {
                    hits.fetch_add(u64::from(read_at_random(store, objects, &mut state)), Relaxed);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    if !store.promote_next() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Relaxed) {
                assert!(disk_use(dirs[0].path()) <= 8 * MIB);
                assert!(disk_use(dirs[1].path()) <= 24 * MIB);
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Relaxed);
    });
    let stats = store.stats();
    assert!(hits.load(Relaxed) > 0 && stats.demoted_bytes > 0 && stats.promoted_bytes > 0, "{stats:?}");
    for (tier, dir) in stats.tiers.iter().zip(&dirs) {
        let on_disk = disk_use(dir.path());
        assert!(on_disk <= tier.used, "{on_disk} bytes on disk, {} counted", tier.used);
    }
    assert_eq!(stats.corrupt_pages, 0);
    assert_eq!(store.extents().iter().map(|extent| extent.present).sum::<u64>(), stats.cached_bytes);
    store.retain(|_| false);
    let empty = store.stats();
    assert_eq!(empty.cached_bytes, 0);
    for (tier, dir) in empty.tiers.iter().zip(&dirs) {
        let folders = std::fs::read_dir(dir.path().join("objects")).unwrap().count() as u64;
        assert_eq!(files(dir.path()).len() as u64, folders, "a file is left");
        assert_eq!(tier.used, folders * 4096, "more than its folders is counted in an empty tier");
    }
}
