//! Both sides say what they speak, and prove who they are without sending a secret.
//!
//! 1. client: [`Hello`]
//! 2. server: [`Answer::Welcome`] and a [`Proof`], or [`Answer::Refusal`]
//! 3. client: [`Proof`]
//! 4. server: [`Answer::Accepted`] or [`Answer::Refusal`]
//!
//! Each travels as `PsHi`, a length (u16, little endian) and so many bytes of CBOR. The proofs are made of the bytes of 1
//! and of the welcome, so of all that was agreed on; both nonces are in there, so a recorded greeting proves nothing. The
//! side is in the proof, so it cannot be reflected. A server always signs with the peer key, which mounts do not have.

use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, BytesMut};
use minicbor::{Decode, Encode};

use crate::{
    access::{Caller, Host},
    credential::random,
    hello::{
        Answer, Channel, Features, Hello, MAX_GREETING, Proof, RELEASE, Reason, Refusal, Session, Versions, Welcome,
    },
    message::Role,
    socket::Socket,
};

const MAGIC: &[u8] = b"PsHi";
const PREFIX: usize = MAGIC.len() + 2;
const CLIENT: &[u8] = b"penstock client\0";
const SERVER: &[u8] = b"penstock server\0";

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the other side hung up during the handshake")]
    Cut,
    #[error(
        "the other side (release {release}) speaks version {theirs} of the protocol, this one {ours}: upgrade the older \
         of them first"
    )]
    Version { ours: Versions, theirs: Versions, release: String },
    #[error("the other side serves another Dataset")]
    Dataset,
    #[error("the other side does not accept the key: keys were changed, or this is another Dataset's")]
    Key,
    #[error("the other side does not prove that it is a worker of this Dataset: it does not hold the peer key")]
    NotAWorker,
    #[error("the worker was reached by a detour: someone relays its connections")]
    Relayed,
    #[error("the other side does not speak this protocol")]
    Protocol,
    #[error("the other side (release {0}) refuses for a reason that this release does not know")]
    Refused(String),
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { reason, versions: theirs, release } = refusal;
        match reason {
            Some(Reason::Version) => Self::Version { ours: Versions::SPOKEN, theirs, release },
            Some(Reason::Dataset) => Self::Dataset,
            Some(Reason::Proof) => Self::Key,
            None => Self::Refused(release),
        }
    }
}

/// Returns what was agreed on, and the server's epoch.
pub(crate) async fn greet(socket: &Socket, caller: &Caller) -> Result<(Session, u64), HandshakeError> {
    let mut said = envelope(&Hello::new(caller, nonce()?))?;
    send(socket, &[&said]).await?;
    let answer = receive(socket).await?;
    let welcome = match decode(&answer)? {
        Answer::Welcome(welcome) => welcome,
        Answer::Refusal(refusal) => return Err(refusal.into()),
        Answer::Accepted { .. } => return Err(HandshakeError::Protocol),
    };
    said.extend_from_slice(&answer);
    let proof: Proof = decode(&receive(socket).await?)?;
    if !caller.access.peers().has_signed(&subject(SERVER, &said), &proof.bytes) {
        return Err(HandshakeError::NotAWorker);
    }
    let session = agree(welcome, channel(socket))?;
    let proof = Proof { bytes: caller.access.prove(&subject(CLIENT, &said)) };
    send(socket, &[&envelope(&proof)?]).await?;
    match decode(&receive(socket).await?)? {
        Answer::Accepted { epoch } => Ok((session, epoch)),
        Answer::Refusal(refusal) => Err(refusal.into()),
        Answer::Welcome(_) => Err(HandshakeError::Protocol),
    }
}

/// What a proved welcome says, if it may.
fn agree(welcome: Welcome, reached_by: Channel) -> Result<Session, HandshakeError> {
    let Welcome { version, features, channel, name, release, .. } = welcome;
    if channel != Some(reached_by) {
        return Err(HandshakeError::Relayed);
    }
    if !Versions::SPOKEN.contains(version) || !Features::KNOWN.contains(features) {
        return Err(HandshakeError::Protocol);
    }
    Ok(Session { version, features, name, release })
}

/// Returns the role that the other side has proved, and what was agreed on.
pub(crate) async fn welcome(socket: &Socket, host: &Host, epoch: u64) -> Result<(Role, Session), HandshakeError> {
    let mut said = receive(socket).await?;
    let hello: Hello = decode(&said)?;
    let Some(version) = Versions::SPOKEN.common(hello.versions) else {
        refuse(socket, Reason::Version).await?;
        let (theirs, release) = (hello.versions, hello.release);
        return Err(HandshakeError::Version { ours: Versions::SPOKEN, theirs, release });
    };
    if hello.dataset != host.dataset {
        refuse(socket, Reason::Dataset).await?;
        return Err(HandshakeError::Dataset);
    }
    let features = Features::KNOWN.common(hello.features);
    let (name, release) = (host.name.clone(), RELEASE.to_owned());
    let welcome = Welcome { version, features, nonce: nonce()?, channel: Some(channel(socket)), name, release };
    let answer = envelope(&Answer::Welcome(welcome))?;
    said.extend_from_slice(&answer);
    let proof = Proof { bytes: host.keys.peer.sign(&subject(SERVER, &said)) };
    send(socket, &[&answer, &envelope(&proof)?]).await?;

    let proof: Proof = decode(&receive(socket).await?)?;
    if !host.keys.has_proved(hello.role, &subject(CLIENT, &said), &proof.bytes) {
        refuse(socket, Reason::Proof).await?;
        return Err(HandshakeError::Key);
    }
    send(socket, &[&envelope(&Answer::Accepted { epoch })?]).await?;
    Ok((hello.role, Session { version, features, name: hello.name, release: hello.release }))
}

async fn refuse(socket: &Socket, reason: Reason) -> Result<(), HandshakeError> {
    let refusal = Refusal { reason: Some(reason), versions: Versions::SPOKEN, release: RELEASE.to_owned() };
    send(socket, &[&envelope(&Answer::Refusal(refusal))?]).await
}

fn nonce() -> io::Result<[u8; 32]> {
    Ok(random()?)
}

fn channel(socket: &Socket) -> Channel {
    if socket.is_unix() { Channel::Unix } else { Channel::Tcp }
}

fn subject(side: &[u8], said: &[u8]) -> Vec<u8> {
    [side, said].concat()
}

fn envelope<M: Encode<()>>(message: &M) -> Result<Vec<u8>, HandshakeError> {
    let mut bytes = [MAGIC, &[0; 2]].concat();
    let Ok(()) = minicbor::encode(message, &mut bytes).map_err(drop) else { return Err(HandshakeError::Protocol) };
    let len = u16::try_from(bytes.len() - PREFIX).ok().filter(|len| usize::from(*len) <= MAX_GREETING);
    let len = len.ok_or(HandshakeError::Protocol)?;
    bytes[MAGIC.len()..PREFIX].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

fn decode<'a, M: Decode<'a, ()>>(envelope: &'a [u8]) -> Result<M, HandshakeError> {
    minicbor::decode(&envelope[PREFIX..]).map_err(|_| HandshakeError::Protocol)
}

async fn send(socket: &Socket, parts: &[&[u8]]) -> Result<(), HandshakeError> {
    let mut parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    Ok(socket.write_all(&mut parts).await?)
}

/// One envelope, whole.
async fn receive(socket: &Socket) -> Result<Vec<u8>, HandshakeError> {
    let mut bytes = BytesMut::with_capacity(PREFIX);
    fill(socket, &mut bytes, PREFIX).await?;
    let len = usize::from((&bytes[MAGIC.len()..]).get_u16_le());
    if !bytes.starts_with(MAGIC) || len > MAX_GREETING {
        return Err(HandshakeError::Protocol);
    }
    fill(socket, &mut bytes, len).await?;
    Ok(bytes.into())
}

async fn fill(socket: &Socket, bytes: &mut BytesMut, more: usize) -> Result<(), HandshakeError> {
    let end = bytes.len() + more;
    bytes.reserve(more);
    while bytes.len() < end {
        let missing = end - bytes.len();
        if socket.read_some(&mut (&mut *bytes).limit(missing)).await? == 0 {
            return Err(HandshakeError::Cut);
        }
    }
    Ok(())
}
