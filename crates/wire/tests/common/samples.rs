//! One message of each kind, with the name of its line in `testdata/v1.txt`.

use bytes::Bytes;
use penstock_model::{Attr, Entry, Kind, Object, ObjectKey, Version};
use penstock_placement::{Member, MemberList};
use penstock_wire::message::{
    Change, Description, Failure, Handover, MountHealth, MountStats, MountTrouble, Pattern, Reach, Request, Response,
    Stats, TierStats, TroubleKind,
};

pub(crate) fn object() -> Object {
    Object { key: ObjectKey(1 << 100), path: b"d/f".to_vec(), version: Version("v1".into()), size: 5 }
}

fn list() -> MemberList {
    let member = |addr: &str| Member { id: "w-0".into(), addr: addr.into(), weight: 1 << 30 };
    MemberList { epoch: 3, members: vec![member("127.0.0.1:00000")], former: vec![vec![member("198.18.0.1:9440")]] }
}

fn attr() -> Attr {
    let object = Some((object().key, object().version));
    Attr { kind: Kind::File, size: 5, mtime_ns: -1, mode: 0o644, object }
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let path = b"d/f".to_vec();
    let read = |pattern, reach| Request::Read { object: object(), offset: 0, len: 5, pattern, reach };
    vec![
        ("describe", Request::Describe),
        ("stat", Request::Stat { path: path.clone() }),
        ("list", Request::List { path: b"d".to_vec(), after: Some(b"e".to_vec()), limit: 1000 }),
        ("list-from-the-start", Request::List { path: b"d".to_vec(), after: None, limit: 1000 }),
        ("read-link", Request::ReadLink { path: path.clone() }),
        ("read", read(Pattern::Random, Reach::Ufs)),
        ("read-as-owner", read(Pattern::Sequential, Reach::Owner)),
        ("read-cached", read(Pattern::Random, Reach::Cache)),
        ("open-local", Request::OpenLocal { object: object() }),
        ("changes", Request::Changes { since: Some(7) }),
        ("changes-from-now", Request::Changes { since: None }),
        ("set-members", Request::SetMembers(list())),
        ("stats", Request::Stats),
        ("drain", Request::Drain),
        ("push", Request::Push { object: object(), offset: 0, data: Bytes::new() }),
        ("forget", Request::Forget { path }),
    ]
}

pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let description =
        Description { dataset: "quant/bars".into(), members: list(), revalidate_ms: Some(30_000), uid: 1, gid: 2 };
    let directory = Attr { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: 0o755, object: None };
    let entries = vec![Entry { name: b"f".to_vec(), attr: attr() }, Entry { name: b"\xff".to_vec(), attr: directory }];
    let changes = Some(vec![Change::Entry(b"d/f".to_vec()), Change::Directory(b"d".to_vec())]);
    vec![
        ("description", Response::Description(description)),
        ("attr", Response::Attr { attr: attr(), age_ms: 4 }),
        ("entries", Response::Entries { entries, more: true, age_ms: 4 }),
        ("target", Response::Target(b"elsewhere".to_vec())),
        ("changed", Response::Changes { next: 9, changes }),
        ("much-changed", Response::Changes { next: 9, changes: None }),
        ("data", Response::Data(Bytes::new())),
        ("descriptor", Response::Descriptor),
        ("numbers", Response::Stats(Box::new(stats()))),
        ("done", Response::Done),
        ("shared-data", Response::SharedData { data: Bytes::new(), holders: 3 }),
    ]
}

fn stats() -> Stats {
    let mount = |path: &str, health| MountStats { path: path.into(), source: "s3://b".into(), health };
    let trouble = |kind| MountHealth::Trouble(MountTrouble { kind, message: "no".into() });
    let tier = TierStats { medium: "MEM".into(), quota_bytes: 9, used_bytes: 8, trouble: Some("full".into()) };
    Stats {
        epoch: 3,
        tiers: vec![tier],
        cached_bytes: 1,
        served_bytes: 2,
        hit_bytes: 3,
        miss_bytes: 4,
        ufs_bytes: 5,
        peer_bytes: 6,
        ufs_errors: 7,
        mounts: vec![
            mount("a", MountHealth::Unknown),
            mount("b", MountHealth::Serving),
            mount("c", trouble(TroubleKind::Denied)),
            mount("d", trouble(TroubleKind::Unreachable)),
            mount("e", trouble(TroubleKind::Misconfigured)),
        ],
        ufs_total_bytes: Some(10),
        ufs_files: None,
        handover: Handover { running: true, finished_epoch: 2, moved_bytes: 11, left_bytes: 12 },
        ..Stats::default()
    }
}

pub(crate) fn failures() -> Vec<(&'static str, Failure)> {
    vec![
        ("not-found", Failure::NotFound),
        ("not-a-directory", Failure::NotADirectory),
        ("stale", Failure::Stale),
        ("denied", Failure::Denied("no".into())),
        ("not-cached", Failure::NotCached),
        ("unavailable", Failure::Unavailable("no".into())),
        ("ufs", Failure::Ufs("no".into())),
        ("bad-request", Failure::BadRequest("no".into())),
        ("unsupported", Failure::Unsupported("no".into())),
        ("corrupt", Failure::Corrupt),
    ]
}
