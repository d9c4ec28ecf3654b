//! The process that serves one mount: `penstock-mount serve`, started, watched and stopped by the plugin.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, PidfdFlags, Signal},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdout, Command},
    sync::watch,
};

use super::{connections::Connection, state::ProcessId};
use crate::spec::MountSpec;

/// The line on standard output with which the process says that the mount answers.
pub const READY_LINE: &str = "READY";

/// How long a process may take until its mount answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a process may take to end by itself, and again after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot tell the serving process what to serve: {0}")]
    Tell(io::Error),
    #[error("the serving process ended before the mount was ready: its log says why")]
    Ended,
    #[error("the mount was not ready after {} s", START_LIMIT.as_secs())]
    Slow,
}

/// A serving process. Dropping this does not stop it.
#[derive(Debug)]
pub struct Daemon {
    pub id: ProcessId,
    /// Signals through this cannot hit a later process with the same number.
    pidfd: OwnedFd,
    ended: watch::Receiver<Option<End>>,
    stopping: Arc<AtomicBool>,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its mount, or because it was told to.
    Due,
    Died,
}

/// Held while a descriptor without close-on-exec exists, so that no other child inherits it: a forgotten copy of
/// `/dev/fuse` would keep a dead connection alive.
static SPAWNING: Mutex<()> = Mutex::new(());

impl Daemon {
    /// Starts `program serve` on a mounted connection and waits until it serves: from the beginning, or where a former
    /// process ended.
    pub async fn start(program: &Path, connection: &Connection) -> Result<Self, DaemonError> {
        let spec = &connection.spec;
        let failed = |source| DaemonError::Start { program: program.display().to_string(), source };
        let mut child = spawn(program, connection).map_err(failed)?;
        let seen = child.id().ok_or(io::ErrorKind::NotFound.into()).and_then(|pid| look(pid.cast_signed()));
        let begun = match seen {
            Ok(seen) => begin(&mut child, spec).await.map(|stdout| (seen, stdout)),
            Err(error) => Err(failed(error)),
        };
        match begun {
            Ok((seen, stdout)) => Ok(Self::watch(child, seen, stdout, spec.dataset.clone())),
            Err(error) => {
                child.kill().await.ok();
                Err(error)
            }
        }
    }

    fn watch(
        mut child: Child,
        Seen { pidfd, id, .. }: Seen,
        mut stdout: BufReader<ChildStdout>,
        dataset: String,
    ) -> Self {
        let (tell, ended) = watch::channel(None);
        let stopping = Arc::new(AtomicBool::new(false));
        let expected = Arc::clone(&stopping);
        tokio::spawn(async move {
            // The pipe stays open and read, or a later line on it would kill the process.
            tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await.ok();
            let ended = child.wait().await;
            // It also ends well by itself, once its file system is unmounted.
            let due = expected.load(Ordering::Relaxed) || ended.as_ref().is_ok_and(ExitStatus::success);
            let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            if due {
                tracing::info!(dataset, pid = id.pid, status, "the serving process has ended");
            } else {
                tracing::error!(dataset, pid = id.pid, status, "the serving process died");
            }
            tell.send_replace(Some(if due { End::Due } else { End::Died }));
        });
        Self { id, pidfd, ended, stopping }
    }

    /// Takes charge of a process that an earlier plugin started, if it still runs.
    pub fn adopt(id: ProcessId, dataset: String) -> Option<Self> {
        let Seen { pidfd, .. } = look(id.pid).ok().filter(|seen| seen.id == id && !seen.zombie)?;
        let (tell, ended) = watch::channel(None);
        let watched = pidfd.try_clone().ok()?;
        let watch = move || {
            // A pidfd becomes readable when its process ends.
            let mut fds = [PollFd::new(&watched, PollFlags::IN)];
            while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
            tracing::warn!(dataset, pid = id.pid, "the adopted serving process has ended");
            tell.send_replace(Some(End::Died));
        };
        std::thread::Builder::new().name("adopted".to_owned()).spawn(watch).ok()?;
        Some(Self { id, pidfd, ended, stopping: Arc::default() })
    }

    pub fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.ok().and_then(|end| *end).unwrap_or(End::Died)
    }

    /// Ends the process: by itself (its file system is unmounted), else by SIGTERM, else by SIGKILL.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.has_ended_within(STOP_LIMIT / 2).await {
            return;
        }
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM).ok();
        if !self.has_ended_within(STOP_LIMIT).await {
            self.kill().await;
        }
    }

    /// Ends the process at once.
    pub async fn kill(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
        if !self.has_ended_within(STOP_LIMIT).await {
            tracing::error!(pid = self.id.pid, "the serving process survived SIGKILL: it waits in the kernel");
        }
    }

    async fn has_ended_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.ended()).await.is_ok()
    }
}

fn spawn(program: &Path, connection: &Connection) -> io::Result<Child> {
    let _guard = SPAWNING.lock();
    let (fuse, journal) = (rustix::io::dup(&connection.fuse)?, rustix::io::dup(&connection.journal)?);
    Command::new(program)
        .args(["serve", "--fuse-fd", &fuse.as_raw_fd().to_string()])
        .args(["--journal-fd", &journal.as_raw_fd().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Hands over the specification and waits for the ready line.
async fn begin(child: &mut Child, spec: &MountSpec) -> Result<BufReader<ChildStdout>, DaemonError> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(DaemonError::Tell(io::ErrorKind::BrokenPipe.into()));
    };
    let text = serde_json::to_vec(spec).map_err(|error| DaemonError::Tell(error.into()))?;
    stdin.write_all(&text).await.map_err(DaemonError::Tell)?;
    drop(stdin);
    let mut stdout = BufReader::new(stdout);
    match tokio::time::timeout(START_LIMIT, ready(&mut stdout)).await {
        Ok(true) => Ok(stdout),
        Ok(false) => Err(DaemonError::Ended),
        Err(_) => Err(DaemonError::Slow),
    }
}

async fn ready(stdout: &mut BufReader<ChildStdout>) -> bool {
    let mut line = String::new();
    while stdout.read_line(&mut line).await.is_ok_and(|length| length > 0) {
        if line.trim_end() == READY_LINE {
            return true;
        }
        line.clear();
    }
    false
}

/// A process as it is found by its number.
struct Seen {
    pidfd: OwnedFd,
    id: ProcessId,
    /// It has ended and only waits for its parent to hear of it.
    zombie: bool,
}

fn look(number: i32) -> io::Result<Seen> {
    let pid = Pid::from_raw(number).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let stat = fs::read_to_string(format!("/proc/{number}/stat"))?;
    let start_ticks = start_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Seen { pidfd, id: ProcessId { pid: number, start_ticks }, zombie: field(&stat, 3) == Some("Z") })
}

fn start_ticks(stat: &str) -> Option<u64> {
    field(stat, 22)?.parse().ok()
}

/// A field of `/proc/PID/stat` by its number in proc(5), from 3 on. Field 2 is a name in brackets that may hold spaces
/// and brackets.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b( c) S 1 7 7 0 -1 4194560 10 0 0 0 1 2 3 4 20 0 1 0 4711 5 6 7";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(start_ticks("7 (x) S 1"), None);
    }

    #[tokio::test]
    async fn a_process_is_adopted_only_with_its_start_time() {
        let own = std::process::id().cast_signed();
        let id = look(own).unwrap().id;
        assert!(Daemon::adopt(id, "ns/d".into()).unwrap().is_alive());
        let later = ProcessId { start_ticks: id.start_ticks + 1, ..id };
        assert!(Daemon::adopt(later, "ns/d".into()).is_none());
    }

    #[tokio::test]
    async fn a_process_that_has_ended_is_not_adopted_before_its_parent_hears_of_it_either() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = look(child.id().cast_signed()).unwrap().id;
        assert!(Daemon::adopt(id, "ns/d".into()).is_some());
        child.kill().unwrap();
        for _ in 0..1000 {
            if look(id.pid).unwrap().zombie {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(look(id.pid).unwrap().zombie && Daemon::adopt(id, "ns/d".into()).is_none());
        child.wait().unwrap();
    }
}
