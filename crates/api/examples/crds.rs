//! Writes `crds/` anew from the types: `cargo run -p penstock-api --example crds [DIRECTORY]`.

use std::{fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds")), PathBuf::from);
    fs::create_dir_all(&directory)?;
    for (file, content) in penstock_api::crd_yaml() {
        fs::write(directory.join(file), content)?;
    }
    Ok(())
}
