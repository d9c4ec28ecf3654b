//! What happens to a Dataset in the course of its life, on a real API server.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

#[path = "../common/mod.rs"]
mod common;

mod deletion;
mod mended;
mod namespace;
mod orphans;
mod scaling;
mod serving;

use std::time::Duration;

use common::Bench;
use penstock_api::{CacheRuntime, CacheRuntimeStatus, Dataset, DatasetStatus};

/// Several scenarios share one control plane, each in a namespace of its own, for most of their time is waiting.
#[tokio::test(flavor = "multi_thread")]
async fn scenarios_of_a_dataset_that_serves() {
    let bench = Bench::start().await;
    tokio::join!(
        scaling::a_worker_that_never_ends_handing_over_goes_when_its_time_is_over(&bench),
        scaling::a_change_of_mind_keeps_the_worker_that_was_to_go(&bench),
        scaling::a_quota_raised_beside_a_claim_template_is_told_and_holds_up_no_scaling(&bench),
        serving::mounts_change_without_a_restart(&bench),
        serving::a_secret_that_goes_and_comes_back_takes_readiness_with_it(&bench),
        serving::a_ufs_that_denies_is_told_and_recovers(&bench),
        serving::a_pod_without_its_image_is_told_and_recovers(&bench),
        serving::a_local_path_without_a_volume_fails_until_one_is_brought_in(&bench),
        mended::what_someone_deletes_or_changes_is_as_it_was(&bench),
        mended::claim_and_volume_that_were_deleted_are_made_anew_for_each_other(&bench),
        mended::secrets_that_were_deleted_come_back_with_the_key_that_mounts_hold(&bench),
        deletion::a_dataset_under_deletion_is_served_while_its_claim_is_in_use_and_the_claim_goes_first(&bench),
        deletion::a_secret_of_someone_else_under_the_workers_name_survives(&bench),
        deletion::a_finalizer_of_someone_else_is_kept_and_nothing_is_made_again_meanwhile(&bench),
    );
}

/// Longer than a Secret is remembered and workers are left in peace together.
const PATIENCE: Duration = Duration::from_mins(1);

async fn dataset_status(bench: &Bench, namespace: &str) -> DatasetStatus {
    bench.api::<Dataset>(namespace).get("a").await.unwrap().status.unwrap_or_default()
}

async fn runtime_status(bench: &Bench, namespace: &str) -> CacheRuntimeStatus {
    bench.api::<CacheRuntime>(namespace).get("a").await.unwrap().status.unwrap_or_default()
}

/// Waits until phase and readiness of the Dataset `a` are so, and returns the message of `Ready`.
async fn dataset_is(bench: &Bench, namespace: &str, phase: &str, ready: &str, reason: &str) -> String {
    let what = format!("{namespace}: {phase}, Ready={ready} {reason}");
    let probe = || async {
        let status = dataset_status(bench, namespace).await;
        let condition = status.conditions.into_iter().find(|c| c.type_ == "Ready")?;
        let fits = status.phase.is_some_and(|p| p.as_ref() == phase)
            && condition.status == ready
            && condition.reason == reason;
        fits.then_some(condition.message)
    };
    common::wait_at_most(PATIENCE, &what, probe).await
}

/// A pair `a` of which both workers serve; returns their addresses.
async fn serving(bench: &Bench, namespace: &str) -> [String; 2] {
    bench.namespace(namespace).await;
    bench.pair(namespace, "a").await;
    served(bench, namespace).await
}

/// The workers of the pair `a` come up.
async fn served(bench: &Bench, namespace: &str) -> [String; 2] {
    bench.bound(namespace, "a").await;
    let workers = [bench.worker_pod(namespace, "a", 0).await, bench.worker_pod(namespace, "a", 1).await];
    dataset_is(bench, namespace, "Ready", "True", "WorkersReady").await;
    workers
}
