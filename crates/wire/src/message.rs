//! The vocabulary of the wire protocol: what a client or a peer asks of a worker, and what it answers.

use std::fmt;

use bytes::Bytes;
use penstock_model::{Attr, EXTENT, Entry, Object, Path};
use penstock_placement::MemberList;
use serde::{Deserialize, Serialize};

/// The most a single [`Request::Read`] may ask for: it never crosses an extent.
pub const MAX_READ: u64 = EXTENT;

/// How the reader goes through the object; decides how much a miss fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// A miss fetches the pages that were asked for.
    Random,
    /// A miss fetches the rest of the extent in one request to the UFS.
    Sequential,
}

/// How far a worker may go for bytes it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// Answer from the store or with [`Failure::NotCached`]: what a new owner asks a former one.
    Cache,
    /// Store, then the owner, then whatever the owner could do; what is fetched is kept.
    Ufs,
    /// As owner: store, then former owners, then the UFS; what is fetched is kept. What one who is not the owner asks the
    /// owner; nobody who is asked so asks on in this way, so that two who disagree on the owner never wait for each other.
    Owner,
}

/// Who may send a request: a mount (`Client`) reads; peers and the operator (`Peer`) may do all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    Client,
    Peer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The member list and the Dataset's facts that a mount needs. Any worker answers.
    Describe,
    /// Attributes of one path; asked of its directory's owner. A client follows the order of [`MemberList::ranked`].
    Stat { path: Path },
    /// Entries of a directory in the order of their keys ([`listing_key`]), those after the key `after`, at most `limit`. There
    /// may be fewer although more follow, while the UFS still lists.
    List { path: Path, after: Option<Vec<u8>>, limit: u32 },
    /// The target of a symlink.
    ReadLink { path: Path },
    /// Bytes `offset..offset + len` of an object; never crosses an extent, and never the end of the object.
    Read { object: Object, offset: u64, len: u32, pattern: Pattern, reach: Reach },
    /// Unix socket only: a read-only descriptor of the object's cached file. [`Failure::NotCached`] unless complete.
    OpenLocal { object: Object },
    /// What this worker has found changed since the number that it told before, as soon as there is something, or after a
    /// while. Without a number: the present one.
    Changes { since: Option<u64> },
    /// Peer only: take the new member list (an older one is ignored).
    SetMembers(MemberList),
    /// Peer only: this worker's numbers.
    Stats,
    /// Peer only: hand every extent that the present list gives to others over to them. Answers at once; progress in
    /// [`Stats::handover`]. Idempotent.
    Drain,
    /// Peer only: keep these bytes (page-aligned; whole pages but for the object's last) as owner.
    Push { object: Object, offset: u64, data: Bytes },
    /// Peer only: what is known of this path is out of date (its object was found changed); ask the UFS again.
    Forget { path: Path },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Description(Description),
    /// As they were `age_ms` ago.
    Attr {
        attr: Attr,
        age_ms: u64,
    },
    /// As they were `age_ms` ago.
    Entries {
        entries: Vec<Entry>,
        more: bool,
        age_ms: u64,
    },
    Target(Vec<u8>),
    /// `changes` is `None` when there were more than the worker remembers. `next` is what to ask with the next time.
    Changes {
        next: u64,
        changes: Option<Vec<Change>>,
    },
    Data(Bytes),
    /// The descriptor travels beside this message (`SCM_RIGHTS`).
    Descriptor,
    Stats(Box<Stats>),
    Done,
    /// As [`Response::Data`], from the owner of an extent that many ask for: from now on the first `holders` in rank for it
    /// ([`MemberList::ranked`]) have it, or get it from the owner. Any of them may be asked.
    SharedData {
        data: Bytes,
        holders: u8,
    },
}

/// What is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The object at this path is another one, or came, or is gone.
    Entry(Path),
    /// Many entries of this directory.
    Directory(Path),
}

/// What a mount learns first, and again whenever an answer carries a newer epoch than it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub dataset: String,
    pub members: MemberList,
    /// How long attributes and names stay good; `None` for a static Dataset.
    pub revalidate_ms: Option<u64>,
    /// Owner of all files as a mount shows them.
    pub uid: u32,
    pub gid: u32,
}

/// Why a request was not answered. The transport has failures of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    #[error("no such file or directory")]
    NotFound,
    #[error("not a directory")]
    NotADirectory,
    #[error("the object changed in the UFS since it was opened")]
    Stale,
    #[error("the UFS denies access: {0}")]
    Denied(String),
    #[error("not cached here")]
    NotCached,
    #[error("the worker cannot answer now: {0}")]
    Unavailable(String),
    #[error("the UFS failed: {0}")]
    Ufs(String),
    #[error("bad request: {0}")]
    BadRequest(String),
}

/// One worker's numbers; counters since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub epoch: u64,
    pub tiers: Vec<TierStats>,
    /// Bytes of this Dataset that are present here, over all tiers.
    pub cached_bytes: u64,
    /// Bytes served to mounts and peers.
    pub served_bytes: u64,
    /// Bytes served from the store, and those that had to be fetched.
    pub hit_bytes: u64,
    pub miss_bytes: u64,
    /// Where the fetched bytes came from.
    pub ufs_bytes: u64,
    pub peer_bytes: u64,
    pub ufs_errors: u64,
    pub mounts: Vec<MountStats>,
    /// Bytes and files known of the UFS, when a full count exists.
    pub ufs_total_bytes: Option<u64>,
    pub ufs_files: Option<u64>,
    pub handover: Handover,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStats {
    pub medium: String,
    pub quota_bytes: u64,
    /// Bytes the tier takes on its medium, overhead counted.
    pub used_bytes: u64,
    /// What keeps the tier from being used, or from being used in full, if anything.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStats {
    /// Path of the mount in the Dataset.
    pub path: String,
    pub source: String,
    pub health: MountHealth,
}

impl MountStats {
    pub fn trouble(&self) -> Option<&MountTrouble> {
        match &self.health {
            MountHealth::Trouble(trouble) => Some(trouble),
            MountHealth::Unknown | MountHealth::Serving => None,
        }
    }
}

/// How a mount's UFS answered when it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountHealth {
    /// It has not been asked yet.
    #[default]
    Unknown,
    Serving,
    Trouble(MountTrouble),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountTrouble {
    pub kind: TroubleKind,
    /// One sentence for users: what was asked, what came back, and the mend.
    pub message: String,
}

impl fmt::Display for MountTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Who has to mend it: the one who gives rights, the one who runs the store, or the author of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TroubleKind {
    Denied,
    Unreachable,
    Misconfigured,
}

/// Progress of a [`Request::Drain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    pub running: bool,
    /// The member-list epoch that the last finished hand-over was for; 0 when there was none.
    pub finished_epoch: u64,
    pub moved_bytes: u64,
    pub left_bytes: u64,
}
