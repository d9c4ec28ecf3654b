//! What Penstock's processes say to each other.
//!
//! [`message`] is the vocabulary, [`config`] the files that the operator (or local mode) writes and workers read.
//! The transport carries the messages over TCP and unix sockets: [`Client`] and [`Pool`] ask, [`serve`] answers for a
//! [`Service`]. A connection begins with a handshake: both sides say what they speak and prove who they are ([`Access`]);
//! after it frames of both directions interleave freely, matched by their ids.

pub mod config;
pub mod message;

mod access;
mod address;
mod check;
mod client;
mod credential;
mod frame;
mod handshake;
mod hello;
mod listen;
mod outbox;
mod pool;
mod server;
mod socket;

pub use access::{Access, Caller, Host, Keys};
pub use address::Address;
pub use client::{CallError, Client, ConnectError};
pub use credential::{Credential, CredentialError, PublicKey};
pub use frame::{Attachment, FileRange};
pub use handshake::HandshakeError;
pub use hello::{Features, Session, Versions};
pub use listen::listen;
pub use pool::{Pool, Sighting};
pub use server::{Listener, Reply, Service, serve};
