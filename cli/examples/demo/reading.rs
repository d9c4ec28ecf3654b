//! Readers that read as a researcher's job does: open, read to the end, compare.

use std::{
    fs::File,
    io::{self, Read},
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

/// Reads all `files` by `open` with `readers` threads; returns how many differ from what was written.
pub(super) fn check_all<R: Read>(
    phase: &'static str,
    files: &[MarketFile],
    readers: usize,
    open: impl Fn(&MarketFile) -> anyhow::Result<R> + Sync,
    mut during: impl FnMut(usize),
) -> anyhow::Result<usize> {
    let total = files.iter().map(|file| file.bytes).sum();
    let style = "{prefix:11} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}";
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?).with_prefix(phase);
    let next = AtomicUsize::new(0);
    let (results, done) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..readers {
            let (results, next, bar, open) = (results.clone(), &next, &bar, &open);
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = open(file).and_then(|content| checksum(content, bar)).with_context(|| file.path.clone());
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

/// A file, of which nothing is left in this machine's page cache: the next phase must not be served from there.
struct Forgotten(File);

pub(super) fn open(path: &Path) -> anyhow::Result<impl Read + use<>> {
    Ok(Forgotten(File::open(path)?))
}

impl Read for Forgotten {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        let _ = fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}

fn checksum(mut content: impl Read, bar: &ProgressBar) -> anyhow::Result<Checksum> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..count]);
        bar.inc(count as u64);
    }
}
