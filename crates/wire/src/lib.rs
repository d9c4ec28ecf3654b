//! What Penstock's processes say to each other.
//!
//! [`message`] is the vocabulary, [`config`] the files that the operator (or local mode) writes and workers read;
//! the transport (framing, authentication, multiplexing, descriptor passing) carries them over TCP and unix sockets.

pub mod config;
pub mod message;
