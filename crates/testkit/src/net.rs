//! Links and network namespaces of a test's own. Takes root.
//!
//! All addresses are in 198.18.0.0/15 (RFC 2544, for benchmarks).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::tools;

/// Fails when this machine uses such an address already: another test, or a cluster that was left up.
pub fn ensure_unused() -> Result<()> {
    let taken = tools::output(Command::new(program()?).args(["-4", "-o", "addr", "show", "to", "198.18.0.0/15"]))?;
    if !taken.trim().is_empty() {
        bail!("this machine already uses an address in 198.18.0.0/15, which is needed here: {}", taken.trim());
    }
    Ok(())
}

/// Runs `ip` with the words of `line`.
pub fn ip(line: &str) -> Result<()> {
    tools::run(Command::new(program()?).args(line.split(' ')))
}

/// Removes the namespaces whose names begin with `prefix`.
pub fn remove_namespaces(prefix: &str) -> Result<()> {
    namespaces(prefix)?.iter().try_for_each(|name| ip(&format!("netns del {name}")))
}

/// Kills what runs in the namespaces whose names begin with `prefix`.
pub fn kill_processes(prefix: &str) -> Result<()> {
    for name in namespaces(prefix)? {
        let listed = tools::output(Command::new(program()?).args(["netns", "pids", &name]))?;
        for pid in listed.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

fn namespaces(prefix: &str) -> Result<Vec<String>> {
    let listed = tools::output(Command::new(program()?).args(["netns", "list"]))?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
}

/// Removes a link of the host if it is there. Its peer's namespace may be going at this moment, and take both ends along.
pub fn remove_link(link: &str) {
    if Path::new("/sys/class/net").join(link).exists() {
        let _ = ip(&format!("link del {link}"));
    }
}

/// Limits what leaves by `link` (of a namespace, or of the host) to `mbit` Mbit/s, or frees it.
pub fn shape(namespace: Option<&str>, link: &str, mbit: Option<u32>) -> Result<()> {
    let Some(mbit) = mbit else {
        // There is nothing to delete on a link that was never shaped.
        let _ = tc(namespace, &format!("qdisc del dev {link} root"));
        return Ok(());
    };
    // A bucket of 10 ms (at least 64 KiB) holds what the timer's granularity needs.
    let burst = (u64::from(mbit) * 1250).max(65536);
    tc(namespace, &format!("qdisc replace dev {link} root tbf rate {mbit}mbit burst {burst} latency 50ms"))
}

fn tc(namespace: Option<&str>, line: &str) -> Result<()> {
    let mut tc = Command::new(tools::debian("tc", "iproute2")?);
    tc.args(namespace.iter().flat_map(|name| ["-n", name])).args(line.split(' '));
    tools::run(&mut tc)
}

fn program() -> Result<PathBuf> {
    tools::debian("ip", "iproute2").context("networks of one's own need iproute2")
}
