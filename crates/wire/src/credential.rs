use std::{fmt, fs, path::Path};

use ring::{
    hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use rustix::rand::{GetRandomFlags, getrandom};

/// A secret of 32 random bytes, written as 64 hexadecimal digits. Never shown by `Debug`.
///
/// The client key is shared by mounts and workers, who prove it by HMAC-SHA-256. The peer key is the seed of an Ed25519
/// key pair: workers and the operator sign with it, and mounts know its [`PublicKey`] only.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential([u8; 32]);

/// By what mounts know the workers of a Dataset. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("a key is 64 hexadecimal digits, this one has {0} characters")]
    Length(usize),
    #[error("a key is 64 hexadecimal digits, this one has another character at position {0}")]
    Digit(usize),
    #[error("cannot read the key file {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("the kernel gives no random bytes: {0}")]
    Random(rustix::io::Errno),
}

impl Credential {
    pub fn generate() -> Result<Self, CredentialError> {
        random().map(Self).map_err(CredentialError::Random)
    }

    /// Surrounding white space is ignored.
    pub fn from_hex(text: &str) -> Result<Self, CredentialError> {
        parse(text).map(Self)
    }

    pub fn from_file(path: &Path) -> Result<Self, CredentialError> {
        read(path).map(Self)
    }

    /// For whoever writes key files; not for logs.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The public half of the key pair that has this seed.
    pub fn public(&self) -> PublicKey {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair().public_key().as_ref());
        PublicKey(public)
    }

    pub(crate) fn sign(&self, subject: &[u8]) -> Vec<u8> {
        self.pair().sign(subject).as_ref().to_vec()
    }

    pub(crate) fn tag(&self, subject: &[u8]) -> Vec<u8> {
        hmac::sign(&self.mac(), subject).as_ref().to_vec()
    }

    pub(crate) fn has_tagged(&self, subject: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.mac(), subject, tag).is_ok()
    }

    fn mac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.0).expect("any 32 bytes are a seed")
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl PublicKey {
    /// Surrounding white space is ignored.
    pub fn from_hex(text: &str) -> Result<Self, CredentialError> {
        parse(text).map(Self)
    }

    pub fn from_file(path: &Path) -> Result<Self, CredentialError> {
        read(path).map(Self)
    }

    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    pub(crate) fn has_signed(&self, subject: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(subject, signature).is_ok()
    }
}

pub(crate) fn random() -> Result<[u8; 32], rustix::io::Errno> {
    let mut bytes = [0u8; 32];
    // 32 bytes come whole: getrandom(2) is not interrupted below 256.
    getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    Ok(bytes)
}

fn parse(text: &str) -> Result<[u8; 32], CredentialError> {
    let text = text.trim();
    if text.len() != 64 {
        return Err(CredentialError::Length(text.len()));
    }
    let mut key = [0; 32];
    for (i, digit) in text.bytes().enumerate() {
        let value = char::from(digit).to_digit(16).ok_or(CredentialError::Digit(i))? as u8;
        key[i / 2] = key[i / 2] << 4 | value;
    }
    Ok(key)
}

fn read(path: &Path) -> Result<[u8; 32], CredentialError> {
    let text = fs::read_to_string(path)
        .map_err(|source| CredentialError::Read { path: path.display().to_string(), source })?;
    parse(&text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_hex_and_is_not_shown() {
        let key = Credential::generate().unwrap();
        assert_eq!(Credential::from_hex(&format!(" {}\n", key.to_hex().to_uppercase())).unwrap(), key);
        assert_eq!(format!("{key:?}"), "Credential(..)");
        assert_eq!(PublicKey::from_hex(&key.public().to_hex()).unwrap(), key.public());
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_repeating_it() {
        let (short, odd) = ("ab".repeat(31), "zz".repeat(32));
        for (text, expected) in [(short, "62 characters"), (odd, "position 0"), ("é".repeat(32), "position 0")] {
            let message = Credential::from_hex(&text).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains(&text), "{message}");
        }
    }

    #[test]
    fn only_the_pair_s_own_signature_of_the_same_subject_is_believed() {
        let (key, other) = (Credential::generate().unwrap(), Credential::generate().unwrap());
        let signature = key.sign(b"subject");
        assert!(key.public().has_signed(b"subject", &signature));
        assert!(!key.public().has_signed(b"another", &signature));
        assert!(!key.public().has_signed(b"subject", &other.sign(b"subject")));
        assert!(!key.public().has_signed(b"subject", &signature[1..]));
    }
}
