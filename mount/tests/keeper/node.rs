//! A node: the plugin and the keeper as programs, workers behind, and readers in the volumes.

use std::{
    any::Any,
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use penstock_mount::{
    backend::Facts,
    csi::request::{POD_NAME, POD_NAMESPACE, POD_UID},
    keeper::{Client, socket_in},
};
use penstock_wire::Keys;
use rustix::{
    fs::{Advice, fadvise},
    process::{Pid, Signal, kill_process},
};

use crate::{
    fleet::{self, Fleet, SOCKETS},
    memory::MemoryBackend,
    rig::{Rig, is_running, map, text},
    workers::{self, Workers},
};

const FILE: &str = "dir/large";
const SIZE: u64 = 24 << 20;
const PIECE: usize = 300_000;

pub(crate) struct Node {
    pub(crate) rig: Rig,
    pub(crate) dataset: &'static str,
    /// Of the cluster that the plugin publishes Events in.
    pub(crate) kubeconfig: Option<PathBuf>,
    key: String,
    public: String,
    endpoints: String,
    /// The workers, until the end of the test.
    _workers: Box<dyn Any + Send>,
    plugin: Option<Child>,
    keeper: Option<Child>,
    http: u16,
}

impl Node {
    /// A worker elsewhere. Without plugin and keeper yet.
    pub(crate) async fn start() -> Self {
        let backend = Arc::new(MemoryBackend::default());
        backend.set_facts(Facts { revalidate: None, uid: 0, gid: 0, workers: 1 });
        backend.add_patterned(FILE.as_bytes(), SIZE);
        let workers = Workers::new(backend);
        workers.start("w-0").await;
        workers.publish();
        let (keys, endpoints) = (workers.keys.clone(), workers.endpoints().join(","));
        Self::with(workers::DATASET, &keys, endpoints, Box::new(workers)).await
    }

    /// A worker on the node itself: it hands out the files that it has whole.
    pub(crate) async fn start_beside_its_worker() -> Self {
        let mut fleet = Fleet::new(0).await;
        fleet.s3.put("data", FILE, MemoryBackend::pattern(0, SIZE)).unwrap();
        fleet.scale(1).await;
        let (keys, endpoints, sockets) =
            (fleet.keys.clone(), fleet.workers[0].member.addr.clone(), fleet.dir.join(SOCKETS));
        let node = Self::with(fleet::DATASET, &keys, endpoints, Box::new(fleet)).await;
        let there = node.rig.options.state_dir.join("sockets").join(fleet::DATASET);
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(sockets, there).unwrap();
        node
    }

    async fn with(dataset: &'static str, keys: &Keys, endpoints: String, workers: Box<dyn Any + Send>) -> Self {
        let mut rig = Rig::start().await;
        rig.halt().await;
        let http = penstock_testkit::process::free_port().unwrap();
        let (key, public) = (keys.client.to_hex(), keys.peer.public().to_hex());
        Self {
            rig,
            dataset,
            kubeconfig: None,
            key,
            public,
            endpoints,
            _workers: workers,
            plugin: None,
            keeper: None,
            http,
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn keeper_socket(&self) -> PathBuf {
        socket_in(&self.rig.options.state_dir)
    }

    /// As in its container, in a PID namespace of its own: the plugin has no number there.
    pub(crate) fn start_keeper(&mut self) {
        self.keeper = Some(self.another_keeper());
    }

    /// A successor while the keeper still runs; the old one is killed once `meanwhile` is over.
    pub(crate) fn replace_keeper(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let new = self.another_keeper();
        let old = self.keeper.replace(new);
        meanwhile(self);
        end(old);
    }

    fn another_keeper(&self) -> Child {
        let socket = self.keeper_socket();
        let place = || fs::metadata(&socket).map(|found| (found.ino(), found.ctime_nsec())).ok();
        let before = place();
        let program = env!("CARGO_BIN_EXE_penstock-keeper");
        let mut apart = Command::new("unshare");
        apart.args(["--pid", "--fork", "--kill-child", program]).arg(&socket);
        let keeper = apart.spawn().unwrap();
        while place() == before || Client::connect(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        keeper
    }

    pub(crate) async fn start_plugin(&mut self) {
        let options = &self.rig.options;
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock-mount"));
        command
            .args(["csi", "--node-id", "node-1", "--endpoint", &options.endpoint])
            .arg("--registration-dir")
            .arg(options.registration_dir.as_ref().unwrap())
            .arg("--kubelet-dir")
            .arg(options.kubelet_dir.as_ref().unwrap())
            .arg("--state-dir")
            .arg(&options.state_dir)
            .args(["--http-port", &self.http.to_string()]);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        self.plugin = Some(command.spawn().unwrap());
        // Bound after everything was taken over.
        while tokio::net::UnixStream::connect(self.rig.socket()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As a container ends: the program first, then all that it has started.
    pub(crate) fn kill_plugin(&mut self) {
        if let Some(plugin) = &mut self.plugin {
            plugin.kill().unwrap();
        }
        self.plugin_ends();
    }

    /// As kubelet ends a container in time.
    pub(crate) fn tell_plugin_to_end(&self) {
        let plugin = Pid::from_child(self.plugin.as_ref().unwrap());
        kill_process(plugin, Signal::TERM).unwrap();
    }

    /// Once the program has ended, all that it has started.
    pub(crate) fn plugin_ends(&mut self) {
        let serving = self.rig.processes();
        if let Some(mut plugin) = self.plugin.take() {
            plugin.wait().unwrap();
        }
        for process in serving {
            let _ = kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
            while is_running(process) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    pub(crate) fn kill_keeper(&mut self) {
        end(self.keeper.take());
        while Client::connect(&self.keeper_socket()).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn kill_both(&mut self) {
        self.kill_keeper();
        self.kill_plugin();
    }

    /// Stages and publishes, as kubelet does.
    pub(crate) async fn publish(&self, pod: &str) {
        let (secrets, context) = (
            map(&[("client.key", self.key()), ("peer.pub", &self.public)]),
            map(&[("dataset", self.dataset), ("endpoint", &self.endpoints)]),
        );
        let mut stage = self.rig.stage_request();
        (stage.secrets, stage.volume_context) = (secrets.clone(), context.clone());
        self.rig.node().await.node_stage_volume(stage).await.unwrap();
        let mut publish = self.rig.publish_request(pod);
        let (name, uid) = (pod.to_owned(), format!("uid-{pod}"));
        let added = [(POD_NAMESPACE, "default".to_owned()), (POD_NAME, name), (POD_UID, uid)];
        (publish.secrets, publish.volume_context) = (secrets, context);
        publish.volume_context.extend(added.map(|(key, value)| (key.to_owned(), value)));
        self.rig.node().await.node_publish_volume(publish).await.unwrap();
    }

    pub(crate) async fn leave(&self, pods: &[&str]) {
        for pod in pods {
            self.rig.unpublish(pod).await.unwrap();
        }
        self.rig.unstage().await.unwrap();
    }

    pub(crate) fn check(&self, pod: &str) {
        check(&self.open(pod), SIZE / 2).unwrap();
    }

    pub(crate) fn open(&self, pod: &str) -> File {
        File::open(self.rig.target(pod).join(FILE)).unwrap()
    }

    /// Reads all of it; whether that needs nobody who serves the mount is seen by who calls this while nobody does.
    pub(crate) async fn read_whole(file: &File) -> std::io::Result<()> {
        let file = file.try_clone()?;
        let read = tokio::task::spawn_blocking(move || {
            (0..SIZE / PIECE as u64).try_for_each(|piece| check(&file, piece * PIECE as u64))
        });
        tokio::time::timeout(Duration::from_secs(30), read).await.unwrap_or_else(|_| panic!("nobody answers")).unwrap()
    }

    /// Until the keeper has so many mounts.
    pub(crate) async fn until_kept(&self, count: usize) {
        loop {
            let kept = Client::connect(&self.keeper_socket()).unwrap().all().unwrap();
            if kept.len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// No mount, no process, no record, nothing with the keeper.
    pub(crate) async fn assert_nothing_is_left(&self) {
        assert!(self.rig.mounts().is_empty() && self.rig.processes().is_empty());
        for folder in ["staged", "published"] {
            let left = fs::read_dir(self.rig.options.state_dir.join(folder)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{folder}");
        }
        if self.keeper.is_some() {
            self.until_kept(0).await;
        }
        let fuse = |pid: u32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            open.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| text(&to) == "/dev/fuse"))
                .count()
        };
        let plugin = self.plugin.as_ref().map(Child::id);
        for program in plugin.into_iter().chain(self.keeper.as_ref().map(only_child)) {
            assert_eq!(fuse(program), 0);
        }
    }

    /// A number that the plugin shows.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let port = self.http;
        let shown = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut shown = String::new();
            stream.read_to_string(&mut shown).unwrap();
            shown
        });
        let shown = shown.await.unwrap();
        let value = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in {shown}")).parse().unwrap()
    }
}

/// Whoever still waits gets an error once nobody holds the descriptor.
impl Drop for Node {
    fn drop(&mut self) {
        self.kill_both();
    }
}

/// Of `unshare`: what it runs.
fn only_child(parent: &Child) -> u32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.id())).unwrap();
    children.trim().parse().unwrap()
}

fn end(program: Option<Child>) {
    if let Some(mut program) = program {
        program.kill().unwrap();
        program.wait().unwrap();
    }
}

fn check(file: &File, offset: u64) -> std::io::Result<()> {
    // From the mount, not from the page cache.
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mut data = vec![0; PIECE];
    file.read_exact_at(&mut data, offset)?;
    let right = data == MemoryBackend::pattern(offset, PIECE as u64);
    if right { Ok(()) } else { Err(std::io::Error::other(format!("wrong bytes at {offset}"))) }
}

/// Who reads all the while: one through a file that stays open, one that opens anew, one that lists.
pub(crate) struct Readers {
    over: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Readers {
    pub(crate) fn start(node: &Node, pod: &str) -> Self {
        let (folder, path) = (node.rig.target(pod).join("dir"), node.rig.target(pod).join(FILE));
        let open = File::open(&path).unwrap();
        let (over, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let offset = |turn: u64| turn * 7_654_321 % (SIZE - PIECE as u64);
        let deeds: Vec<Box<dyn Fn(u64) -> std::io::Result<()> + Send>> = vec![
            Box::new(move |turn| check(&open, offset(turn))),
            Box::new(move |turn| check(&File::open(&path)?, offset(turn))),
            Box::new(move |_| {
                let names: Vec<_> = fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
                assert_eq!(names.len(), 1);
                Ok(())
            }),
        ];
        let start = |deed: Box<dyn Fn(u64) -> std::io::Result<()> + Send>| {
            let (over, read) = (over.clone(), read.clone());
            std::thread::spawn(move || {
                let mut turn = 0;
                while !over.load(Ordering::Relaxed) {
                    deed(turn)?;
                    turn += 1;
                    read.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let threads = deeds.into_iter().map(start).collect();
        Self { over, read, threads }
    }

    /// How often something was read.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Until much more has been read, by all of them.
    pub(crate) async fn go_on(&self, before: u64) {
        while self.read() < before + 20 && self.threads.iter().all(|thread| !thread.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a reader has given up");
    }

    /// Ends them; none has met an error.
    pub(crate) fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
    }
}
