//! Who the two sides of a connection are, and by what they prove it.

use crate::{
    credential::{Credential, CredentialError, PublicKey},
    message::Role,
};

/// What a process proves to workers, and by what it knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// A mount. What it holds proves no membership: it cannot answer in a worker's place.
    Client { key: Credential, peers: PublicKey },
    /// A worker or the operator: holds the peer key.
    Peer(Credential),
}

impl Access {
    pub fn role(&self) -> Role {
        match self {
            Self::Client { .. } => Role::Client,
            Self::Peer(_) => Role::Peer,
        }
    }

    pub(crate) fn peers(&self) -> PublicKey {
        match self {
            Self::Client { peers, .. } => *peers,
            Self::Peer(key) => key.public(),
        }
    }

    pub(crate) fn prove(&self, subject: &[u8]) -> Vec<u8> {
        match self {
            Self::Client { key, .. } => key.tag(subject),
            Self::Peer(key) => key.sign(subject),
        }
    }
}

/// The side that asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `namespace/name`; workers of other ones refuse.
    pub dataset: String,
    /// For the other side's log: a worker's id, or where a mount runs.
    pub name: String,
    pub access: Access,
}

/// A runtime's keys, as its workers hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub client: Credential,
    pub peer: Credential,
}

impl Keys {
    pub fn generate() -> Result<Self, CredentialError> {
        Ok(Self { client: Credential::generate()?, peer: Credential::generate()? })
    }

    /// What a mount is given of them.
    pub fn for_clients(&self) -> Access {
        Access::Client { key: self.client.clone(), peers: self.peer.public() }
    }

    pub(crate) fn has_proved(&self, role: Role, subject: &[u8], proof: &[u8]) -> bool {
        match role {
            Role::Client => self.client.has_tagged(subject, proof),
            Role::Peer => self.peer.public().has_signed(subject, proof),
        }
    }
}

/// The side that answers.
#[derive(Clone, Debug)]
pub struct Host {
    /// `namespace/name`.
    pub dataset: String,
    /// The worker's id in member lists.
    pub name: String,
    pub keys: Keys,
}
