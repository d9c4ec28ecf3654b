use super::*;

/// Phase and `Ready` of both after each situation followed the one before.
fn history(scenes: &[Scene]) -> Vec<(DatasetPhase, bool, CacheRuntimePhase, bool)> {
    let mut told = Vec::new();
    let mut before: Option<(DatasetStatus, Option<CacheRuntimeStatus>)> = None;
    for scene in scenes {
        let mut scene = scene.clone();
        if let Some((dataset, runtime)) = before.take() {
            scene.dataset.status = Some(dataset);
            scene.runtime.as_mut().unwrap().status = runtime;
        }
        let (dataset, runtime) = (scene.of_dataset(at(2)), scene.of_runtime(at(2)).unwrap());
        let ready = |conditions: &[Condition]| is_true(conditions, ConditionType::Ready);
        told.push((
            dataset.phase.unwrap(),
            ready(&dataset.conditions),
            runtime.phase.unwrap(),
            ready(&runtime.conditions),
        ));
        before = Some((dataset, Some(runtime)));
    }
    told
}

#[test]
fn whatever_goes_wrong_ready_turns_false_and_true_again_when_it_is_mended() {
    use CacheRuntimePhase as R;
    use DatasetPhase as D;
    let well = (D::Ready, true, R::Ready, true);
    let ufs = |kind| Scene::bound().workers([worker(0), saying(1, ufs_trouble(kind))]);
    for (case, wrong, expected) in [
        ("pods gone", Scene::bound(), (D::Bound, false, R::Pending, false)),
        ("one pod gone", Scene::bound().workers([worker(1)]), (D::Ready, true, R::PartialReady, false)),
        ("scaled to none", Scene::bound().replicas(0), (D::Bound, false, R::Ready, true)),
        ("crashing", Scene::bound().trouble(Reason::WorkerCrashing, "m"), (D::Bound, false, R::Pending, false)),
        ("denied", ufs(TroubleKind::Denied), (D::Bound, false, R::Ready, true)),
        ("wrong bucket", ufs(TroubleKind::Misconfigured), (D::Bound, false, R::Ready, true)),
        ("outage", ufs(TroubleKind::Unreachable), well),
        ("Secret gone", Scene::serving().problem(Reason::SecretNotFound, "m"), (D::Pending, false, R::Pending, false)),
        ("made invalid", Scene::serving().problem(Reason::InvalidSpec, "m"), (D::Failed, false, R::Failed, false)),
        ("unbound", Scene { bound: false, ..Scene::serving() }, (D::Pending, true, R::Ready, true)),
    ] {
        let told = history(&[Scene::serving(), wrong.clone(), wrong, Scene::serving()]);
        assert_eq!(told, [well, expected, expected, well], "{case}");
    }
}

#[test]
fn after_denial_an_outage_does_not_make_a_dataset_ready() {
    let ufs = |kind| Scene::bound().workers([saying(0, ufs_trouble(kind))]);
    let told = history(&[Scene::serving(), ufs(TroubleKind::Denied), ufs(TroubleKind::Unreachable), Scene::serving()]);
    assert_eq!(told.iter().map(|(_, ready, ..)| *ready).collect::<Vec<_>>(), [true, false, false, true]);
}

fn since(conditions: &[Condition], kind: ConditionType) -> i64 {
    let condition = conditions.iter().find(|c| c.type_ == kind.as_ref()).unwrap();
    condition.last_transition_time.0.as_second()
}

#[test]
fn the_time_of_a_condition_moves_with_its_status_only() {
    let mut scene = Scene::bound();
    let mut tell = |now: i64, next: Scene| {
        let (dataset, runtime) = (scene.dataset.status.clone(), scene.runtime.as_ref().unwrap().status.clone());
        scene = next;
        scene.dataset.status = dataset;
        scene.runtime.as_mut().unwrap().status = runtime;
        let (dataset, runtime) = (scene.of_dataset(at(now)), scene.of_runtime(at(now)).unwrap());
        let times = [ConditionType::Bound, ConditionType::Ready, ConditionType::MountsHealthy];
        let times = times.map(|kind| since(&dataset.conditions, kind));
        let others = [ConditionType::Ready, ConditionType::WorkersReady, ConditionType::TiersHealthy];
        let others = others.map(|kind| since(&runtime.conditions, kind));
        scene.dataset.status = Some(dataset);
        scene.runtime.as_mut().unwrap().status = Some(runtime);
        (times, others)
    };
    let crashing = || Scene::bound().trouble(Reason::WorkerCrashing, "m");
    let denied = || Scene::bound().workers([saying(0, ufs_trouble(TroubleKind::Denied)), worker(1)]);
    assert_eq!(tell(1, Scene::bound()), ([1, 1, 1], [1, 1, 1]));
    assert_eq!(tell(2, crashing()), ([1, 1, 1], [1, 1, 1]), "another reason is no transition");
    assert_eq!(tell(3, Scene::bound().workers([worker(0)])), ([1, 3, 3], [1, 3, 1]));
    assert_eq!(tell(4, Scene::serving()), ([1, 3, 3], [4, 3, 1]));
    assert_eq!(tell(5, Scene::serving()), ([1, 3, 3], [4, 3, 1]));
    assert_eq!(tell(6, denied()), ([1, 6, 6], [4, 3, 1]));
    assert_eq!(tell(7, Scene::serving()), ([1, 7, 7], [4, 3, 1]));
}

#[test]
fn the_same_situation_gives_the_same_status_so_that_nothing_is_written() {
    let wrong = Scene::serving().problem(Reason::SecretNotFound, "m");
    for scene in [Scene::bound(), Scene::serving(), wrong, Scene::serving().deleted(true)] {
        let again = scene.clone().after(&scene);
        assert_eq!(Some(again.of_dataset(at(9))), again.dataset.status);
        assert_eq!(again.of_runtime(at(9)), again.runtime.unwrap().status);
    }
}

#[test]
fn a_status_tells_of_which_generation_it_is() {
    let mut scene = Scene::serving();
    for (dataset, runtime) in [(3, 5), (4, 5), (4, 6)] {
        scene.dataset.metadata.generation = Some(dataset);
        scene.runtime.as_mut().unwrap().metadata.generation = Some(runtime);
        let (of_dataset, of_runtime) = (scene.of_dataset(at(2)), scene.of_runtime(at(2)).unwrap());
        assert_eq!((of_dataset.observed_generation, of_runtime.observed_generation), (Some(dataset), Some(runtime)));
        let all =
            |conditions: &[Condition], expected| conditions.iter().all(|c| c.observed_generation == Some(expected));
        assert!(all(&of_dataset.conditions, dataset) && all(&of_runtime.conditions, runtime));
    }
}
