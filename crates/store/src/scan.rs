//! Taking stock at start: the index is rebuilt from the checksum files. Pages are not read; their checksums are compared
//! when somebody asks for them. What is torn, half made or left over is removed; foreign names are left alone.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use penstock_model::ObjectKey;

use crate::{
    evict::Node,
    index::{Home, SlotState},
    meta::{self, Parsed},
    page,
    store::{Claim, Inner},
    tier,
};

impl Inner {
    /// Takes every tier that can be taken and was not yet. Safe while the others are in use: nothing is put into a tier
    /// before it is usable, and what the scan adds to the index it adds under the slots' locks.
    pub(crate) fn take_stock(&self) {
        for (at, tier) in self.tiers.iter().enumerate() {
            if tier.take() {
                if let Err(error) = self.scan_tier(at) {
                    tracing::warn!(%error, dir = %tier.objects().display(), "cannot list cached files");
                }
                tier.use_now();
                self.fit_quota(at);
            }
            if tier.usable() {
                tier.check_space();
            }
        }
    }

    fn scan_tier(&self, at: usize) -> io::Result<()> {
        let folders: Vec<PathBuf> = fs::read_dir(self.tiers[at].objects())?
            .filter_map(|item| item.ok().map(|item| item.path()))
            .filter(|path| is_folder_name(path) && path.is_dir())
            .collect();
        self.tiers[at].quota.found(folders.len() as u64 * self.tiers[at].block());
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(folder) = folders.get(next.fetch_add(1, Relaxed)) {
                        self.scan_folder(at, folder);
                    }
                });
            }
        });
        Ok(())
    }

    fn scan_folder(&self, at: usize, folder: &Path) {
        let Ok(items) = fs::read_dir(folder) else { return };
        let mut data = Vec::new();
        for path in items.filter_map(|item| item.ok().map(|item| item.path())) {
            match (key_of(&path), path.extension().and_then(|ext| ext.to_str())) {
                (Some(key), Some("meta")) if self.adopt(at, key, &path).is_none() => self.tiers[at].unlink(key),
                (Some(key), Some("data")) => data.push(key),
                _ => {}
            }
        }
        let known = |key: &ObjectKey| self.index.get(*key).is_some_and(|entry| *entry.files[at].lock() > 0);
        for key in data.iter().filter(|key| !known(key)) {
            self.tiers[at].unlink(*key);
        }
    }

    /// `None` when the files are to be removed.
    fn adopt(&self, at: usize, key: ObjectKey, path: &Path) -> Option<()> {
        let tier = &self.tiers[at];
        let bytes = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).and_then(|_| fs::read(path).ok())?;
        let parsed = meta::parse(key, &bytes)?;
        let data = tier.open_data(key, true).ok()?;
        let on_disk = data.metadata().ok().filter(|data| data.is_file() && data.size() == parsed.object.size)?;
        let entry = self.index.get_or_add(&parsed.object, self.tiers.len());
        if entry.object.size != parsed.object.size {
            return None;
        }
        let (overhead, mut charged) = (self.overhead(at, &parsed.object), 0);
        for (extent, state) in states(&parsed, at) {
            let Some(slot) = entry.slot_or_add(extent) else { continue };
            let mut held = slot.state.write();
            // A crash during a demotion leaves two copies; the higher tier was scanned first and has it.
            if held.home.is_some() {
                continue;
            }
            let cost = page::bytes_rounded(parsed.object.size, extent, state.pages, tier.block());
            if let Some(home) = &state.home {
                let mut files = entry.files[at].lock();
                let all = cost + if *files == 0 { overhead } else { 0 };
                *files += 1;
                // Before others see the extent: whoever removes it releases this.
                tier.quota.found(all);
                tier.evict.insert(&home.node, all, self.claim(key, extent) == Claim::None);
                self.counters.gain(&home.node, page::mask_bytes(parsed.object.size, extent, state.pages));
            }
            charged += cost;
            *held = state;
        }
        if *entry.files[at].lock() == 0 {
            self.index.forget_empty(&entry);
            return None;
        }
        if on_disk.blocks() * 512 > charged {
            self.free_leftovers(at, &parsed);
        }
        Some(())
    }

    /// Blocks without a record: a crash came between a page's bytes and its record, or before its hole was punched.
    fn free_leftovers(&self, at: usize, parsed: &Parsed) {
        let Some(entry) = self.index.get(parsed.object.key) else { return };
        let size = parsed.object.size;
        let extents = page::page_count(size).div_ceil(u64::from(page::PAGES)) as u32;
        let Ok(data) = self.tiers[at].open_data(parsed.object.key, true) else { return };
        for extent in 0..extents {
            let here = entry.slot(extent).map_or(0, |slot| {
                let state = slot.state.read();
                state.home.as_ref().filter(|home| home.tier == at).map_or(0, |_| state.pages)
            });
            for run in page::runs(page::full_mask(size, extent) & !here) {
                let first = u64::from(extent) * u64::from(page::PAGES);
                let numbers = first + u64::from(run.start)..first + u64::from(run.end);
                let _ = self.tiers[at].clear_records(&parsed.object, numbers);
                let _ = tier::punch(&data, &page::run_bytes(size, extent, &run), self.tiers[at].block());
            }
        }
    }
}

fn states(parsed: &Parsed, tier: usize) -> Vec<(u32, SlotState)> {
    let per = u64::from(page::PAGES);
    let mut found: Vec<(u32, SlotState)> = Vec::new();
    for (number, sum) in &parsed.pages {
        let (extent, bit) = ((number / per) as u32, (number % per) as u32);
        if found.last().is_none_or(|(last, _)| *last != extent) {
            let home = Some(Home { tier, node: Node::new(parsed.object.key, extent) });
            found.push((extent, SlotState { home, ..SlotState::default() }));
        }
        if let Some((_, state)) = found.last_mut() {
            state.pages |= 1 << bit;
            state.charged = state.pages;
            state.set_sum(&parsed.object, extent, bit, *sum);
        }
    }
    found
}

fn is_folder_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.len() == 2 && is_hex(name))
}

fn key_of(path: &Path) -> Option<ObjectKey> {
    let stem = path.file_stem()?.to_str().filter(|stem| stem.len() == 32 && is_hex(stem))?;
    let key = u128::from_str_radix(stem, 16).ok()?;
    let folder = path.parent()?.file_name()?.to_str()?;
    (folder == &stem[..2]).then_some(ObjectKey(key))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
