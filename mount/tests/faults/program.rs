//! Random programs: what readers do, and what goes wrong meanwhile.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

pub const FILES: usize = 7;

/// One case: a fleet, its readers, and its troubles.
#[derive(Clone, Debug)]
pub struct Program {
    pub fleet: FleetShape,
    /// Each reader goes round its steps until the troubles are over.
    pub readers: Vec<Vec<Step>>,
    pub troubles: Vec<(Duration, Trouble)>,
}

#[derive(Clone, Debug)]
pub struct FleetShape {
    pub workers: usize,
    pub room: Room,
    pub revalidate_ms: u64,
    /// Whether readers get descriptors of complete files.
    pub local: bool,
}

/// Where the workers keep what they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Memory for everything.
    Ample,
    /// Memory for a part.
    Tight,
    /// Little memory above a folder, which is read page by page.
    Tiers,
}

#[derive(Clone, Debug)]
pub enum Step {
    Open(usize),
    Read {
        at: f64,
        len: usize,
    },
    /// So many reads of this length, one after the other.
    Scan {
        at: f64,
        len: usize,
        count: usize,
    },
    /// So many readers of one file at once, each with a handle of its own.
    Crowd {
        file: usize,
        readers: usize,
    },
}

/// What goes wrong. All but the last three last until [`Trouble::Heal`], or until they have struck as often as they say.
#[derive(Clone, Debug)]
pub enum Trouble {
    UfsErrors(u32),
    UfsThrottles(u32),
    UfsCuts {
        count: u32,
        after: u64,
    },
    UfsShort(u32),
    UfsListErrors(u32),
    UfsSlow(Duration),
    /// The connection to this worker breaks in the middle of an answer.
    Break {
        worker: usize,
        after: u64,
    },
    Cut {
        worker: usize,
    },
    Stall {
        worker: usize,
    },
    Slow {
        worker: usize,
    },
    /// Someone else fills the medium of all tiers.
    FillDisk,
    Heal,
    Replace {
        file: usize,
        other_size: bool,
    },
    /// The worker dies without a word, and comes back.
    Restart {
        worker: usize,
    },
    /// As [`Trouble::Restart`], and meanwhile a byte of one of its files changes.
    Rot {
        worker: usize,
        file: usize,
        at: f64,
    },
    Scale {
        to: usize,
    },
}

pub fn programs() -> impl Strategy<Value = Program> {
    let readers = prop::collection::vec(prop::collection::vec(step(), 1..8), 1..5);
    let troubles = prop::collection::vec(((0u64..150).prop_map(Duration::from_millis), trouble()), 0..10);
    (fleet(), readers, troubles).prop_map(|(fleet, readers, troubles)| Program { fleet, readers, troubles })
}

fn fleet() -> impl Strategy<Value = FleetShape> {
    let room = prop::sample::select(vec![Room::Ample, Room::Tight, Room::Tiers]);
    (1usize..=3, room, prop::sample::select(vec![100, 100, 1_000]), any::<bool>())
        .prop_map(|(workers, room, revalidate_ms, local)| FleetShape { workers, room, revalidate_ms, local })
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![1usize..5_000, 100_000usize..300_000, 1usize << 20..3 << 20];
    prop_oneof![
        2 => (0..FILES).prop_map(Step::Open),
        2 => (0.0..1.05, len()).prop_map(|(at, len)| Step::Read { at, len }),
        2 => (0.0..1.0, len(), 1usize..10).prop_map(|(at, len, count)| Step::Scan { at, len, count }),
        1 => (0..FILES, 2usize..5).prop_map(|(file, readers)| Step::Crowd { file, readers }),
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let worker = || 0usize..3;
    prop_oneof![
        2 => (1u32..5).prop_map(Trouble::UfsErrors),
        1 => (1u32..4).prop_map(Trouble::UfsThrottles),
        2 => (1u32..5, 0u64..1 << 20).prop_map(|(count, after)| Trouble::UfsCuts { count, after }),
        2 => (1u32..4).prop_map(Trouble::UfsShort),
        1 => (1u32..3).prop_map(Trouble::UfsListErrors),
        1 => (1u64..300).prop_map(|ms| Trouble::UfsSlow(Duration::from_millis(ms))),
        3 => (worker(), 0u64..2 << 20).prop_map(|(worker, after)| Trouble::Break { worker, after }),
        1 => worker().prop_map(|worker| Trouble::Cut { worker }),
        1 => worker().prop_map(|worker| Trouble::Stall { worker }),
        1 => worker().prop_map(|worker| Trouble::Slow { worker }),
        1 => Just(Trouble::FillDisk),
        2 => Just(Trouble::Heal),
        5 => (0..FILES, any::<bool>()).prop_map(|(file, other_size)| Trouble::Replace { file, other_size }),
        2 => worker().prop_map(|worker| Trouble::Restart { worker }),
        2 => (worker(), any::<usize>(), 0.0..1.0).prop_map(|(worker, file, at)| Trouble::Rot { worker, file, at }),
        1 => (1usize..=3).prop_map(|to| Trouble::Scale { to }),
    ]
}
