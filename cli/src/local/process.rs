//! Processes that outlive the command that started them, recorded by id and start time.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

/// A recorded process. Ids are used again by the kernel, so the start time belongs to the identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks from boot to the start, field 22 of `/proc/PID/stat` (proc(5)).
    started: u64,
}

impl Process {
    /// Starts `command` in a process group of its own, with its output appended to `log`.
    pub(super) fn spawn(command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let pid = command.spawn()?.id() as i32;
        let (_, started) =
            stat(pid).ok_or_else(|| io::Error::other(format!("ended at once, see {}", log.display())))?;
        Ok(Self { pid, started })
    }

    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| state != 'Z' && started == self.started)
    }

    /// Asks the process to end, and ends it when it has not within `patience`.
    pub fn stop(&self, patience: Duration) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + patience;
        while self.is_alive() && Instant::now() < deadline {
            self.reap();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// Ends the process at once (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        while self.is_alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.reap();
    }

    fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the check and the signal; then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }

    /// Collects it when it was started by this very process.
    fn reap(&self) {
        let _ = waitpid(Pid::from_raw(self.pid), WaitOptions::NOHANG);
    }
}

/// State letter and start time.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping(seconds: &str) -> (tempfile::TempDir, Process) {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(Command::new("sleep").arg(seconds), &dir.path().join("log")).unwrap();
        (dir, process)
    }

    #[test]
    fn a_stopped_process_is_gone() {
        let (_dir, process) = sleeping("30");
        assert!(process.is_alive());
        process.stop(Duration::from_secs(5));
        assert!(!process.is_alive());
    }

    #[test]
    fn another_process_with_the_same_id_is_not_ours() {
        let (_dir, process) = sleeping("30");
        let other = Process { started: process.started + 1, ..process.clone() };
        assert!(!other.is_alive());
        other.kill();
        assert!(process.is_alive(), "only the recorded process may be touched");
        process.kill();
    }
}
