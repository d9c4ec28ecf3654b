//! A reader in a pod: `penstock-e2e-reader FOLDER SEED < LIST`, where LIST has a line `LENGTH PATH` for each file.

use std::io::Read;

use anyhow::{Context, Result};
use penstock_e2e::reader::{self, File};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().context("usage: penstock-e2e-reader FOLDER SEED < LIST")?;
    let seed = args.next().context("SEED is missing")?.parse().context("SEED is a number")?;
    let mut list = String::new();
    std::io::stdin().read_to_string(&mut list)?;
    let files = list.lines().map(File::parse).collect::<Result<_>>()?;
    reader::run(folder.into(), seed, files)
}
