use super::*;

use penstock_testkit::control_plane::ControlPlane;

fn held(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
    LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: seconds,
        lease_transitions: Some(3),
        ..LeaseSpec::default()
    }
}

#[test]
fn a_lease_is_taken_only_when_it_is_free_or_was_not_renewed_in_time() {
    let table = [
        (None, 0, Decision::Create),
        (Some(held(None, Some(15))), 0, Decision::Acquire),
        (Some(held(Some(""), Some(15))), 0, Decision::Acquire),
        (Some(held(Some("us"), Some(15))), 0, Decision::Renew),
        (Some(held(Some("us"), Some(15))), 99, Decision::Renew),
        (Some(held(Some("them"), Some(15))), 0, Decision::Wait),
        (Some(held(Some("them"), Some(15))), 14, Decision::Wait),
        (Some(held(Some("them"), Some(15))), 15, Decision::Acquire),
        (Some(held(Some("them"), None)), 0, Decision::Acquire),
        (Some(held(Some("them"), Some(-1))), 0, Decision::Acquire),
    ];
    for (spec, unchanged, expected) in table {
        assert_eq!(decide(spec.as_ref(), "us", Duration::from_secs(unchanged)), expected, "{spec:?} {unchanged}");
    }
}

#[test]
fn renewing_keeps_the_time_of_acquisition_and_taking_over_counts() {
    let (early, late) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(9).unwrap());
    let first = next_spec(None, Decision::Create, "us", Timing::default(), early);
    assert_eq!((first.lease_transitions, first.acquire_time.clone()), (Some(0), Some(MicroTime(early))));
    let renewed = next_spec(Some(&first), Decision::Renew, "us", Timing::default(), late);
    assert_eq!((renewed.acquire_time, renewed.renew_time), (Some(MicroTime(early)), Some(MicroTime(late))));
    let taken = next_spec(Some(&held(Some("them"), Some(15))), Decision::Acquire, "us", Timing::default(), late);
    assert_eq!((taken.lease_transitions, taken.holder_identity.as_deref()), (Some(4), Some("us")));
    assert_eq!(taken.lease_duration_seconds, Some(15));
}

#[test]
fn a_leader_stops_before_another_may_begin() {
    for timing in [Timing::default(), quick()] {
        // The other counts from when it saw the last renewal, which is never before the leader began it.
        assert!(timing.renew_deadline + timing.retry < timing.duration, "{timing:?}");
    }
}

fn quick() -> Timing {
    Timing {
        duration: Duration::from_secs(2),
        renew_deadline: Duration::from_millis(1500),
        retry: Duration::from_millis(100),
    }
}

#[tokio::test]
async fn one_leads_and_another_takes_over_on_release_and_on_loss() {
    let mut plane = ControlPlane::start().await.unwrap();
    let candidate =
        |identity: &str| LeaderElection::new(plane.client(), "default", "penstock-operator", identity, quick());
    let (a, b, c) = (candidate("a"), candidate("b"), candidate("c"));

    let leader = a.acquire().await;
    let standby = tokio::spawn(b.acquire());
    sleep(Duration::from_secs(3)).await;
    assert!(!standby.is_finished(), "the second leads although the first renews");
    assert!(!leader.lost.is_cancelled());

    let released = Instant::now();
    leader.release().await;
    let second = standby.await.unwrap();
    assert!(released.elapsed() < Duration::from_secs(1), "a released lease is taken at once");

    let third = tokio::spawn(c.acquire());
    plane.stop_api_server();
    tokio::time::timeout(Duration::from_secs(4), second.lost.cancelled()).await.expect("an unrenewed lease is lost");
    plane.start_api_server().await.unwrap();
    let third = tokio::time::timeout(Duration::from_secs(10), third).await.unwrap().unwrap();
    third.release().await;
}
