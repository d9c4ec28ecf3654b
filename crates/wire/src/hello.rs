//! What two sides tell each other before the first frame, and what they agree on: pure.
//!
//! These messages are what every release has to read, whatever comes after it. Fields may be added with new numbers, never
//! removed, and none changes its meaning.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::{access::Caller, message::Role};

/// Of this software: for logs and for error messages, never for decisions.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// Bytes of an encoded greeting at most: the longest dataset's and pod's names fit several times.
pub(crate) const MAX_GREETING: usize = 4096;

/// Versions of frames and messages, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Versions {
    #[n(0)]
    pub least: u32,
    #[n(1)]
    pub most: u32,
}

impl Versions {
    /// What this release speaks. `least` is that of the release before, at least.
    pub(crate) const SPOKEN: Self = Self { least: 1, most: 1 };

    /// The newest that both speak.
    pub(crate) fn common(self, other: Self) -> Option<u32> {
        let newest = self.most.min(other.most);
        (newest >= self.least.max(other.least)).then_some(newest)
    }

    pub(crate) fn contains(self, version: u32) -> bool {
        (self.least..=self.most).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.most { write!(f, "{}", self.most) } else { write!(f, "{} to {}", self.least, self.most) }
    }
}

/// What a side can do beyond the version, one bit each. A feature is used on a connection when both sides have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Features(#[n(0)] u64);

impl Features {
    /// Frames carry checksums: see [`crate::frame`].
    pub const CHECKSUMS: Self = Self(1);
    /// What this release can do.
    pub(crate) const KNOWN: Self = Self::CHECKSUMS;

    #[must_use]
    pub(crate) fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What carries a connection. A worker signs what it sees: so who listens on a unix socket cannot pass himself off as a
/// worker by relaying the greeting to one over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Channel {
    #[n(0)]
    Tcp,
    #[n(1)]
    Unix,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Hello {
    #[n(0)]
    pub(crate) versions: Versions,
    #[n(1)]
    pub(crate) features: Features,
    #[n(2)]
    pub(crate) role: Role,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) nonce: [u8; 32],
    /// `namespace/name`.
    #[n(4)]
    pub(crate) dataset: String,
    #[n(5)]
    pub(crate) name: String,
    #[n(6)]
    pub(crate) release: String,
}

impl Hello {
    pub(crate) fn new(caller: &Caller, nonce: [u8; 32]) -> Self {
        Self {
            versions: Versions::SPOKEN,
            features: Features::KNOWN,
            role: caller.access.role(),
            nonce,
            dataset: caller.dataset.clone(),
            name: caller.name.clone(),
            release: RELEASE.to_owned(),
        }
    }
}

/// What the side that is asked says to each of the other's messages.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Answer {
    /// A [`Proof`] follows at once.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    #[n(1)]
    Refusal(#[n(0)] Refusal),
    /// To the other side's proof. From here on there are frames.
    #[n(2)]
    Accepted {
        #[n(0)]
        epoch: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Welcome {
    #[n(0)]
    pub(crate) version: u32,
    #[n(1)]
    pub(crate) features: Features,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) nonce: [u8; 32],
    #[n(3)]
    pub(crate) channel: Option<Channel>,
    #[n(4)]
    pub(crate) name: String,
    #[n(5)]
    pub(crate) release: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Refusal {
    /// `None` for one that a later release has invented.
    #[n(0)]
    pub(crate) reason: Option<Reason>,
    /// What the other side speaks.
    #[n(1)]
    pub(crate) versions: Versions,
    #[n(2)]
    pub(crate) release: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Reason {
    #[n(0)]
    Version,
    #[n(1)]
    Dataset,
    #[n(2)]
    Proof,
}

/// A signature, or a tag, of all that was said before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Proof {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) bytes: Vec<u8>,
}

/// What is agreed on for the life of a connection, and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub version: u32,
    pub features: Features,
    /// Of the other side: a worker's id in member lists, or where a mount runs.
    pub name: String,
    /// The software that the other side runs.
    pub release: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let range = |least, most| Versions { least, most };
        for (ours, theirs, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 2), range(2, 9), Some(2)),
            (range(3, 9), range(1, 5), Some(5)),
            (range(1, 2), range(3, 4), None),
            (range(3, 4), range(1, 2), None),
        ] {
            assert_eq!(ours.common(theirs), common, "{ours} and {theirs}");
        }
    }

    #[test]
    fn unknown_features_are_not_agreed_on() {
        assert_eq!(Features::KNOWN.common(Features(u64::MAX)), Features::KNOWN);
        assert!(!Features::KNOWN.common(Features(u64::MAX - 1)).contains(Features::CHECKSUMS));
    }
}
