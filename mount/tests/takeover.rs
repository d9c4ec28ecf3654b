//! Sessions that outlive their process, and readers that do not outlive theirs. Needs root and `/dev/fuse`.
#![allow(clippy::unwrap_used)]

#[path = "common/memory.rs"]
mod memory;
#[path = "common/workers.rs"]
mod workers;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::FileExt, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use memory::{HELD, MemoryBackend};
use parking_lot::Mutex;
use penstock_mount::{
    fuse::{Options, point},
    spec::{KeyHex, MountSpec, Passthrough, Tuning},
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use workers::{DATASET, Workers};

/// A mount, one process after the other that serves it, and workers behind it.
struct Session {
    dir: tempfile::TempDir,
    fuse: OwnedFd,
    journal: OwnedFd,
    spec: MountSpec,
    serving: Child,
    /// Dropped when the test is over.
    _over: mpsc::Sender<()>,
    _workers: Workers,
    _runtime: tokio::runtime::Runtime,
}

impl Session {
    fn begin(backend: Arc<MemoryBackend>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let workers = runtime.block_on(async {
            let workers = Workers::new(backend);
            workers.start("w-0").await;
            workers.publish();
            workers
        });
        let spec = MountSpec {
            dataset: DATASET.into(),
            endpoints: workers.endpoints(),
            client_key: KeyHex(workers.keys.client.to_hex()),
            peer_public: workers.keys.peer.public().to_hex(),
            socket_dir: None,
            read_only: true,
            allow_other: true,
            tuning: Tuning::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let fuse = point::open_device().unwrap();
        let journal = memfd_create("journal", MemfdFlags::CLOEXEC).unwrap();
        let options = Options { dataset: DATASET.into(), allow_other: true, passthrough: Passthrough::Auto };
        point::mount(&fuse, dir.path(), &options, true).unwrap();
        let over = force_unmount_later(dir.path());
        let serving = serve(&fuse, &journal, &spec);
        Self { dir, fuse, journal, spec, serving, _over: over, _workers: workers, _runtime: runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Kills the process in the middle of whatever it does.
    fn kill(&mut self) {
        self.serving.kill().unwrap();
        self.serving.wait().unwrap();
    }

    fn take_over(&mut self) {
        self.serving = serve(&self.fuse, &self.journal, &self.spec);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
        let _ = unmount(self.dir.path(), UnmountFlags::FORCE | UnmountFlags::DETACH);
    }
}

/// Who waits for an answer that never comes cannot even be killed: a test that takes too long loses its mount.
fn force_unmount_later(dir: &Path) -> mpsc::Sender<()> {
    let (over, watch) = mpsc::channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        if watch.recv_timeout(Duration::from_mins(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = unmount(&dir, UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
    });
    over
}

/// Starts the program on descriptors that no other child inherits.
fn spawn(fuse: &OwnedFd, journal: &OwnedFd, spec: &MountSpec, stderr: Stdio) -> Child {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();
    let (fuse, journal) = (rustix::io::dup(fuse).unwrap(), rustix::io::dup(journal).unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock-mount"))
        .args(["serve", "--fuse-fd", &fuse.as_raw_fd().to_string()])
        .args(["--journal-fd", &journal.as_raw_fd().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(spec).unwrap()).unwrap();
    child
}

/// Starts the program and waits until it serves.
fn serve(fuse: &OwnedFd, journal: &OwnedFd, spec: &MountSpec) -> Child {
    let mut child = spawn(fuse, journal, spec, Stdio::inherit());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "READY\n");
    child
}

const SIZE: u64 = 40 << 20;

fn backend() -> Arc<MemoryBackend> {
    let backend = Arc::new(MemoryBackend::default());
    backend.set_facts(penstock_mount::backend::Facts { revalidate: None, uid: 0, gid: 0, workers: 1 });
    backend.add_patterned(b"dir/large", SIZE);
    for i in 0..2500 {
        backend.add(format!("dir/deep/{i:04}").as_bytes(), format!("content of {i}").as_bytes());
    }
    backend
}

fn check(file: &File, offset: u64) {
    let mut data = vec![0; 300_000];
    file.read_exact_at(&mut data, offset).unwrap();
    assert!(data == MemoryBackend::pattern(offset, 300_000), "at {offset}");
}

#[test]
fn readers_notice_a_pause_only_when_a_process_dies_and_another_takes_over() {
    let mut session = Session::begin(backend());
    let large = File::open(session.path("dir/large")).unwrap();
    let here = File::open(session.path("dir/deep")).unwrap();
    let mut listing = fs::read_dir(session.path("dir/deep")).unwrap();
    let begun: Vec<_> = listing.by_ref().take(700).map(|entry| entry.unwrap().file_name()).collect();
    check(&large, 0);
    for round in 1..=3u64 {
        session.kill();
        // Asked while nobody serves, and answered by the next process.
        let path = session.path(&format!("dir/deep/{round:04}"));
        let (small, waiting) = std::thread::scope(|scope| {
            let small = scope.spawn(|| fs::read_to_string(&path).unwrap());
            let waiting = scope.spawn(|| check(&large, round * 9_000_000));
            std::thread::sleep(Duration::from_millis(100));
            session.take_over();
            (small.join().unwrap(), waiting.join())
        });
        assert_eq!(small, format!("content of {round}"));
        waiting.unwrap();
        check(&large, SIZE - round * 1_000_003);
        // By a directory that was opened in another life, as a shell's working directory is.
        let by_handle = format!("/proc/self/fd/{}/{:04}", here.as_raw_fd(), 100 + round);
        assert_eq!(fs::read_to_string(by_handle).unwrap(), format!("content of {}", 100 + round));
        assert_eq!(fs::metadata(session.path("dir")).unwrap().len(), 0);
    }
    let rest: Vec<_> = listing.map(|entry| entry.unwrap().file_name()).collect();
    let all: std::collections::BTreeSet<_> = begun.iter().chain(&rest).collect();
    assert_eq!((all.len(), begun.len() + rest.len()), (2500, 2500), "each name once");
    drop((large, here));
    unmount(session.dir.path(), UnmountFlags::empty()).unwrap();
    assert!(session.serving.wait().unwrap().success());
}

#[test]
fn a_request_that_was_taken_and_not_answered_is_answered_by_the_next_process() {
    let backend = backend();
    let mut session = Session::begin(backend.clone());
    backend.delay_read(b"dir/large", HELD);
    let large = File::open(session.path("dir/large")).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| check(&large, 0));
        until_it_waits_for(&backend);
        session.kill();
        session.take_over();
        backend.delay_read(b"dir/large", Duration::ZERO);
        waiting.join().unwrap();
    });
}

#[test]
fn a_reader_that_is_killed_is_gone_at_once_and_one_that_gets_another_signal_reads_on() {
    let backend = backend();
    let session = Session::begin(backend.clone());
    backend.delay_stat(b"dir/large", HELD);
    let reader = |script: &str| {
        let path = session.path("dir/large");
        Command::new("bash").args(["-c", script, "reader"]).arg(path).stdout(Stdio::piped()).spawn().unwrap()
    };
    let signal = |child: &Child, signal| kill_process(Pid::from_child(child), signal).unwrap();

    let mut killed = reader("exec stat \"$1\"");
    until_it_waits_for(&backend);
    signal(&killed, Signal::TERM);
    let begun = Instant::now();
    assert_eq!(killed.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    assert!(begun.elapsed() < HELD, "only the answer let it go");

    let mut disturbed = reader("trap 'echo signal' USR1; [ -f \"$1\" ] && echo found");
    until_it_waited_for(&backend, 2);
    signal(&disturbed, Signal::USR1);
    // It is told of the signal before it gets its answer.
    std::thread::sleep(Duration::from_millis(300));
    backend.delay_stat(b"dir/large", Duration::ZERO);
    let mut said = String::new();
    disturbed.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("found"), "{said}");
    assert!(disturbed.wait().unwrap().success());
}

#[test]
fn a_reader_that_reads_on_after_a_signal_is_gone_at_once_when_it_is_killed_later() {
    let backend = backend();
    let session = Session::begin(backend.clone());
    backend.delay_stat(b"dir/large", HELD);
    let path = session.path("dir/large");
    let script = "trap 'echo signal' USR1; [ -f \"$1\" ]";
    let mut reader =
        Command::new("bash").args(["-c", script, "reader"]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    until_it_waits_for(&backend);
    for signal in [Signal::USR1, Signal::KILL] {
        kill_process(Pid::from_child(&reader), signal).unwrap();
    }
    let begun = Instant::now();
    assert_eq!(reader.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    assert!(begun.elapsed() < HELD, "only the answer let it go");
}

#[test]
fn who_lists_a_directory_and_is_killed_is_gone_at_once_and_the_next_one_lists_it_whole() {
    let backend = backend();
    let session = Session::begin(backend.clone());
    backend.delay_list(b"dir/deep", HELD);
    let path = session.path("dir/deep");
    let mut reader = Command::new("ls").arg(&path).stdout(Stdio::null()).spawn().unwrap();
    until_it_waits_for(&backend);
    kill_process(Pid::from_child(&reader), Signal::KILL).unwrap();
    let begun = Instant::now();
    assert_eq!(reader.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    assert!(begun.elapsed() < HELD, "only the answer let it go");
    backend.delay_list(b"dir/deep", Duration::ZERO);
    assert_eq!(fs::read_dir(path).unwrap().count(), 2500);
}

fn until_it_waits_for(backend: &MemoryBackend) {
    until_it_waited_for(backend, 1);
}

fn until_it_waited_for(backend: &MemoryBackend, times: u64) {
    while backend.delayed() < times {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_process_that_finds_a_session_and_no_journal_of_it_says_so_and_does_not_wait() {
    let mut session = Session::begin(backend());
    session.kill();
    let empty = memfd_create("journal", MemfdFlags::CLOEXEC).unwrap();
    let path = session.path("none");
    let asking = std::thread::spawn(move || Path::exists(&path));
    let child = spawn(&session.fuse, &empty, &session.spec, Stdio::piped());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the session belongs to another process"), "{said}");
    drop(session);
    asking.join().unwrap();
}
