//! What readers must find: every file with the versions that it had lately.

use std::{
    collections::VecDeque,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use penstock_e2e::s3::SeaweedFs;

use penstock_testkit::noise;

pub(super) const BUCKET: &str = "soak";
/// Versions of a file that a reader may still have open.
const KEPT: usize = 4;

/// How many files of which length. All together is more than the caches of the fleet hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Spread over all workers.
    Large,
    /// Whole with one worker, so that the kernel reads it by itself.
    Medium,
    Small,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Large, Self::Medium, Self::Small];

    const fn shape(self) -> (usize, usize) {
        match self {
            Self::Large => (6, 24 << 20),
            Self::Medium => (48, 3 << 19),
            Self::Small => (400, 20_000),
        }
    }

    pub(super) fn count(self) -> usize {
        self.shape().0
    }

    pub(super) fn path(self, index: usize) -> PathBuf {
        format!("{self:?}/{index:04}").to_lowercase().into()
    }
}

struct Version {
    number: u64,
    since: Instant,
    content: Bytes,
}

/// The newest last.
type Versions = VecDeque<Version>;

pub(super) struct Files(Vec<(Kind, Vec<Mutex<Versions>>)>);

impl Files {
    /// Stores the first version of each. Blocks.
    pub(super) fn create(server: &SeaweedFs) -> anyhow::Result<Self> {
        let empty = |kind: Kind| (kind, (0..kind.count()).map(|_| Mutex::default()).collect());
        let files = Self(Kind::ALL.map(empty).into());
        for kind in Kind::ALL {
            (0..kind.count()).try_for_each(|index| files.replace(server, kind, index))?;
        }
        Ok(files)
    }

    /// Stores another version of the same length. Blocks.
    pub(super) fn replace(&self, server: &SeaweedFs, kind: Kind, index: usize) -> anyhow::Result<()> {
        let number = self.newest(kind, index) + 1;
        let seed = (kind as u64) << 48 | (index as u64) << 32 | number;
        let content = noise(seed, kind.shape().1);
        {
            // Known before it can be read.
            let mut versions = self.versions(kind, index);
            versions.push_back(Version { number, since: Instant::now(), content: content.clone() });
            if versions.len() > KEPT {
                versions.pop_front();
            }
        }
        server.put(BUCKET, &kind.path(index).display().to_string(), &content)
    }

    /// Number of the newest version; 0 when there is none.
    pub(super) fn newest(&self, kind: Kind, index: usize) -> u64 {
        self.versions(kind, index).back().map_or(0, |version| version.number)
    }

    /// Whether the newest version is younger than `age`.
    pub(super) fn changed_within(&self, kind: Kind, index: usize, age: Duration) -> bool {
        self.versions(kind, index).back().is_some_and(|version| version.since.elapsed() < age)
    }

    /// The versions with these bytes at `offset`.
    pub(super) fn matching(&self, kind: Kind, index: usize, offset: usize, data: &[u8]) -> Vec<u64> {
        let contents: Vec<(u64, Bytes)> =
            self.versions(kind, index).iter().map(|version| (version.number, version.content.clone())).collect();
        let fits = |content: &Bytes| content.get(offset..offset + data.len()) == Some(data);
        contents.iter().filter(|(_, content)| fits(content)).map(|(number, _)| *number).collect()
    }

    fn versions(&self, kind: Kind, index: usize) -> MutexGuard<'_, Versions> {
        self.0[kind as usize].1[index].lock()
    }
}
