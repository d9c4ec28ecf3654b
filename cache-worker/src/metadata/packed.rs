//! Entries of a directory, packed: an immutable stretch of a listing, in the order of keys.
//!
//! Names and versions lie in one buffer, attributes in records of one size; entries are made when they are asked for. An S3
//! object takes 48 bytes besides its name.

use penstock_model::{Kind, Version, listing_key};
use penstock_ufs::{ListedEntry, Status};
use tokio::time::Instant;

const NO_MODE: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Packed {
    records: Box<[Record]>,
    /// For each record its key (see [`listing_key`]), then its version.
    bytes: Box<[u8]>,
    /// When the store was asked; the entries are as they were then, or newer.
    pub(super) asked: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    size: u64,
    mtime_ns: i64,
    /// Of its part of the buffer.
    start: u32,
    key: u16,
    mode: u16,
    kind: Kind,
    form: Form,
}

/// How a version is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    None,
    /// Hexadecimal digits, two in a byte: an S3 `ETag`.
    Hex,
    /// The same with a number of parts, two bytes.
    Parts,
    /// Modification time and size, which the record has.
    TimeAndSize,
    Text,
}

impl Packed {
    /// Of entries in order. What would not fit (a name of 64 KiB) is left out.
    pub(super) fn pack(entries: impl IntoIterator<Item = ListedEntry>, asked: Instant) -> Self {
        let (mut records, mut bytes) = (Vec::new(), Vec::new());
        for ListedEntry { name, status } in entries {
            let key = listing_key(&name, status.kind);
            let (Ok(start), Ok(length)) = (u32::try_from(bytes.len()), u16::try_from(key.len())) else { continue };
            bytes.extend_from_slice(&key);
            records.push(Record {
                size: status.size,
                mtime_ns: status.mtime_ns,
                start,
                key: length,
                mode: status.mode.map_or(NO_MODE, |mode| mode as u16),
                kind: status.kind,
                form: write_version(&status, &mut bytes),
            });
        }
        Self { records: records.into(), bytes: bytes.into(), asked }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of memory, but for the allocator's own.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.records.len() * size_of::<Record>()
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        let record = &self.records[at];
        &self.bytes[record.start as usize..][..record.key.into()]
    }

    pub(super) fn entry(&self, at: usize) -> ListedEntry {
        let (record, key) = (self.records[at], self.key(at));
        let name = if record.kind == Kind::Directory { &key[..key.len() - 1] } else { key };
        let mode = (record.mode != NO_MODE).then_some(record.mode.into());
        let Record { size, mtime_ns, kind, .. } = record;
        let status = Status { kind, size, mtime_ns, mode, version: self.version(at) };
        ListedEntry { name: name.to_vec(), status }
    }

    /// How many entries stand before `key`, or at it.
    pub(super) fn after(&self, key: &[u8]) -> usize {
        let mut part = 0..self.len();
        while !part.is_empty() {
            let middle = part.start.midpoint(part.end);
            if self.key(middle) <= key {
                part.start = middle + 1;
            } else {
                part.end = middle;
            }
        }
        part.start
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<ListedEntry> {
        let at = self.after(key).checked_sub(1)?;
        (self.key(at) == key).then(|| self.entry(at))
    }

    /// Whether two entries say the same of one name.
    pub(super) fn same(&self, at: usize, other: &Self, other_at: usize) -> bool {
        let facts = |packed: &Self, at: usize| {
            let Record { size, mtime_ns, mode, kind, form, .. } = packed.records[at];
            (size, mtime_ns, mode, kind, form)
        };
        facts(self, at) == facts(other, other_at) && self.part(at) == other.part(other_at)
    }

    /// Key and version as they are written down.
    fn part(&self, at: usize) -> &[u8] {
        let end = self.records.get(at + 1).map_or(self.bytes.len(), |next| next.start as usize);
        &self.bytes[self.records[at].start as usize..end]
    }

    fn version(&self, at: usize) -> Option<Version> {
        let record = &self.records[at];
        let written = &self.part(at)[record.key.into()..];
        Some(Version(match record.form {
            Form::None => return None,
            Form::Hex => hex(written),
            Form::Parts => {
                let (digits, parts) = written.split_last_chunk()?;
                format!("{}-{}", hex(digits), u16::from_le_bytes(*parts))
            }
            Form::TimeAndSize => time_and_size(record.mtime_ns, record.size),
            Form::Text => String::from_utf8_lossy(written).into_owned(),
        }))
    }
}

fn write_version(status: &Status, bytes: &mut Vec<u8>) -> Form {
    let Some(Version(text)) = &status.version else { return Form::None };
    if *text == time_and_size(status.mtime_ns, status.size) {
        return Form::TimeAndSize;
    }
    if let Some(digits) = unhex(text) {
        bytes.extend_from_slice(&digits);
        return Form::Hex;
    }
    if let Some((digits, parts)) = parts(text) {
        bytes.extend_from_slice(&digits);
        bytes.extend_from_slice(&parts.to_le_bytes());
        return Form::Parts;
    }
    bytes.extend_from_slice(text.as_bytes());
    Form::Text
}

fn time_and_size(mtime_ns: i64, size: u64) -> String {
    format!("{mtime_ns}-{size}")
}

/// Digits and number, when they are written as [`Packed::version`] writes them.
fn parts(text: &str) -> Option<(Vec<u8>, u16)> {
    let (digits, number) = text.split_once('-')?;
    let parts: u16 = number.parse().ok()?;
    Some((unhex(digits)?, parts)).filter(|_| parts.to_string() == number)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks() else { return None };
    pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version() -> impl Strategy<Value = Option<String>> {
        prop::option::of(prop_oneof![
            "[0-9a-f]{32}",
            "[0-9a-f]{32}-[0-9]{1,6}",
            "[0-9a-f]{0,3}",
            "[0-9A-Fa-f-]{0,6}",
            "W/\"é.{0,4}\"",
        ])
    }

    pub(in crate::metadata) fn entry() -> impl Strategy<Value = ListedEntry> {
        let kind = prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Symlink)];
        let name = prop_oneof![prop::collection::vec(1u8..=255, 1..6), "[a-c.\\-]{1,3}".prop_map(String::into_bytes)];
        let facts = (any::<u64>(), any::<i64>(), prop::option::of(0u32..0o10000), version(), any::<bool>());
        (name, kind, facts).prop_map(|(mut name, kind, (size, mtime_ns, mode, text, plain))| {
            name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            let text = if plain { Some(time_and_size(mtime_ns, size)) } else { text };
            ListedEntry { name, status: Status { kind, size, mtime_ns, mode, version: text.map(Version) } }
        })
    }

    pub(in crate::metadata) fn key(entry: &ListedEntry) -> Vec<u8> {
        listing_key(&entry.name, entry.status.kind)
    }

    proptest! {
        /// The model: a sorted vector of the entries themselves.
        #[test]
        fn what_is_packed_is_found_again(mut entries in prop::collection::vec(entry(), 0..40), probe in entry()) {
            entries.sort_by_key(key);
            entries.dedup_by_key(|entry| key(entry));
            let packed = Packed::pack(entries.clone(), Instant::now());
            prop_assert_eq!((0..packed.len()).map(|at| packed.entry(at)).collect::<Vec<_>>(), entries.clone());
            for sought in entries.iter().chain([&probe]) {
                let sought = key(sought);
                prop_assert_eq!(packed.after(&sought), entries.iter().filter(|entry| key(entry) <= sought).count());
                prop_assert_eq!(packed.find(&sought), entries.iter().find(|entry| key(entry) == sought).cloned());
            }
            let again = Packed::pack(entries.clone(), Instant::now());
            for (at, other) in (0..entries.len()).flat_map(|at| (0..entries.len()).map(move |other| (at, other))) {
                prop_assert_eq!(packed.same(at, &again, other), entries[at] == entries[other]);
            }
        }
    }

    #[test]
    fn an_s3_object_takes_little_more_than_its_name() {
        let object = |i: u32| ListedEntry {
            name: format!("{i:08}").into_bytes(),
            status: Status {
                kind: Kind::File,
                size: 1 << 40,
                mtime_ns: 1,
                mode: None,
                version: Some(Version(format!("{i:032x}"))),
            },
        };
        let packed = Packed::pack((0..1000).map(object), Instant::now());
        assert!(packed.bytes() < 57_000, "{}", packed.bytes());
    }
}
