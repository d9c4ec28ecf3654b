//! What a worker tells of its sample.

use minicbor::{Decode, Encode};

/// Counts since the worker started, scaled from the sample to all that it owns, in bytes. All but `popular` only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Reuse {
    /// Reads in the sample: how much the rest is worth.
    #[n(0)]
    pub reads: u64,
    /// What readers took, of pages in the sample or not.
    #[n(1)]
    pub asked: u64,
    /// The same as the sample has it.
    #[n(2)]
    pub sampled: u64,
    /// Read for the first time: no cache has it.
    #[n(3)]
    pub first: u64,
    /// Read again, by the step of the distance; steps without any are left out.
    #[n(4)]
    pub again: Vec<(u16, u64)>,
    /// Of all reads but those whose page may have been read elsewhere before: without the UFS, and with it.
    #[n(5)]
    pub hit: u64,
    #[n(6)]
    pub missed: u64,
    /// The pages of the sample by how often they were read lately, the most popular first.
    #[n(7)]
    pub popular: Vec<Popular>,
    /// Workers that shared the pages at the last read.
    #[n(8)]
    pub members: u64,
}

/// Pages that are read about equally often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Popular {
    /// How often, in quarters of a power of two: 4 log2(times).
    #[n(0)]
    pub class: i16,
    /// Bytes of the pages.
    #[n(1)]
    pub bytes: u64,
    /// What was read of them.
    #[n(2)]
    pub read: u64,
}
