//! The transport on real sockets: who gets in, what is refused, and what happens when a side goes away.
#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod common;

use std::{fs::File, io::Read, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use common::{caller, keys, object, pattern, read, start, tcp_server};
use futures::FutureExt;
use penstock_model::Object;
use penstock_wire::{
    Access, Address, CallError, Caller, Client, ConnectError, Credential, HandshakeError, Keys,
    message::{Failure, Pattern, Reach, Request, Response},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    time::{sleep, timeout},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_in_flight_get_each_their_own_answer() {
    let server = tcp_server().await;
    server.service.epoch.store(42, Ordering::Relaxed);
    let client = server.client().await;
    let calls: Vec<_> = (0..400u64)
        .map(|i| {
            let client = client.clone();
            let len = 1 + (i as u32 * 7919) % 300_000;
            tokio::spawn(async move {
                let Response::Data(data) = client.call(read(i, len)).await.unwrap() else { panic!() };
                assert!(data.len() == len as usize && data.iter().all(|b| *b == i as u8));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(client.peer_epoch(), 42);
}

#[tokio::test]
async fn a_wrong_key_another_role_s_key_and_another_dataset_are_refused() {
    let server = tcp_server().await;
    let Keys { client, peer } = server.keys.clone();
    let stranger = Credential::generate().unwrap();
    let as_client = |key: &Credential| Access::Client { key: key.clone(), peers: peer.public() };
    for access in [as_client(&stranger), as_client(&peer)] {
        let refused = handshake_error(&server.address, &caller(access)).await;
        assert!(matches!(refused, HandshakeError::Key), "{refused}");
    }
    let refused = handshake_error(&server.address, &caller(Access::Peer(client.clone()))).await;
    assert!(matches!(refused, HandshakeError::NotAWorker), "{refused}");
    let elsewhere = Caller { dataset: "quant/other".into(), ..caller(as_client(&client)) };
    let refused = handshake_error(&server.address, &elsewhere).await;
    assert!(matches!(refused, HandshakeError::Dataset), "{refused}");
}

async fn handshake_error(address: &Address, caller: &Caller) -> HandshakeError {
    let refused = Client::connect(address, caller).await;
    let Err(ConnectError::Handshake { source, .. }) = refused else { panic!("{caller:?} got in") };
    source
}

#[tokio::test]
async fn a_client_may_not_send_what_is_for_peers() {
    let server = tcp_server().await;
    let client = server.client().await;
    let push = Request::Push { object: object(b"a"), offset: 0, data: Bytes::from(vec![1; 4 << 20]) };
    for request in [Request::Stats, Request::Drain, Request::SetMembers(penstock_placement::MemberList::default())] {
        assert!(matches!(client.call(request).await, Err(CallError::Failure(Failure::BadRequest(_)))));
    }
    assert_eq!(server.service.calls.load(Ordering::Relaxed), 0);
    // A client's frames have no bulk bytes at all: the connection ends before they are read.
    assert!(matches!(client.call(push.clone()).await, Err(CallError::Connection(_))));
    assert!(client.is_closed());
    assert_eq!(server.peer().await.call(push).await.unwrap(), Response::Done);
}

#[tokio::test]
async fn a_recorded_handshake_opens_nothing() {
    let server = tcp_server().await;
    let target = server.tcp().to_owned();
    let tap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tapped = Address::Tcp(tap.local_addr().unwrap().to_string());
    let record = tokio::spawn(async move {
        let (mut from, _) = tap.accept().await.unwrap();
        let mut to = TcpStream::connect(&target).await.unwrap();
        let mut said = pass(&mut from, &mut to).await;
        pass(&mut to, &mut from).await;
        pass(&mut to, &mut from).await;
        said.extend(pass(&mut from, &mut to).await);
        pass(&mut to, &mut from).await;
        (said, target)
    });
    Client::connect(&tapped, &server.mount()).await.unwrap();
    let (said, target) = record.await.unwrap();
    let mut replay = TcpStream::connect(&target).await.unwrap();
    replay.write_all(&said).await.unwrap();
    let mut answers = Vec::new();
    replay.read_to_end(&mut answers).await.unwrap();
    // `Refusal` (1), for the reason `Proof` (2).
    let refusal = [0x82, 1, 0x81, 0x83, 2];
    assert!(answers.windows(refusal.len()).any(|part| part == refusal), "the second verdict must be a refusal");
}

/// Passes one message of the handshake on, and returns it.
async fn pass(from: &mut TcpStream, to: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; 6];
    from.read_exact(&mut message).await.unwrap();
    let len = usize::from(u16::from_le_bytes([message[4], message[5]]));
    message.resize(6 + len, 0);
    from.read_exact(&mut message[6..]).await.unwrap();
    to.write_all(&message).await.unwrap();
    message
}

#[tokio::test]
async fn an_oversized_or_foreign_greeting_ends_the_connection() {
    let server = tcp_server().await;
    let Address::Tcp(target) = &server.address else { unreachable!() };
    let mut long = [b"PsHi".to_vec(), vec![0xff, 0xff]].concat();
    long.extend(vec![b'x'; 70_000]);
    for greeting in [long, b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n".to_vec()] {
        let mut stream = TcpStream::connect(target).await.unwrap();
        let _ = stream.write_all(&greeting).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await.expect("hangs up");
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn a_server_that_vanishes_without_goodbye_fails_waiting_calls() {
    let server = tcp_server().await;
    let (address, relay) = server.relay().await;
    let client = Client::connect(&address, &server.mount()).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(Request::ReadLink { path: b"slow".to_vec() }).await }
    });
    sleep(Duration::from_millis(50)).await;
    relay.abort();
    let answer = timeout(Duration::from_millis(200), waiting).await.expect("fails at once").unwrap();
    assert!(matches!(answer, Err(CallError::Connection(_))));
    assert!(client.is_closed());
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight() {
    let server = tcp_server().await;
    let client = server.client().await;
    let slow = tokio::spawn(async move { client.call(Request::ReadLink { path: b"slow".to_vec() }).await });
    sleep(Duration::from_millis(50)).await;
    server.shutdown.cancel();
    timeout(Duration::from_secs(2), server.task).await.unwrap().unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), Response::Target(b"slow".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_reach_whom_they_are_meant_for_among_other_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.sock");
    let server = start(UnixListener::bind(&path).unwrap().into(), Address::Unix(path), keys());
    let client = server.client().await;
    let calls: Vec<_> = (0..200u32)
        .map(|i| {
            let client = client.clone();
            tokio::spawn(async move {
                let name = format!("object-{i}");
                if i % 3 == 0 {
                    client.call(read(0, 1 + i * 999)).await.unwrap();
                }
                let mut file = File::from(client.open_local(object(name.as_bytes())).await.unwrap());
                let mut content = String::new();
                std::io::Seek::rewind(&mut file).unwrap();
                file.read_to_string(&mut content).unwrap();
                assert_eq!(content, name);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn descriptors_do_not_travel_over_tcp() {
    let server = tcp_server().await;
    let refused = server.client().await.open_local(object(b"a")).await;
    assert!(matches!(refused, Err(CallError::Failure(Failure::BadRequest(_)))), "{refused:?}");
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_the_connection_goes_on() {
    let server = tcp_server().await;
    let client = server.client().await;
    let hasty = client.with_timeout(Duration::from_millis(30));
    assert!(matches!(hasty.call(Request::ReadLink { path: b"slow".to_vec() }).await, Err(CallError::Timeout)));
    assert!(client.call(read(0, 5)).await.is_ok());
}

/// The runtime has one thread: nobody reads while the first part is written, so the socket cannot take all of it.
#[tokio::test]
async fn a_call_given_up_while_it_is_written_does_not_spoil_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = start(UnixListener::bind(&path).unwrap().into(), Address::Unix(path), keys());
    let peer = server.peer().await;
    let data = Bytes::from(vec![7; 4 << 20]);
    assert!(peer.call(Request::Push { object: object(b"a"), offset: 0, data }).now_or_never().is_none());
    assert!(matches!(peer.call(read(3, 5)).await, Ok(Response::Data(data)) if data[..] == [3; 5]));
    assert_eq!(server.service.calls.load(Ordering::Relaxed), 2, "what was begun arrived whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_files_arrive_whole_among_other_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let keys = keys();
    let unix = start(UnixListener::bind(&path).unwrap().into(), Address::Unix(path), keys);
    let size = 4 << 20;
    for server in [tcp_server().await, unix] {
        let client = server.client().await;
        let calls = (0..40u64).map(|i| {
            let client = client.clone();
            tokio::spawn(async move {
                let (offset, len) = (i * 70_001, 1 + (i as u32 * 104_729) % 1_000_000);
                let object = Object { size, ..object(b"file") };
                let request = Request::Read { object, offset, len, pattern: Pattern::Random, reach: Reach::Ufs };
                let Response::Data(data) = client.call(request).await.unwrap() else { panic!() };
                assert!(data[..] == pattern(size)[offset as usize..][..len as usize], "{offset} {len}");
                assert!(client.call(read(i, 100)).await.is_ok());
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_that_ends_before_its_range_cuts_the_connection() {
    let server = tcp_server().await;
    let client = server.client().await;
    let object = Object { size: 4096, ..object(b"file") };
    let request = Request::Read { object, offset: 0, len: 4096, pattern: Pattern::Random, reach: Reach::Ufs };
    assert!(client.call(request).await.is_ok());
    let object = Object { size: 100_000, ..self::object(b"short") };
    let request = Request::Read { object, offset: 0, len: 100_000, pattern: Pattern::Random, reach: Reach::Ufs };
    assert!(matches!(client.call(request).await, Err(CallError::Connection(_))));
}
