//! Both sides prove that they hold the role's key without sending it.
//!
//! 1. client: `Ps`, version, role, nonce, dataset
//! 2. server: verdict, and if it is good: nonce, proof("server")
//! 3. client: proof("client")
//! 4. server: verdict, epoch
//!
//! `proof(side) = HMAC-SHA-256(key, side ‖ role ‖ client nonce ‖ server nonce ‖ dataset)`. Both nonces are fresh, so a
//! recorded handshake proves nothing; the side is in it, so a proof cannot be reflected.

use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    credential::{Credential, random},
    frame::{MAGIC, VERSION},
    message::Role,
    server::Keys,
    socket::Socket,
};

/// `namespace/name`: two Kubernetes names of at most 253 bytes.
const MAX_DATASET: usize = 512;
const NONCE: usize = 32;
const PROOF: usize = 32;
const GOOD: u8 = 0;
const WRONG_VERSION: u8 = 1;
const WRONG_DATASET: u8 = 2;
const WRONG_PROOF: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the other side hung up during the handshake")]
    Cut,
    #[error("the other side speaks another version of the protocol")]
    Version,
    #[error("the other side serves another Dataset")]
    Dataset,
    #[error("the other side does not hold the same key")]
    Key,
    #[error("the other side does not speak this protocol")]
    Protocol,
}

pub(crate) struct Hello<'a> {
    pub(crate) role: Role,
    pub(crate) key: &'a Credential,
    pub(crate) dataset: &'a str,
}

/// Returns the server's epoch.
pub(crate) async fn greet(socket: &Socket, hello: &Hello<'_>) -> Result<u64, HandshakeError> {
    let mine = random().map_err(io::Error::from)?;
    let mut first = vec![MAGIC[0], MAGIC[1], VERSION, role_byte(hello.role)];
    first.put_slice(&mine);
    first.put_u16_le(hello.dataset.len().min(MAX_DATASET) as u16);
    first.put_slice(hello.dataset.as_bytes());
    socket.write_all(&mut [IoSlice::new(&first)]).await?;

    verdict(receive(socket, 1).await?.get_u8())?;
    let answer = receive(socket, NONCE + PROOF).await?;
    let (theirs, proof) = answer.split_at(NONCE);
    let subject = Subject { role: hello.role, client: &mine, server: theirs, dataset: hello.dataset.as_bytes() };
    subject.mac(hello.key, "server").verify_slice(proof).map_err(|_| HandshakeError::Key)?;

    let proof = subject.mac(hello.key, "client").finalize().into_bytes();
    socket.write_all(&mut [IoSlice::new(&proof)]).await?;
    verdict(receive(socket, 1).await?.get_u8())?;
    Ok(receive(socket, 8).await?.get_u64_le())
}

/// Returns the role that the other side proved.
pub(crate) async fn welcome(socket: &Socket, keys: &Keys, dataset: &str, epoch: u64) -> Result<Role, HandshakeError> {
    let first = receive(socket, 4 + NONCE + 2).await?;
    if first[..2] != MAGIC {
        return Err(HandshakeError::Protocol);
    }
    if first[2] != VERSION {
        return refuse(socket, WRONG_VERSION).await;
    }
    let role = role_of(first[3]).ok_or(HandshakeError::Protocol)?;
    let theirs = &first[4..4 + NONCE];
    let named = (&first[4 + NONCE..]).get_u16_le() as usize;
    if named > MAX_DATASET {
        return Err(HandshakeError::Protocol);
    }
    if receive(socket, named).await?[..] != *dataset.as_bytes() {
        return refuse(socket, WRONG_DATASET).await;
    }
    let mine = random().map_err(io::Error::from)?;
    let key = keys.of(role);
    let subject = Subject { role, client: theirs, server: &mine, dataset: dataset.as_bytes() };
    let proof = subject.mac(key, "server").finalize().into_bytes();
    socket.write_all(&mut [IoSlice::new(&[GOOD]), IoSlice::new(&mine), IoSlice::new(&proof)]).await?;

    let proof = receive(socket, PROOF).await?;
    if subject.mac(key, "client").verify_slice(&proof).is_err() {
        return refuse(socket, WRONG_PROOF).await;
    }
    socket.write_all(&mut [IoSlice::new(&[GOOD]), IoSlice::new(&epoch.to_le_bytes())]).await?;
    Ok(role)
}

struct Subject<'a> {
    role: Role,
    client: &'a [u8],
    server: &'a [u8],
    dataset: &'a [u8],
}

impl Subject<'_> {
    fn mac(&self, key: &Credential, side: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
        // All parts but the last have a fixed length, so no two subjects read the same.
        for part in [side.as_bytes(), &[role_byte(self.role)], self.client, self.server, self.dataset] {
            mac.update(part);
        }
        mac
    }
}

async fn refuse(socket: &Socket, code: u8) -> Result<Role, HandshakeError> {
    socket.write_all(&mut [IoSlice::new(&[code])]).await?;
    Err(verdict(code).err().unwrap_or(HandshakeError::Protocol))
}

fn verdict(code: u8) -> Result<(), HandshakeError> {
    match code {
        GOOD => Ok(()),
        WRONG_VERSION => Err(HandshakeError::Version),
        WRONG_DATASET => Err(HandshakeError::Dataset),
        WRONG_PROOF => Err(HandshakeError::Key),
        _ => Err(HandshakeError::Protocol),
    }
}

async fn receive(socket: &Socket, len: usize) -> Result<BytesMut, HandshakeError> {
    let mut bytes = BytesMut::with_capacity(len);
    while bytes.len() < len {
        let missing = len - bytes.len();
        if socket.read_some(&mut (&mut bytes).limit(missing)).await? == 0 {
            return Err(HandshakeError::Cut);
        }
    }
    Ok(bytes)
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Client => b'c',
        Role::Peer => b'p',
    }
}

fn role_of(byte: u8) -> Option<Role> {
    [Role::Client, Role::Peer].into_iter().find(|role| role_byte(*role) == byte)
}
