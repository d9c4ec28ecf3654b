use std::{future::Future, io, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Host,
    check::check,
    frame::{Attachment, Format, FrameError, FrameReader, Limits, OutFrame},
    handshake::{HandshakeError, welcome},
    hello::Session,
    message::{Failure, Request, Response, Role},
    outbox::Outbox,
    socket::Socket,
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not yet proved anything; more are dropped at once.
const STRANGERS: usize = 1024;
/// What one connection may have in flight, in units of [`UNIT`] bytes of answer: 64 MiB, or 1024 small requests.
const BUDGET: usize = 1024;
const UNIT: usize = 64 << 10;
/// What an entry of a listing takes, bytes, estimated from above for usual names.
const ENTRY: usize = 256;

/// What a worker answers.
#[derive(Debug)]
pub struct Reply {
    pub response: Response,
    pub attachment: Attachment,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self { response, attachment: Attachment::Nothing }
    }
}

/// The side that answers. Requests reach it only when the connection's role allows them and their ranges and paths are
/// well formed.
pub trait Service: Send + Sync + 'static {
    /// The epoch of the member list that is in use; goes out with every answer.
    fn epoch(&self) -> u64;

    fn call(&self, role: Role, request: Request) -> impl Future<Output = Result<Reply, Failure>> + Send;
}

#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// Answers connections until `shutdown`, then accepts and reads no more, finishes what is in flight, and returns.
pub async fn serve<S: Service>(
    listener: impl Into<Listener>,
    host: Host,
    service: Arc<S>,
    shutdown: CancellationToken,
) {
    let listener = listener.into();
    let door = Arc::new(Door { host, service, shutdown, strangers: Arc::new(Semaphore::new(STRANGERS)) });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = door.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(socket) => {
                if let Ok(stranger) = door.strangers.clone().try_acquire_owned() {
                    connections.spawn(admit(door.clone(), socket, stranger));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors, most likely: let some connections end.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

struct Door<S> {
    host: Host,
    service: Arc<S>,
    shutdown: CancellationToken,
    strangers: Arc<Semaphore>,
}

async fn admit<S: Service>(door: Arc<Door<S>>, socket: Socket, stranger: OwnedSemaphorePermit) {
    let handshake = welcome(&socket, &door.host, door.service.epoch());
    let proved = tokio::select! {
        () = door.shutdown.cancelled() => return,
        proved = timeout(HANDSHAKE_TIMEOUT, handshake) => proved,
    };
    drop(stranger);
    match proved {
        Ok(Ok((role, session))) => converse(&door, Arc::new(socket), role, &session).await,
        // Probes of load balancers and the like.
        Ok(Err(HandshakeError::Cut | HandshakeError::Io(_))) => {}
        Ok(Err(error)) => tracing::warn!(%error, "refused a connection"),
        Err(_) => tracing::warn!("refused a connection: no handshake in time"),
    }
}

async fn converse<S: Service>(door: &Door<S>, socket: Arc<Socket>, role: Role, session: &Session) {
    let Session { name, release, version, .. } = session;
    tracing::debug!(?role, name, release, version, "a connection begins");
    let connection = Connection {
        service: door.service.clone(),
        outbox: Outbox::new(socket.clone()),
        format: Format::from(session),
        role,
        local: socket.is_unix(),
    };
    let calls = TaskTracker::new();
    let read = read_requests(Arc::new(connection), &socket, &calls, &door.shutdown).await;
    calls.close();
    calls.wait().await;
    if let Err(error) = read {
        tracing::debug!(%error, "connection ended");
    }
}

async fn read_requests<S: Service>(
    connection: Arc<Connection<S>>,
    socket: &Arc<Socket>,
    calls: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), FrameError> {
    let limits = if connection.role == Role::Peer { Limits::FROM_PEER } else { Limits::FROM_CLIENT };
    let mut reader = FrameReader::new(socket.clone(), connection.format, limits, false);
    let budget = Arc::new(Semaphore::new(BUDGET));
    loop {
        let frame = tokio::select! {
            // What arrives after it is not read any more.
            biased;
            () = shutdown.cancelled() => return Ok(()),
            frame = reader.next() => frame?,
        };
        let Some(frame) = frame else { return Ok(()) };
        let id = frame.header.id;
        let request = frame.into_request();
        let weight = request.as_ref().map_or(1, weight);
        let Ok(permit) = budget.clone().acquire_many_owned(weight).await else { return Ok(()) };
        let mut call = Box::pin(connection.clone().call(id, request, permit));
        // What is small is often answered here and now, without waking another thread.
        if weight > 1 || call.as_mut().now_or_never().is_none() {
            calls.spawn(call);
        }
    }
}

/// One that has proved its role.
struct Connection<S> {
    service: Arc<S>,
    outbox: Outbox,
    format: Format,
    role: Role,
    /// A unix socket.
    local: bool,
}

impl<S: Service> Connection<S> {
    /// Answers one request; `_share` of the connection's budget is free again when the answer is on its way.
    async fn call(self: Arc<Self>, id: u64, request: Result<Request, Failure>, _share: OwnedSemaphorePermit) {
        let answer = match request {
            Ok(request) => answer(&*self.service, self.role, self.local, request).await,
            Err(failure) => Err(failure),
        };
        if let Some(frame) = encode(self.format, id, self.service.epoch(), answer) {
            // Nobody reads it any more when the connection was cut.
            let _ = self.outbox.send(frame).await;
        }
    }
}

/// Units of the connection's budget that the answer may take.
fn weight(request: &Request) -> u32 {
    let bytes = match request {
        Request::Read { len, .. } => *len as usize,
        Request::List { limit, .. } => (*limit as usize).saturating_mul(ENTRY),
        _ => 0,
    };
    bytes.div_ceil(UNIT).clamp(1, BUDGET / 2) as u32
}

async fn answer<S: Service>(service: &S, role: Role, local: bool, request: Request) -> Result<Reply, Failure> {
    check(role, &request)?;
    if !local && matches!(request, Request::OpenLocal { .. }) {
        return Err(Failure::BadRequest("descriptors travel over unix sockets only".into()));
    }
    service.call(role, request).await
}

fn encode(format: Format, id: u64, epoch: u64, answer: Result<Reply, Failure>) -> Option<OutFrame> {
    OutFrame::answer(format, id, epoch, answer.map(|reply| (reply.response, reply.attachment)))
        .or_else(|error| OutFrame::answer(format, id, epoch, Err(Failure::Unavailable(error.to_string()))))
        .inspect_err(|error| tracing::error!(%error, "cannot encode an answer"))
        .ok()
}
