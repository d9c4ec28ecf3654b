//! Events that tell why worker pods do not come up. They are asked for only about pods that are missing or stuck for long,
//! so that a fleet that starts as it should costs no request.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{observed::Observed, status::is_stuck};
use crate::context::Context;

/// Time for the StatefulSet controller to make pods.
const PROMPT: Duration = Duration::from_secs(5);
/// What was not looked at for so long is not there any more.
const STALE: Duration = Duration::from_mins(30);

/// Since when StatefulSets lack pods, by UID.
#[derive(Debug, Default)]
pub struct Absences(Mutex<HashMap<String, Absence>>);

#[derive(Clone, Copy, Debug)]
struct Absence {
    since: Instant,
    looked_at: Instant,
}

impl Absences {
    /// Notes whether the StatefulSet lacks pods now; returns whether it has for long.
    fn last(&self, uid: &str, is_short: bool) -> bool {
        let (mut absences, now) = (self.0.lock(), Instant::now());
        absences.retain(|_, absence| absence.looked_at.elapsed() < STALE);
        if !is_short {
            absences.remove(uid);
            return false;
        }
        let absence = absences.entry(uid.to_owned()).or_insert(Absence { since: now, looked_at: now });
        absence.looked_at = now;
        absence.since.elapsed() >= PROMPT
    }
}

/// The warnings about the StatefulSet when pods are missing, and about the first pod that is stuck.
pub(super) async fn read(ctx: &Context, own: &Observed, now: Timestamp) -> Vec<Event> {
    let mut about = Vec::new();
    if let Some(statefulset) = &own.statefulset {
        let uid = statefulset.uid().unwrap_or_default();
        if ctx.absences.last(&uid, lacks_pods(statefulset, own.pods.len())) {
            about.push((statefulset.namespace().unwrap_or_default(), uid));
        }
    }
    if let Some((_, pod)) = own.pods.iter().find(|(_, pod)| is_stuck(pod, now)) {
        about.push((pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default()));
    }
    let warnings = join_all(about.iter().map(|(namespace, uid)| warnings(ctx, namespace, uid))).await;
    warnings.into_iter().flatten().collect()
}

fn lacks_pods(statefulset: &StatefulSet, pods: usize) -> bool {
    let wanted = statefulset.spec.as_ref().and_then(|spec| spec.replicas).and_then(|n| usize::try_from(n).ok());
    statefulset.metadata.deletion_timestamp.is_none() && wanted.is_some_and(|wanted| pods < wanted)
}

/// Without an answer there is nothing to tell: the status must not wait for it.
async fn warnings(ctx: &Context, namespace: &str, uid: &str) -> Vec<Event> {
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning")).limit(100);
    let listed = Api::<Event>::namespaced(ctx.client.clone(), namespace).list(&params).await;
    let listed = listed.inspect_err(|error| tracing::warn!(namespace, %error, "Events about workers were not read"));
    listed.map(|list| list.items).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pods_are_missing_only_when_they_have_been_for_long() {
        let absences = Absences::default();
        assert!(!absences.last("a", true));
        tokio::time::advance(PROMPT).await;
        assert!(absences.last("a", true));
        assert!(!absences.last("b", true));
        assert!(!absences.last("a", false));
        assert!(!absences.last("a", true));
        tokio::time::advance(STALE).await;
        assert!(!absences.last("a", true), "long ago is forgotten");
    }
}
