//! A client that asks for much and takes nothing: what the server keeps for it has a bound.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use penstock_model::{Attr, Entry, Kind, Object, ObjectKey, Version};
use penstock_wire::{
    Address, Caller, Client, Host, Keys, Reply, Service,
    message::{Failure, Pattern, Reach, Request, Response, Role},
    serve,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

const DATASET: &str = "quant/bars";
const MIB: usize = 1 << 20;
/// Of one connection, as its server promises.
const BOUND: usize = 64 * MIB;
/// Of a listing, about as long as names are.
const NAME: usize = 200;

/// Answers at once, and counts the bytes that answers hold until the socket has them.
#[derive(Default)]
struct Hoard {
    answered: AtomicUsize,
    held: Arc<AtomicUsize>,
    most: AtomicUsize,
}

struct Held {
    bytes: Vec<u8>,
    count: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes.len(), SeqCst);
    }
}

impl Service for Hoard {
    fn epoch(&self) -> u64 {
        1
    }

    async fn call(&self, _: Role, request: Request) -> Result<Reply, Failure> {
        self.answered.fetch_add(1, SeqCst);
        Ok(match request {
            Request::Read { len, .. } => {
                let now = self.held.fetch_add(len as usize, SeqCst) + len as usize;
                self.most.fetch_max(now, SeqCst);
                let held = Held { bytes: vec![7; len as usize], count: self.held.clone() };
                Response::Data(Bytes::from_owner(held)).into()
            }
            Request::List { limit, .. } => {
                let attr = Attr { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: 0o755, object: None };
                let entry = Entry { name: vec![b'n'; NAME], attr };
                Response::Entries { entries: vec![entry; limit as usize], more: false, age_ms: 0 }.into()
            }
            _ => Response::Done.into(),
        })
    }
}

/// A server, and a client whose answers wait while the flow is off.
async fn connected() -> (Arc<Hoard>, Client, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let (dataset, keys) = (DATASET.to_owned(), Keys::generate().unwrap());
    let caller = Caller { dataset: dataset.clone(), name: "test".into(), access: keys.for_clients() };
    let host = Host { dataset, name: "w-0".into(), keys };
    let service = Arc::new(Hoard::default());
    tokio::spawn(serve(listener, host, service.clone(), CancellationToken::new()));
    let (flow, flows) = watch::channel(true);
    let address = Address::Tcp(relay(server, flows).await);
    (service, Client::connect(&address, &caller).await.unwrap(), flow)
}

/// Passes one connection on, towards the client only while it flows.
async fn relay(server: String, mut flows: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = listener.accept().await.unwrap().0.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut buffer = vec![0; 64 << 10];
        while flows.wait_for(|flows| *flows).await.is_ok() {
            let Ok(count @ 1..) = from_server.read(&mut buffer).await else { return };
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    address
}

fn read(len: usize) -> Request {
    let object = Object { key: ObjectKey(9), path: b"a".to_vec(), version: Version("v".into()), size: 4 << 20 };
    Request::Read { object, offset: 0, len: len as u32, pattern: Pattern::Random, reach: Reach::Ufs }
}

/// Until the server takes no more requests, having taken `enough`.
async fn stuck(service: &Hoard, enough: usize) {
    let mut before = 0;
    loop {
        sleep(Duration::from_millis(200)).await;
        let now = service.answered.load(SeqCst);
        if now == before && now >= enough {
            return;
        }
        before = now;
    }
}

/// Sends so many requests while nothing is taken; how many the server worked on meanwhile, `enough` at least. Then all
/// are answered.
async fn ask_without_reading(count: usize, enough: usize, request: Request) -> (usize, Arc<Hoard>) {
    let (service, client, flow) = connected().await;
    flow.send_replace(false);
    let calls = join_all((0..count).map(|_| client.call(request.clone())));
    let observed = async {
        stuck(&service, enough).await;
        let worked_on = service.answered.load(SeqCst);
        flow.send_replace(true);
        worked_on
    };
    let (answers, worked_on) = tokio::join!(calls, observed);
    assert!(answers.iter().all(Result::is_ok), "every call is answered in the end");
    (worked_on, service)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_asked_for_and_not_taken_are_bounded() {
    for (count, len) in [(120, MIB), (30, 4 * MIB), (1200, 100 << 10)] {
        let (_, service) = ask_without_reading(count, BOUND / 4 / len + 1, read(len)).await;
        let most = service.most.load(SeqCst);
        assert!(most <= BOUND, "{most} bytes were held for requests of {len}");
        assert!(most > BOUND / 4, "only {most} bytes were under way for requests of {len}");
        assert_eq!(service.held.load(SeqCst), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_that_are_asked_for_and_not_taken_are_bounded() {
    let limit = 2000;
    let (worked_on, _) = ask_without_reading(400, 1, Request::List { path: Vec::new(), after: None, limit }).await;
    let bytes = worked_on * limit as usize * NAME;
    assert!(bytes <= BOUND, "{worked_on} listings of {limit} entries were made, {bytes} bytes of names alone");
}
