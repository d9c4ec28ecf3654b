//! What a worker refuses before it looks at its store: pure rules on requests.

use crate::message::{Failure, LoadOrder, LoadTarget, MAX_READ, MAX_TARGETS, Request, Role};
use penstock_model::{EXTENT, Object, PAGE, Path};

/// Refuses what the role may not ask and what breaks the vocabulary's own rules.
pub(crate) fn check(role: Role, request: &Request) -> Result<(), Failure> {
    if role == Role::Client && !open_to_clients(request) {
        return Err(Failure::BadRequest("only peers may send this; connect with the peer key".into()));
    }
    match request {
        Request::Stat { path } | Request::ReadLink { path } | Request::Forget { path } => check_path(path),
        Request::List { path, limit, .. } => {
            check_path(path)?;
            require(*limit > 0, "a list with limit 0 never ends")
        }
        Request::Read { object, offset, len, .. } => {
            check_path(&object.path)?;
            check_range(object, *offset, u64::from(*len))
        }
        Request::OpenLocal { object } => check_path(&object.path),
        Request::Push { object, offset, data } => {
            check_path(&object.path)?;
            check_range(object, *offset, data.len() as u64)?;
            let end = offset + data.len() as u64;
            require(
                offset.is_multiple_of(PAGE) && (end.is_multiple_of(PAGE) || end == object.size),
                "pushed bytes must be whole pages",
            )
        }
        Request::SetLoads(orders) => check_loads(orders),
        Request::Describe
        | Request::Changes { .. }
        | Request::SetMembers(_)
        | Request::Stats
        | Request::Drain
        | Request::Restarting { .. } => Ok(()),
    }
}

fn open_to_clients(request: &Request) -> bool {
    match request {
        Request::Describe
        | Request::Changes { .. }
        | Request::Stat { .. }
        | Request::List { .. }
        | Request::ReadLink { .. }
        | Request::Read { .. }
        | Request::OpenLocal { .. } => true,
        Request::SetMembers(_)
        | Request::Stats
        | Request::Drain
        | Request::Push { .. }
        | Request::Forget { .. }
        | Request::SetLoads(_)
        | Request::Restarting { .. } => false,
    }
}

fn check_loads(orders: &[LoadOrder]) -> Result<(), Failure> {
    let targets = || orders.iter().flat_map(|order| &order.targets);
    require(targets().count() <= MAX_TARGETS, "loads have at most 20000 targets together")?;
    let mut paths = targets().filter_map(|target| match target {
        LoadTarget::Path(path) => Some(path),
        LoadTarget::Glob(_) => None,
    });
    paths.try_for_each(check_path)
}

fn check_path(path: &Path) -> Result<(), Failure> {
    let segments_are_names = || path.split(|b| *b == b'/').all(|s| !matches!(s, b"" | b"." | b"..") && !s.contains(&0));
    require(path.is_empty() || segments_are_names(), "a path has no empty, `.` or `..` segments and no NUL")
}

fn check_range(object: &Object, offset: u64, len: u64) -> Result<(), Failure> {
    require(len > 0 && len <= MAX_READ, "a range has 1 byte to 4 MiB")?;
    let end = offset.saturating_add(len);
    require(end <= object.size, "the range ends behind the object")?;
    require(offset / EXTENT == (end - 1) / EXTENT, "the range crosses an extent")
}

fn require(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::BadRequest(otherwise.into())) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Pattern, Reach};
    use penstock_model::{ObjectKey, Version};

    fn object(path: &[u8], size: u64) -> Object {
        Object { key: ObjectKey(1), path: path.to_vec(), version: Version("v".into()), size }
    }

    fn read(offset: u64, len: u32) -> Request {
        let object = object(b"a/b", EXTENT + 10);
        Request::Read { object, offset, len, pattern: Pattern::Random, reach: Reach::Ufs }
    }

    #[test]
    fn ranges_stay_inside_one_extent_and_the_object() {
        for (offset, len, good) in [
            (0, 1, true),
            (0, EXTENT as u32, true),
            (EXTENT, 10, true),
            (EXTENT, 11, false),
            (EXTENT - 1, 2, false),
            (0, 0, false),
            (u64::MAX, 2, false),
        ] {
            assert_eq!(check(Role::Client, &read(offset, len)).is_ok(), good, "{offset}+{len}");
        }
    }

    #[test]
    fn only_peers_push_and_only_whole_pages() {
        let push = |offset, len: usize| Request::Push {
            object: object(b"a", PAGE + 5),
            offset,
            data: Bytes::from(vec![0; len]),
        };
        assert!(check(Role::Client, &push(0, PAGE as usize)).is_err());
        assert!(check(Role::Peer, &push(0, PAGE as usize)).is_ok());
        assert!(check(Role::Peer, &push(PAGE, 5)).is_ok());
        assert!(check(Role::Peer, &push(PAGE, 4)).is_err());
    }

    #[test]
    fn paths_that_climb_or_are_not_normal_are_refused() {
        for (path, good) in
            [(&b""[..], true), (b"a/\xff", true), (b"/a", false), (b"a//b", false), (b"a/..", false), (b"a\0b", false)]
        {
            assert_eq!(check(Role::Client, &Request::Stat { path: path.to_vec() }).is_ok(), good, "{path:?}");
        }
    }
}
