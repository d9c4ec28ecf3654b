//! The program itself: `penstock-mount mount`, with workers on loopback. Needs /dev/fuse and root.
#![allow(clippy::unwrap_used)]

#[path = "common/memory.rs"]
mod memory;
#[path = "common/workers.rs"]
mod workers;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use memory::MemoryBackend;
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use tempfile::TempDir;
use workers::{DATASET, Workers};

const SIZE: u64 = 30_000_000;

struct Program {
    child: Child,
    dir: TempDir,
}

impl Program {
    fn mount(workers: &Workers) -> Self {
        let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(keys.path().join("client.key"), workers.keys.client.to_hex()).unwrap();
        fs::write(keys.path().join("peer.pub"), workers.keys.peer.public().to_hex()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_penstock-mount"))
            .args(["mount", "--dataset", DATASET, "--say-ready", "--endpoint", &workers.endpoints().join(",")])
            .arg("--key-dir")
            .arg(keys.path())
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        // From here on the process ends when the test does.
        let program = Self { child, dir };
        let (send, received) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = output.read_line(&mut line);
            let _ = send.send(line);
        });
        assert_eq!(received.recv_timeout(Duration::from_secs(20)).as_deref(), Ok("READY\n"));
        program
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // First of all: a process that waits for its own mount would survive a kill.
        let _ = unmount(self.dir.path(), UnmountFlags::FORCE | UnmountFlags::DETACH);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mounted(dir: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_by_hand_reads_scans_and_ends_at_sigterm() {
    let backend = Arc::new(MemoryBackend::default());
    backend.add_patterned(b"dir/file", SIZE);
    let workers = Workers::new(backend);
    workers.start("w-0").await;
    workers.start("w-1").await;
    workers.publish();
    tokio::task::spawn_blocking(move || {
        let mut program = Program::mount(&workers);
        let dir = program.dir.path().to_owned();
        assert!(mounted(&dir));
        assert!(fs::read(dir.join("dir/file")).unwrap() == MemoryBackend::pattern(0, SIZE));
        workers.kill("w-0");
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        assert!(fs::read(dir.join("dir/file")).unwrap() == MemoryBackend::pattern(0, SIZE));
        kill_process(Pid::from_child(&program.child), Signal::TERM).unwrap();
        assert!(program.ends_within(Duration::from_secs(5)));
        assert!(!mounted(&dir));
    })
    .await
    .unwrap();
}
