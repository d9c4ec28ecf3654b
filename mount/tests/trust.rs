//! What the reader believes: bytes that arrive as they were sent, from workers that prove to be some.
#![allow(clippy::unwrap_used)]

#[path = "common/memory.rs"]
mod memory;
#[path = "../../crates/wire/tests/common/v1.rs"]
mod v1;
#[path = "common/workers.rs"]
mod workers;

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use memory::MemoryBackend;
use penstock_model::Object;
use penstock_mount::{
    backend::{Backend, ReadError},
    reader::{Cluster, Workers as Reader},
    spec::Tuning,
};
use penstock_wire::{
    Access, Address, Attachment, Caller, Credential, Host, Keys, Reply, Service,
    message::{Failure, Pattern, Request, Response, Role},
    serve,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_util::sync::CancellationToken;
use workers::{DATASET, Workers};

const SIZE: u64 = 1 << 20;

fn quick() -> Tuning {
    Tuning { patience_ms: 5_000, probe_after_ms: 200, ..Tuning::default() }
}

/// Passes connections on to `target`, and flips one bit of every long piece that comes back.
async fn flipping(target: String, flipped: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (from, _) = listener.accept().await.unwrap();
            let (mut asks, mut hears) = from.into_split();
            let (mut answers, mut to) = TcpStream::connect(&target).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut asks, &mut to).await });
            let flipped = flipped.clone();
            tokio::spawn(async move {
                let mut piece = vec![0; 64 << 10];
                while let Ok(count @ 1..) = answers.read(&mut piece).await {
                    if count > 32 << 10 {
                        piece[count - 100] ^= 1;
                        flipped.fetch_add(1, Ordering::Relaxed);
                    }
                    if hears.write_all(&piece[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_their_way_are_refused_and_asked_for_elsewhere() {
    let backend = Arc::new(MemoryBackend::default());
    let object = backend.add_patterned(b"dir/file", SIZE);
    let workers = Workers::new(backend);
    workers.start("w-0").await;
    workers.start("w-1").await;
    workers.publish();
    // Whichever owns the object is reached by the proxy.
    let (key, flipped) = (object.key.placement(0), Arc::<AtomicUsize>::default());
    let owner = workers.list().owner(key).unwrap().clone();
    let proxy = flipping(owner.addr, flipped.clone()).await;
    workers.readdress(&owner.id, &proxy);
    let endpoints = workers.endpoints().into_iter().map(Address::Tcp).collect();
    let reader = Reader(Cluster::start(workers.caller(), endpoints, None, &quick()));
    let data = reader.read(&object, 0, SIZE as u32, Pattern::Random).await.unwrap();
    assert!(data == MemoryBackend::pattern(0, SIZE), "wrong bytes");
    assert!(flipped.load(Ordering::Relaxed) > 0, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_every_way_are_an_error() {
    let backend = Arc::new(MemoryBackend::default());
    let object = backend.add_patterned(b"dir/file", SIZE);
    let workers = Workers::new(backend);
    workers.start("w-0").await;
    workers.publish();
    let proxy = flipping(workers.endpoints()[0].clone(), Arc::default()).await;
    workers.readdress("w-0", &proxy);
    let tuning = Tuning { patience_ms: 300, ..quick() };
    let reader = Reader(Cluster::start(workers.caller(), vec![Address::Tcp(proxy)], None, &tuning));
    let read = reader.read(&object, 0, SIZE as u32, Pattern::Random).await;
    assert!(matches!(&read, Err(ReadError::Unreachable(text)) if text.contains("checksum")), "{read:?}");
}

/// Gives everybody a file of the right size, with other bytes.
struct Forger;

impl Service for Forger {
    fn epoch(&self) -> u64 {
        0
    }

    async fn call(&self, _: Role, request: Request) -> Result<Reply, Failure> {
        let Request::OpenLocal { object } = request else { return Err(Failure::NotFound) };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'!'; object.size as usize]).unwrap();
        Ok(Reply { response: Response::Descriptor, attachment: Attachment::Descriptor(file.into()) })
    }
}

fn listen(sockets: &Path, pod: &str, keys: Keys) {
    std::fs::create_dir(sockets.join(pod)).unwrap();
    let listener = UnixListener::bind(sockets.join(pod).join("worker.sock")).unwrap();
    let host = Host { dataset: DATASET.into(), name: pod.into(), keys };
    tokio::spawn(serve(listener, host, Arc::new(Forger), CancellationToken::new()));
}

async fn offered(workers: &Workers, sockets: &Path, object: &Object) -> bool {
    let endpoints = workers.endpoints().into_iter().map(Address::Tcp).collect();
    let cluster = Cluster::start(workers.caller(), endpoints, Some(sockets.to_owned()), &quick());
    Reader(cluster).open_local(object).await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_offered_over_a_socket_is_believed_only_from_a_proved_worker() {
    let backend = Arc::new(MemoryBackend::default());
    let object = backend.add_patterned(b"dir/file", 4096);
    let workers = Workers::new(backend);
    workers.start("w-0").await;
    workers.publish();
    let sockets = tempfile::tempdir().unwrap();
    // It knows what mounts know.
    listen(sockets.path(), "forged", Keys { peer: Credential::generate().unwrap(), ..workers.keys.clone() });
    assert!(!offered(&workers, sockets.path(), &object).await);
    listen(sockets.path(), "member", workers.keys.clone());
    assert!(offered(&workers, sockets.path(), &object).await, "a forged socket beside it does no harm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_key_that_plays_a_worker_serves_no_reader() {
    let backend = Arc::new(MemoryBackend::default());
    let object = backend.add_patterned(b"dir/file", 4096);
    let mut workers = Workers::new(backend);
    let caller = workers.caller();
    workers.keys.peer = Credential::generate().unwrap();
    workers.start("w-0").await;
    workers.publish();
    let endpoints = workers.endpoints().into_iter().map(Address::Tcp).collect();
    let tuning = Tuning { patience_ms: 300, ..quick() };
    let reader = Reader(Cluster::start(caller, endpoints, None, &tuning));
    assert!(matches!(reader.read(&object, 0, 10, Pattern::Random).await, Err(ReadError::Unreachable(_))));
    assert_eq!(reader.facts(), None, "not even its list of members is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn this_release_s_mount_reads_from_a_worker_of_the_first_version() {
    for features in [0, v1::CHECKSUMS] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let hex = |byte: &str| Credential::from_hex(&byte.repeat(32)).unwrap();
        let worker = tokio::spawn(v1::worker(listener, v1::Secrets { client: [1; 32], peer: [2; 32] }, features));
        let access = Access::Client { key: hex("01"), peers: hex("02").public() };
        let caller = Caller { dataset: "quant/bars".into(), name: "test".into(), access };
        let reader = Reader(Cluster::start(caller, vec![address], None, &quick()));
        let attr = reader.stat(b"d/f").await.unwrap().attr;
        let (key, version) = attr.object.unwrap();
        let object = Object { key, path: b"d/f".to_vec(), version, size: attr.size };
        let read = tokio::time::timeout(Duration::from_secs(20), reader.read(&object, 0, 5, Pattern::Random));
        assert_eq!(read.await.unwrap().unwrap(), v1::CONTENT);
        worker.abort();
    }
}
