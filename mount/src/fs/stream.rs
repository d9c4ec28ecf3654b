//! Tells sequential reading from random reading. Pure.

use penstock_wire::message::Pattern;

/// How many streams of one handle are told apart: threads that share it, or a merge of sorted runs inside one file.
const STREAMS: usize = 16;
/// The window that a stream begins with, bytes.
const FIRST_WINDOW: u64 = 1 << 20;
/// A window grows fourfold up to this, then twofold: until it spans several extents, a stream has one worker only.
const WIDE: u64 = 16 << 20;
/// A first read of this much at the very start of a file means that the file will be read through.
const EAGER_START: u64 = 128 << 10;
/// Reads of one stream may come out of order, because the kernel sends several at once.
const LEAST_SLACK: u64 = 128 << 10;

/// What to do about a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    pub pattern: Pattern,
    /// How many bytes after the end of this read should be on their way.
    pub ahead: u64,
}

const RANDOM: Advice = Advice { pattern: Pattern::Random, ahead: 0 };

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Where the next read is expected.
    next: u64,
    /// 0 until a second read has confirmed the stream.
    window: u64,
    used: u64,
}

/// The streams of one handle.
#[derive(Debug)]
pub struct Streams {
    slots: [Option<Stream>; STREAMS],
    clock: u64,
    max_window: u64,
}

impl Streams {
    pub fn new(max_window: u64) -> Self {
        Self { slots: [None; STREAMS], clock: 0, max_window }
    }

    pub fn observe(&mut self, offset: u64, len: u64) -> Advice {
        self.clock += 1;
        let end = offset + len;
        let slack = (4 * len).max(LEAST_SLACK);
        let (clock, max_window) = (self.clock, self.max_window);
        if let Some(stream) = self.slots.iter_mut().flatten().find(|s| s.next.abs_diff(offset) <= slack) {
            // A read behind the front (one of several that were sent at once) does not widen the window.
            if end > stream.next {
                let wider = stream.window * if stream.window < WIDE { 4 } else { 2 };
                stream.window = wider.clamp(FIRST_WINDOW.min(max_window), max_window);
                stream.next = end;
            }
            stream.used = clock;
            let ahead = (stream.next + stream.window).saturating_sub(end);
            return Advice { pattern: Pattern::Sequential, ahead: ahead.min(max_window) };
        }
        let eager = offset == 0 && len >= EAGER_START;
        let window = if eager { FIRST_WINDOW.min(max_window) } else { 0 };
        self.replace(Stream { next: end, window, used: clock });
        if eager { Advice { pattern: Pattern::Sequential, ahead: window } } else { RANDOM }
    }

    fn replace(&mut self, stream: Stream) {
        let oldest = self.slots.iter_mut().min_by_key(|slot| slot.map_or(0, |s| s.used));
        if let Some(slot) = oldest {
            *slot = Some(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: u64 = 16 << 20;
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_scan_opens_its_window_up_to_the_bound() {
        let mut streams = Streams::new(MAX);
        let ahead: Vec<u64> = (0..8).map(|i| streams.observe(i * MIB, MIB).ahead / MIB).collect();
        assert_eq!(ahead, [1, 4, 16, 16, 16, 16, 16, 16]);
        let mut streams = Streams::new(4 * MAX);
        let ahead: Vec<u64> = (0..6).map(|i| streams.observe(i * MIB, MIB).ahead / MIB).collect();
        assert_eq!(ahead, [1, 4, 16, 32, 64, 64]);
    }

    #[test]
    fn a_small_first_read_at_the_start_promises_nothing() {
        let mut streams = Streams::new(MAX);
        assert_eq!(streams.observe(0, 4096), RANDOM);
        assert_eq!(streams.observe(4096, 4096).pattern, Pattern::Sequential);
    }

    #[test]
    fn reads_that_overtake_each_other_are_still_one_stream() {
        let mut streams = Streams::new(MAX);
        for at in [0, 2, 1, 4, 3, 5] {
            assert_eq!(streams.observe(at * MIB, MIB).pattern, Pattern::Sequential, "at {at} MiB");
        }
    }

    #[test]
    fn sixteen_interleaved_scans_are_told_apart() {
        let mut streams = Streams::new(MAX);
        let bases: [u64; STREAMS] = std::array::from_fn(|at| (at as u64 + 1) << 30);
        for step in 0..4 {
            for base in bases {
                let advice = streams.observe(base + step * MIB, MIB);
                assert_eq!(advice.pattern, if step == 0 { Pattern::Random } else { Pattern::Sequential });
            }
        }
    }

    proptest! {
        /// Scattered small reads of a large file never start a readahead.
        #[test]
        fn scattered_reads_stay_random(slots in prop::collection::hash_set(0u64..1000, 1..40)) {
            let mut streams = Streams::new(MAX);
            for slot in slots {
                prop_assert_eq!(streams.observe(slot * 64 * MIB + 4096, 4096), RANDOM);
            }
        }

        #[test]
        fn readahead_never_exceeds_its_bound(reads in prop::collection::vec((0u64..64 * MIB, 1u64..MIB), 1..60), max in 0u64..MAX) {
            let mut streams = Streams::new(max);
            for (offset, len) in reads {
                prop_assert!(streams.observe(offset, len).ahead <= max);
            }
        }
    }
}
