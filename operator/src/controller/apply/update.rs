//! What an update does to worker pods: what is noted on them, an image, an end.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use penstock_api::names::ANNOTATION_CONFIG_HASH;
use penstock_plan::rollout::Step;
use serde_json::{Map, Value, json};

use super::{
    super::{
        build::WORKER_CONTAINER,
        observed::{Seen, Worker},
        plan::Serve,
        rollout,
    },
    Error,
};
use crate::{
    context::Context,
    names::{HAND_OVER_STARTED, REPLACED_CONTAINER, REVISION, UPDATED_AT},
};

pub(super) async fn update(serve: &Serve, seen: &Seen, ctx: &Context) -> Result<(), Error> {
    let now = rollout::seconds(Timestamp::now());
    let stays = |worker: &&Worker| worker.pod.metadata.deletion_timestamp.is_none();
    for worker in seen.workers.iter().filter(stays) {
        let changes = annotations(worker, serve, now);
        let done = if serve.replaced == Some(worker.ordinal) {
            delete(&worker.pod, ctx).await
        } else if serve.rollout.step == (Step::SetImage { ordinal: worker.ordinal }) {
            set_image(&worker.pod, &serve.rollout.target, changes, now, ctx).await
        } else {
            annotate(&worker.pod, changes, ctx).await
        };
        match done {
            Err(error) if !error.is_race() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What is to change of a pod's annotations.
fn annotations(worker: &Worker, serve: &Serve, now: u64) -> Map<String, Value> {
    let known = worker.pod.annotations();
    let mut changes = Map::new();
    // A worker re-reads its configuration when the projected volume changes, and the kubelet refreshes that at once when the
    // pod changes.
    let hash = serve.files.hash();
    if known.get(ANNOTATION_CONFIG_HASH) != Some(&hash) {
        changes.insert(ANNOTATION_CONFIG_HASH.into(), hash.into());
    }
    if !known.contains_key(REVISION) {
        changes.insert(REVISION.into(), serve.revision.as_str().into());
    }
    match (rollout::is_replaced(worker, &serve.rollout), rollout::started(&worker.pod)) {
        (true, None) => _ = changes.insert(HAND_OVER_STARTED.into(), now.to_string().into()),
        (false, Some(_)) => _ = changes.insert(HAND_OVER_STARTED.into(), Value::Null),
        _ => {}
    }
    changes
}

async fn annotate(pod: &Pod, annotations: Map<String, Value>, ctx: &Context) -> Result<(), Error> {
    if annotations.is_empty() {
        return Ok(());
    }
    let patch = json!({"metadata": {"annotations": annotations, "uid": pod.uid()}});
    ctx.applier().merge(&api(pod, ctx), &pod.name_any(), &patch).await
}

/// The kubelet ends the container and starts one from the new image, in the same pod with the same volumes.
async fn set_image(
    pod: &Pod,
    image: &str,
    mut annotations: Map<String, Value>,
    now: u64,
    ctx: &Context,
) -> Result<(), Error> {
    annotations.insert(UPDATED_AT.into(), now.to_string().into());
    annotations.insert(REPLACED_CONTAINER.into(), rollout::container_id(pod).unwrap_or_default().into());
    let patch = json!({
        "metadata": {"annotations": annotations, "uid": pod.uid()},
        "spec": {"containers": [{"name": WORKER_CONTAINER, "image": image}]}
    });
    ctx.applier().merge_lists(&api(pod, ctx), &pod.name_any(), &patch).await
}

async fn delete(pod: &Pod, ctx: &Context) -> Result<(), Error> {
    ctx.applier().delete_this(&api(pod, ctx), pod).await
}

fn api(pod: &Pod, ctx: &Context) -> Api<Pod> {
    Api::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default())
}
