//! A server that answers with what it is asked for.
#![allow(dead_code)]

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use penstock_model::{Object, ObjectKey, Version, block_sums};
use penstock_wire::{
    Access, Address, Attachment, Caller, Client, FileRange, Host, Keys, Reply, Service,
    message::{Failure, Pattern, Reach, Request, Response, Role},
    serve,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub(crate) const DATASET: &str = "quant/bars";

#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) epoch: AtomicU64,
    pub(crate) calls: AtomicUsize,
}

impl Service for Echo {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn call(&self, _: Role, request: Request) -> Result<Reply, Failure> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match request {
            Request::Read { object, offset, len, .. } if object.path == b"file" => {
                let mut file = tempfile::tempfile().unwrap();
                let content = pattern(object.size);
                file.write_all(&content).unwrap();
                let range = offset..offset + u64::from(len);
                let sums = block_sums(&content[range.start as usize..range.end as usize]);
                let file = FileRange { file: Box::new(file), range, sums };
                Ok(Reply { response: Response::Data(Bytes::new()), attachment: Attachment::File(file) })
            }
            Request::Read { object, offset, len, .. } if object.path == b"short" => {
                let sums = vec![0; len.div_ceil(4096) as usize];
                let range = offset..u64::from(len);
                let file = FileRange { file: Box::new(tempfile::tempfile().unwrap()), range, sums };
                Ok(Reply { response: Response::Data(Bytes::new()), attachment: Attachment::File(file) })
            }
            Request::Read { offset, len, .. } => {
                // Short reads overtake long ones.
                sleep(Duration::from_micros(u64::from(len) / 100)).await;
                Ok(Response::Data(Bytes::from(vec![offset as u8; len as usize])).into())
            }
            Request::ReadLink { path } if path == b"slow" => {
                sleep(Duration::from_millis(300)).await;
                Ok(Response::Target(path).into())
            }
            Request::ReadLink { path } => Ok(Response::Target(path).into()),
            Request::OpenLocal { object } => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&object.path).unwrap();
                Ok(Reply { response: Response::Descriptor, attachment: Attachment::Descriptor(file.into()) })
            }
            Request::Push { .. } => Ok(Response::Done.into()),
            _ => Err(Failure::NotFound),
        }
    }
}

pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) keys: Keys,
    pub(crate) service: Arc<Echo>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn keys() -> Keys {
    Keys::generate().unwrap()
}

pub(crate) async fn tcp_server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    start(listener.into(), address, keys())
}

pub(crate) fn start(listener: penstock_wire::Listener, address: Address, keys: Keys) -> Server {
    let (service, shutdown) = (Arc::new(Echo::default()), CancellationToken::new());
    let host = Host { dataset: DATASET.into(), name: "w-0".into(), keys: keys.clone() };
    let task = tokio::spawn(serve(listener, host, service.clone(), shutdown.clone()));
    Server { address, keys, service, shutdown, task }
}

impl Server {
    /// Where it listens, TCP only.
    pub(crate) fn tcp(&self) -> &str {
        let Address::Tcp(address) = &self.address else { unreachable!("a unix socket") };
        address
    }

    /// A place that passes one connection on and refuses all others; aborted, the task cuts it.
    pub(crate) async fn relay(&self) -> (Address, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let target = self.tcp().to_owned();
        let task = tokio::spawn(async move {
            let (mut from, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut to = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
        (address, task)
    }

    /// What a mount of the Dataset shows.
    pub(crate) fn mount(&self) -> Caller {
        caller(self.keys.for_clients())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.address, &self.mount()).await.unwrap()
    }

    pub(crate) async fn peer(&self) -> Client {
        Client::connect(&self.address, &caller(Access::Peer(self.keys.peer.clone()))).await.unwrap()
    }
}

pub(crate) fn caller(access: Access) -> Caller {
    Caller { dataset: DATASET.into(), name: "test".into(), access }
}

pub(crate) fn object(path: &[u8]) -> Object {
    Object { key: ObjectKey(9), path: path.to_vec(), version: Version("v".into()), size: 4 << 20 }
}

/// Bytes that tell their place.
pub(crate) fn pattern(size: u64) -> Vec<u8> {
    (0..size).map(|at| (at ^ (at >> 8)) as u8).collect()
}

pub(crate) fn read(offset: u64, len: u32) -> Request {
    Request::Read { object: object(b"a"), offset, len, pattern: Pattern::Random, reach: Reach::Ufs }
}
