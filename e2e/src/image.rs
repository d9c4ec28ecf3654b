//! Container images without a registry: a `docker-archive` of one layer, for `ctr images import`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use penstock_testkit::tools;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The image of [`toolbox`].
pub const TOOLBOX: &str = "penstock.test/toolbox:e2e";
/// The image of [`penstock`].
pub const PENSTOCK: &str = "penstock.test/penstock:e2e";
/// User and group of [`penstock`]'s programs: those of target `penstock` in `images/Dockerfile`.
const PENSTOCK_USER: &str = "65532:65532";
/// The same programs as another release: what differs is the tag, and a label and with it the digest.
pub const PENSTOCK_NEXT: &str = "penstock.test/penstock:e2e-next";

/// The image with Penstock's programs; `PENSTOCK_E2E_IMAGE` names another, for a cluster of one's own.
pub fn penstock_name() -> String {
    std::env::var("PENSTOCK_E2E_IMAGE").unwrap_or_else(|_| PENSTOCK.into())
}

/// The image of pods that read; `PENSTOCK_E2E_TOOLBOX` names another (any with busybox), for a cluster of one's own.
pub fn toolbox_name() -> String {
    std::env::var("PENSTOCK_E2E_TOOLBOX").unwrap_or_else(|_| TOOLBOX.into())
}

/// Writes an image with a shell, the usual small commands and these programs, for pods that read.
pub fn toolbox(archive: &Path, programs: &[PathBuf]) -> Result<()> {
    Image::new(TOOLBOX).base()?.busybox()?.programs(programs)?.write(archive)
}

/// Writes one image with these programs of ours and a shell, under two tags.
pub fn penstock(archive: &Path, programs: &[PathBuf]) -> Result<()> {
    Image::new(PENSTOCK).user(PENSTOCK_USER).also(PENSTOCK_NEXT).base()?.busybox()?.programs(programs)?.write(archive)
}

/// An image in the making.
pub struct Image {
    /// With their tags.
    names: Vec<String>,
    layer: Builder<Vec<u8>>,
    /// Paths in the layer (without the leading slash), so that none is there twice.
    paths: BTreeSet<PathBuf>,
    user: String,
    entrypoint: Vec<String>,
}

impl Image {
    /// An empty image; `name` with its tag.
    pub fn new(name: &str) -> Self {
        let layer = Builder::new(Vec::new());
        Self { names: vec![name.into()], layer, paths: BTreeSet::new(), user: String::new(), entrypoint: Vec::new() }
    }

    /// User and group (`UID:GID`) of containers whose pods name none; root's when this is not called.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// The same content under another name, with another digest.
    #[must_use]
    pub fn also(mut self, name: &str) -> Self {
        self.names.push(name.into());
        self
    }

    /// The command of pods that name none.
    #[must_use]
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(ToString::to_string).collect();
        self
    }

    /// A file of this machine at `path`, executable.
    pub fn file(mut self, source: &Path, path: &str) -> Result<Self> {
        let mut data = Vec::new();
        File::open(source)
            .and_then(|mut file| file.read_to_end(&mut data))
            .with_context(|| source.display().to_string())?;
        self.append(path, EntryType::Regular, 0o755, &data)?;
        Ok(self)
    }

    /// A text file at `path`.
    pub fn text(mut self, path: &str, text: &str) -> Result<Self> {
        self.append(path, EntryType::Regular, 0o644, text.as_bytes())?;
        Ok(self)
    }

    /// A program of ours at `path` (without debug information) and the shared libraries that it names.
    pub fn program(mut self, source: &Path, path: &str) -> Result<Self> {
        for library in libraries(source)? {
            self = self.file(&library, &library.display().to_string())?;
        }
        let stripped = tempfile::NamedTempFile::new()?;
        let strip = tools::find_program("strip");
        let works = strip.map(|strip| Command::new(strip).arg("-o").arg(stripped.path()).arg(source).output());
        match works {
            Some(Ok(output)) if output.status.success() => self.file(stripped.path(), path),
            _ => self.file(source, path),
        }
    }

    /// Programs of ours in `/usr/bin`, named as their files.
    pub fn programs(mut self, sources: &[PathBuf]) -> Result<Self> {
        for source in sources {
            let name = source.file_name().context("a program's path ends in its name")?.to_string_lossy();
            self = self.program(source, &format!("/usr/bin/{name}"))?;
        }
        Ok(self)
    }

    /// A shell and the usual small commands in `/bin`.
    pub fn busybox(mut self) -> Result<Self> {
        let busybox = tools::busybox()?;
        self = self.program(&busybox, "/bin/busybox")?;
        for applet in tools::output(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox") {
            self.link(&format!("/bin/{applet}"), "busybox")?;
        }
        Ok(self)
    }

    /// What programs expect to find: users, a world-writable `/tmp`, the authorities that this machine trusts.
    pub fn base(mut self) -> Result<Self> {
        let users = "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n";
        self.append("/tmp", EntryType::Directory, 0o1777, &[])?;
        self = self.text("/etc/passwd", users)?.text("/etc/group", "root:x:0:\nnonroot:x:65532:\n")?;
        match fs::read_to_string("/etc/ssl/certs/ca-certificates.crt") {
            Ok(authorities) => self.text("/etc/ssl/certs/ca-certificates.crt", &authorities),
            Err(_) => Ok(self),
        }
    }

    /// Writes the archive.
    pub fn write(self, archive: &Path) -> Result<()> {
        let layer = self.layer.into_inner()?;
        let diff = hex(&Sha256::digest(&layer));
        let layer_name = format!("{diff}.tar");
        let configs = self.names.iter().map(|name| config(name, &self.user, &self.entrypoint, &diff));
        let configs: Vec<_> = configs.map(|text| (format!("{}.json", hex(&Sha256::digest(&text))), text)).collect();
        let images = self.names.iter().zip(&configs);
        let manifest = images
            .map(|(name, (config, _))| json!({"Config": config, "RepoTags": [name], "Layers": [layer_name]}))
            .collect::<serde_json::Value>()
            .to_string();
        if let Some(folder) = archive.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::create(archive).with_context(|| archive.display().to_string())?;
        let mut archive = Builder::new(std::io::BufWriter::new(file));
        let configs = configs.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        let others = [(layer_name.as_str(), layer.as_slice()), ("manifest.json", manifest.as_bytes())];
        for (name, data) in configs.chain(others) {
            archive.append(&header(EntryType::Regular, 0o644, name, data.len() as u64)?, data)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parents(path)?;
        if self.paths.insert(path.trim_start_matches('/').into()) {
            let mut header = header(EntryType::Symlink, 0o777, path, 0)?;
            header.set_link_name(target)?;
            header.set_cksum();
            self.layer.append(&header, std::io::empty())?;
        }
        Ok(())
    }

    fn append(&mut self, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> Result<()> {
        self.parents(path)?;
        if self.paths.insert(path.trim_start_matches('/').into()) {
            self.layer.append(&header(kind, mode, path, data.len() as u64)?, data)?;
        }
        Ok(())
    }

    /// The folders above `path`: an unpacked layer would otherwise give them to root alone.
    fn parents(&mut self, path: &str) -> Result<()> {
        let path = Path::new(path.trim_start_matches('/'));
        let mut folders: Vec<&Path> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        folders.reverse();
        for folder in folders {
            if self.paths.insert(folder.to_owned()) {
                let name = folder.to_string_lossy();
                self.layer.append(&header(EntryType::Directory, 0o755, &name, 0)?, std::io::empty())?;
            }
        }
        Ok(())
    }
}

/// The configuration of an image with one layer; its digest is the image's, so the label tells two tags apart.
fn config(name: &str, user: &str, entrypoint: &[String], diff: &str) -> String {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": user,
            "Entrypoint": entrypoint,
            "Env": ["PATH=/bin:/usr/bin"],
            "Labels": {"org.opencontainers.image.ref.name": name},
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
    })
    .to_string()
}

fn header(kind: EntryType, mode: u32, path: &str, size: u64) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(path.trim_start_matches('/')).with_context(|| path.to_owned())?;
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// The shared libraries of a program, the loader among them; none for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// The absolute paths in the output of ldd(1): `NAME => PATH (ADDRESS)`, or the loader's `PATH (ADDRESS)`.
fn parse_ldd(output: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let (path, _) = line.rsplit_once(" (")?;
        let path = path.rsplit_once("=> ").map_or(path, |(_, path)| path).trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    output.lines().filter_map(path).collect()
}

/// The architecture's name in image configurations.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader_but_not_the_kernels_page() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(output), expected);
        assert!(parse_ldd("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_image_of_the_tests_has_the_user_and_entry_point_that_the_dockerfile_gives() {
        let dockerfile = fs::read_to_string(tools::workspace_root().join("images/Dockerfile")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("penstock.tar");
        penstock(&path, &[]).unwrap();
        let config = config_of(&path);
        let (user, entrypoint) = stage(&dockerfile, "penstock");
        assert_eq!(config["User"].as_str().unwrap(), user);
        assert_eq!(config["Entrypoint"], serde_json::from_str::<serde_json::Value>(&entrypoint).unwrap());
        // The images of single parts differ in their program only.
        for part in ["penstock-operator", "penstock-worker", "penstock-mount"] {
            assert_eq!(stage(&dockerfile, part), (user.clone(), format!("[\"/usr/bin/{part}\"]")));
        }
    }

    /// USER and ENTRYPOINT of a stage, its own or those of the stages that it is built from.
    fn stage(dockerfile: &str, name: &str) -> (String, String) {
        let (mut user, mut entrypoint) = (String::new(), "[]".to_owned());
        let mut lines = dockerfile.lines().skip_while(|line| !line.ends_with(&format!(" AS {name}")));
        let from = lines.next().unwrap().split(' ').nth(1).unwrap();
        if dockerfile.contains(&format!(" AS {from}\n")) {
            (user, entrypoint) = stage(dockerfile, from);
        }
        for line in lines.take_while(|line| !line.starts_with("FROM ")) {
            match line.split_once(' ') {
                Some(("USER", given)) => given.clone_into(&mut user),
                Some(("ENTRYPOINT", given)) => given.clone_into(&mut entrypoint),
                _ => {}
            }
        }
        (user, entrypoint)
    }

    /// The container's part of the configuration in an archive.
    fn config_of(path: &Path) -> serde_json::Value {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let mut config = archive.entries().unwrap().next().unwrap().unwrap();
        let config: serde_json::Value = serde_json::from_reader(&mut config).unwrap();
        config["config"].clone()
    }

    #[test]
    fn an_archive_has_a_config_for_each_name_and_one_layer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        Image::new("penstock.test/x:1")
            .also("penstock.test/x:2")
            .text("/etc/deep/er/file", "hi")
            .unwrap()
            .write(&path)
            .unwrap();
        let mut archive = tar::Archive::new(File::open(&path).unwrap());
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names.len(), 4);
        assert_ne!(names[0], names[1]);
        assert_eq!(names[3], Path::new("manifest.json"));
    }
}
