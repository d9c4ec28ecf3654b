//! A TCP proxy that counts bytes and can be cut: an independent witness between a client and a server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards every connection to one server; stops when dropped.
#[derive(Debug)]
pub struct CountingProxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    gate: watch::Sender<Gate>,
    accept: JoinHandle<()>,
}

#[derive(Debug)]
struct Counters {
    to_client: AtomicU64,
    to_server: AtomicU64,
    connections: AtomicU64,
    /// The value of `to_client` at which one connection breaks.
    break_at: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { to_client: zero(), to_server: zero(), connections: zero(), break_at: AtomicU64::new(u64::MAX) }
    }
}

impl Counters {
    /// How many of `count` bytes a client still gets before its connection breaks; `None` when it does not. Breaks once.
    fn last_bytes(&self, count: u64) -> Option<u64> {
        let (at, sent) = (self.break_at.load(Ordering::Relaxed), self.to_client.load(Ordering::Relaxed));
        let breaks = sent + count > at
            && self.break_at.compare_exchange(at, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        breaks.then(|| at.saturating_sub(sent))
    }
}

/// What becomes of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It flows.
    Open,
    /// It flows at so many bytes per second, each direction of each connection.
    Slow(u64),
    /// It waits: connections stay, nothing moves, new ones are not answered.
    Stalled,
    /// Connections are closed, new ones at once.
    Cut,
}

impl CountingProxy {
    /// Listens on `listen` (port 0 for any) and forwards to `server`, which need not be up yet.
    pub async fn start(listen: impl ToSocketAddrs, server: SocketAddr) -> io::Result<Self> {
        Self::start_on(TcpListener::bind(listen).await?, server)
    }

    /// As [`Self::start`], on a listener that may be of another network namespace. Needs a tokio runtime.
    pub fn start_on(listener: TcpListener, server: SocketAddr) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let (gate, state) = watch::channel(Gate::Open);
        let accept = tokio::spawn(accept_loop(listener, server, counters.clone(), state));
        Ok(Self { address, counters, gate, accept })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that the server sent and clients received, headers included.
    pub fn bytes_to_client(&self) -> u64 {
        self.counters.to_client.load(Ordering::Relaxed)
    }

    /// Bytes that clients sent.
    pub fn bytes_to_server(&self) -> u64 {
        self.counters.to_server.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// Breaks, once, the connection that would bring clients together more than `bytes` from now on, at that very byte.
    pub fn break_after(&self, bytes: u64) {
        self.counters.break_at.store(self.bytes_to_client() + bytes, Ordering::Relaxed);
    }

    /// Lets traffic flow, wait, or break.
    pub fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.gate.send_replace(Gate::Cut);
    }
}

async fn accept_loop(listener: TcpListener, server: SocketAddr, counters: Arc<Counters>, gate: watch::Receiver<Gate>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        counters.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(client, server, counters.clone(), gate.clone()));
    }
}

async fn serve(client: TcpStream, server: SocketAddr, counters: Arc<Counters>, mut gate: watch::Receiver<Gate>) {
    if !wait_open(&mut gate, 0).await {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut cut = gate.clone();
    let up = pump(&mut from_client, &mut to_server, &counters.to_server, |_| None, gate.clone());
    let down = pump(&mut from_server, &mut to_client, &counters.to_client, |count| counters.last_bytes(count), gate);
    let both = async { tokio::try_join!(up, down) };
    tokio::select! {
        _ = both => {}
        _ = cut.wait_for(|gate| *gate == Gate::Cut) => {}
    }
}

/// The connection is to be closed in both directions.
struct Broken;

/// Copies until the end of the stream, and passes that end on. `last_bytes`: of a piece, when the connection breaks in it.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counter: &AtomicU64,
    last_bytes: impl Fn(u64) -> Option<u64>,
    mut gate: watch::Receiver<Gate>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 128 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let last = last_bytes(count as u64);
        let count = last.map_or(count, |last| last as usize);
        if !wait_open(&mut gate, count as u64).await || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if last.is_some() {
            return Err(Broken);
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

/// Whether `bytes` may flow, once they no longer have to wait.
async fn wait_open(gate: &mut watch::Receiver<Gate>, bytes: u64) -> bool {
    let Ok(now) = gate.wait_for(|gate| *gate != Gate::Stalled).await.map(|gate| *gate) else { return false };
    if let Gate::Slow(bytes_per_second) = now {
        // As long as they take, or until something else becomes of the traffic.
        let time = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        let changed = tokio::time::timeout(time, gate.wait_for(|gate| *gate != now)).await;
        return changed.map_or(true, |gate| gate.is_ok_and(|gate| *gate != Gate::Cut));
    }
    now == Gate::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets, and a connection to it.
    async fn echo() -> (CountingProxy, TcpStream) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = echo.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = CountingProxy::start("127.0.0.1:0", server).await.unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, client)
    }

    #[tokio::test]
    async fn a_connection_breaks_once_at_the_very_byte() {
        let (proxy, mut client) = echo().await;
        proxy.break_after(7);
        client.write_all(b"0123456789").await.unwrap();
        let mut answer = Vec::new();
        // The rest is lost, by an end of the stream or by a reset.
        let _ = client.read_to_end(&mut answer).await;
        assert_eq!(answer, b"0123456");
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        again.write_all(b"0123456789").await.unwrap();
        again.read_exact(&mut [0; 10]).await.unwrap();
    }

    #[tokio::test]
    async fn bytes_are_counted_and_a_cut_closes_connections() {
        let (proxy, mut client) = echo().await;
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!((proxy.bytes_to_server(), proxy.bytes_to_client(), proxy.connections()), (5, 5, 1));
        proxy.set(Gate::Cut);
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    }
}
