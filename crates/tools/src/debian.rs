//! Programs that come as Debian packages.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use super::run;

/// The program's path from `PATH` or the system's folders (`/usr/sbin` is not in everyone's `PATH`).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The program's path; installs its package when it is missing and we are root.
pub fn debian(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = find_program(program) {
        return Ok(path);
    }
    install(&[package])?;
    find_program(program).with_context(|| format!("package {package} brought no program {program}"))
}

/// Installs packages; an error names them when that is not ours to do.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let names = packages.join(" ");
    let Some(apt) = find_program("apt-get") else {
        bail!("missing programs: install what Debian calls {names}");
    };
    if !rustix::process::geteuid().is_root() {
        bail!("missing programs: run `apt-get install {names}` as root");
    }
    eprintln!("installing Debian packages: {names}");
    run(Command::new(&apt).args(["update", "-qq"]))?;
    let install = ["install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"];
    // The packages' own services must not start: tests run their own copies.
    run(Command::new(&apt).args(install).args(packages).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
}
