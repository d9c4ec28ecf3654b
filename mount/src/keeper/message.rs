//! What is said between the plugin and the keeper, over a `SOCK_SEQPACKET` socket: one JSON object per packet, descriptors
//! beside it (`SCM_RIGHTS`). Each request gets one answer.
//!
//! ```text
//! {"verb":"put","name":N,"label":L} + descriptors   keep these under N, in place of earlier ones     → {"version":1}
//! {"verb":"remove","name":N}                        let N go, if it is there                         → {"version":1}
//! {"verb":"next","after":N}                         the first name after N (the first of all without) →
//!                                  {"version":1,"name":N,"label":L} + descriptors, or {"version":1} after the last
//! anything else                                                                       → {"version":1,"error":TEXT}
//! ```
//!
//! It grows by new verbs, which an old keeper refuses by an answer, and by new fields, which an old one ignores. Nothing
//! that is here changes its meaning: keepers of any age are in use.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(super) const VERSION: u32 = 1;
/// Bytes of one packet: names are paths of at most 4 KiB.
const PACKET: usize = 32 << 10;
/// Descriptors of one name.
pub(super) const DESCRIPTORS: usize = 8;

pub(super) const PUT: &str = "put";
pub(super) const REMOVE: &str = "remove";
pub(super) const NEXT: &str = "next";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) verb: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
}

/// What is kept under one name.
#[derive(Debug)]
pub struct Item {
    pub name: String,
    /// The keeper does not read it: what the descriptors are is between one plugin and the next.
    pub label: String,
    pub descriptors: Vec<OwnedFd>,
}

/// Sends one packet.
pub(super) fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if bytes.len() > PACKET
        || descriptors.len() > DESCRIPTORS
        || (!descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet; `None` at the end of the connection. `InvalidData`: the packet is none of ours.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; PACKET];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is too large"));
    }
    let message = serde_json::from_slice(&bytes[..received.bytes])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((message, descriptors)))
}
