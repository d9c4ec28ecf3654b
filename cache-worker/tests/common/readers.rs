//! What reads a fleet as mounts do, and checks what comes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use penstock_model::{Attr, EXTENT, Entry, Object};
use penstock_placement::PlacementKey;
use penstock_wire::{
    Address, CallError,
    message::{Failure, Pattern, Reach, Request, Response},
};

use crate::common::{Fleet, noise};

impl Fleet {
    /// Asks those who are ranked for `key`, in order, as a mount does.
    pub async fn ask(&self, key: PlacementKey, request: Request) -> Result<Response, Failure> {
        for member in self.list.ranked(key) {
            match self.client.call(&Address::Tcp(member.addr.clone()), request.clone()).await {
                Ok(response) => return Ok(response),
                Err(CallError::Failure(failure)) => return Err(failure),
                Err(_) => {}
            }
        }
        panic!("no worker answers");
    }

    pub async fn stat(&self, path: &str) -> Result<Attr, Failure> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let key = PlacementKey::directory(parent.as_bytes());
        match self.ask(key, Request::Stat { path: path.into() }).await? {
            Response::Attr { attr, .. } => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub async fn names(&self, path: &str) -> Result<Vec<String>, Failure> {
        let (mut names, mut after): (Vec<String>, _) = (Vec::new(), None);
        loop {
            let request = Request::List { path: path.into(), after, limit: 3 };
            match self.ask(PlacementKey::directory(path.as_bytes()), request).await? {
                Response::Entries { entries, more, .. } => {
                    after = entries.last().map(Entry::listing_key);
                    names.extend(entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
                    if !more {
                        return Ok(names);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn object(&self, path: &str) -> Object {
        let attr = self.stat(path).await.unwrap();
        let (key, version) = attr.object.unwrap();
        Object { key, path: path.into(), version, size: attr.size }
    }

    pub async fn read(&self, object: &Object, pattern: Pattern) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < object.size {
            let offset = bytes.len() as u64;
            // Odd lengths, so that requests do not match pages.
            let len = 700_001.min(EXTENT - offset % EXTENT).min(object.size - offset) as u32;
            let request = Request::Read { object: object.clone(), offset, len, pattern, reach: Reach::Ufs };
            match self.ask(object.key.placement(offset), request).await? {
                Response::Data(data) | Response::SharedData { data, .. } => bytes.extend_from_slice(&data),
                other => panic!("{other:?}"),
            }
        }
        Ok(bytes)
    }

    pub async fn check(&self, files: &BTreeMap<String, Bytes>) {
        for (path, content) in files {
            let object = self.object(path).await;
            assert!(self.read(&object, Pattern::Sequential).await.unwrap() == *content, "{path} reads wrong");
        }
    }

    /// A fleet over a bucket that has its files already: what a worker of a static Dataset has listed stays so.
    pub async fn over_files(workers: usize) -> (Self, BTreeMap<String, Bytes>) {
        let mut fleet = Self::new(0).await;
        let files = fleet.fill_bucket();
        fleet.scale(workers).await;
        (fleet, files)
    }

    pub fn fill_bucket(&self) -> BTreeMap<String, Bytes> {
        let sizes = [0, 1, 300_000, EXTENT as usize, 3 * EXTENT as usize + 17, 1_000_000, 5 << 20];
        let files: BTreeMap<_, _> =
            sizes.into_iter().enumerate().map(|(i, n)| (format!("d/f{i}"), noise(i, n))).collect();
        for (path, content) in &files {
            self.s3.put("data", path, content.clone()).unwrap();
        }
        files
    }
}
