use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Address, Caller, HandshakeError,
    frame::{Format, FrameError, FrameReader, InFrame, Limits, OutFrame},
    handshake::greet,
    hello::Session,
    message::{Failure, Request, Response},
    outbox::Outbox,
    socket::Socket,
};
use penstock_model::Object;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a worker tries its UFS.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {address}: {source}")]
    Io { address: Address, source: std::io::Error },
    #[error("{address} refuses: {source}")]
    Handshake { address: Address, source: HandshakeError },
    #[error("{address} does not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout { address: Address },
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The worker's own answer.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// No connection, or it was cut before the answer; all requests may be sent again, here or elsewhere.
    #[error("{0}")]
    Connection(String),
    #[error("no answer in time")]
    Timeout,
    /// An answer came that cannot be used; the connection goes on. Another worker may do better.
    #[error("{0}")]
    Unusable(String),
}

/// One authenticated connection to a worker, shared by its clones; any number of calls are in flight at once. It closes
/// with the last clone.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Arc<Connection>,
    call_timeout: Duration,
}

/// What ends with the last client.
#[derive(Debug)]
struct Connection {
    outbox: Outbox,
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outbox.shut();
    }
}

#[derive(Debug)]
struct Shared {
    address: Address,
    session: Session,
    next_id: AtomicU64,
    epoch: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<InFrame>>>,
    closed: CancellationToken,
}

impl Client {
    pub async fn connect(address: &Address, caller: &Caller) -> Result<Self, ConnectError> {
        timeout(CONNECT_TIMEOUT, Self::establish(address, caller))
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout { address: address.clone() }))
    }

    async fn establish(address: &Address, caller: &Caller) -> Result<Self, ConnectError> {
        let socket =
            Socket::connect(address).await.map_err(|source| ConnectError::Io { address: address.clone(), source })?;
        let (session, epoch) = greet(&socket, caller)
            .await
            .map_err(|source| ConnectError::Handshake { address: address.clone(), source })?;
        let shared = Arc::new(Shared {
            address: address.clone(),
            session,
            next_id: AtomicU64::new(1),
            epoch: AtomicU64::new(epoch),
            pending: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let socket = Arc::new(socket);
        tokio::spawn(run(socket.clone(), shared.clone()));
        let connection = Arc::new(Connection { outbox: Outbox::new(socket), shared });
        Ok(Self { connection, call_timeout: CALL_TIMEOUT })
    }

    /// A clone whose calls give up after `limit`.
    #[must_use]
    pub fn with_timeout(&self, limit: Duration) -> Self {
        Self { call_timeout: limit, ..self.clone() }
    }

    pub async fn call(&self, request: Request) -> Result<Response, CallError> {
        Ok(self.exchange(request).await?.0)
    }

    /// A read-only descriptor of the object's cached file, which the worker must hold whole. Unix sockets only.
    pub async fn open_local(&self, object: Object) -> Result<OwnedFd, CallError> {
        match self.exchange(Request::OpenLocal { object }).await? {
            (Response::Descriptor, Some(fd)) => Ok(fd),
            _ => Err(CallError::Connection(format!("{} sent no descriptor", self.connection.shared.address))),
        }
    }

    /// What was agreed on, and with whom.
    pub fn session(&self) -> &Session {
        &self.connection.shared.session
    }

    /// The newest member-list epoch that the worker has named.
    pub fn peer_epoch(&self) -> u64 {
        self.connection.shared.epoch.load(Ordering::Relaxed)
    }

    pub fn is_closed(&self) -> bool {
        self.connection.shared.closed.is_cancelled()
    }

    /// Calls that wait for their answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.connection.shared.pending.lock().len()
    }

    async fn exchange(&self, request: Request) -> Result<(Response, Option<OwnedFd>), CallError> {
        let frame = timeout(self.call_timeout, self.send_and_wait(request)).await.map_err(|_| CallError::Timeout)??;
        let address = &self.connection.shared.address;
        let unusable = |error| CallError::Unusable(format!("the answer of {address} is of no use: {error}"));
        let (answer, fd) = frame.into_answer().map_err(unusable)?;
        Ok((answer?, fd))
    }

    async fn send_and_wait(&self, request: Request) -> Result<InFrame, CallError> {
        let Connection { outbox, shared } = &*self.connection;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = OutFrame::request(Format::from(&shared.session), id, self.peer_epoch(), request)
            .map_err(|error| CallError::Failure(Failure::BadRequest(error.to_string())))?;
        let (sender, receiver) = oneshot::channel();
        shared.pending.lock().insert(id, sender);
        // Also when the caller gives up.
        let _forget = Forget { shared, id };
        // The connection's task clears `pending` after it has set `closed`: whoever inserted before is woken by that,
        // whoever inserts later sees `closed`.
        if self.is_closed() || outbox.send(frame).await.is_err() {
            return Err(shared.cut());
        }
        receiver.await.map_err(|_| shared.cut())
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.pending.lock().remove(&self.id);
    }
}

impl Shared {
    fn cut(&self) -> CallError {
        CallError::Connection(format!("the connection to {} was cut", self.address))
    }
}

/// The connection's life: ends when it is cut, by the other side or with the last client.
async fn run(socket: Arc<Socket>, shared: Arc<Shared>) {
    if let Err(error) = read_answers(&socket, &shared).await {
        tracing::debug!(address = %shared.address, %error, "connection ended");
    }
    shared.closed.cancel();
    socket.shut();
    shared.pending.lock().clear();
}

async fn read_answers(socket: &Arc<Socket>, shared: &Shared) -> Result<(), FrameError> {
    let format = Format::from(&shared.session);
    let mut reader = FrameReader::new(socket.clone(), format, Limits::ANSWER, socket.is_unix());
    while let Some(frame) = reader.next().await? {
        shared.epoch.fetch_max(frame.header.epoch, Ordering::Relaxed);
        let waiting = shared.pending.lock().remove(&frame.header.id);
        if let Some(waiting) = waiting {
            // The caller may have given up meanwhile.
            let _ = waiting.send(frame);
        }
    }
    Ok(())
}
