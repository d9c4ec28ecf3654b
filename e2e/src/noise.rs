//! Bytes that do not compress, differ everywhere and are known at every place (splitmix64).

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = 8;

/// The content of a file of a [tree](crate::harness::Tree) made with `seed`.
pub fn seed_of(seed: u64, path: &str) -> u64 {
    let hash = path.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    seed ^ u64::from(hash)
}

/// The first `length` bytes.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut data: Vec<u8> = (0..length.div_ceil(WORD) as u64).flat_map(|index| word(seed, index)).collect();
    data.truncate(length);
    data
}

/// Where `data`, read at `offset`, first differs from the noise; exact to a word of 8 bytes.
pub fn first_wrong(seed: u64, offset: u64, data: &[u8]) -> Option<u64> {
    let lead = (offset % WORD as u64) as usize;
    let (head, rest) = data.split_at(data.len().min((WORD - lead) % WORD));
    if word(seed, offset / WORD as u64)[lead..][..head.len()] != *head {
        return Some(offset);
    }
    let start = offset + head.len() as u64;
    let differs = |(index, chunk): &(u64, &[u8])| word(seed, start / WORD as u64 + index)[..chunk.len()] != **chunk;
    (0..).zip(rest.chunks(WORD)).find(differs).map(|(index, _)| start + index * WORD as u64)
}

fn word(seed: u64, index: u64) -> [u8; WORD] {
    number(seed, index).to_le_bytes()
}

/// Number `index` of the series that `seed` begins.
pub fn number(seed: u64, index: u64) -> u64 {
    let mut word = seed.wrapping_add(STEP.wrapping_mul(index + 1));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_length_and_depends_on_its_seed() {
        assert_eq!(noise(1, 13).len(), 13);
        assert_eq!(noise(1, 13), noise(1, 20)[..13]);
        assert_ne!(noise(1, 100), noise(2, 100));
        assert_ne!(seed_of(1, "a"), seed_of(1, "b"));
    }

    #[test]
    fn any_part_is_recognised_and_any_wrong_byte_found() {
        let data = noise(7, 100);
        for offset in 0..data.len() {
            for end in offset..=data.len() {
                assert_eq!(first_wrong(7, offset as u64, &data[offset..end]), None, "{offset}..{end}");
            }
            let mut changed = data.clone();
            changed[offset] ^= 1;
            let found = first_wrong(7, 3, &changed[3..]);
            assert_eq!(found.is_some(), offset >= 3, "{offset}");
            assert!(found.is_none_or(|found| (found..found + WORD as u64).contains(&(offset as u64))), "{offset}");
        }
    }
}
