//! `penstock local` as a user types it: real workers, a real mount, an S3 server in this process.
//! Needs the other programs beside this one: `cargo build --workspace` first, as `cargo xtask test` does.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use penstock_cli::local::{Fleet, UpOptions};
use penstock_testkit::s3::{S3Options, S3Server};
use rustix::fs::{Advice, fadvise};
use serde_json::Value;

const API: &str = "apiVersion: penstock.dev/v1alpha1";

/// One user's machine; what is up goes down with it.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn penstock(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
        command.arg("local").args(args).env("PENSTOCK_STATE_DIR", self.path("state")).output().unwrap()
    }

    /// Runs a command that must succeed; returns what it printed.
    fn must(&self, args: &[&str]) -> String {
        let output = self.penstock(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "penstock local {args:?}: {out}{err}");
        out.into_owned()
    }

    fn up(&self, manifest: &str) -> PathBuf {
        fs::write(self.path("manifest.yaml"), manifest).unwrap();
        let (file, mount) = (self.path("manifest.yaml"), self.path("mnt"));
        self.must(&["up", "--file", file.to_str().unwrap(), "--mount", mount.to_str().unwrap()]);
        mount
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.must(&["status", "--output", "json"])).unwrap()
    }

    fn wait_cached(&self, bytes: u64) {
        let cached =
            || self.status()["workers"].as_array().unwrap().iter().filter_map(|w| w["cachedBytes"].as_u64()).sum();
        for _ in 0..300 {
            let now: u64 = cached();
            if now >= bytes {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{} of {bytes} bytes are cached after 30 s", cached());
    }

    fn pids(&self) -> Vec<i64> {
        self.status()["workers"].as_array().unwrap().iter().map(|worker| worker["pid"].as_i64().unwrap()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.penstock(&["down"]);
    }
}

fn manifest(server: &S3Server, replicas: u32) -> String {
    format!(
        "kind: Secret\nmetadata: {{name: keys}}\nstringData: {{a: {access}, s: {secret}}}\n---\n\
         apiVersion: penstock.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: prices}}\nspec:\n  mounts:\n  - mountPoint: s3://data\n    path: /\n    \
         options: {{endpoint: '{endpoint}', region: us-east-1}}\n    encryptOptions:\n    \
         - {{name: access-key, valueFrom: {{secretKeyRef: {{name: keys, key: a}}}}}}\n    \
         - {{name: secret-key, valueFrom: {{secretKeyRef: {{name: keys, key: s}}}}}}\n---\n\
         apiVersion: penstock.dev/v1alpha1\nkind: CacheRuntime\nmetadata: {{name: prices}}\nspec:\n  replicas: {replicas}\n  \
         tieredStore: {{levels: [{{mediumType: MEM, quota: 64Mi}}]}}\n",
        access = server.access_key(),
        secret = server.secret_key(),
        endpoint = server.endpoint(),
    )
}

fn server_with(files: usize) -> S3Server {
    let server = S3Server::start_on_own_threads(S3Options::default()).unwrap();
    for index in 0..files {
        server.put("data", &format!("day/{index:03}.csv"), content(index)).unwrap();
    }
    server
}

fn content(index: usize) -> Vec<u8> {
    (0..50_000 + index * 7919).map(|at| (at * (index + 3) % 251) as u8).collect()
}

fn read_all(mount: &Path, files: usize) {
    for index in 0..files {
        let path = mount.join(format!("day/{index:03}.csv"));
        assert!(fs::read(&path).unwrap() == content(index), "file {index} differs");
        // So that the next pass asks the workers and not the kernel.
        fadvise(fs::File::open(&path).unwrap(), 0, None, Advice::DontNeed).unwrap();
    }
}

#[test]
fn a_dataset_is_cached_scaled_and_gone_without_a_trace() {
    let (machine, server) = (Machine::new(), server_with(24));
    let mount = machine.up(&manifest(&server, 2));
    read_all(&mount, 24);
    let fetched = server.sent_bytes();
    assert_eq!(fetched, (0..24).map(|index| content(index).len() as u64).sum::<u64>());

    for replicas in ["4", "1"] {
        machine.must(&["scale", replicas]);
        read_all(&mount, 24);
        assert_eq!(server.sent_bytes(), fetched, "scaling to {replicas} asked the store again");
    }
    let status = machine.status();
    assert_eq!(status["dataset"], "default/prices");
    assert_eq!(status["workers"].as_array().unwrap().len(), 1);
    assert_eq!(status["workers"][0]["state"], "serving");
    let cached = status["workers"][0]["cachedBytes"].as_u64().unwrap();
    assert!(cached >= fetched, "{cached} of {fetched} bytes are with the worker that stayed");

    let pids = machine.pids();
    machine.must(&["down"]);
    // A zombie that nobody has collected yet has no command line.
    let runs = |pid: &i64| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(!pids.iter().any(runs), "workers are still there");
    assert!(fs::read_dir(&mount).unwrap().next().is_none(), "still mounted");
    assert!(!machine.path("state/default.prices").exists());
}

#[test]
fn a_load_warms_what_it_names_and_takes_it_out_again() {
    let (machine, server) = (Machine::new(), server_with(6));
    let mount = machine.up(&manifest(&server, 2));
    let load = |spec: &str| {
        let list = "kind: ConfigMap\nmetadata: {name: list}\ndata: {files: \"/day/004.csv\\n/day/005.csv\"}";
        let load = format!("kind: DataLoad\nmetadata: {{name: warm}}\nspec: {{dataset: prices, {spec}}}");
        fs::write(machine.path("load.yaml"), format!("apiVersion: v1\n{list}\n---\n{API}\n{load}\n")).unwrap();
        machine.penstock(&["load", "--file", machine.path("load.yaml").to_str().unwrap()])
    };
    let targets = "targets: [{glob: '/day/00[01].csv'}, {configMap: {name: list, key: files}}]";
    let output = load(targets);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("in 4 files are in the cache"), "{said}{output:?}");
    let fetched = server.sent_bytes();
    let wanted = || [0, 1, 4, 5].into_iter();
    assert_eq!(fetched, wanted().map(|index| content(index).len() as u64).sum::<u64>());
    for index in wanted() {
        assert!(fs::read(mount.join(format!("day/{index:03}.csv"))).unwrap() == content(index), "file {index} differs");
    }
    assert_eq!(server.sent_bytes(), fetched, "what was loaded is not fetched again");
    machine.wait_cached(fetched);

    let output = load("targets: [{path: /day/000.csv}], action: Evict");
    assert!(output.status.success(), "{output:?}");
    let cached: u64 =
        machine.status()["workers"].as_array().unwrap().iter().filter_map(|w| w["cachedBytes"].as_u64()).sum();
    assert_eq!(cached, fetched - content(0).len() as u64);

    for (spec, expected) in [
        ("targets: [{path: /day/none.csv}]", "none.csv"),
        ("targets: [{configMap: {name: other, key: files}}]", "ConfigMap 'other'"),
        ("policy: OnChange", "leave spec.policy out"),
        ("runAfter: {name: first}", "leave runAfter out"),
    ] {
        let output = load(spec);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{spec}: {said}");
    }
}

#[test]
fn up_again_starts_what_died_and_keeps_what_it_held() {
    let (machine, server) = (Machine::new(), server_with(8));
    let mount = machine.up(&manifest(&server, 2));
    read_all(&mount, 8);
    let fetched = server.sent_bytes();
    // What a reader has got may still be on its way to the tier.
    machine.wait_cached(fetched);
    let victim = machine.pids()[0];
    assert!(Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap().success());
    machine.up(&manifest(&server, 2));
    assert!(machine.status()["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "serving"));
    read_all(&mount, 8);
    assert_eq!(server.sent_bytes(), fetched, "the memory tier outlives its worker's process");
}

#[test]
fn a_mount_whose_workers_are_all_new_finds_them() {
    let (machine, server) = (Machine::new(), server_with(8));
    let mount = machine.up(&manifest(&server, 2));
    read_all(&mount, 4);
    for victim in machine.pids() {
        assert!(Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap().success());
    }
    machine.up(&manifest(&server, 2));
    read_all(&mount, 8);
}

#[test]
fn a_worker_whose_port_was_taken_is_started_again() {
    let (machine, server) = (Machine::new(), server_with(1));
    fs::write(machine.path("manifest.yaml"), manifest(&server, 1)).unwrap();
    let programs = machine.path("programs");
    fs::create_dir(&programs).unwrap();
    let penstock = Path::new(env!("CARGO_BIN_EXE_penstock"));
    symlink(penstock.with_file_name("penstock-mount"), programs.join("penstock-mount")).unwrap();
    // The first start ends as one does whose address is in use.
    let (taken, worker) = (programs.join("taken"), penstock.with_file_name("penstock-worker"));
    let script = format!(
        "#!/bin/sh\n[ -e {0} ] || {{ touch {0}; echo Address already in use >&2; exit 1; }}\nexec {1} \"$@\"\n",
        taken.display(),
        worker.display(),
    );
    fs::write(programs.join("penstock-worker"), script).unwrap();
    fs::set_permissions(programs.join("penstock-worker"), fs::Permissions::from_mode(0o700)).unwrap();
    let (file, base, mount) = (machine.path("manifest.yaml"), machine.path("state"), Some(machine.path("mnt")));
    let options = UpOptions { file, mount, base, programs: Some(programs) };
    tokio::runtime::Runtime::new().unwrap().block_on(Fleet::up(&options)).unwrap();
    assert!(taken.exists());
    read_all(&machine.path("mnt"), 1);
}

#[test]
fn what_else_lies_in_the_state_folder_is_no_dataset() {
    let (machine, server) = (Machine::new(), server_with(1));
    machine.up(&manifest(&server, 1));
    fs::write(machine.path("state").join("cluster.lock"), "").unwrap();
    fs::create_dir(machine.path("state").join("cluster")).unwrap();
    machine.must(&["down"]);
    assert!(!machine.path("state").join("default.prices").exists());
}

#[test]
fn a_plain_error_comes_without_a_backtrace() {
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["local", "down", "--state-dir", "/nonexistent"])
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("Error: "), "{said}");
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let (machine, server) = (Machine::new(), server_with(1));
    for (from, to, expected) in [
        ("s3://data", "gopher://data", "s3://"),
        ("key: a}", "key: absent}", "absent"),
        ("quota: 64Mi", "quota: many", "quota"),
        ("kind: CacheRuntime", "kind: Other", "CacheRuntime"),
    ] {
        fs::write(machine.path("manifest.yaml"), manifest(&server, 1).replace(from, to)).unwrap();
        let output = machine.penstock(&["up", "--file", machine.path("manifest.yaml").to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{to}: {said}");
    }
    let output = machine.penstock(&["status"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("penstock local up"), "says what to do");
}
