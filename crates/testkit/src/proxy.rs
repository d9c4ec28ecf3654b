//! A TCP proxy that counts bytes and can be cut: an independent witness between a client and a server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

#[derive(Debug, Default)]
struct Counters {
    to_client: AtomicU64,
    to_server: AtomicU64,
    connections: AtomicU64,
}

/// What becomes of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It flows.
    Open,
    /// It waits: connections stay, nothing moves, new ones are not answered.
    Stalled,
    /// Connections are closed, new ones at once.
    Cut,
}

impl CountingProxy {
    /// Listens on `listen` (port 0 for any) and forwards to `server`, which need not be up yet.
    pub async fn start(listen: impl ToSocketAddrs, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
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
    if !wait_open(&mut gate).await {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut cut = gate.clone();
    let up = pump(&mut from_client, &mut to_server, &counters.to_server, gate.clone());
    let down = pump(&mut from_server, &mut to_client, &counters.to_client, gate);
    let both = async { tokio::join!(up, down) };
    tokio::select! {
        _ = both => {}
        _ = cut.wait_for(|gate| *gate == Gate::Cut) => {}
    }
}

/// Copies until the end of the stream, and passes that end on.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counter: &AtomicU64,
    mut gate: watch::Receiver<Gate>,
) {
    let mut buffer = vec![0; 128 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !wait_open(&mut gate).await || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}

/// Whether traffic may flow, once it no longer has to wait.
async fn wait_open(gate: &mut watch::Receiver<Gate>) -> bool {
    gate.wait_for(|gate| *gate != Gate::Stalled).await.is_ok_and(|gate| *gate == Gate::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_and_a_cut_closes_connections() {
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
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!((proxy.bytes_to_server(), proxy.bytes_to_client(), proxy.connections()), (5, 5, 1));
        proxy.set(Gate::Cut);
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    }
}
