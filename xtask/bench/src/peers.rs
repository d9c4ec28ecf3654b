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

use super::{fleet::Place, scratch::Scratch, source::Bucket};

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

    /// Mounts `bucket`, that holds what is in `data`, at `place`. `JuiceFS` has a format of its own: it gets the data written, to
    /// the same bucket below a prefix. Blocks.
    pub(super) fn mount<'a>(self, place: &'a Place, bucket: &'a Bucket, data: &Path) -> anyhow::Result<Mounted<'a>> {
        let folder = Scratch::in_memory()?;
        for name in ["mount", "cache", "tmp"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        if let Self::JuiceFs = self {
            format_juicefs(place, bucket, folder.path())?;
        }
        let process = self.serve(place, bucket, folder.path())?;
        let mounted = Mounted { process, peer: self, place, bucket, folder };
        if let Self::JuiceFs = self {
            let cp = ["-r", &format!("{}/.", data.display()), &mounted.path().display().to_string()];
            tools::run(Command::new("cp").args(cp))?;
        }
        Ok(mounted)
    }

    /// Starts its process and waits for the mount.
    fn serve(self, place: &Place, bucket: &Bucket, folder: &Path) -> anyhow::Result<ChildGuard> {
        let spawn = match self {
            Self::JuiceFs => juicefs(place, folder),
            Self::Rclone => rclone(place, bucket, folder),
            Self::S3fs => s3fs(place, bucket, folder),
        }?;
        let mut process = spawn.start()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let point = format!(" {} ", folder.join("mount").display());
        while !std::fs::read_to_string("/proc/self/mountinfo")?.contains(&point) {
            process.ensure_running()?;
            ensure!(Instant::now() < deadline, "{} has not mounted in 30 s", self.name());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(process)
    }
}

fn juicefs_meta(folder: &Path) -> String {
    format!("sqlite3://{}", folder.join("meta.db").display())
}

fn format_juicefs(place: &Place, bucket: &Bucket, folder: &Path) -> anyhow::Result<()> {
    let mut format = Command::new(tools::juicefs()?);
    format.args(["format", "--storage", "s3", "--no-update", "--trash-days", "0", "--bucket"]);
    format.arg(format!("{}/{}", bucket.endpoint, bucket.name)).env("ACCESS_KEY", &bucket.access_key);
    format.env("SECRET_KEY", &bucket.secret_key).args([&juicefs_meta(folder), "juicefs"]);
    place.output(&mut format).map(drop)
}

fn juicefs(place: &Place, folder: &Path) -> anyhow::Result<Spawn> {
    Ok(place
        .spawn(&tools::juicefs()?, folder.join("log"))
        .args(["mount", "--no-usage-report", "--cache-size=16384", "--free-space-ratio=0.01"])
        .arg(format!("--cache-dir={}", folder.join("cache").display()))
        .arg(juicefs_meta(folder))
        .arg(folder.join("mount")))
}

fn rclone(place: &Place, bucket: &Bucket, folder: &Path) -> anyhow::Result<Spawn> {
    // It mounts by this program.
    tools::debian("fusermount3", "fuse3")?;
    let spawn = place
        .spawn(&tools::rclone()?, folder.join("log"))
        .args(["mount", "--read-only", "--vfs-cache-mode=full", "--dir-cache-time=1h", "--vfs-fast-fingerprint"])
        .arg(format!("--cache-dir={}", folder.join("cache").display()))
        .arg(remote(bucket))
        .arg(folder.join("mount"));
    Ok(rclone_environment(bucket).into_iter().fold(spawn, |spawn, (name, value)| spawn.env(name, value)))
}

fn s3fs(place: &Place, bucket: &Bucket, folder: &Path) -> anyhow::Result<Spawn> {
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
    let spawn = place.spawn(&tools::debian("s3fs", "s3fs")?, folder.join("log")).arg(&bucket.name);
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
pub(super) struct Mounted<'a> {
    process: ChildGuard,
    peer: Peer,
    place: &'a Place,
    bucket: &'a Bucket,
    folder: Scratch,
}

impl Mounted<'_> {
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Mounts anew with an empty cache. Blocks.
    pub(super) fn cool(&mut self) -> anyhow::Result<()> {
        self.end();
        let cache = self.folder.path().join("cache");
        std::fs::remove_dir_all(&cache)?;
        std::fs::create_dir(&cache)?;
        self.process = self.peer.serve(self.place, self.bucket, self.folder.path())?;
        Ok(())
    }

    fn end(&mut self) {
        // Without its mount it ends by itself.
        self.folder.detach();
        self.process.stop(Duration::from_secs(10));
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
