//! Processes recorded by id and start time, so that a reused id is never taken for ours.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use penstock_testkit::process::start_time;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
    /// Clock ticks after boot (field 22 of `/proc/PID/stat`).
    start_time: u64,
}

impl Process {
    /// Records a process that runs now.
    pub(super) fn record(name: &str, pid: u32) -> Result<Self> {
        let start_time = start_time(pid).with_context(|| format!("{name} (process {pid}) has ended"))?;
        Ok(Self { name: name.into(), pid, start_time })
    }

    /// The processes that were started with their logs in this folder, as their `NAME.pid` files say.
    pub(super) fn noted_in(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
            .filter_map(|path| Self::noted(&path))
            .collect()
    }

    fn noted(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start_time) = text.trim().split_once(' ')?;
        let name = path.file_stem()?.to_string_lossy().into_owned();
        Some(Self { name, pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }

    /// Whether this very process runs; one that waits to be reaped does not.
    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Signals the process group it leads; does nothing when it is gone.
    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid as i32).filter(|_| self.is_alive());
        if let Some(pid) = pid
            && kill_process_group(pid, signal).is_err()
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGTERM, up to `grace`, then SIGKILL; returns when it is gone.
    pub(super) fn stop(&self, grace: Duration) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        if !self.wait_gone(grace) {
            self.signal(Signal::KILL);
            self.wait_gone(Duration::from_secs(5));
        }
    }

    /// SIGKILL; returns when it is gone.
    pub(super) fn kill(&self) {
        self.stop(Duration::ZERO);
    }

    fn wait_gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// The program and its arguments.
    pub(super) fn command_line(&self) -> Result<Vec<String>> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.split_terminator('\0').map(ToOwned::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_time_is_not_ours() {
        let mut process = Process::record("test", std::process::id()).unwrap();
        assert!(process.is_alive());
        process.start_time += 1;
        assert!(!process.is_alive());
    }
}
