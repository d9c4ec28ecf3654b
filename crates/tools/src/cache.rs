//! The user's cache folder, filled atomically and by one process at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$XDG_CACHE_HOME/penstock`, or `~/.cache/penstock`.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    base.unwrap_or_else(home).join("penstock")
}

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// The folder `bin/KEY` of the cache, filled by `fill` (given an empty temporary folder beside it) when it is not there.
pub(super) fn install(key: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let bin = cache_dir().join("bin");
    let folder = bin.join(key);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&bin).with_context(|| format!("creating {}", bin.display()))?;
    let lock = File::create(bin.join(format!(".{key}.lock")))?;
    lock.lock().context("waiting for another process that installs the same tool")?;
    if folder.exists() {
        return Ok(folder);
    }
    let partial = tempfile::Builder::new().prefix(&format!(".{key}.")).tempdir_in(&bin)?;
    fill(partial.path()).with_context(|| format!("installing {key}"))?;
    let partial = partial.keep();
    // A temporary folder is private to its owner; tools are for everyone.
    fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&partial, &folder).with_context(|| format!("naming {}", folder.display()))?;
    Ok(folder)
}
