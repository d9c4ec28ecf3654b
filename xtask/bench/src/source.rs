//! What workers cache: a bucket of a real S3 server, or a folder.

use std::{net::TcpListener, path::Path};

use penstock_e2e::s3::SeaweedFs;
use penstock_testkit::s3::S3Server;
use serde_json::{Value, json};

use super::fleet::Place;

/// A bucket, and how to reach it.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) endpoint: String,
    pub(super) name: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

impl Bucket {
    /// A new and empty one. Blocks.
    pub(super) fn create(server: &SeaweedFs, name: &str) -> anyhow::Result<Self> {
        server.create_bucket(name)?;
        Ok(Self {
            endpoint: server.endpoint(),
            name: name.into(),
            access_key: SeaweedFs::ACCESS_KEY.into(),
            secret_key: SeaweedFs::SECRET_KEY.into(),
        })
    }

    /// One of the server inside this process.
    pub(super) fn of(server: &S3Server, name: &str) -> Self {
        Self {
            endpoint: server.endpoint(),
            name: name.into(),
            access_key: server.access_key().into(),
            secret_key: server.secret_key().into(),
        }
    }
}

/// An S3 server that is reached at `place`; its disk is this machine's.
pub(super) async fn serve(place: &Place) -> anyhow::Result<SeaweedFs> {
    let listener = place.run(|| Ok(TcpListener::bind((place.address, 0))?))?;
    listener.set_nonblocking(true)?;
    SeaweedFs::start_behind(tokio::net::TcpListener::from_std(listener)?).await
}

/// What the one mount of the Dataset shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Bucket(&'a Bucket),
    Folder(&'a Path),
}

impl<'a> Source<'a> {
    /// The mount as a worker's configuration has it.
    pub(super) fn mount(self) -> Value {
        match self {
            Self::Bucket(bucket) => json!({
                "source": format!("s3://{}", bucket.name), "path": "", "options": {"endpoint": bucket.endpoint},
                "secretOptions": {"access-key": "ufs-0-access-key", "secret-key": "ufs-0-secret-key"}
            }),
            Self::Folder(path) => json!({
                "source": format!("local://{}", path.display()), "path": "", "options": {}, "secretOptions": {}
            }),
        }
    }

    /// Files of the worker's configuration, and what they hold.
    pub(super) fn secrets(self) -> Vec<(&'static str, &'a str)> {
        match self {
            Self::Bucket(bucket) => {
                vec![("ufs-0-access-key", &bucket.access_key), ("ufs-0-secret-key", &bucket.secret_key)]
            }
            Self::Folder(_) => Vec::new(),
        }
    }
}
