//! An S3 server inside the process, on a loopback port: what tests, the demo and the benchmarks read from. It counts what
//! it really sends and breaks on demand.

mod backend;
mod body;
mod objects;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

pub use body::Faults;
pub use objects::Requests;

use backend::Backend;

#[derive(Clone, Debug)]
pub struct S3Options {
    /// `127.0.0.1:0` takes a free port.
    pub listen: SocketAddr,
    pub access_key: String,
    pub secret_key: String,
    /// Requests signed with the keys must carry this token too.
    pub session_token: Option<String>,
    /// Unsigned requests are served; signed ones must still be right.
    pub anonymous: bool,
    /// Bodies lie in files under this directory instead of in memory.
    pub directory: Option<PathBuf>,
    /// Made at start.
    pub buckets: Vec<String>,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            access_key: "test-access-key".into(),
            secret_key: "test-secret-key".into(),
            session_token: None,
            anonymous: false,
            directory: None,
            buckets: vec!["data".into()],
        }
    }
}

/// A running server; dropping it ends it and every connection.
pub struct S3Server {
    address: SocketAddr,
    options: S3Options,
    backend: Backend,
    accepting: AbortHandle,
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3Server {
    /// Serves on the caller's tokio runtime.
    pub async fn start(options: S3Options) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
        let address = listener.local_addr()?;
        let backend = Backend::new(options.directory.clone())?;
        for bucket in &options.buckets {
            backend.create(bucket);
        }
        let service = service(&options, backend.clone());
        let accepting = tokio::spawn(accept(listener, service)).abort_handle();
        Ok(Self { address, options, backend, accepting, runtime: None })
    }

    /// Serves on threads of its own, for callers without a runtime or whose own load should not slow the server.
    pub fn start_on_own_threads(options: S3Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testkit-s3")
            .enable_all()
            .build()?;
        let mut server = runtime.block_on(Self::start(options))?;
        server.runtime = Some(runtime);
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn access_key(&self) -> &str {
        &self.options.access_key
    }

    pub fn secret_key(&self) -> &str {
        &self.options.secret_key
    }

    /// Creates the bucket when it is missing, without HTTP.
    pub fn create_bucket(&self, bucket: &str) {
        self.backend.create(bucket);
    }

    /// Writes an object, without HTTP and uncounted; the bucket is created when it is missing.
    pub fn put(&self, bucket: &str, key: &str, data: impl Into<Bytes>) -> anyhow::Result<()> {
        self.backend.put(bucket, key, data.into(), None)
    }

    /// Writes an object that the server lists and will not give before it is restored.
    pub fn put_archived(&self, bucket: &str, key: &str, data: impl Into<Bytes>) -> anyhow::Result<()> {
        self.backend.put(bucket, key, data.into(), Some("GLACIER"))
    }

    /// Removes an object, without HTTP.
    pub fn remove(&self, bucket: &str, key: &str) {
        self.backend.remove(bucket, key);
    }

    /// Bytes of object bodies handed to sockets since the start or [`Self::reset_counts`].
    pub fn sent_bytes(&self) -> u64 {
        self.backend.sent_bytes()
    }

    /// Requests served (failed ones too, unless the signature was wrong) since the start or [`Self::reset_counts`].
    pub fn requests(&self) -> Requests {
        self.backend.requests()
    }

    pub fn reset_counts(&self) {
        self.backend.reset_counts();
    }

    /// Changes what goes wrong from now on: `server.faults(|faults| faults.fail_gets = 2)`.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        self.backend.change_faults(change);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Access {
    session_token: Option<String>,
    anonymous: bool,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> s3s::S3Result<()> {
        if context.credentials().is_none() {
            return if self.anonymous { Ok(()) } else { Err(s3s::s3_error!(AccessDenied, "Signature is required")) };
        }
        let Some(wanted) = &self.session_token else { return Ok(()) };
        match context.headers().get("x-amz-security-token") {
            Some(token) if token.as_bytes() == wanted.as_bytes() => Ok(()),
            _ => Err(s3s::s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid")),
        }
    }
}

fn service(options: &S3Options, backend: Backend) -> S3Service {
    let mut builder = S3ServiceBuilder::new(backend);
    builder.set_auth(SimpleAuth::from_single(options.access_key.clone(), options.secret_key.clone()));
    builder.set_access(Access { session_token: options.session_token.clone(), anonymous: options.anonymous });
    builder.build()
}

/// Connections are tasks of this one: aborting it drops the set, and with it every connection.
async fn accept(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let service = service.clone();
                connections.spawn(async move {
                    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "S3 connection ended");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
