//! The checksum file beside each data file.
//!
//! ```text
//! 0   magic "PENSTOCK", u32 format (2), u32 path length, u32 version length, u32 zero, u64 size, u128 key
//! 48  path, version, zeros up to a multiple of 16, then in the last 16 bytes before the records:
//!     u64 xxh3-64 of everything before, u64 zero
//! …   per page 16 bytes: u64 checksum of the page's bytes (xxh3-64 of the xxh3-64 of each 4 KiB), u64 seal
//! ```
//!
//! All integers are little endian. A page is present when its record's seal is right; the seal hashes key, page number and
//! checksum, so that a torn, zeroed or foreign record means "absent". The record is written after the page's bytes.

use std::ops::Range;

use penstock_model::{Object, ObjectKey, Version};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::page::page_count;

const MAGIC: &[u8; 8] = b"PENSTOCK";
const FORMAT: u32 = 2;
const FIXED: usize = 48;
pub(crate) const RECORD: u64 = 16;
/// Paths and versions longer than this are no work of ours.
const MAX_TEXT: usize = 1 << 16;

/// Bytes of the header, records excluded.
pub(crate) fn header_len(object: &Object) -> u64 {
    ((FIXED + object.path.len() + object.version.0.len()).next_multiple_of(16) + 16) as u64
}

pub(crate) fn file_len(object: &Object) -> u64 {
    header_len(object) + page_count(object.size) * RECORD
}

/// Where the record of `page` lies.
pub(crate) fn record_at(object: &Object, page: u64) -> u64 {
    header_len(object) + page * RECORD
}

pub(crate) fn header(object: &Object) -> Vec<u8> {
    let mut out = Vec::with_capacity(header_len(object) as usize);
    out.extend_from_slice(MAGIC);
    for number in [FORMAT, object.path.len() as u32, object.version.0.len() as u32, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&object.size.to_le_bytes());
    out.extend_from_slice(&object.key.0.to_le_bytes());
    out.extend_from_slice(&object.path);
    out.extend_from_slice(object.version.0.as_bytes());
    out.resize(out.len().next_multiple_of(16), 0);
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out
}

fn seal(key: ObjectKey, page: u64, sum: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&key.0.to_le_bytes());
    bytes[16..].copy_from_slice(&page.to_le_bytes());
    // Never 0, so that a hole is never a valid record.
    xxh3_64_with_seed(&bytes, sum) | 1
}

pub(crate) fn record(key: ObjectKey, page: u64, sum: u64) -> [u8; RECORD as usize] {
    let mut out = [0; RECORD as usize];
    out[..8].copy_from_slice(&sum.to_le_bytes());
    out[8..].copy_from_slice(&seal(key, page, sum).to_le_bytes());
    out
}

/// What a checksum file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) object: Object,
    /// (page, checksum) of the pages that are present, in order.
    pub(crate) pages: Vec<(u64, u64)>,
}

/// `None` for anything that is not a whole, unharmed checksum file of `key`. Missing records at the end are absent pages.
pub(crate) fn parse(key: ObjectKey, bytes: &[u8]) -> Option<Parsed> {
    let fixed = bytes.get(..FIXED)?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(fixed.get(at..at + 4)?.try_into().ok()?));
    let (path_len, version_len) = (u32_at(12)? as usize, u32_at(16)? as usize);
    if &fixed[..8] != MAGIC || u32_at(8)? != FORMAT || path_len > MAX_TEXT || version_len > MAX_TEXT {
        return None;
    }
    let size = u64::from_le_bytes(fixed[24..32].try_into().ok()?);
    let text = FIXED..FIXED + path_len + version_len;
    let body = text.end.next_multiple_of(16);
    let sum = u64::from_le_bytes(bytes.get(body..body + 8)?.try_into().ok()?);
    if fixed[32..48] != key.0.to_le_bytes() || xxh3_64(&bytes[..body]) != sum {
        return None;
    }
    let (path, version) = bytes[text].split_at(path_len);
    let version = Version(String::from_utf8(version.to_vec()).ok()?);
    let object = Object { key, path: path.to_vec(), version, size };
    let pages = records(&object, bytes.get(body + 16..)?);
    Some(Parsed { object, pages })
}

fn records(object: &Object, bytes: &[u8]) -> Vec<(u64, u64)> {
    let present = |(page, record): (u64, &[u8])| {
        let sum = u64::from_le_bytes(record[..8].try_into().ok()?);
        let sealed = u64::from_le_bytes(record[8..].try_into().ok()?);
        (sealed == seal(object.key, page, sum)).then_some((page, sum))
    };
    let count = page_count(object.size);
    (0..count).zip(bytes.chunks_exact(RECORD as usize)).filter_map(present).collect()
}

/// Records of a run of pages, ready to be written at [`record_at`] of the first.
pub(crate) fn record_run(key: ObjectKey, pages: Range<u64>, sums: &[u64]) -> Vec<u8> {
    pages.zip(sums).flat_map(|(page, sum)| record(key, page, *sum)).collect()
}

#[cfg(test)]
mod tests {
    use penstock_model::PAGE;
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Object, Vec<u8>) {
        let object = Object {
            key: ObjectKey(7 << 90),
            path: b"a/\xff".to_vec(),
            version: Version("v\"1".into()),
            size: 3 * PAGE + 1,
        };
        let mut bytes = header(&object);
        assert_eq!(bytes.len() as u64, header_len(&object));
        bytes.resize(file_len(&object) as usize, 0);
        for (page, sum) in [(0, 0), (3, 99)] {
            let at = record_at(&object, page) as usize;
            bytes[at..at + 16].copy_from_slice(&record(object.key, page, sum));
        }
        (object, bytes)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (object, bytes) = sample();
        let parsed = parse(object.key, &bytes).unwrap();
        assert_eq!(parsed, Parsed { object, pages: vec![(0, 0), (3, 99)] });
        assert_eq!(parse(ObjectKey(1), &bytes), None);
    }

    proptest! {
        #[test]
        fn a_harmed_file_never_shows_a_page_that_was_not_there(at in 0usize..200, bit in 0u8..8, cut in 0usize..200) {
            let (object, mut bytes) = sample();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Some(parsed) = parse(object.key, &bytes) {
                prop_assert_eq!(parsed.object, object);
                prop_assert!(parsed.pages.iter().all(|page| [(0, 0), (3, 99)].contains(page)));
            }
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(parse(ObjectKey(3), &bytes), None);
        }
    }
}
