//! Where absent bytes come from: the owner, whoever held the extent before, else the UFS.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use penstock_curve::Sampler;
use penstock_model::{Object, ObjectKey, PAGE};
use penstock_placement::Member;
use penstock_wire::message::{Failure, Reach};

use super::{Origin, ranges::join};
use crate::{
    members::{Members, Unheld},
    metadata::{Catalog, Catalogs},
    source::{Source, failure},
};

pub(crate) struct Upstream {
    pub(crate) members: Arc<Members>,
    pub(crate) catalogs: Catalogs,
    pub(crate) sampler: Arc<Sampler>,
}

impl Upstream {
    async fn ask_ufs(&self, object: &Object, range: &Range<u64>) -> Result<Bytes, Failure> {
        let catalog = self.catalogs.current();
        let (source, inner) = locate(&catalog, object)?;
        let read = source.read(inner, &object.version, range.start, range.end - range.start).await;
        self.sampler.fetched(object.key, range);
        read.map_err(failure)
    }

    /// From the first holder that has all of it; else those that have some of it.
    async fn ask_holders(&self, object: &Object, range: &Range<u64>) -> Result<Bytes, Vec<Member>> {
        let mut partial = Vec::new();
        for holder in self.members.holders(object, range.start) {
            match self.members.ask(&holder, object, range, Reach::Cache).await {
                Ok(bytes) => return Ok(bytes),
                Err(Unheld::Absent) => partial.push(holder),
                Err(Unheld::Failed(_) | Unheld::Sick) => {}
            }
        }
        Err(partial)
    }

    async fn ask_for_page(&self, object: &Object, holders: &[Member], page: &Range<u64>) -> Option<Bytes> {
        for holder in holders {
            if let Ok(bytes) = self.members.ask(holder, object, page, Reach::Cache).await {
                return Some(bytes);
            }
        }
        None
    }

    /// What another worker has or fetches as owner; `None` when it is this worker's turn.
    async fn ask_owner(&self, object: &Object, range: &Range<u64>, reach: Reach) -> Option<Result<Bytes, Failure>> {
        let owner = self.members.other_owner(object, range.start)?;
        match self.members.ask(&owner, object, range, reach).await {
            Ok(bytes) => Some(Ok(bytes)),
            Err(Unheld::Failed(failure @ (Failure::Stale | Failure::NotFound | Failure::Denied(_)))) => {
                Some(Err(failure))
            }
            // The way from here to the UFS may be a better one.
            Err(Unheld::Absent | Unheld::Failed(_) | Unheld::Sick) => None,
        }
    }

    async fn fetch_as_owner(&self, object: &Object, range: Range<u64>) -> Result<Bytes, Failure> {
        let holders = match self.ask_holders(object, &range).await {
            Ok(bytes) => return Ok(bytes),
            Err(holders) => holders,
        };
        if holders.is_empty() || range.end - range.start <= PAGE {
            return self.ask_ufs(object, &range).await;
        }
        let pages: Vec<_> =
            range.clone().step_by(PAGE as usize).map(|start| start..(start + PAGE).min(range.end)).collect();
        let held = join_all(pages.iter().map(|page| self.ask_for_page(object, &holders, page))).await;
        if held.iter().all(Option::is_none) {
            return self.ask_ufs(object, &range).await;
        }
        let mut whole = BytesMut::zeroed((range.end - range.start) as usize);
        let mut put = |at: u64, bytes: &Bytes| {
            let start = (at - range.start) as usize;
            whole[start..start + bytes.len()].copy_from_slice(bytes);
        };
        let absent = join(pages.iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(page, _)| page.clone()));
        for (page, bytes) in pages.iter().zip(&held) {
            put(page.start, bytes.as_ref().unwrap_or(&Bytes::new()));
        }
        let fetched = join_all(absent.iter().map(|range| self.ask_ufs(object, range))).await;
        for (range, bytes) in absent.iter().zip(fetched) {
            put(range.start, &bytes?);
        }
        Ok(whole.freeze())
    }
}

impl Origin for Upstream {
    async fn fetch(&self, object: &Object, range: Range<u64>, reach: Reach) -> Result<Bytes, Failure> {
        match reach {
            Reach::Cache => self.ask_owner(object, &range, Reach::Cache).await.unwrap_or(Err(Failure::NotCached)),
            Reach::Owner => self.fetch_as_owner(object, range).await,
            Reach::Ufs => match self.ask_owner(object, &range, Reach::Owner).await {
                Some(answer) => answer,
                None => self.fetch_as_owner(object, range).await,
            },
        }
    }
}

/// The mount that holds the object. A key of another mount is that of a mount which was pointed elsewhere since.
pub(crate) fn locate<'a>(catalog: &'a Catalog, object: &'a Object) -> Result<(&'a Arc<Source>, &'a [u8]), Failure> {
    let (source, inner) = catalog.namespace.resolve(&object.path).mount.ok_or(Failure::Stale)?;
    let key = ObjectKey::new(&source.spec.source, inner, &object.version);
    if key == object.key { Ok((source, inner)) } else { Err(Failure::Stale) }
}
