use super::*;

fn counting(ordinal: u32, numbers: impl FnOnce(&mut Stats)) -> WorkerSeen {
    let mut worker = worker(ordinal);
    numbers(worker.stats.as_mut().unwrap());
    worker
}

#[test]
fn numbers_are_summed_over_workers_and_shown_for_people() {
    let scene = Scene::bound().workers([
        counting(0, |s| (s.cached_bytes, s.hit_bytes, s.miss_bytes) = (1 << 30, 300, 30)),
        counting(1, |s| {
            (s.cached_bytes, s.ufs_total_bytes, s.ufs_files, s.miss_bytes) = (2 << 30, Some(8 << 30), Some(5), 3);
        }),
        // Its numbers are not known, so they are not guessed.
        WorkerSeen { stats: None, ..worker(2) },
    ]);
    let got = scene.of_dataset(at(2));
    assert_eq!((got.cached_bytes, got.ufs_total_bytes, got.ufs_files), (Some(3 << 30), Some(8 << 30), Some(5)));
    assert_eq!((got.cached_percent, got.hit_ratio_percent), (Some(37.5), Some(90.1)));
    assert_eq!(got.cache_capacity_bytes, Some(20 << 30));
    let display = json!({"ufsTotal": "8.00GiB", "cached": "3.00GiB", "cacheCapacity": "20.0GiB"});
    assert_eq!(json!(got.display), display);
    let got = scene.of_runtime(at(2)).unwrap();
    assert_eq!((got.cached_bytes, got.hit_ratio_percent, got.epoch), (Some(3 << 30), Some(90.1), Some(4)));
    let display = json!({"cached": "3.00GiB", "cacheCapacity": "20.0GiB"});
    assert_eq!(json!(got.display), display);
}

#[test]
fn the_last_number_stands_while_workers_do_not_answer() {
    let before = Scene::bound().workers([counting(0, |s| {
        (s.cached_bytes, s.ufs_total_bytes, s.ufs_files) = (7, Some(9), Some(2));
    })]);
    for (workers, cached) in [(vec![starting(0)], Some(7)), (vec![], Some(0))] {
        let scene = Scene::bound().workers(workers).after(&before);
        let (dataset, runtime) = (scene.of_dataset(at(2)), scene.of_runtime(at(2)).unwrap());
        assert_eq!((dataset.cached_bytes, runtime.cached_bytes), (cached, cached));
        assert_eq!((dataset.ufs_total_bytes, dataset.ufs_files), (Some(9), Some(2)));
    }
    let alone = Scene::fresh().after(&before).problem(Reason::RuntimeNotFound, "create it").of_dataset(at(2));
    assert_eq!((alone.cached_bytes, alone.cache_capacity_bytes, alone.ufs_total_bytes), (None, None, Some(9)));
}

#[test]
fn before_anything_is_read_there_is_no_hit_ratio() {
    let got = Scene::serving().of_dataset(at(2));
    assert_eq!((got.hit_ratio_percent, got.ufs_total_bytes, got.cached_percent), (None, None, None));
    for (hits, misses, expected) in [(1, 0, 100.0), (0, 1, 0.0), (2, 1, 66.7), (u64::MAX, u64::MAX, 100.0)] {
        let scene = Scene::bound().workers([counting(0, |s| (s.hit_bytes, s.miss_bytes) = (hits, misses))]);
        assert_eq!(scene.of_dataset(at(2)).hit_ratio_percent, Some(expected), "{hits} {misses}");
    }
}

#[test]
fn who_serves_whom_is_told_to_both() {
    let (dataset, runtime) = (Scene::serving().of_dataset(at(2)), Scene::serving().of_runtime(at(2)).unwrap());
    assert_eq!((dataset.runtime.as_deref(), runtime.dataset.as_deref()), (Some("a"), Some("a")));
    let selector = "app.kubernetes.io/component=worker,app.kubernetes.io/instance=a,app.kubernetes.io/name=penstock,\
                    penstock.dev/dataset=a";
    assert_eq!(runtime.selector.as_deref(), Some(selector));
    assert_eq!((runtime.replicas, runtime.ready_replicas, runtime.desired_replicas), (2, 2, 2));
}

#[test]
fn a_hand_over_tells_what_was_moved_what_is_left_and_what_was_dropped() {
    let leaving = |moved| counting(1, |s| s.handover.moved_bytes = moved);
    let scene = |step, moved| {
        let mut scene = Scene::bound().replicas(1).workers([worker(0), leaving(moved)]);
        scene.scaling.as_mut().unwrap().step = step;
        scene
    };
    let told = |scene: &Scene| {
        let status = scene.of_runtime(at(2)).unwrap().hand_over;
        status.map(|told| (told.moved_bytes, told.left_bytes, told.dropped_bytes, told.message))
    };
    assert_eq!(told(&scene(Step::Steady, 0)), None);
    let under_way = scene(Step::Draining { left_bytes: 70 }, 30);
    assert_eq!(told(&under_way), Some((30, 70, 0, None)));
    let over = scene(Step::TimedOut { left_bytes: 20 }, 80).after(&under_way);
    assert_eq!(told(&over), Some((80, 0, 20, Some("spec.drainTimeoutSeconds was over".to_owned()))));
    assert_eq!(told(&scene(Step::Drained, 0).after(&under_way)), Some((30, 0, 0, None)));
    let afterwards = scene(Step::Steady, 0).after(&over);
    assert_eq!(told(&afterwards), told(&over), "it stays to be read");
}
