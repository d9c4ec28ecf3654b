use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use penstock_model::{EXTENT, Medium, Object, PAGE};
use penstock_store::Store;

use crate::support::{MIB, content, object, pages, ssd, tier, write_all};

/// Reads the object as a client does, in pieces, and fills what is missing. True when nothing was.
fn visit(store: &Store, object: &Object) -> bool {
    let mut hit = true;
    let mut at = 0;
    while at < object.size {
        let len = (128 << 10).min(object.size - at);
        if store.read(&object.key, at, len as usize).is_none() {
            hit = false;
            for run in store.missing(&object.key, object.size, at..at + len) {
                let (at, data) = pages(object, run.start / PAGE..run.end.div_ceil(PAGE));
                let _ = store.write(object, at, &data);
            }
        }
        at += len;
    }
    hit
}

#[test]
fn a_cyclic_scan_half_as_large_again_as_the_cache_still_hits() {
    for (low, high, want) in [(0.7, 0.95, 0.35), (0.9, 0.95, 0.5)] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = tier(Medium::Ssd, dir.path(), 32 * MIB);
        (options.low, options.high) = (low, high);
        let store = Store::open(vec![options]);
        let objects: Vec<_> = (0..96).map(|n| object(n, MIB / 2)).collect();
        let mut hits = 0;
        for round in 0..5 {
            let of_round = objects.iter().filter(|object| visit(&store, object)).count();
            hits += if round == 0 { 0 } else { of_round };
        }
        let ratio = hits as f64 / (4 * objects.len()) as f64;
        println!("watermarks {low} and {high}: {ratio:.2} hits");
        assert!(ratio >= want, "{ratio:.2} hits with watermarks {low} and {high}");
    }
}

#[test]
fn a_scan_does_not_push_out_what_is_read_often() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 16 * MIB);
    let hot: Vec<_> = (0..16).map(|n| object(n, MIB / 4)).collect();
    let scan: Vec<_> = (100..300).map(|n| object(n, MIB / 4)).collect();
    for _ in 0..5 {
        hot.iter().for_each(|object| {
            visit(&store, object);
        });
    }
    scan.iter().for_each(|object| {
        visit(&store, object);
    });
    let kept = hot.iter().filter(|object| visit(&store, object)).count();
    assert!(kept >= 15, "{kept} of 16 kept");
}

#[test]
fn what_is_read_often_is_said_to_be_hotter() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 16 * MIB);
    let objects: Vec<_> = (0..16).map(|n| object(n, MIB / 4)).collect();
    // Of every round, the first quarter is read twice.
    for _ in 0..4 {
        for object in objects.iter().chain(&objects[..4]) {
            visit(&store, object);
        }
    }
    let heat = |object: &Object| store.extents().iter().find(|extent| extent.object.key == object.key).unwrap().heat;
    let hot = objects[..4].iter().map(heat).min().unwrap();
    let others = objects[4..].iter().map(heat).max().unwrap();
    assert!(hot > others, "{hot}, others {others}");
}

#[test]
fn eviction_begins_above_high_and_reaches_low() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 20 * MIB;
    let store = ssd(dir.path(), quota);
    let part = |fraction: f64| (quota as f64 * fraction) as u64;
    let (mut passed, mut lowest) = (false, u64::MAX);
    for n in 0..200 {
        let before = store.stats();
        write_all(&store, &object(n, MIB / 4));
        let after = store.stats();
        assert!(after.tiers[0].used <= part(0.95) + MIB / 2);
        passed |= before.tiers[0].used > part(0.90);
        if passed {
            lowest = lowest.min(after.tiers[0].used);
        } else {
            assert_eq!(after.evicted_bytes, 0);
        }
    }
    assert!(lowest <= part(0.8) + MIB / 2, "{lowest} is the least, low is {}", part(0.8));
}

#[test]
fn the_last_extent_of_a_write_stays_when_there_is_no_room_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 2 * EXTENT);
    let object = object(0, 3 * EXTENT);
    write_all(&store, &object);
    let stats = store.stats();
    assert_eq!((stats.cached_bytes, stats.evicted_bytes), (EXTENT, 2 * EXTENT));
    assert_eq!(store.missing(&object.key, object.size, 0..object.size), vec![0..2 * EXTENT]);
}

#[test]
fn what_leaves_memory_goes_to_the_tier_below() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open =
        || Store::open(vec![tier(Medium::Mem, dirs[0].path(), 10 * MIB), tier(Medium::Ssd, dirs[1].path(), 100 * MIB)]);
    let objects: Vec<_> = (0..12).map(|n| object(n, 2 * MIB)).collect();
    let store = open();
    objects.iter().for_each(|object| write_all(&store, object));
    let stats = store.stats();
    assert_eq!((stats.cached_bytes, stats.evicted_bytes), (24 * MIB, 0));
    assert!(stats.demoted_bytes >= 12 * MIB && stats.tiers[0].used > 5 * MIB);
    assert!(objects.iter().all(|object| visit(&store, object)));
    drop(store);
    let store = open();
    assert!(objects.iter().all(|object| visit(&store, object)));
    assert!(objects.iter().all(|object| store.open_complete(&object.key).is_some()));
}

#[test]
fn a_pinned_file_stays_whole_while_everything_else_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 12 * MIB);
    let kept = object(0, EXTENT + 5);
    write_all(&store, &kept);
    let pinned = store.open_complete(&kept.key).unwrap();
    (1..40).for_each(|n| {
        let _ = visit(&store, &object(n, MIB));
    });
    assert!(store.missing(&kept.key, kept.size, 0..kept.size).is_empty());
    assert!(!store.remove_extent(&kept.key, 0));
    drop(pinned);
    assert!(store.remove_object(&kept.key));
    assert_eq!(store.missing(&kept.key, kept.size, 0..kept.size), vec![0..kept.size]);
}

#[test]
fn a_file_that_an_earlier_process_lent_keeps_its_bytes_while_it_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 12 * MIB);
    let lent = object(0, EXTENT + 5);
    write_all(&store, &lent);
    // As the worker lends it: opened anew, and locked for as long as anybody has it.
    let pinned = store.open_complete(&lent.key).unwrap();
    let held = File::open(format!("/proc/self/fd/{}", pinned.as_raw_fd())).unwrap();
    held.lock_shared().unwrap();
    drop((pinned, store));

    let store = ssd(dir.path(), 12 * MIB);
    (1..40).for_each(|n| {
        let _ = visit(&store, &object(n, MIB));
    });
    assert!(!store.remove_extent(&lent.key, 0));
    let mut bytes = vec![0; lent.size as usize];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content(&lent, 0..lent.size), "a hole was punched under a reader");
    drop(held);
    assert!(store.remove_object(&lent.key));
}
