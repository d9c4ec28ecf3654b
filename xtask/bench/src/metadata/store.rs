//! Where the objects are: a real server for the quick run; a million would take it longer than all that is measured, so the
//! full run has the double.

use std::net::Ipv4Addr;

use penstock_e2e::s3::SeaweedFs;
use penstock_testkit::s3::{S3Options, S3Server};

use crate::{blocking, source::Bucket};

/// Directories of 1,000 objects each, and a large one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    small: u64,
    pub(super) large: u64,
}

impl Tree {
    pub(super) const QUICK: Self = Self { small: 30, large: 20_000 };
    pub(super) const FULL: Self = Self { small: 900, large: 100_000 };
    pub(super) const LARGE: &str = "large";

    pub(super) fn objects(self) -> u64 {
        self.small * 1000 + self.large
    }

    /// With the root.
    pub(super) fn directories(self) -> u64 {
        self.small + 2
    }

    fn keys(self) -> impl Iterator<Item = String> {
        let small = (0..self.small * 1000).map(|i| format!("day-{:04}/quotes-{:03}.parquet", i / 1000, i % 1000));
        small.chain((0..self.large).map(|i| format!("{}/quotes-{i:06}.parquet", Self::LARGE)))
    }
}

pub(super) enum Store {
    SeaweedFs(SeaweedFs, Bucket),
    Double(S3Server, Bucket),
}

impl Store {
    pub(super) async fn seaweed_fs(bucket: &str, tree: Tree) -> anyhow::Result<Self> {
        let server = SeaweedFs::start(Ipv4Addr::LOCALHOST.into()).await?;
        let made = Bucket::create(&server, bucket)?;
        blocking(|| server.put_empty(bucket, tree.keys()))?;
        Ok(Self::SeaweedFs(server, made))
    }

    pub(super) fn double(bucket: &str, tree: Tree) -> anyhow::Result<Self> {
        let server = blocking(|| S3Server::start_on_own_threads(S3Options::default()))?;
        for key in tree.keys() {
            server.put(bucket, &key, "")?;
        }
        let made = Bucket::of(&server, bucket);
        Ok(Self::Double(server, made))
    }

    pub(super) fn bucket(&self) -> &Bucket {
        let (Self::SeaweedFs(_, bucket) | Self::Double(_, bucket)) = self;
        bucket
    }

    /// Listings answered so far.
    pub(super) fn lists(&self) -> anyhow::Result<u64> {
        match self {
            Self::SeaweedFs(server, bucket) => server.lists(&bucket.name),
            Self::Double(server, _) => Ok(server.requests().list),
        }
    }
}
