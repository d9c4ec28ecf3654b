//! Who is a member, and when the leaving ones may go: decided anew each time from what is seen.

use std::{collections::BTreeMap, time::Duration};

use penstock_placement::{Member, MemberList};
use penstock_wire::message::Stats;

/// One worker pod as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerSeen {
    pub ordinal: u32,
    /// `host:port` of the wire protocol; `None` while the pod has no address.
    pub addr: Option<String>,
    pub ready: bool,
    /// The answer to the last question, if it came in time.
    pub stats: Option<Stats>,
}

/// What scaling is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// How many workers the user wants.
    pub wanted: u32,
    /// How many the `StatefulSet` has now; `None` before there is one.
    pub current: Option<u32>,
    /// The persisted list; the empty one when it was lost or cannot be read.
    pub members: &'a MemberList,
    /// The highest number of a list that was ever told in a status.
    pub told: u64,
    pub workers: &'a [WorkerSeen],
    /// Wanted workers whose pods are to go, and will be made anew.
    pub leaving: &'a [Leaving],
    /// Bytes of quota of one worker.
    pub weight: u64,
    /// Seconds since the epoch: when the present hand-over began.
    pub drain_started: Option<u64>,
    /// How many workers that hand-over was to leave.
    pub drain_target: Option<u32>,
    pub drain_timeout: Duration,
    /// Whether workers that are not wanted any more hand over before they go.
    pub hands_over: bool,
    /// Seconds since the epoch.
    pub now: u64,
}

/// A worker that hands over because its pod goes, although its ordinal stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    pub ordinal: u32,
    /// Seconds since the epoch: when its hand-over began.
    pub since: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaling {
    /// What the `StatefulSet` gets now.
    pub replicas: u32,
    pub members: MemberList,
    /// Ordinals that are to hand over.
    pub draining: Vec<u32>,
    /// Of [`Scene::leaving`], those whose pods may go now.
    pub released: Vec<u32>,
    /// To be kept on the `StatefulSet` while it drains.
    pub drain_started: Option<u64>,
    pub step: Step,
}

/// Where scaling stands, for conditions and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Step {
    #[default]
    Steady,
    /// More workers than there were.
    ScalingOut { from: u32 },
    /// Bytes that the leaving workers still hold for others.
    Draining { left_bytes: u64 },
    /// The time allowed was over: the leaving workers go with what they still hold.
    TimedOut { left_bytes: u64 },
    /// All was handed over, or there was nobody to hand over to.
    Drained,
}

/// `id_of` names the worker of an ordinal.
pub fn decide(scene: &Scene<'_>, id_of: impl Fn(u32) -> String) -> Scaling {
    let members = next_members(scene, &id_of);
    let has_takers =
        members.members.iter().any(|m| !scene.leaving.iter().any(|leaving| id_of(leaving.ordinal) == m.id));
    let may_go = |leaving: &&Leaving| {
        let holds = |w: &WorkerSeen| w.ordinal == leaving.ordinal && w.addr.is_some() && !finished(w, members.epoch);
        let is_over = scene.now.saturating_sub(leaving.since) >= scene.drain_timeout.as_secs();
        is_over || !has_takers || !scene.workers.iter().any(holds)
    };
    let (released, held): (Vec<&Leaving>, Vec<_>) = scene.leaving.iter().partition(may_go);
    let mut scaling = scale(scene, members);
    scaling.released = released.iter().map(|leaving| leaving.ordinal).collect();
    scaling.draining.extend(held.iter().map(|leaving| leaving.ordinal));
    scaling
}

/// What becomes of the workers that are not wanted any more.
fn scale(scene: &Scene<'_>, members: MemberList) -> Scaling {
    let steady = |replicas, members, step| Scaling { replicas, members, step, ..Scaling::default() };
    let current = scene.current.unwrap_or(scene.wanted);
    if scene.wanted >= current {
        let step = if scene.wanted > current { Step::ScalingOut { from: current } } else { Step::Steady };
        return steady(scene.wanted, members, step);
    }
    let leaving: Vec<&WorkerSeen> =
        scene.workers.iter().filter(|w| (scene.wanted..current).contains(&w.ordinal) && w.addr.is_some()).collect();
    let unfinished: Vec<&WorkerSeen> = leaving.into_iter().filter(|w| !finished(w, members.epoch)).collect();
    let left_bytes = unfinished.iter().filter_map(|w| w.stats.as_ref()).map(|stats| held(stats, members.epoch)).sum();
    // Without members nobody takes the data: waiting would change nothing. A time-out of zero asks not to wait.
    let waits = scene.hands_over && !scene.drain_timeout.is_zero();
    if unfinished.is_empty() || members.members.is_empty() || !waits {
        return steady(scene.wanted, members, Step::Drained);
    }
    // A hand-over to fewer workers than before is another one, with a time of its own.
    let started = scene.drain_started.filter(|_| scene.drain_target == Some(scene.wanted)).unwrap_or(scene.now);
    if scene.now.saturating_sub(started) >= scene.drain_timeout.as_secs() {
        let step = Step::TimedOut { left_bytes };
        return steady(scene.wanted, members, step);
    }
    let draining = unfinished.iter().map(|w| w.ordinal).collect();
    let step = Step::Draining { left_bytes };
    Scaling { draining, drain_started: Some(started), ..steady(current, members, step) }
}

/// A worker becomes a member when it is first ready, and stays one, with the last address known, while the
/// runtime wants its ordinal: a restart must not move its extents. One whose pod goes is none, if another one can take
/// what it has.
fn next_members(scene: &Scene<'_>, id_of: impl Fn(u32) -> String) -> MemberList {
    let seen: BTreeMap<u32, &WorkerSeen> = scene.workers.iter().map(|w| (w.ordinal, w)).collect();
    let member = |ordinal: &u32| {
        let ordinal = *ordinal;
        let id = id_of(ordinal);
        let known = scene.members.get(&id);
        let worker = seen.get(&ordinal);
        if known.is_none() && !worker.is_some_and(|w| w.ready) {
            return None;
        }
        let addr = worker.and_then(|w| w.addr.clone()).or_else(|| known.map(|m| m.addr.clone()))?;
        Some(Member { id, addr, weight: scene.weight })
    };
    let (leaving, staying): (Vec<u32>, Vec<u32>) =
        (0..scene.wanted).partition(|ordinal| scene.leaving.iter().any(|leaving| leaving.ordinal == *ordinal));
    let mut members: Vec<Member> = staying.iter().filter_map(member).collect();
    if members.is_empty() {
        members = leaving.iter().filter_map(member).collect();
    }
    let newest = newest_epoch(scene);
    match scene.members.next(members) {
        Some(next) => MemberList { epoch: newest + 1, ..next },
        // A list from a backup, or one made anew while no worker answered: workers take newer lists only.
        None if newest > scene.members.epoch => MemberList { epoch: newest + 1, ..scene.members.clone() },
        None => scene.members.clone(),
    }
}

/// The highest number of a list that anyone knows of. The next list is above it: one with a number that others know as
/// another list's would never be taken, and a hand-over under that other list would be believed.
fn newest_epoch(scene: &Scene<'_>) -> u64 {
    let said = scene.workers.iter().filter_map(|w| w.stats.as_ref()).map(|s| s.epoch.max(s.handover.finished_epoch));
    said.fold(scene.members.epoch.max(scene.told), u64::max)
}

/// A hand-over counts when it was under the present list and nothing is left.
fn finished(worker: &WorkerSeen, epoch: u64) -> bool {
    worker.stats.as_ref().is_some_and(|s| s.handover.finished_epoch == epoch && s.handover.left_bytes == 0)
}

/// Before the hand-over begins all is still to be handed over.
fn held(stats: &Stats, epoch: u64) -> u64 {
    let handover = stats.handover;
    if handover.running || handover.finished_epoch == epoch { handover.left_bytes } else { stats.cached_bytes }
}

#[cfg(test)]
mod tests {
    use penstock_wire::message::Handover;

    use super::*;

    fn id(ordinal: u32) -> String {
        format!("w-{ordinal}")
    }

    fn worker(ordinal: u32) -> WorkerSeen {
        WorkerSeen { ordinal, addr: Some(format!("198.18.0.{ordinal}:9440")), ready: true, ..WorkerSeen::default() }
    }

    fn list(epoch: u64, ordinals: impl IntoIterator<Item = u32>) -> MemberList {
        let members =
            ordinals.into_iter().map(|o| Member { id: id(o), addr: worker(o).addr.unwrap(), weight: 10 }).collect();
        MemberList { epoch, members, former: Vec::new() }
    }

    fn scene<'a>(wanted: u32, current: u32, members: &'a MemberList, workers: &'a [WorkerSeen]) -> Scene<'a> {
        Scene {
            wanted,
            current: Some(current),
            members,
            workers,
            told: members.epoch,
            leaving: &[],
            weight: 10,
            drain_started: None,
            drain_target: None,
            drain_timeout: Duration::from_mins(1),
            hands_over: true,
            now: 1000,
        }
    }

    fn ids(list: &MemberList) -> Vec<&str> {
        list.members.iter().map(|m| m.id.as_str()).collect()
    }

    fn handed_over(ordinal: u32, epoch: u64) -> WorkerSeen {
        let handover = Handover { finished_epoch: epoch, ..Handover::default() };
        WorkerSeen { stats: Some(Stats { handover, ..Stats::default() }), ..worker(ordinal) }
    }

    #[test]
    fn a_worker_joins_when_it_is_first_ready_and_not_before() {
        let none = MemberList::default();
        let workers = [worker(0), WorkerSeen { ready: false, ..worker(1) }];
        let got = decide(&scene(3, 3, &none, &workers), id);
        assert_eq!((ids(&got.members), got.members.epoch, got.step), (vec!["w-0"], 1, Step::Steady));
    }

    #[test]
    fn a_restarting_or_missing_worker_stays_a_member_at_its_last_address() {
        let members = list(4, 0..3);
        let workers = [worker(0), WorkerSeen { ready: false, addr: None, ..worker(1) }];
        assert_eq!(decide(&scene(3, 3, &members, &workers), id).members, members);
    }

    #[test]
    fn a_moved_worker_makes_a_new_epoch() {
        let members = list(4, 0..1);
        let workers = [WorkerSeen { addr: Some("198.18.9.9:9440".into()), ready: false, ..worker(0) }];
        let got = decide(&scene(1, 1, &members, &workers), id).members;
        assert_eq!((got.epoch, got.members[0].addr.as_str()), (5, "198.18.9.9:9440"));
    }

    #[test]
    fn scaling_out_is_immediate_and_members_follow_readiness() {
        let members = list(1, 0..2);
        let got = decide(&scene(4, 2, &members, &[worker(0), worker(1)]), id);
        assert_eq!((got.replicas, got.members, got.step), (4, members, Step::ScalingOut { from: 2 }));
    }

    #[test]
    fn scaling_in_first_takes_the_leaving_off_the_list_and_keeps_their_pods() {
        let members = list(1, 0..3);
        let workers = [worker(0), worker(1), worker(2)];
        let got = decide(&scene(1, 3, &members, &workers), id);
        assert_eq!(ids(&got.members), ["w-0"]);
        assert_eq!((got.replicas, got.members.epoch, got.drain_started), (3, 2, Some(1000)));
        assert_eq!((got.draining, got.step), (vec![1, 2], Step::Draining { left_bytes: 0 }));
    }

    #[test]
    fn pods_go_when_every_leaving_worker_finished_for_this_list() {
        let members = list(2, 0..1);
        for (second, third, replicas, draining) in [(2, 0, 3, vec![2]), (2, 1, 3, vec![2]), (2, 2, 1, vec![])] {
            let workers = [worker(0), handed_over(1, second), handed_over(2, third)];
            let got = decide(&scene(1, 3, &members, &workers), id);
            assert_eq!((got.replicas, got.draining), (replicas, draining), "{second} {third}");
        }
    }

    #[test]
    fn a_hand_over_that_left_something_is_not_finished() {
        let members = list(2, 0..1);
        let mut failed = handed_over(1, 2);
        let stats = failed.stats.as_mut().unwrap();
        (stats.handover.left_bytes, stats.cached_bytes) = (7, 100);
        let got = decide(&scene(1, 2, &members, &[worker(0), failed.clone()]), id);
        assert_eq!((got.replicas, got.draining, got.step), (2, vec![1], Step::Draining { left_bytes: 7 }));
        failed.stats.as_mut().unwrap().handover.finished_epoch = 1;
        let got = decide(&scene(1, 2, &members, &[worker(0), failed]), id);
        assert_eq!(got.step, Step::Draining { left_bytes: 100 });
    }

    #[test]
    fn a_leaving_worker_that_never_came_up_holds_nothing_back() {
        let members = list(2, 0..1);
        let workers = [worker(0), WorkerSeen { addr: None, ready: false, ..worker(1) }];
        assert_eq!(decide(&scene(1, 3, &members, &workers), id).replicas, 1);
    }

    #[test]
    fn the_time_allowed_ends_the_wait() {
        let members = list(2, 0..1);
        let workers = [worker(0), worker(1)];
        for (started, replicas) in [(941, 2), (940, 1), (10, 1)] {
            let scene =
                Scene { drain_started: Some(started), drain_target: Some(1), ..scene(1, 2, &members, &workers) };
            assert_eq!(decide(&scene, id).replicas, replicas, "{started}");
        }
        let impatient = Scene { drain_timeout: Duration::ZERO, ..scene(1, 2, &members, &workers) };
        let got = decide(&impatient, id);
        assert_eq!(
            (got.replicas, got.step),
            (1, Step::Drained),
            "who does not want to wait is not told to wait longer"
        );
    }

    #[test]
    fn who_does_not_hand_over_goes_at_once() {
        let members = list(2, 0..3);
        let workers = [worker(0), worker(1), worker(2)];
        let got = decide(&Scene { hands_over: false, ..scene(1, 3, &members, &workers) }, id);
        assert_eq!((got.replicas, ids(&got.members), got.step), (1, vec!["w-0"], Step::Drained));
    }

    #[test]
    fn zero_workers_leave_nobody_to_hand_over_to() {
        let members = list(2, 0..2);
        let workers = [worker(0), worker(1)];
        let got = decide(&scene(0, 2, &members, &workers), id);
        assert_eq!((got.replicas, got.members.members.len(), got.step), (0, 0, Step::Drained));
    }

    #[test]
    fn a_change_of_mind_takes_the_leaving_back() {
        let members = list(2, 0..1);
        let workers = [worker(0), worker(1)];
        let scene = Scene { drain_started: Some(990), ..scene(2, 2, &members, &workers) };
        let got = decide(&scene, id);
        assert_eq!((ids(&got.members), got.drain_started, got.step), (vec!["w-0", "w-1"], None, Step::Steady));
    }

    #[test]
    fn a_second_scale_in_has_a_clock_of_its_own() {
        let members = list(2, 0..1);
        let workers = [worker(0), worker(1), worker(2)];
        for (target, started) in [(Some(1), 945), (Some(2), 1000), (None, 1000)] {
            let scene = Scene { drain_started: Some(945), drain_target: target, ..scene(1, 3, &members, &workers) };
            assert_eq!(decide(&scene, id).drain_started, Some(started), "{target:?}");
        }
    }

    fn knowing(ordinal: u32, epoch: u64) -> WorkerSeen {
        WorkerSeen { stats: Some(Stats { epoch, ..Stats::default() }), ..worker(ordinal) }
    }

    #[test]
    fn the_next_number_is_above_all_that_anyone_says() {
        let lost = MemberList::default;
        for (case, persisted, told, epochs, expected) in [
            ("nothing is known", lost(), 0, [0, 0], 1),
            ("all agree", list(7, 0..2), 7, [7, 7], 7),
            ("workers are behind", list(7, 0..2), 7, [6, 0], 7),
            ("the list was lost", lost(), 0, [7, 5], 8),
            ("the list was lost, and workers began anew", lost(), 7, [0, 0], 8),
            ("the same list from a backup", list(3, 0..2), 3, [7, 7], 8),
            ("an older list from a backup", list(3, 0..1), 7, [7, 5], 8),
            ("only the status knows", list(3, 0..2), 7, [3, 3], 8),
            ("a change", list(7, 0..1), 7, [7, 7], 8),
        ] {
            let workers = [knowing(0, epochs[0]), knowing(1, epochs[1])];
            let got = decide(&Scene { told, ..scene(2, 2, &persisted, &workers) }, id).members;
            assert_eq!((got.epoch, ids(&got)), (expected, vec!["w-0", "w-1"]), "{case}");
        }
    }

    #[test]
    fn a_worker_whose_pod_goes_hands_over_to_the_others_and_stays_wanted() {
        let leaving = [Leaving { ordinal: 1, since: 990 }];
        for (members, second, draining, released) in [
            (list(2, 0..3), worker(1), vec![1], vec![]),
            (list(2, 0..3), handed_over(1, 2), vec![1], vec![]),
            (list(3, [0, 2]), handed_over(1, 3), vec![], vec![1]),
            (list(2, 0..3), WorkerSeen { addr: None, ..worker(1) }, vec![], vec![1]),
        ] {
            let workers = [worker(0), second, worker(2)];
            let got = decide(&Scene { leaving: &leaving, ..scene(3, 3, &members, &workers) }, id);
            assert_eq!((ids(&got.members), got.members.epoch, got.replicas), (vec!["w-0", "w-2"], 3, 3));
            assert_eq!((got.draining, got.released, got.step), (draining, released, Step::Steady));
        }
    }

    #[test]
    fn a_number_that_was_too_low_is_raised_as_soon_as_a_worker_answers() {
        let silent = [worker(0), worker(1)];
        let low = decide(&scene(2, 2, &MemberList::default(), &silent), id).members;
        assert_eq!(low.epoch, 1);
        let raised = decide(&scene(2, 2, &low, &[knowing(0, 7), worker(1)]), id).members;
        assert_eq!((raised.epoch, &raised.members), (8, &low.members));
    }

    #[test]
    fn a_hand_over_under_another_list_is_not_believed() {
        // The list from a backup has the number 2, and so had another one, under which the worker handed over.
        let restored = list(2, 0..2);
        for finished in [1, 2, 7] {
            let workers = [worker(0), handed_over(1, finished)];
            let got = decide(&scene(1, 2, &restored, &workers), id);
            assert_eq!((got.replicas, &got.draining, ids(&got.members)), (2, &vec![1], vec!["w-0"]), "{finished}");
            assert!(got.members.epoch > finished);
        }
    }

    #[test]
    fn a_worker_whose_pod_goes_is_waited_for_as_long_as_the_runtime_allows() {
        let members = list(2, 0..2);
        let workers = [worker(0), worker(1)];
        for (since, released) in [(941, vec![]), (940, vec![1])] {
            let leaving = [Leaving { ordinal: 1, since }];
            let got = decide(&Scene { leaving: &leaving, ..scene(2, 2, &members, &workers) }, id);
            assert_eq!(got.released, released, "{since}");
        }
    }

    #[test]
    fn the_last_worker_has_nobody_to_hand_over_to_and_stays_a_member() {
        let members = list(2, 0..1);
        let leaving = [Leaving { ordinal: 0, since: 1000 }];
        let got = decide(&Scene { leaving: &leaving, ..scene(1, 1, &members, &[worker(0)]) }, id);
        assert_eq!((got.members, got.draining, got.released), (members, vec![], vec![0]));
    }

    #[test]
    fn a_pod_made_anew_joins_again_when_it_is_ready() {
        let members = list(3, [0, 2]);
        let returned = WorkerSeen { addr: Some("198.18.7.7:9440".into()), ..worker(1) };
        let got = decide(&scene(3, 3, &members, &[worker(0), returned, worker(2)]), id);
        assert_eq!((ids(&got.members), got.members.epoch), (vec!["w-0", "w-1", "w-2"], 4));
    }
}
