//! What users are told: Conditions, Events, refusals at admission, and that nothing crashes meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use penstock_e2e::harness::Case;
use penstock_e2e::kubectl::{condition, wait_for};

/// Generous: the machine may have two busy cores.
const LIMIT: Duration = Duration::from_mins(2);

/// A condition that is wanted, and words of its message: field, value, mend.
#[derive(Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) kind: &'a str,
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) words: &'a [&'a str],
}

impl<'a> Said<'a> {
    /// A condition that does not hold.
    pub(crate) fn no(kind: &'a str, reason: &'a str, words: &'a [&'a str]) -> Self {
        Self { kind, status: "False", reason, words }
    }
}

/// Waits until the object's condition is so, and until an Event has said so with the same words.
pub(crate) async fn complains(case: &Case<'_>, kind: &str, name: &str, said: Said<'_>) -> Result<()> {
    let what = format!("condition {} = {} ({})", said.kind, said.status, said.reason);
    let found = |object: &DynamicObject| {
        condition(object, said.kind)
            .is_some_and(|found| found["status"] == said.status && found["reason"] == said.reason)
    };
    let object = match case.wait_object(kind, name, &what, found).await {
        Ok(object) => object,
        Err(error) => bail!("{error:#}; it says {}", conditions(case, kind, name).await),
    };
    let message = condition(&object, said.kind).and_then(|found| found["message"].as_str()).unwrap_or_default();
    println!("    {kind} {name}: {} = {} ({}): {message}", said.kind, said.status, said.reason);
    contains(message, said.words)?;
    event(case, kind, name, "Warning", said.reason, said.words).await
}

async fn conditions(case: &Case<'_>, kind: &str, name: &str) -> String {
    let object = case.api(kind).get(name).await;
    object.map_or_else(|error| error.to_string(), |object| object.data["status"]["conditions"].to_string())
}

/// Waits until the condition holds, and until an Event has told the good news after the bad ones.
pub(crate) async fn recovers(case: &Case<'_>, kind: &str, name: &str, of: &str, reason: &str) -> Result<()> {
    let begun = Instant::now();
    let holds = |object: &DynamicObject| {
        condition(object, of).is_some_and(|found| found["status"] == "True" && found["reason"] == reason)
    };
    if let Err(error) = case.wait_object(kind, name, &format!("condition {of} = True"), holds).await {
        bail!("{error:#}; it says {}", conditions(case, kind, name).await);
    }
    event(case, kind, name, "Normal", reason, &[]).await?;
    println!("    {kind} {name}: {of} = True ({reason}) after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Waits for an Event about an object of the test's namespace.
pub(crate) async fn event(
    case: &Case<'_>,
    kind: &str,
    name: &str,
    type_: &str,
    reason: &str,
    words: &[&str],
) -> Result<()> {
    let api: Api<Event> = Api::namespaced(case.env.client(), &case.namespace);
    let about = ListParams::default().fields(&format!("involvedObject.kind={kind},involvedObject.name={name}"));
    wait_for(&format!("{type_} Event {reason} about {kind} {name} with {words:?}"), LIMIT, || async {
        let events = api.list(&about).await?;
        let is_it = |event: &Event| {
            let message = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some(reason)
                && event.type_.as_deref() == Some(type_)
                && words.iter().all(|word| message.contains(word))
        };
        Ok(events.iter().any(is_it).then_some(()))
    })
    .await
}

/// The API server refuses the manifest, in these words.
pub(crate) async fn refused(case: &Case<'_>, yaml: &str, words: &[&str]) -> Result<()> {
    match case.apply(yaml).await {
        Ok(_) => bail!("accepted: {yaml}"),
        Err(error) => {
            let message = format!("{error:#}");
            println!("    refused: {}", message.split(" (Status").next().unwrap_or_default());
            contains(&message, words)
        }
    }
}

pub(crate) fn contains(message: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !message.contains(**word)).collect();
    ensure!(missing.is_empty(), "{message:?} does not say {missing:?}");
    Ok(())
}

/// Merges `patch` into a Dataset or CacheRuntime.
pub(crate) async fn mend(case: &Case<'_>, kind: &str, name: &str, patch: serde_json::Value) -> Result<()> {
    case.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Restarts of containers, by pod and container.
pub(crate) type Restarts = BTreeMap<String, i32>;

/// Those of the operator.
pub(crate) async fn operator_restarts(case: &Case<'_>) -> Result<Restarts> {
    restarts(case, case.env.system_namespace(), "app.kubernetes.io/component=operator").await
}

/// Nothing has crashed: the operator has the restarts it had `before`, the workers none.
pub(crate) async fn nothing_crashed(case: &Case<'_>, before: &Restarts) -> Result<()> {
    let none = worker_restarts(case).await?.into_keys().map(|worker| (worker, 0)).collect();
    no_more_crashed(case, before, &none).await
}

pub(crate) async fn worker_restarts(case: &Case<'_>) -> Result<Restarts> {
    restarts(case, &case.namespace, "app.kubernetes.io/component=worker").await
}

/// Operator and workers have the restarts that they had.
pub(crate) async fn no_more_crashed(case: &Case<'_>, operator: &Restarts, workers: &Restarts) -> Result<()> {
    let now = operator_restarts(case).await?;
    ensure!(now == *operator, "the operator was restarted: {operator:?} before, {now:?} now");
    let now = worker_restarts(case).await?;
    ensure!(now == *workers, "workers were restarted: {workers:?} before, {now:?} now");
    Ok(())
}

async fn restarts(case: &Case<'_>, namespace: &str, selector: &str) -> Result<Restarts> {
    let pods: Api<Pod> = Api::namespaced(case.env.client(), namespace);
    let mut all = Restarts::new();
    for pod in pods.list(&ListParams::default().labels(selector)).await? {
        let name = pod.name_any();
        for container in pod.status.and_then(|status| status.container_statuses).unwrap_or_default() {
            all.insert(format!("{name}/{}", container.name), container.restart_count);
        }
    }
    Ok(all)
}
