//! What Penstock's processes say to each other.
//!
//! [`message`] is the vocabulary, [`config`] the files that the operator (or local mode) writes and workers read.
//! The transport carries the messages over TCP and unix sockets: [`Client`] and [`Pool`] ask, [`serve`] answers for a
//! [`Service`]. A connection begins with a handshake in which both sides prove that they hold the same [`Credential`];
//! after it frames of both directions interleave freely, matched by their ids.

pub mod config;
pub mod message;

mod address;
mod check;
mod client;
mod credential;
mod frame;
mod handshake;
mod listen;
mod outbox;
mod pool;
mod server;
mod socket;

pub use address::Address;
pub use client::{CallError, Client, ConnectError};
pub use credential::{Credential, CredentialError};
pub use frame::{Attachment, FileRange};
pub use handshake::HandshakeError;
pub use listen::listen;
pub use pool::{Pool, Sighting};
pub use server::{Keys, Listener, Reply, Service, serve};
