//! From a name to what it stands for.

use std::time::Duration;

use penstock_model::Kind;
use rustix::io::Errno;
use tokio::time::Instant;

use super::{FileSystem, Found, NAME_MAX, Node, Stat, dir, join, nameable, names::Known, parent, refuse};
use crate::backend::{ReadError, Told};

/// The longest that the kernel keeps "no such file".
pub(super) const NEGATIVE: Duration = Duration::from_secs(5);

impl FileSystem {
    /// Counts one lookup when it finds something.
    pub async fn lookup(&self, directory: u64, name: &[u8]) -> Result<Found, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let directory = self.node(directory)?;
        let path = child_path(&directory, name)?;
        if let Some(stat) = self.known(&path) {
            return Ok(Found::Entry(stat));
        }
        if nameable(name)
            && let Some(found) = self.known_ahead(&directory, name, &path)
        {
            return Ok(found);
        }
        match self.backend.stat(&path).await {
            Ok(Told { attr, age }) => {
                let ttl = self.ttl(attr.kind).saturating_sub(age);
                Ok(Found::Entry(self.remember(&path, attr, ttl)))
            }
            Err(ReadError::NotFound) => Ok(Found::Nothing(self.negative_ttl())),
            Err(error) => Err(refuse("lookup", &path, &error)),
        }
    }

    /// A lookup of what the kernel knows already.
    fn known(&self, path: &[u8]) -> Option<Stat> {
        let mut inodes = self.inodes.lock();
        let node = inodes.find(path).filter(|node| Instant::now() < node.fresh_until)?;
        let stat = self.stat_of(&node);
        inodes.again(stat.ino);
        Some(stat)
    }

    /// A lookup of what a listing has told. Where it is not known, the listing may go on for the sake of later lookups.
    fn known_ahead(&self, directory: &Node, name: &[u8], path: &[u8]) -> Option<Found> {
        let (life, now) = (self.ttl(Kind::Directory), Instant::now());
        let left = |since: Instant, ttl: Duration| (since + ttl).saturating_duration_since(now);
        match self.names.find(&directory.path, name, life, now) {
            Known::Entry(attr, since) => {
                let ttl = left(since, self.ttl(attr.kind));
                Some(Found::Entry(self.remember(path, attr, ttl)))
            }
            Known::Nothing(since) => {
                let ttl = left(since, self.negative_ttl());
                (!ttl.is_zero()).then_some(Found::Nothing(ttl))
            }
            Known::Unknown => {
                self.list_ahead(directory, life, now);
                None
            }
        }
    }

    fn list_ahead(&self, directory: &Node, life: Duration, now: Instant) {
        let path = directory.path.clone();
        let Some(wanted) = self.names.missed(&path, life, now) else { return };
        let (names, backend) = (self.names.clone(), self.backend.clone());
        tokio::spawn(async move {
            let listing = backend.list(&path, wanted.after.as_deref(), dir::PAGE).await;
            // Whoever looks a name up meanwhile is told what is wrong.
            names.tell(&path, &wanted, listing.ok(), Instant::now());
        });
    }

    /// The owner of the directory may have believed it as long: together that stays within the interval.
    fn negative_ttl(&self) -> Duration {
        NEGATIVE.min(self.ttl(Kind::Directory) / 2)
    }

    /// What is known of the directory of `path` is not to be trusted any more.
    pub(super) fn distrust(&self, path: &[u8]) {
        self.names.forget(parent(path));
    }
}

/// `.` and `..` come from who exports the file system and knows numbers only; `.` may then be of a file.
fn child_path(directory: &Node, name: &[u8]) -> Result<Vec<u8>, Errno> {
    if name != b"." && name != b".." && directory.attr.kind != Kind::Directory {
        return Err(Errno::NOTDIR);
    }
    Ok(match name {
        b"." => directory.path.to_vec(),
        b".." => parent(&directory.path).to_vec(),
        _ => join(&directory.path, name),
    })
}
