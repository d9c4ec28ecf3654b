//! What people use today, mounted beside us: same data, same S3 server, cache in memory as ours.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use penstock_testkit::{
    process::{ChildGuard, Spawn},
    tools,
};
use rustix::mount::{UnmountFlags, unmount};

use super::node::Bucket;

#[derive(Clone, Copy)]
pub(super) enum Peer {
    JuiceFs,
    Rclone,
    S3fs,
}

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::JuiceFs, Self::Rclone, Self::S3fs];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::JuiceFs => "juicefs",
            Self::Rclone => "rclone",
            Self::S3fs => "s3fs",
        }
    }

    /// Mounts `bucket`, that holds what is in `data`. `JuiceFS` has a format of its own: it gets the data written, to the same
    /// bucket below a prefix. Blocks.
    pub(super) fn mount(self, bucket: &Bucket, data: &Path) -> anyhow::Result<Mounted> {
        let folder = tempfile::Builder::new().prefix("penstock-peer.").tempdir_in("/dev/shm")?;
        for name in ["mount", "cache", "tmp"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let spawn = match self {
            Self::JuiceFs => juicefs(bucket, folder.path()),
            Self::Rclone => rclone(bucket, folder.path()),
            Self::S3fs => s3fs(bucket, folder.path()),
        }?;
        let mut mounted = Mounted { process: spawn.start()?, folder };
        mounted.wait()?;
        if let Self::JuiceFs = self {
            let cp = ["-r", &format!("{}/.", data.display()), &mounted.path().display().to_string()];
            tools::run(Command::new("cp").args(cp))?;
        }
        Ok(mounted)
    }
}

fn juicefs(bucket: &Bucket, folder: &Path) -> anyhow::Result<Spawn> {
    let program = tools::juicefs()?;
    let meta = format!("sqlite3://{}", folder.join("meta.db").display());
    let mut format = Command::new(&program);
    format.args(["format", "--storage", "s3", "--no-update", "--trash-days", "0", "--bucket"]);
    format.arg(format!("{}/{}", bucket.endpoint, bucket.name)).env("ACCESS_KEY", &bucket.access_key);
    tools::run(format.env("SECRET_KEY", &bucket.secret_key).args([&meta, "juicefs"]))?;
    Ok(Spawn::new(program, folder.join("log"))
        .args(["mount", "--no-usage-report", "--cache-size=16384", "--free-space-ratio=0.01"])
        .arg(format!("--cache-dir={}", folder.join("cache").display()))
        .arg(meta)
        .arg(folder.join("mount")))
}

fn rclone(bucket: &Bucket, folder: &Path) -> anyhow::Result<Spawn> {
    let spawn = Spawn::new(tools::rclone()?, folder.join("log"))
        .args(["mount", "--read-only", "--vfs-cache-mode=full", "--dir-cache-time=1h", "--vfs-fast-fingerprint"])
        .arg(format!("--cache-dir={}", folder.join("cache").display()))
        .arg(remote(bucket))
        .arg(folder.join("mount"));
    Ok(rclone_environment(bucket).into_iter().fold(spawn, |spawn, (name, value)| spawn.env(name, value)))
}

fn s3fs(bucket: &Bucket, folder: &Path) -> anyhow::Result<Spawn> {
    let keys = folder.join("keys");
    std::fs::write(&keys, format!("{}:{}", bucket.access_key, bucket.secret_key))?;
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let options = format!(
        "ro,url={},use_path_request_style,use_cache={},tmpdir={},passwd_file={},stat_cache_expire=3600",
        bucket.endpoint,
        folder.join("cache").display(),
        folder.join("tmp").display(),
        keys.display()
    );
    let spawn = Spawn::new(tools::debian("s3fs", "s3fs")?, folder.join("log")).arg(&bucket.name);
    Ok(spawn.arg(folder.join("mount")).args(["-f", "-o", &options]))
}

/// Copies a folder's files into the bucket. Blocks.
pub(super) fn fill(bucket: &Bucket, data: &Path) -> anyhow::Result<()> {
    let mut copy = Command::new(tools::rclone()?);
    copy.args(["copy", "--transfers=16", "--checkers=16"]).arg(data).arg(remote(bucket));
    tools::run(copy.envs(rclone_environment(bucket)))
}

fn remote(bucket: &Bucket) -> String {
    format!(":s3:{}", bucket.name)
}

fn rclone_environment(bucket: &Bucket) -> [(&'static str, &str); 6] {
    [
        ("RCLONE_CONFIG", "/dev/null"),
        ("RCLONE_S3_PROVIDER", "SeaweedFS"),
        ("RCLONE_S3_ENDPOINT", &bucket.endpoint),
        ("RCLONE_S3_ACCESS_KEY_ID", &bucket.access_key),
        ("RCLONE_S3_SECRET_ACCESS_KEY", &bucket.secret_key),
        ("RCLONE_S3_NO_CHECK_BUCKET", "true"),
    ]
}

/// A mounted peer; unmounted and ended when dropped.
pub(super) struct Mounted {
    process: ChildGuard,
    folder: tempfile::TempDir,
}

impl Mounted {
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let point = format!(" {} ", self.path().display());
        while !std::fs::read_to_string("/proc/self/mountinfo")?.contains(&point) {
            self.process.ensure_running()?;
            ensure!(Instant::now() < deadline, "{} has not mounted in 30 s", self.process.name());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Without its mount it ends by itself, and at the latest with the guard.
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            eprintln!("unmounting {}: {error}", self.path().display());
        }
        self.process.stop(Duration::from_secs(10));
    }
}
