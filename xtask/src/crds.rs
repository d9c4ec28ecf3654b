//! The CRDs as YAML: `crds/` for people, `charts/penstock/crds/` for Helm (which would follow a link into `crds/testdata` too).

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};

use crate::run::root;

fn wanted() -> impl Iterator<Item = (PathBuf, String)> {
    let folders = [root().join("crds"), root().join("charts/penstock/crds")];
    let files = penstock_api::crd_yaml();
    folders.into_iter().flat_map(move |folder| {
        files.clone().into_iter().map(move |(name, text)| (folder.join(name), text)).collect::<Vec<_>>()
    })
}

pub(crate) fn write() -> anyhow::Result<()> {
    for (path, text) in wanted() {
        fs::create_dir_all(path.parent().expect("a file in a folder"))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

pub(crate) fn check() -> anyhow::Result<()> {
    for (path, text) in wanted() {
        if fs::read_to_string(&path).unwrap_or_default() != text {
            bail!("{} is not what crates/api generates: run `cargo xtask crds`", path.display());
        }
    }
    Ok(())
}
