//! Quick figures of the store in one directory: `cargo run -p penstock-store --example store_bench -- DIR [MIB]`.
//! Everything it writes goes into a folder of its own under DIR and is removed at the end.

use std::{path::Path, time::Instant};

use penstock_model::{EXTENT, Medium, Object, ObjectKey, Version};
use penstock_store::{Store, TierOptions};

fn object(number: u64, size: u64) -> Object {
    let (path, version) = (number.to_string().into_bytes(), Version("1".into()));
    Object { key: ObjectKey::new("bench", &path, &version), path, version, size }
}

fn open(dir: &Path, quota: u64) -> Store {
    Store::open(vec![TierOptions { medium: Medium::Ssd, dir: dir.to_path_buf(), quota, high: 0.95, low: 0.9 }])
}

fn timed<T>(what: &str, unit: &str, count: f64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<44} {:>12.0} {unit}/s  ({seconds:.3} s)", count / seconds);
    value
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = tempfile::tempdir_in(args.next().ok_or("say where: store_bench DIR [MIB]")?)?;
    let mib: u64 = args.next().map_or(Ok(512), |text| text.parse())?;
    let large = object(0, mib << 20);
    let data: Vec<u8> = (0..EXTENT).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let store = open(dir.path(), 2 * large.size + (1 << 30));
    let extents = large.size / EXTENT;
    timed("write, extents of 4 MiB", "MiB", mib as f64, || {
        (0..extents).try_for_each(|extent| store.write(&large, extent * EXTENT, &data))
    })?;
    for (what, len) in [("4 MiB", 4 << 20), ("256 KiB", 256 << 10), ("128 KiB", 128 << 10)] {
        timed(&format!("read, {what} in order"), "MiB", mib as f64, || {
            (0..large.size / len).for_each(|n| assert!(store.read(&large.key, n * len, len as usize).is_some()));
        });
    }
    timed("read, 4 KiB at random", "reads", 20_000.0, || {
        (0..20_000u64).for_each(|n| {
            let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (large.size / 4096) * 4096;
            assert!(store.read(&large.key, at, 4096).is_some());
        });
    });
    timed("write, objects of 4 KiB", "objects", 20_000.0, || {
        (1..=20_000).try_for_each(|n| store.write(&object(n, 4096), 0, &data[..4096]))
    })?;
    timed("open_complete, objects of 4 KiB", "opens", 20_000.0, || {
        (1..=20_000).for_each(|n| assert!(store.open_complete(&object(n, 4096).key).is_some()));
    });
    drop(store);
    let store = timed("start: scan", "objects", 20_001.0, || open(dir.path(), 2 * large.size + (1 << 30)));
    timed("open_complete with verification", "MiB", mib as f64, || store.open_complete(&large.key).is_some());
    timed("remove", "objects", 20_001.0, || store.retain(|_| false));
    Ok(())
}
