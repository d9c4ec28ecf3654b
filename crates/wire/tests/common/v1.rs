//! The first version of the protocol by literal bytes: a worker and a mount that share no code with this release, but for
//! the arithmetic of hashes and signatures. What they say and expect is never to be changed.
#![allow(dead_code)]

use ring::{
    hmac,
    signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use xxhash_rust::xxh3::xxh3_64;

const LINES: &str = include_str!("../../testdata/v1.txt");
/// The one object that the worker has: `d/f`.
pub(crate) const CONTENT: &[u8] = b"bytes";
pub(crate) const CHECKSUMS: u8 = 1;
pub(crate) const FAILURE: u8 = 1;

/// Bytes of a line of `testdata/v1.txt`.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let line = LINES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("no line {name} in testdata/v1.txt"));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The secrets of a Dataset: client key and peer key.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) client: [u8; 32],
    pub(crate) peer: [u8; 32],
}

async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut message = vec![0; 6];
    stream.read_exact(&mut message).await.unwrap();
    assert_eq!(&message[..4], b"PsHi");
    let len = usize::from(u16::from_le_bytes([message[4], message[5]]));
    message.resize(6 + len, 0);
    stream.read_exact(&mut message[6..]).await.unwrap();
    message
}

fn say(content: &[u8]) -> Vec<u8> {
    [b"PsHi", &(content.len() as u16).to_le_bytes()[..], content].concat()
}

/// A worker of version 1 with the features in `features`; serves one connection after the other, for ever.
pub(crate) async fn worker(listener: TcpListener, secrets: Secrets, features: u8) {
    let port = listener.local_addr().unwrap().port();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream, secrets.clone(), features, port));
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, secrets: Secrets, features: u8, port: u16) {
    let mut said = hear(&mut stream).await;
    let mut welcome = bytes("welcome");
    // Version, then features.
    assert_eq!(welcome[4..6], [1, CHECKSUMS]);
    welcome[5] = features;
    said.extend(say(&welcome));
    stream.write_all(&say(&welcome)).await.unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&secrets.peer).unwrap();
    let signature = pair.sign(&[b"penstock server\0", &said[..]].concat());
    stream.write_all(&say(&[&[0x81, 0x58, 64], signature.as_ref()].concat())).await.unwrap();
    let Proof(tag) = Proof::of(&hear(&mut stream).await);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secrets.client);
    hmac::verify(&key, &[b"penstock client\0", &said[..]].concat(), &tag).unwrap();
    stream.write_all(&say(&bytes("accepted"))).await.unwrap();
    while let Some((id, request)) = read_frame(&mut stream, features).await.map(|frame| (frame.id, frame.message)) {
        let (flags, message, body) = reply(&request, port);
        if !message.is_empty() {
            stream.write_all(&frame(flags, id, &message, body, features)).await.unwrap();
        }
    }
}

struct Proof(Vec<u8>);

impl Proof {
    fn of(message: &[u8]) -> Self {
        assert_eq!(message[6..8], [0x81, 0x58]);
        Self(message[9..].to_vec())
    }
}

/// Flags, message and bytes of the answer; no message when there is none.
fn reply(request: &[u8], port: u16) -> (u8, Vec<u8>, &'static [u8]) {
    let is = |name: &str| request == bytes(name);
    if is("describe") {
        let mut description = bytes("description");
        let at = description.windows(5).position(|part| part == b"00000").unwrap();
        description[at..at + 5].copy_from_slice(format!("{port:05}").as_bytes());
        (0, description, &[])
    } else if is("stat") {
        (0, bytes("attr"), &[])
    } else if is("read") {
        (0, bytes("data"), CONTENT)
    } else if is("changes") || is("changes-from-now") {
        (0, Vec::new(), &[])
    } else {
        (FAILURE, bytes("unsupported"), &[])
    }
}

/// A mount of version 1, connected.
pub(crate) struct Mount<S> {
    stream: S,
    features: u8,
    ids: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Mount<S> {
    /// `hello` is a line of `testdata/v1.txt`.
    pub(crate) async fn connect(mut stream: S, secrets: &Secrets, peers: &[u8], hello: &str) -> Self {
        let (features, verdict) = knock(&mut stream, secrets, peers, hello).await;
        assert_eq!(verdict[..2], [0x82, 2], "accepted");
        Self { stream, features, ids: 0 }
    }

    pub(crate) fn features(&self) -> u8 {
        self.features
    }

    pub(crate) async fn ask(&mut self, message: &[u8]) -> Frame {
        self.ids += 1;
        self.stream.write_all(&frame(0, self.ids, message, &[], self.features)).await.unwrap();
        let answer = read_frame(&mut self.stream, self.features).await.expect("an answer");
        assert_eq!(answer.id, self.ids);
        answer
    }
}

/// Greets, proves the client key, and returns the features that are agreed on and the verdict.
pub(crate) async fn knock<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    secrets: &Secrets,
    peers: &[u8],
    hello: &str,
) -> (u8, Vec<u8>) {
    let mut said = say(&bytes(hello));
    stream.write_all(&said).await.unwrap();
    let welcome = hear(&mut stream).await;
    assert_eq!(welcome[6..8], [0x82, 0], "a welcome");
    let features = welcome[11];
    said.extend(welcome);
    let Proof(signature) = Proof::of(&hear(&mut stream).await);
    let subject = [b"penstock server\0", &said[..]].concat();
    UnparsedPublicKey::new(&ED25519, peers).verify(&subject, &signature).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secrets.client);
    let tag = hmac::sign(&key, &[b"penstock client\0", &said[..]].concat());
    stream.write_all(&say(&[&[0x81, 0x58, 32], tag.as_ref()].concat())).await.unwrap();
    (features, hear(&mut stream).await.split_off(6))
}

pub(crate) struct Frame {
    pub(crate) flags: u8,
    pub(crate) id: u64,
    pub(crate) message: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

fn frame(flags: u8, id: u64, message: &[u8], body: &[u8], features: u8) -> Vec<u8> {
    let mut frame = [&b"Ps"[..], &[1, flags]].concat();
    frame.extend((message.len() as u32).to_le_bytes());
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(id.to_le_bytes());
    frame.extend(3u64.to_le_bytes());
    frame.extend(message);
    if features & CHECKSUMS != 0 {
        frame.extend((xxh3_64(&frame) as u32).to_le_bytes());
        body.chunks(4096).for_each(|block| frame.extend((xxh3_64(block) as u32).to_le_bytes()));
    }
    frame.extend(body);
    frame
}

/// `None` at the end of the stream.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin), features: u8) -> Option<Frame> {
    let mut header = [0; 32];
    stream.read_exact(&mut header).await.ok()?;
    assert_eq!(header[..3], *b"Ps\x01");
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    let mut message = vec![0; number(4)];
    stream.read_exact(&mut message).await.ok()?;
    let mut body = vec![0; number(8)];
    if features & CHECKSUMS != 0 {
        let mut sums = vec![0; 4 + 4 * body.len().div_ceil(4096)];
        stream.read_exact(&mut sums).await.ok()?;
        assert_eq!(sums[..4], (xxh3_64(&[&header[..], &message].concat()) as u32).to_le_bytes());
        stream.read_exact(&mut body).await.ok()?;
        let right = body.chunks(4096).flat_map(|block| (xxh3_64(block) as u32).to_le_bytes());
        assert_eq!(sums[4..], right.collect::<Vec<_>>());
    } else {
        stream.read_exact(&mut body).await.ok()?;
    }
    Some(Frame { flags: header[3], id: u64::from_le_bytes(header[16..24].try_into().unwrap()), message, body })
}
