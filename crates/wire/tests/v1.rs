//! The protocol moves without breaking: version 1 by its frozen bytes (`testdata/v1.txt`), and a side that is newer than
//! this release.
#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod common;
#[path = "common/samples.rs"]
mod samples;
#[path = "common/v1.rs"]
mod v1;

use std::{fmt::Debug, time::Duration};

use common::{caller, tcp_server};
use minicbor::{Decode, Decoder, Encode, data::Type};
use penstock_wire::{
    Access, Address, Client, Credential, Features,
    message::{Failure, Request, Response},
};
use samples::{failures, requests, responses};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use v1::{CONTENT, FAILURE, Mount, Secrets};

/// Decodes the frozen bytes, and encodes what they mean.
fn frozen<M>(samples: Vec<(&'static str, M)>)
where
    M: Encode<()> + for<'b> Decode<'b, ()> + Debug + PartialEq,
{
    for (name, message) in samples {
        let (old, new) = (v1::bytes(name), minicbor::to_vec(&message).unwrap());
        assert_eq!(minicbor::decode::<M>(&old).unwrap(), message, "{name}");
        assert!(extends(&mut Decoder::new(&old), &mut Decoder::new(&new)), "{name} is now {}", hex(&new));
    }
}

/// Whether `new` is `old`, with more elements at the end of some arrays: those a reader of version 1 passes over.
fn extends(old: &mut Decoder<'_>, new: &mut Decoder<'_>) -> bool {
    if let (Type::Array, Type::Array) = (old.datatype().unwrap(), new.datatype().unwrap()) {
        let (before, now) = (old.array().unwrap().unwrap(), new.array().unwrap().unwrap());
        if now < before {
            return false;
        }
        let same = (0..before).all(|_| extends(old, new));
        (before..now).for_each(|_| new.skip().unwrap());
        return same;
    }
    let item = |decoder: &mut Decoder<'_>| {
        let start = decoder.position();
        decoder.skip().unwrap();
        decoder.input()[start..decoder.position()].to_vec()
    };
    item(old) == item(new)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn secrets() -> Secrets {
    Secrets { client: [1; 32], peer: [2; 32] }
}

fn key(bytes: [u8; 32]) -> Credential {
    Credential::from_hex(&hex(&bytes)).unwrap()
}

#[test]
fn every_request_of_version_1_is_read_and_said_as_it_was() {
    frozen(requests());
}

#[test]
fn every_answer_of_version_1_is_read_and_said_as_it_was() {
    frozen(responses());
    frozen(failures());
}

#[tokio::test]
async fn a_worker_of_version_1_answers_this_release_with_and_without_checksums() {
    for features in [0, v1::CHECKSUMS] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let worker = tokio::spawn(v1::worker(listener, secrets(), features));
        let access = Access::Client { key: key(secrets().client), peers: key(secrets().peer).public() };
        let client = Client::connect(&address, &caller(access)).await.unwrap();
        assert_eq!(client.session().features.contains(Features::CHECKSUMS), features != 0);
        assert_eq!((client.session().version, client.session().name.as_str()), (1, "w-0"));
        let read = requests().into_iter().find(|(name, _)| *name == "read").unwrap().1;
        let answer = client.call(read).await.unwrap();
        assert_eq!(answer, Response::Data(CONTENT.into()));
        let refused = client.call(Request::ReadLink { path: b"x".to_vec() }).await.unwrap_err();
        assert!(matches!(refused, penstock_wire::CallError::Failure(Failure::Unsupported(_))), "{refused}");
        worker.abort();
    }
}

async fn mount(server: &common::Server, hello: &str) -> Mount<TcpStream> {
    let (stream, secrets, peers) = reach(server).await;
    Mount::connect(stream, &secrets, &peers, hello).await
}

async fn reach(server: &common::Server) -> (TcpStream, Secrets, [u8; 32]) {
    let bytes = |key: &Credential| key_bytes(&key.to_hex());
    let secrets = Secrets { client: bytes(&server.keys.client), peer: bytes(&server.keys.peer) };
    let peers = key_bytes(&server.keys.peer.public().to_hex());
    (TcpStream::connect(server.tcp()).await.unwrap(), secrets, peers)
}

fn key_bytes(hex: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

#[tokio::test]
async fn a_mount_of_version_1_is_answered_by_this_release_with_and_without_checksums() {
    let server = tcp_server().await;
    for (hello, features) in [("hello", v1::CHECKSUMS), ("hello-without-features", 0)] {
        let mut mount = mount(&server, hello).await;
        assert_eq!(mount.features(), features);
        let answer = mount.ask(&v1::bytes("read")).await;
        assert_eq!((answer.flags, answer.message, answer.body), (0, v1::bytes("data"), vec![0; 5]));
        let answer = mount.ask(&v1::bytes("stat")).await;
        assert_eq!((answer.flags, answer.message), (FAILURE, v1::bytes("not-found")));
    }
}

/// It speaks versions 1 to 9, has all features that 64 bits can name, and its hello has more fields.
#[tokio::test]
async fn a_newer_mount_is_answered_in_the_version_and_with_the_features_that_both_know() {
    let server = tcp_server().await;
    let mut mount = mount(&server, "hello-of-a-later-release").await;
    assert_eq!(mount.features(), v1::CHECKSUMS);
    // `ReadLink`, whose fields are the path and one that is not known here.
    let longer = mount.ask(&[0x82, 3, 0x82, 0x41, b'x', 0x83, 1, 2, 3]).await;
    assert_eq!((longer.flags, longer.message), (0, minicbor::to_vec(Response::Target(b"x".to_vec())).unwrap()));
}

#[tokio::test]
async fn an_unknown_request_gets_a_polite_failure_and_the_connection_goes_on() {
    let server = tcp_server().await;
    let mut mount = mount(&server, "hello").await;
    for unknown in [&[0x82, 0x18, 99, 0x81, 1][..], &[0xff], &[], &[0x82, 3, 0x80]] {
        let answer = mount.ask(unknown).await;
        assert_eq!(answer.flags, FAILURE);
        let failure: Failure = minicbor::decode(&answer.message).unwrap();
        assert!(matches!(&failure, Failure::Unsupported(text) if text.contains("release")), "{failure}");
    }
    assert_eq!(mount.ask(&v1::bytes("read")).await.body, [0; 5]);
}

#[tokio::test]
async fn a_client_key_does_not_make_a_peer() {
    let server = tcp_server().await;
    let (stream, secrets, peers) = reach(&server).await;
    let (_, verdict) = v1::knock(stream, &secrets, &peers, "hello-of-a-peer").await;
    // `Refusal` (1), for the reason `Proof` (2).
    assert_eq!(verdict[..5], [0x82, 1, 0x81, 0x83, 2]);
}

#[tokio::test]
async fn a_side_that_speaks_only_later_versions_is_told_which_ones_are_spoken_here() {
    let server = tcp_server().await;
    let mut stream = TcpStream::connect(server.tcp()).await.unwrap();
    let hello = v1::bytes("hello-of-version-2-only");
    let hello = [&b"PsHi"[..], &(hello.len() as u16).to_le_bytes(), &hello].concat();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("hangs up").unwrap();
    // `Refusal` (1), for the reason `Version` (0): 1 to 1.
    assert_eq!(answer[6..14], [0x82, 1, 0x81, 0x83, 0, 0x82, 1, 1]);
}
