//! The whole path of a read, from the mount over real workers to the UFS, compared with plain files while random things go
//! wrong: no reader sees a byte that is not of its version, and none fails for longer than the trouble lasts. Needs root.
//! `PENSTOCK_FAULT_CASES` sets the number of cases, `PROPTEST_RNG_SEED` repeats a run.
#![allow(clippy::unwrap_used)]

#[path = "../../cache-worker/tests/common/fleet.rs"]
mod fleet;
#[path = "faults/front.rs"]
mod front;
#[path = "faults/model.rs"]
mod model;
#[path = "common/mounted.rs"]
mod mounted;
#[path = "faults/program.rs"]
mod program;
#[path = "faults/rig.rs"]
mod rig;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::UNIX_EPOCH,
};

use front::{Front, Handle};
use futures::future::{join_all, try_join_all};
use model::{Model, Witness, Wrong};
use mounted::Mounted;
use penstock_mount::{
    reader::{Cluster, Workers},
    serve,
    spec::Passthrough,
};
use penstock_wire::Address;
use program::{FILES, Program, Step};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestError, TestRunner},
};
use rig::Rig;
use tokio::{runtime::Runtime, task::yield_now, time::sleep};

/// A reader, with what it has open.
struct Reader {
    front: Front,
    model: Arc<Model>,
    open: Option<(Handle, Witness)>,
}

impl Reader {
    fn new(front: Front, model: Arc<Model>) -> Self {
        Self { front, model, open: None }
    }

    async fn open(&mut self, file: usize) -> Result<(), Wrong> {
        self.open = None;
        let name = Model::name(file);
        let (handle, size) = self.front.open(&name).await.map_err(|errno| format!("opening {name}: {errno}"))?;
        self.open = Some((handle, self.model.open(file, size)?));
        Ok(())
    }

    /// False when the file was replaced, so that it must be opened anew.
    async fn read(&mut self, offset: u64, len: usize) -> Result<bool, Wrong> {
        let Some((handle, seen)) = &mut self.open else { return Ok(false) };
        let answer = handle.read(offset, len).await;
        let good = self.model.judge(seen, offset, len, answer)?;
        if !good {
            self.open = None;
        }
        Ok(good)
    }

    /// Opens the file and reads all of it, anew when it is replaced meanwhile. Whether it is what the file is now.
    async fn read_whole(&mut self, file: usize) -> Result<bool, Wrong> {
        'anew: loop {
            self.open(file).await?;
            let size = self.size();
            for offset in (0..size).step_by(700_001) {
                if !self.read(offset, 700_001).await? {
                    continue 'anew;
                }
            }
            return Ok(self.open.as_ref().is_some_and(|(_, seen)| self.model.is_newest(seen)));
        }
    }

    fn size(&self) -> u64 {
        self.open.as_ref().map_or(0, |(_, seen)| seen.size())
    }

    async fn take(&mut self, step: &Step) -> Result<(), Wrong> {
        let at = |size: u64, part: f64| (size as f64 * part) as u64;
        match *step {
            Step::Open(file) => self.open(file).await?,
            Step::Read { at: part, len } => drop(self.read(at(self.size(), part), len).await?),
            Step::Scan { at: part, len, count } => {
                let start = at(self.size(), part);
                for offset in (0..count as u64).map(|i| start + i * len as u64) {
                    self.read(offset, len).await?;
                }
            }
            Step::Crowd { file, readers } => {
                let one = || async {
                    let mut reader = Self::new(self.front.clone(), self.model.clone());
                    reader.read_whole(file).await
                };
                try_join_all((0..readers).map(|_| one())).await?;
            }
        }
        Ok(())
    }

    async fn go_round(mut self, steps: &[Step], until: &AtomicBool) -> Result<(), Wrong> {
        loop {
            // Not the first time, when its file was replaced and no step opens another.
            if self.open.is_none() {
                self.open(0).await?;
            }
            // What is answered from memory waits for nothing, and the troubles run in the same task.
            yield_now().await;
            for step in steps {
                self.take(step).await?;
            }
            if until.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}

/// One case on a fleet of its own.
async fn run(program: &Program, rig: &mut Rig, front: &Front, model: &Arc<Model>) -> Result<(), Wrong> {
    let over = AtomicBool::new(false);
    let reader = || Reader::new(front.clone(), model.clone());
    let troubles = async {
        for (pause, trouble) in &program.troubles {
            sleep(*pause).await;
            rig.strike(model, trouble).await;
        }
        rig.heal();
        over.store(true, Ordering::Relaxed);
    };
    let readers = join_all(program.readers.iter().map(|steps| reader().go_round(steps, &over)));
    let ((), outcomes) = tokio::join!(troubles, readers);
    outcomes.into_iter().collect::<Result<(), Wrong>>()?;
    rig.settle().await;
    let pass = async || {
        for file in 0..FILES {
            if !reader().read_whole(file).await? {
                return Err(format!("{} still shows what was replaced", Model::name(file)));
            }
        }
        Ok(())
    };
    if rig.has_room_for_all() { rig.warms_up(pass).await } else { pass().await }
}

async fn direct(program: &Program) -> Result<(), Wrong> {
    let model = Arc::default();
    let mut rig = Rig::new(&program.fleet, &model).await;
    let front = Front::Direct(serve::start(&rig.spec(Passthrough::Off)).unwrap());
    let outcome = run(program, &mut rig, &front, &model).await;
    rig.stop().await;
    outcome
}

async fn mounted(program: &Program) -> Result<(), Wrong> {
    let model = Arc::default();
    let mut rig = Rig::new(&program.fleet, &model).await;
    let spec = rig.spec(Passthrough::Auto);
    let endpoints = spec.endpoints.iter().cloned().map(Address::Tcp).collect();
    let cluster = Cluster::start(spec.caller().unwrap(), endpoints, spec.socket_dir, &spec.tuning);
    let mount = Mounted::with(Arc::new(Workers(cluster)), spec.tuning);
    let outcome = run(program, &mut rig, &Front::Mounted(mount.path().into()), &model).await;
    tokio::task::block_in_place(|| drop(mount));
    rig.stop().await;
    outcome
}

/// Runs `cases` random programs, or as many as the environment asks for.
fn check(cases: u32, one: &impl AsyncFn(&Program) -> Result<(), Wrong>) {
    let wanted = std::env::var("PENSTOCK_FAULT_CASES").ok().and_then(|cases| cases.parse().ok());
    let from_environment = ProptestConfig::default();
    let seed = match from_environment.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    let config = ProptestConfig {
        cases: wanted.unwrap_or(cases),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..from_environment
    };
    let runtime = Runtime::new().unwrap();
    let outcome = TestRunner::new(config)
        .run(&program::programs(), |program| runtime.block_on(one(&program)).map_err(TestCaseError::fail));
    match outcome {
        Err(TestError::Fail(wrong, program)) => panic!("{wrong}; seed {seed}, the least that shows it: {program:?}"),
        other => other.unwrap(),
    }
}

#[test]
fn whatever_goes_wrong_readers_see_their_version_or_that_it_was_replaced() {
    check(10, &direct);
}

#[test]
fn so_do_readers_of_a_mount_with_passthrough() {
    check(5, &mounted);
}
