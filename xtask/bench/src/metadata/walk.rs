//! Going over a tree as `find` does, and asking for attributes by name.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;

#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) files: u64,
    pub(super) seconds: f64,
    /// Of the files, when their attributes were asked for.
    pub(super) paths: Vec<PathBuf>,
}

/// Goes over all names below `root`, with the attributes of every file if they are wanted.
pub(super) fn walk(root: &Path, attributes: bool) -> anyhow::Result<Walked> {
    let begun = Instant::now();
    let mut walked = Walked::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            walked.files += 1;
            if attributes {
                entry.metadata()?;
                walked.paths.push(entry.path());
            }
        }
    }
    walked.seconds = begun.elapsed().as_secs_f64();
    Ok(walked)
}

/// Milliseconds until a directory has told its first entry, and until it has told all `entries`.
pub(super) fn walk_first(folder: &Path, entries: u64) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let mut listed = fs::read_dir(folder)?;
    listed.next().context("the directory is empty")??;
    let first = begun.elapsed().as_secs_f64() * 1e3;
    let rest = listed.count() as u64;
    anyhow::ensure!(rest + 1 == entries, "{} entries of {entries}", rest + 1);
    Ok((first, begun.elapsed().as_secs_f64() * 1e3))
}

/// Attributes told per second, each asked for by its path; the paths are shared out among threads.
pub(super) fn stat_all(paths: &[PathBuf], threads: usize) -> anyhow::Result<f64> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let share = paths.len().div_ceil(threads).max(1);
        let stat = |paths: &[PathBuf]| paths.iter().try_for_each(|path| fs::symlink_metadata(path).map(drop));
        let started: Vec<_> = paths.chunks(share).map(|paths| scope.spawn(move || stat(paths))).collect();
        started
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())))
    })?;
    Ok(paths.len() as f64 / begun.elapsed().as_secs_f64())
}
