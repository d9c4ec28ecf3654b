//! Child processes that end with the test, whatever becomes of it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// What to start, and where its output goes.
#[derive(Debug)]
pub struct Spawn {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    log: PathBuf,
    detached: bool,
}

impl Spawn {
    /// Standard output and error are appended to `log`.
    pub fn new(program: impl AsRef<OsStr>, log: impl Into<PathBuf>) -> Self {
        let program = program.as_ref().to_owned();
        Self { program, args: Vec::new(), envs: Vec::new(), log: log.into(), detached: false }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The process may outlive this one (a cluster that stays up); it is still stopped when its guard is dropped.
    #[must_use]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// Starts the process in a process group of its own, and notes its id and start time beside the log (`NAME.pid`).
    pub fn start(self) -> Result<ChildGuard> {
        let name = self.program.to_string_lossy().into_owned();
        let log = self.log.clone();
        let command = self.command()?;
        // The kernel delivers a parent-death signal when the *thread* that forked ends, so a thread that never ends forks.
        let child = spawner::spawn(command).with_context(|| format!("starting {name}"))?;
        let pid = Pid::from_child(&child);
        let guard = ChildGuard { child: Some(child), pid, name, log };
        let started = start_time(guard.pid()).unwrap_or_default();
        fs::write(guard.log.with_extension("pid"), format!("{} {started}\n", guard.pid()))?;
        Ok(guard)
    }

    fn command(self) -> Result<Command> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = if self.detached {
            Command::new(&self.program)
        } else {
            // setpriv replaces itself by the program: same process id, no wrapper left behind.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "SIGKILL", "--"]).arg(&self.program);
            command
        };
        command.args(&self.args).envs(self.envs).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// A running child; dropping it stops its process group (SIGTERM, after 3 s SIGKILL) and reaps it.
#[derive(Debug)]
pub struct ChildGuard {
    child: Option<Child>,
    pid: Pid,
    name: String,
    log: PathBuf,
}

impl ChildGuard {
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The file name of the program.
    pub fn name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status when the process has ended by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// An error with the end of the log when the process has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.exited() {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended ({status}):\n{}", self.name, log_tail(&self.log, 15))),
        }
    }

    /// Sends a signal to the process group; that it is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// SIGTERM, up to `grace` for an orderly end, then SIGKILL.
    pub fn stop(&mut self, grace: Duration) {
        let Some(mut child) = self.child.take() else { return };
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        let deadline = Instant::now() + grace;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if test_kill_process_group(self.pid).is_ok() {
            self.signal(Signal::KILL);
        }
        let _ = child.wait();
    }

    /// SIGKILL at once.
    pub fn kill(&mut self) {
        self.stop(Duration::ZERO);
    }

    /// Gives the process up: it goes on, and whoever holds its id stops it.
    pub fn release(mut self) -> u32 {
        self.child = None;
        self.pid()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(3));
    }
}

/// The last lines of a log file, for error messages.
pub fn log_tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// When a process started, in clock ticks after boot (field 22 of `/proc/PID/stat`); absent when it has ended, reaped or not.
/// Together with the id it names a process for good.
pub fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `/proc/PID/stat` of proc(5): the second field may hold blanks and brackets, so count from its end.
fn parse_stat(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A TCP port of 127.0.0.1 that was free a moment ago, and that this process was not given before: who asks for several
/// gets as many.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        if GIVEN.lock().insert(port) {
            return Ok(port);
        }
    }
}

mod spawner {
    use super::{Child, Command, Result};
    use std::sync::LazyLock;
    use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

    type Request = (Command, SyncSender<std::io::Result<Child>>);

    static THREAD: LazyLock<Sender<Request>> = LazyLock::new(|| {
        let (sender, requests) = channel::<Request>();
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = requests.recv() {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });

    pub(super) fn spawn(command: Command) -> Result<Child> {
        let (answer, result) = sync_channel(1);
        THREAD.send((command, answer))?;
        Ok(result.recv()??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_a_name_with_brackets() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2";
        assert_eq!(parse_stat(line), Some(4242));
        assert_eq!(parse_stat(&line.replace(" S ", " Z ")), None);
    }

    #[test]
    fn a_dropped_guard_ends_the_whole_process_group() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let guard = Spawn::new("sh", &log).args(["-c", "sleep 300 & echo $!; wait"]).start().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while log_tail(&log, 1).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let grandchild: i32 = log_tail(&log, 1).trim().parse().unwrap();
        drop(guard);
        std::thread::sleep(Duration::from_millis(50));
        let stat = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "still there: {stat}");
    }

    #[test]
    fn an_ended_process_is_reported_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut guard = Spawn::new("sh", &log).args(["-c", "echo no such port; exit 3"]).start().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while guard.exited().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(guard.ensure_running().unwrap_err().to_string().contains("no such port"));
    }
}
