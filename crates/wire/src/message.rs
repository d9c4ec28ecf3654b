//! The vocabulary of the wire protocol: what a client or a peer asks of a worker, and what it answers.
//!
//! Messages may grow, by these rules. Fields and variants are numbered; a number is never used again, and never changes its
//! meaning. A new field is an `Option` or has `#[cbor(default)]`: who does not know it passes over it, who is not told it
//! goes on without it. A new [`Request`] is answered with [`Failure::Unsupported`] by who does not know it. Any other new
//! variant is sent only to who has announced the feature that it belongs to ([`crate::Features`]).

use std::fmt;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use penstock_curve::Reuse;
use penstock_model::{Attr, EXTENT, Entry, Object, Path};
use penstock_placement::MemberList;

/// The most a single [`Request::Read`] may ask for: it never crosses an extent.
pub const MAX_READ: u64 = EXTENT;
/// Targets that all loads of a worker may have together.
pub const MAX_TARGETS: usize = 20_000;

/// How the reader goes through the object; decides how much a miss fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Pattern {
    /// A miss fetches the pages that were asked for.
    #[n(0)]
    Random,
    /// A miss fetches the rest of the extent in one request to the UFS.
    #[n(1)]
    Sequential,
}

/// How far a worker may go for bytes it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Reach {
    /// Answer from the store or with [`Failure::NotCached`]: what a new owner asks a former one.
    #[n(0)]
    Cache,
    /// Store, then the owner, then whatever the owner could do; what is fetched is kept.
    #[n(1)]
    Ufs,
    /// As owner: store, then former owners, then the UFS; what is fetched is kept. What one who is not the owner asks the
    /// owner; nobody who is asked so asks on in this way, so that two who disagree on the owner never wait for each other.
    #[n(2)]
    Owner,
}

/// Who may send a request: a mount (`Client`) reads; peers and the operator (`Peer`) may do all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    #[n(0)]
    Client,
    #[n(1)]
    Peer,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// The member list and the Dataset's facts that a mount needs. Any worker answers.
    #[n(0)]
    Describe,
    /// Attributes of one path; asked of its directory's owner. A client follows the order of [`MemberList::ranked`].
    #[n(1)]
    Stat {
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Path,
    },
    /// Entries of a directory in the order of their keys ([`listing_key`]), those after the key `after`, at most `limit`. There
    /// may be fewer although more follow, while the UFS still lists.
    #[n(2)]
    List {
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Path,
        #[cbor(n(1), with = "minicbor::bytes")]
        after: Option<Vec<u8>>,
        #[n(2)]
        limit: u32,
    },
    /// The target of a symlink.
    #[n(3)]
    ReadLink {
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Path,
    },
    /// Bytes `offset..offset + len` of an object; never crosses an extent, and never the end of the object.
    #[n(4)]
    Read {
        #[n(0)]
        object: Object,
        #[n(1)]
        offset: u64,
        #[n(2)]
        len: u32,
        #[n(3)]
        pattern: Pattern,
        #[n(4)]
        reach: Reach,
    },
    /// Unix socket only: a read-only descriptor of the object's cached file. [`Failure::NotCached`] unless complete.
    #[n(5)]
    OpenLocal {
        #[n(0)]
        object: Object,
    },
    /// What this worker has found changed since the number that it told before, as soon as there is something, or after a
    /// while. Without a number: the present one.
    #[n(6)]
    Changes {
        #[n(0)]
        since: Option<u64>,
    },
    /// Peer only: take the new member list (an older one is ignored).
    #[n(7)]
    SetMembers(#[n(0)] MemberList),
    /// Peer only: this worker's numbers.
    #[n(8)]
    Stats,
    /// Peer only: hand every extent that the present list gives to others over to them. Answers at once; progress in
    /// [`Stats::handover`]. Idempotent.
    #[n(9)]
    Drain,
    /// Peer only: keep these bytes (page-aligned; whole pages but for the object's last) as owner.
    #[n(10)]
    Push {
        #[n(0)]
        object: Object,
        #[n(1)]
        offset: u64,
        #[cbor(skip)]
        data: Bytes,
    },
    /// Peer only: what is known of this path is out of date (its object was found changed); ask the UFS again.
    #[n(11)]
    Forget {
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Path,
    },
    /// Peer only: the loads to work on from now on, all of them; what is not among them ends. Idempotent; progress in
    /// [`Stats::loads`].
    #[n(12)]
    SetLoads(#[n(0)] Vec<LoadOrder>),
    /// Peer only: worker `id` starts again, and is to be waited for `within_ms`; 0: it is there again.
    #[n(13)]
    Restarting {
        #[n(0)]
        id: String,
        #[n(1)]
        within_ms: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    #[n(0)]
    Description(#[n(0)] Description),
    /// As they were `age_ms` ago.
    #[n(1)]
    Attr {
        #[n(0)]
        attr: Attr,
        #[n(1)]
        age_ms: u64,
    },
    /// As they were `age_ms` ago.
    #[n(2)]
    Entries {
        #[n(0)]
        entries: Vec<Entry>,
        #[n(1)]
        more: bool,
        #[n(2)]
        age_ms: u64,
    },
    #[n(3)]
    Target(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// `changes` is `None` when there were more than the worker remembers. `next` is what to ask with the next time.
    #[n(4)]
    Changes {
        #[n(0)]
        next: u64,
        #[n(1)]
        changes: Option<Vec<Change>>,
    },
    #[n(5)]
    Data(#[cbor(skip)] Bytes),
    /// The descriptor travels beside this message (`SCM_RIGHTS`).
    #[n(6)]
    Descriptor,
    #[n(7)]
    Stats(#[n(0)] Box<Stats>),
    #[n(8)]
    Done,
    /// As [`Response::Data`], from the owner of an extent that many ask for: from now on the first `holders` in rank for it
    /// ([`MemberList::ranked`]) have it, or get it from the owner. Any of them may be asked.
    #[n(9)]
    SharedData {
        #[cbor(skip)]
        data: Bytes,
        #[n(0)]
        holders: u8,
    },
}

/// What is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The object at this path is another one, or came, or is gone.
    #[n(0)]
    Entry(#[cbor(n(0), with = "minicbor::bytes")] Path),
    /// Many entries of this directory.
    #[n(1)]
    Directory(#[cbor(n(0), with = "minicbor::bytes")] Path),
}

/// What a mount learns first, and again whenever an answer carries a newer epoch than it knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Description {
    #[n(0)]
    pub dataset: String,
    #[n(1)]
    pub members: MemberList,
    /// How long attributes and names stay good; `None` for a static Dataset.
    #[n(2)]
    pub revalidate_ms: Option<u64>,
    /// Owner of all files as a mount shows them.
    #[n(3)]
    pub uid: u32,
    #[n(4)]
    pub gid: u32,
}

/// Why a request was not answered. The transport has failures of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Failure {
    #[error("no such file or directory")]
    #[n(0)]
    NotFound,
    #[error("not a directory")]
    #[n(1)]
    NotADirectory,
    #[error("the object changed in the UFS since it was opened")]
    #[n(2)]
    Stale,
    #[error("the UFS denies access: {0}")]
    #[n(3)]
    Denied(#[n(0)] String),
    #[error("not cached here")]
    #[n(4)]
    NotCached,
    #[error("the worker cannot answer now: {0}")]
    #[n(5)]
    Unavailable(#[n(0)] String),
    #[error("the UFS failed: {0}")]
    #[n(6)]
    Ufs(#[n(0)] String),
    #[error("bad request: {0}")]
    #[n(7)]
    BadRequest(#[n(0)] String),
    /// What the worker does not understand; a newer one may.
    #[error("{0}")]
    #[n(8)]
    Unsupported(#[n(0)] String),
    #[error("the bytes of the request were changed on their way: a checksum is wrong")]
    #[n(9)]
    Corrupt,
}

/// One worker's numbers; counters since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stats {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub tiers: Vec<TierStats>,
    /// Bytes of this Dataset that are present here, over all tiers.
    #[n(2)]
    pub cached_bytes: u64,
    /// Bytes served to mounts and peers.
    #[n(3)]
    pub served_bytes: u64,
    /// Bytes served from the store, and those that had to be fetched.
    #[n(4)]
    pub hit_bytes: u64,
    #[n(5)]
    pub miss_bytes: u64,
    /// Where the fetched bytes came from.
    #[n(6)]
    pub ufs_bytes: u64,
    #[n(7)]
    pub peer_bytes: u64,
    #[n(8)]
    pub ufs_errors: u64,
    #[n(9)]
    pub mounts: Vec<MountStats>,
    /// Bytes and files known of the UFS, when a full count exists.
    #[n(10)]
    pub ufs_total_bytes: Option<u64>,
    #[n(11)]
    pub ufs_files: Option<u64>,
    #[n(12)]
    pub handover: Handover,
    /// What mounts asked, apart from peers. Empty from workers that do not count it.
    #[n(13)]
    #[cbor(default)]
    pub asked: Asked,
    /// The loads that this worker has been told, as far as they are.
    #[n(14)]
    #[cbor(default)]
    pub loads: Vec<LoadProgress>,
    /// How readers come back to what they read: what caches of other sizes would give.
    #[n(15)]
    #[cbor(default)]
    pub reuse: Reuse,
}

/// Part of a Dataset to be loaded or evicted. Every worker is told the same, and does the part that it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LoadOrder {
    /// Tells one run of a load from all others.
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub targets: Vec<LoadTarget>,
    /// Out of the cache instead of into it.
    #[n(2)]
    pub evict: bool,
    /// Names and sizes are asked of the UFS anew.
    #[n(3)]
    pub load_metadata: bool,
    /// The most bytes per second that this worker fetches for it.
    #[n(4)]
    pub bandwidth: Option<u64>,
    /// It goes on looking for changes after it is done.
    #[n(5)]
    pub follow: bool,
}

/// What of a Dataset; without any it is all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LoadTarget {
    /// A file, or a directory and all below it; without leading and trailing slash.
    #[n(0)]
    Path(#[cbor(n(0), with = "minicbor::bytes")] Path),
    /// Files whose paths match; without leading slash.
    #[n(1)]
    Glob(#[n(0)] String),
}

/// How far a worker is with its part of a load. Sums over workers are those of the load: each extent is its owner's, and
/// each file is that of its first extent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LoadProgress {
    #[n(0)]
    pub id: String,
    /// Number of the member list that the part is by.
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub state: LoadState,
    #[n(3)]
    pub files: u64,
    #[n(4)]
    pub bytes: u64,
    /// Bytes dealt with.
    #[n(5)]
    pub done_bytes: u64,
    /// Bytes of the part that are in the store, as last counted.
    #[n(6)]
    pub cached_bytes: u64,
    #[n(7)]
    pub failed_files: u64,
    /// The first ten that failed: path and reason.
    #[n(8)]
    pub failures: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LoadState {
    /// Counting files.
    #[default]
    #[n(0)]
    Listing,
    #[n(1)]
    Running,
    #[n(2)]
    Done,
}

/// What mounts asked of a worker since it started; what peers ask for them is not counted twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// Tells one process from the next: counters of another one are not comparable.
    #[n(0)]
    pub boot: u64,
    /// Bytes served from the worker's own store.
    #[n(1)]
    pub hit_bytes: u64,
    /// Bytes served that came from peers or the UFS.
    #[n(2)]
    pub miss_bytes: u64,
    /// Files that mounts opened on a descriptor of the worker's own, to be read without it.
    #[n(3)]
    pub opens: u64,
    /// The sizes of these files: an estimate of what was read so.
    #[n(4)]
    pub opened_bytes: u64,
    /// Milliseconds since a mount last asked for anything; since the start if none did.
    #[n(5)]
    pub unused_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TierStats {
    #[n(0)]
    pub medium: String,
    #[n(1)]
    pub quota_bytes: u64,
    /// Bytes the tier takes on its medium, overhead counted.
    #[n(2)]
    pub used_bytes: u64,
    /// What keeps the tier from being used, or from being used in full, if anything.
    #[n(3)]
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct MountStats {
    /// Path of the mount in the Dataset.
    #[n(0)]
    pub path: String,
    #[n(1)]
    pub source: String,
    #[n(2)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum MountHealth {
    /// It has not been asked yet.
    #[default]
    #[n(0)]
    Unknown,
    #[n(1)]
    Serving,
    #[n(2)]
    Trouble(#[n(0)] MountTrouble),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MountTrouble {
    #[n(0)]
    pub kind: TroubleKind,
    /// One sentence for users: what was asked, what came back, and the mend.
    #[n(1)]
    pub message: String,
}

impl fmt::Display for MountTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Who has to mend it: the one who gives rights, the one who runs the store, or the author of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TroubleKind {
    #[n(0)]
    Denied,
    #[n(1)]
    Unreachable,
    #[n(2)]
    Misconfigured,
}

/// Progress of a [`Request::Drain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Handover {
    #[n(0)]
    pub running: bool,
    /// The member-list epoch that the last finished hand-over was for; 0 when there was none.
    #[n(1)]
    pub finished_epoch: u64,
    #[n(2)]
    pub moved_bytes: u64,
    #[n(3)]
    pub left_bytes: u64,
}
