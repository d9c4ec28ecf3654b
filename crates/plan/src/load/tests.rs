use std::collections::BTreeMap;

use penstock_api::DataLoadSpec;
use penstock_wire::message::Stats;
use serde_json::{Value, json};

use super::*;

const MIB: u64 = 1 << 20;

/// A DataLoad in a world whose clock and workers the test moves.
struct World {
    load: DataLoad,
    workers: Vec<WorkerSeen>,
    others: BTreeMap<&'static str, DataLoadPhase>,
    texts: CalendarTexts,
    now: Timestamp,
}

impl World {
    fn new(mut spec: Value) -> Self {
        spec["dataset"] = json!("prices");
        let spec: DataLoadSpec = serde_json::from_value(spec).unwrap();
        let mut load = DataLoad::new("warm", spec);
        load.metadata.uid = Some("u".into());
        load.metadata.generation = Some(1);
        let now: Timestamp = "2026-11-26T08:00:00Z".parse().unwrap();
        load.metadata.creation_timestamp = Some(Time(now));
        let worker =
            |ordinal| WorkerSeen { ordinal, ready: true, stats: Some(Stats::default()), ..WorkerSeen::default() };
        let (others, texts) = (BTreeMap::new(), CalendarTexts::new());
        Self { load, workers: (0..2).map(worker).collect(), others, texts, now }
    }

    fn pass(&mut self) -> Decision {
        let decision = decide(&Scene {
            load: &self.load,
            wanted: self.workers.len() as u32,
            epoch: 7,
            workers: &self.workers,
            phase_of: &|name| self.others.get(name).copied(),
            texts: &self.texts,
            rate: Some(10 * MIB),
            now: self.now,
        });
        self.load.status = Some(decision.status.clone());
        decision
    }

    fn tell(&mut self, worker: usize, done: u64, cached: u64, state: LoadState) {
        let id = format!("u/{}", self.load.status.as_ref().unwrap().run);
        let progress = LoadProgress {
            id,
            epoch: 7,
            state,
            files: 5,
            bytes: 50 * MIB,
            done_bytes: done * MIB,
            cached_bytes: cached * MIB,
            ..LoadProgress::default()
        };
        self.workers[worker].stats.as_mut().unwrap().loads = vec![progress];
    }

    fn fail(&mut self, worker: usize, path: &str) {
        let load = &mut self.workers[worker].stats.as_mut().unwrap().loads[0];
        load.failed_files += 1;
        load.failures.push((path.into(), "denied".into()));
    }

    fn condition(&mut self) -> (DataLoadPhase, String, String) {
        let status = self.pass().status;
        let condition = &status.conditions[0];
        (status.phase.unwrap(), condition.reason.clone(), condition.message.clone())
    }
}

#[test]
fn complete_means_that_the_bytes_are_there() {
    let mut world = World::new(json!({"targets": [{"path": "/a/"}], "bandwidth": "100Mi"}));
    let order = world.pass().order.unwrap();
    assert_eq!((order.id.as_str(), order.bandwidth), ("u/1", Some(50 * MIB)));
    assert_eq!(order.targets, [LoadTarget::Path(b"a".to_vec())]);
    world.tell(0, 20, 20, LoadState::Running);
    let decision = world.pass();
    assert_eq!((decision.status.phase, decision.status.done_bytes), (Some(DataLoadPhase::Running), Some(20 * MIB)));
    world.tell(0, 50, 50, LoadState::Done);
    world.tell(1, 30, 30, LoadState::Running);
    let status = world.pass().status;
    assert_eq!((status.files, status.bytes, status.cached_percent), (Some(10), Some(100 * MIB), Some(80.0)));
    assert_eq!((status.eta_seconds, status.phase), (Some(2), Some(DataLoadPhase::Running)));
    world.tell(1, 50, 7, LoadState::Done);
    let (phase, reason, message) = world.condition();
    assert_eq!((phase, reason.as_str()), (DataLoadPhase::Failed, "Incomplete"));
    assert!(message.starts_with("only 57 % of 100MiB are in the cache, below minCachedPercent 100; give"), "{message}");
}

#[test]
fn a_load_that_is_complete_says_so_and_gives_no_order_any_more() {
    let mut world = World::new(json!({"minCachedPercent": 90}));
    world.pass();
    world.tell(0, 50, 50, LoadState::Done);
    world.tell(1, 50, 42, LoadState::Done);
    let decision = world.pass();
    assert_eq!((decision.status.phase, decision.order), (Some(DataLoadPhase::Complete), None));
    assert_eq!(decision.status.completion_time, Some(Time(world.now)));
    assert_eq!(world.pass().status, decision.status, "and nothing is written again");
    world.load.metadata.generation = Some(2);
    assert_eq!(world.pass().order.unwrap().id, "u/2", "a changed specification is another run");
}

#[test]
fn a_worker_of_another_list_or_without_the_order_is_not_done() {
    let mut world = World::new(json!({}));
    world.pass();
    world.tell(0, 50, 50, LoadState::Done);
    assert_eq!(world.pass().status.phase, Some(DataLoadPhase::Running));
    world.tell(1, 50, 50, LoadState::Done);
    world.workers[1].stats.as_mut().unwrap().loads[0].epoch = 6;
    assert_eq!(world.pass().status.phase, Some(DataLoadPhase::Running));
}

#[test]
fn failed_files_are_named_once() {
    let mut world = World::new(json!({}));
    world.pass();
    for worker in 0..2 {
        world.tell(worker, 50, 40, LoadState::Done);
        world.fail(worker, "/d/big");
    }
    world.fail(1, "/d/b");
    let (phase, reason, message) = world.condition();
    assert_eq!((phase, reason.as_str()), (DataLoadPhase::Failed, "FilesFailed"));
    assert_eq!(message, "80 % are in the cache; 2 files failed, first '/d/big': denied");
}

#[test]
fn a_load_of_what_is_not_there_has_failed() {
    let mut world = World::new(json!({"targets": [{"path": "/typo"}]}));
    world.pass();
    for worker in 0..2 {
        world.tell(worker, 0, 0, LoadState::Done);
        let load = &mut world.workers[worker].stats.as_mut().unwrap().loads[0];
        (load.files, load.bytes) = (0, 0);
        world.fail(worker, "/typo");
    }
    let (phase, reason, message) = world.condition();
    assert_eq!((phase, reason.as_str()), (DataLoadPhase::Failed, "FilesFailed"));
    assert_eq!(message, "1 file failed, first '/typo': denied");
}

#[test]
fn by_the_clock_it_runs_at_its_times_and_not_on_holidays() {
    let calendars = json!([{"name": "closed", "dates": ["2026-11-27"]}]);
    let mut world = World::new(json!({"policy": "Cron", "schedule": "30 8 * * 1-5", "skipCalendars": calendars}));
    let decision = world.pass();
    assert_eq!((decision.order, decision.look_again), (None, Some(Duration::from_mins(30))));
    world.now = "2026-11-26T08:31:00Z".parse().unwrap();
    assert_eq!(world.pass().order.unwrap().id, "u/1");
    (0..2).for_each(|worker| world.tell(worker, 50, 50, LoadState::Done));
    assert_eq!(world.pass().status.phase, Some(DataLoadPhase::Complete));
    world.now = "2026-11-27T12:00:00Z".parse().unwrap();
    let decision = world.pass();
    assert_eq!(
        (decision.order, decision.status.next_time.unwrap().0.to_string()),
        (None, "2026-11-30T08:30:00Z".into())
    );
    world.now = "2026-12-03T12:00:00Z".parse().unwrap();
    assert_eq!(world.pass().order.unwrap().id, "u/2", "one run for all that were missed");
}

#[test]
fn it_waits_for_another_load_and_for_workers() {
    let mut world = World::new(json!({"runAfter": {"name": "first"}}));
    assert_eq!(world.condition().1, "WaitingForLoad");
    world.others.insert("first", DataLoadPhase::Complete);
    world.workers.clear();
    let decision = world.pass();
    assert!(decision.is_active && decision.order.is_none(), "workers are woken for it");
    assert_eq!(decision.status.phase, Some(DataLoadPhase::Pending));
}

#[test]
fn on_change_it_goes_on() {
    let mut world = World::new(json!({"policy": "OnChange"}));
    assert!(world.pass().order.unwrap().follow);
    (0..2).for_each(|worker| world.tell(worker, 50, 50, LoadState::Done));
    let decision = world.pass();
    assert_eq!(decision.status.phase, Some(DataLoadPhase::Complete));
    assert!(decision.order.is_some());
    world.tell(0, 20, 20, LoadState::Running);
    assert_eq!(world.pass().status.phase, Some(DataLoadPhase::Running));
}

#[test]
fn what_cannot_be_read_is_named() {
    for (spec, expected) in [
        (
            json!({"targets": [{"configMap": {"name": "hot", "key": "list"}}]}),
            "key 'list' of ConfigMap 'hot', which is not there",
        ),
        (json!({"policy": "Cron", "schedule": "0 25 * * *"}), "spec.schedule: '25' is no hour"),
        (json!({"policy": "Cron", "schedule": "@daily", "timeZone": "Mars"}), "time zone 'Mars'"),
    ] {
        let (phase, reason, message) = World::new(spec).condition();
        assert_eq!((phase, reason.as_str()), (DataLoadPhase::Pending, "InvalidSpec"));
        assert!(message.contains(expected), "{message}");
    }
    let mut world = World::new(json!({"targets": [{"configMap": {"name": "hot", "key": "list"}}]}));
    let at = penstock_api::autoscaling::ConfigMapKey { name: "hot".into(), key: "list".into() };
    world.texts.insert(at, "# hot files\n/a/b\n\n c \n".into());
    let targets = world.pass().order.unwrap().targets;
    assert_eq!(targets, [LoadTarget::Path(b"a/b".to_vec()), LoadTarget::Path(b"c".to_vec())]);
}
