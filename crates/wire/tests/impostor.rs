//! Whoever holds what mounts hold reads, and answers nobody.
#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod common;

use std::path::Path;

use common::{caller, keys, start, tcp_server};
use penstock_wire::{Access, Address, Client, ConnectError, Credential, HandshakeError, Keys};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// What somebody can set up who has read the Secret of a Dataset's mounts: the client key is the right one.
fn forged(keys: &Keys) -> Keys {
    Keys { peer: Credential::generate().unwrap(), ..keys.clone() }
}

fn unix(path: &Path) -> (penstock_wire::Listener, Address) {
    (UnixListener::bind(path).unwrap().into(), Address::Unix(path.to_owned()))
}

async fn refused(address: &Address, access: Access) -> HandshakeError {
    match Client::connect(address, &caller(access)).await {
        Err(ConnectError::Handshake { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_key_that_plays_a_worker_is_refused_over_tcp_and_over_the_socket() {
    let (keys, folder) = (keys(), tempfile::tempdir().unwrap());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp_address = Address::Tcp(tcp.local_addr().unwrap().to_string());
    let (socket, socket_address) = unix(&folder.path().join("worker.sock"));
    for (listener, address) in [(tcp.into(), tcp_address), (socket, socket_address)] {
        let server = start(listener, address, forged(&keys));
        for access in [keys.for_clients(), Access::Peer(keys.peer.clone())] {
            let error = refused(&server.address, access).await;
            assert!(matches!(error, HandshakeError::NotAWorker), "{error}");
        }
    }
}

/// A socket in the folder of a node whose owner passes the handshake on to a real worker, to answer in its place later.
#[tokio::test]
async fn a_socket_that_relays_to_a_worker_is_refused() {
    let (server, folder) = (tcp_server().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("worker.sock");
    let (listener, target) = (UnixListener::bind(&path).unwrap(), server.tcp().to_owned());
    tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut to = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    let error = refused(&Address::Unix(path), server.keys.for_clients()).await;
    assert!(matches!(error, HandshakeError::Relayed), "{error}");
}
