//! Readers that see the mount as a researcher's job does: open, read to the end, compare.

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

use super::data::{Checksum, MarketFile};

const CHUNK: usize = 1 << 20;

/// Reads all `files` under `dir` with `readers` threads; returns how many differ from what was written.
pub(super) fn check_all(
    phase: &'static str,
    dir: &Path,
    files: &[MarketFile],
    readers: usize,
    mut during: impl FnMut(usize),
) -> anyhow::Result<usize> {
    let total = files.iter().map(|file| file.bytes).sum();
    let style = "{prefix:11} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}";
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?).with_prefix(phase);
    let next = AtomicUsize::new(0);
    let (results, done) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..readers {
            let (results, next, bar) = (results.clone(), &next, &bar);
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = checksum(&dir.join(&file.path), bar).with_context(|| file.path.clone());
                    if results.send(read.map(|sum| sum == file.sha256)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut mismatched = 0;
        for (count, equal) in done.iter().enumerate() {
            mismatched += usize::from(!equal?);
            during(count + 1);
        }
        bar.finish();
        Ok(mismatched)
    })
}

fn checksum(path: &Path, bar: &ProgressBar) -> anyhow::Result<Checksum> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bar.inc(count as u64);
    }
    // The next phase must not be served from this machine's page cache.
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(hash.finalize().into())
}
