use std::{fmt, fs, path::Path};

use rustix::rand::{GetRandomFlags, getrandom};

/// A runtime's key for one role: 32 random bytes, written as 64 hexadecimal digits. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential([u8; 32]);

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
        let text = text.trim();
        if text.len() != 64 {
            return Err(CredentialError::Length(text.len()));
        }
        let mut key = [0; 32];
        for (i, digit) in text.bytes().enumerate() {
            let value = char::from(digit).to_digit(16).ok_or(CredentialError::Digit(i))? as u8;
            key[i / 2] = key[i / 2] << 4 | value;
        }
        Ok(Self(key))
    }

    pub fn from_file(path: &Path) -> Result<Self, CredentialError> {
        let text = fs::read_to_string(path)
            .map_err(|source| CredentialError::Read { path: path.display().to_string(), source })?;
        Self::from_hex(&text)
    }

    /// For whoever writes key files; not for logs.
    pub fn to_hex(&self) -> String {
        self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

pub(crate) fn random() -> Result<[u8; 32], rustix::io::Errno> {
    let mut bytes = [0u8; 32];
    // 32 bytes come whole: getrandom(2) is not interrupted below 256.
    getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_hex_and_is_not_shown() {
        let key = Credential::generate().unwrap();
        assert_eq!(Credential::from_hex(&format!(" {}\n", key.to_hex().to_uppercase())).unwrap(), key);
        assert_eq!(format!("{key:?}"), "Credential(..)");
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_repeating_it() {
        let (short, odd) = ("ab".repeat(31), "zz".repeat(32));
        for (text, expected) in [(short, "62 characters"), (odd, "position 0"), ("é".repeat(32), "position 0")] {
            let message = Credential::from_hex(&text).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains(&text), "{message}");
        }
    }
}
