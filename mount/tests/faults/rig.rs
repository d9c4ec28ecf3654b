//! Real workers on real tiers, an S3 server that fails on demand, proxies that break, and a disk that can be filled.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use penstock_model::Medium;
use penstock_mount::spec::{KeyHex, MountSpec, Passthrough, Tuning};
use penstock_testkit::{proxy::Gate, s3::Faults};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::time::sleep;

use crate::{
    fleet::{DATASET, Fleet, Plan, SOCKETS},
    model::{Model, Wrong},
    program::{FILES, FleetShape, Room, Trouble},
};

/// Longer than any trouble: who fails does so for another reason.
const PATIENCE: Duration = Duration::from_mins(1);
/// Of the connections of a slow worker, bytes per second.
const SLOW: u64 = 2 << 20;
const BUCKET: &str = "data";

/// A small file system of its own, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        mount("penstock-test", dir.path(), "tmpfs", MountFlags::empty(), &*size).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves nothing to anybody.
    fn fill(&self) {
        let file = File::create(self.filler()).unwrap();
        let mut at = 0;
        while file.write_all_at(&[1; 4096], at).is_ok() {
            at += 4096;
        }
    }

    fn relieve(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

pub struct Rig {
    pub fleet: Fleet,
    shape: FleetShape,
    // After the fleet, which has files open on it.
    disk: Disk,
}

impl Rig {
    pub async fn new(shape: &FleetShape, model: &Model) -> Self {
        let tiers = match shape.room {
            Room::Ample => vec![(Medium::Mem, 128 << 20)],
            Room::Tight => vec![(Medium::Mem, 9 << 20)],
            Room::Tiers => vec![(Medium::Mem, 6 << 20), (Medium::Ssd, 12 << 20)],
        };
        let disk = Disk::new(3 * tiers.iter().map(|(_, quota)| quota).sum::<u64>() + (8 << 20));
        let plan =
            Plan { tiers, revalidate_ms: Some(shape.revalidate_ms), proxied: true, processes: true, ..Plan::default() };
        let fleet = Fleet::planned(0, plan, disk.path()).await;
        let mut rig = Self { fleet, shape: shape.clone(), disk };
        // Before the workers start: they would believe for a while that there are none.
        (0..FILES).for_each(|file| rig.replace(model, file, false));
        rig.fleet.scale(shape.workers).await;
        rig
    }

    /// What a mount of this fleet is told.
    pub fn spec(&self, passthrough: Passthrough) -> MountSpec {
        MountSpec {
            dataset: DATASET.into(),
            endpoints: self.fleet.workers.iter().map(|worker| worker.member.addr.clone()).collect(),
            client_key: KeyHex(self.fleet.keys.client.to_hex()),
            peer_public: self.fleet.keys.peer.public().to_hex(),
            socket_dir: self.shape.local.then(|| self.fleet.dir.join(SOCKETS)),
            read_only: true,
            allow_other: true,
            tuning: Tuning {
                readahead_bytes: Some(4 << 20),
                readahead_total_bytes: 8 << 20,
                patience_ms: PATIENCE.as_millis() as u64,
                probe_after_ms: 200,
                passthrough,
            },
        }
    }

    fn replace(&self, model: &Model, file: usize, other_size: bool) {
        let content = model.replace(file, other_size);
        self.fleet.s3.put(BUCKET, &Model::name(file), content).unwrap();
    }

    pub async fn strike(&mut self, model: &Model, trouble: &Trouble) {
        match *trouble {
            Trouble::UfsErrors(count) => self.ufs(|faults| faults.fail_gets = count),
            Trouble::UfsThrottles(count) => self.ufs(|faults| faults.throttle_gets = count),
            Trouble::UfsShort(count) => self.ufs(|faults| faults.short_bodies = count),
            Trouble::UfsListErrors(count) => self.ufs(|faults| faults.fail_lists = count),
            Trouble::UfsSlow(delay) => self.ufs(|faults| faults.delay = Some(delay)),
            Trouble::UfsCuts { count, after } => self.ufs(|faults| {
                faults.cut_bodies = count;
                faults.cut_after = after;
            }),
            Trouble::Break { worker, after } => {
                self.worker(worker).proxy.iter().for_each(|proxy| proxy.break_after(after));
            }
            Trouble::Cut { worker } => self.gate_one(worker, Gate::Cut),
            Trouble::Stall { worker } => self.gate_one(worker, Gate::Stalled),
            Trouble::Slow { worker } => self.gate_one(worker, Gate::Slow(SLOW)),
            Trouble::FillDisk => self.disk.fill(),
            Trouble::Heal => self.heal(),
            Trouble::Replace { file, other_size } => self.replace(model, file, other_size),
            Trouble::Restart { worker } => self.restart(worker, || {}).await,
            // Who reads by a descriptor is not protected from what rots after the check.
            Trouble::Rot { .. } if self.shape.local => {}
            Trouble::Rot { worker, file, at } => {
                let id = self.worker(worker).member.id.clone();
                let tiers = [0, 1].map(|tier| self.fleet.tier_dir(&id, tier));
                self.restart(worker, move || rot(&tiers, file, at)).await;
            }
            Trouble::Scale { to } => {
                // An operator takes nobody away whose extents it cannot have handed over.
                self.heal();
                if to != self.fleet.workers.len() {
                    self.fleet.scale(to).await;
                }
            }
        }
    }

    /// All troubles end.
    pub fn heal(&self) {
        self.ufs(|faults| *faults = Faults::default());
        self.gates(Gate::Open);
        self.disk.relieve();
    }

    fn ufs(&self, change: impl FnOnce(&mut Faults)) {
        self.fleet.s3.faults(change);
    }

    fn gates(&self, gate: Gate) {
        self.fleet.workers.iter().for_each(|worker| worker.gate(gate));
    }

    /// At most one worker is out of reach at a time: with none left, nobody could read.
    fn gate_one(&self, worker: usize, gate: Gate) {
        self.gates(Gate::Open);
        if self.fleet.workers.len() > 1 || matches!(gate, Gate::Slow(_)) {
            self.worker(worker).gate(gate);
        }
    }

    fn worker(&self, worker: usize) -> &crate::fleet::Worker {
        &self.fleet.workers[worker % self.fleet.workers.len()]
    }

    async fn restart(&mut self, worker: usize, meanwhile: impl FnOnce()) {
        let at = worker % self.fleet.workers.len();
        let worker = &mut self.fleet.workers[at];
        worker.kill();
        meanwhile();
        worker.start();
        let worker = &self.fleet.workers[at];
        self.fleet.ready(worker).await;
        worker.gate(Gate::Open);
    }

    /// Everybody reads what is there now; where all has room, without the UFS being asked twice.
    pub async fn settle(&self) {
        self.heal();
        // The worker's answers and the mount's copies of them.
        sleep(Duration::from_millis(2 * self.shape.revalidate_ms + 300)).await;
    }

    /// Reads by `pass` until the UFS sends nothing any more.
    pub async fn warms_up(&self, mut pass: impl AsyncFnMut() -> Result<(), Wrong>) -> Result<(), Wrong> {
        let begun = Instant::now();
        loop {
            self.fleet.s3.reset_counts();
            pass().await?;
            let sent = self.fleet.s3.sent_bytes();
            if sent == 0 {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(15) {
                return Err(format!("the UFS still sends {sent} bytes for a pass over what is cached"));
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    pub fn has_room_for_all(&self) -> bool {
        self.shape.room == Room::Ample
    }

    pub async fn stop(mut self) {
        self.gates(Gate::Cut);
        for worker in &mut self.fleet.workers {
            worker.stop().await;
        }
    }
}

/// Changes one byte of one of the cached files.
fn rot(tiers: &[PathBuf], file: usize, at: f64) {
    let mut files: Vec<PathBuf> = tiers.iter().flat_map(|tier| data_files(&tier.join("objects"))).collect();
    files.sort();
    if files.is_empty() {
        return;
    }
    let file = File::options().read(true).write(true).open(&files[file % files.len()]).unwrap();
    let offset = (file.metadata().unwrap().len() as f64 * at) as u64;
    let mut byte = [0];
    // Beyond the end of an empty file there is nothing to change.
    if file.read_exact_at(&mut byte, offset).is_ok() {
        // A full disk takes no byte into a hole.
        let _ = file.write_all_at(&[byte[0] ^ 0x10], offset);
    }
}

fn data_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let found = paths.flat_map(|path| if path.is_dir() { data_files(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "data")).collect()
}
