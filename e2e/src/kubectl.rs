//! What tests do with objects of any kind: apply, delete, wait.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};

const FIELD_MANAGER: &str = "penstock-e2e";

/// Applies every object of a YAML text (server-side); those without a namespace go to `default`.
pub async fn apply_yaml(client: &Client, yaml: &str) -> Result<Vec<DynamicObject>> {
    apply_yaml_in(client, "default", yaml).await
}

/// As [`apply_yaml`]; objects without a namespace go to `namespace`.
pub async fn apply_yaml_in(client: &Client, namespace: &str, yaml: &str) -> Result<Vec<DynamicObject>> {
    let mut applied = Vec::new();
    for object in parse(yaml)? {
        let api = api_in(client, &object, namespace).await?;
        let name = object.metadata.name.as_deref().context("an object has no name")?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let result = api.patch(name, &params, &Patch::Apply(&object)).await;
        applied.push(result.with_context(|| format!("applying {}", title(&object)))?);
    }
    Ok(applied)
}

/// Deletes every object of a YAML text, last first; what is not there is no error. Does not wait.
pub async fn delete_yaml(client: &Client, yaml: &str) -> Result<()> {
    for object in parse(yaml)?.into_iter().rev() {
        let api = api_of(client, &object).await?;
        let name = object.metadata.name.as_deref().context("an object has no name")?;
        match api.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result.with_context(|| format!("deleting {}", title(&object)))?),
        }
    }
    Ok(())
}

/// The API for one object's kind and namespace.
pub async fn api_of(client: &Client, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    api_in(client, object, "default").await
}

async fn api_in(client: &Client, object: &DynamicObject, default: &str) -> Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("an object has no apiVersion or kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let found = pinned_kind(client, &kind).await;
    let (resource, capabilities) = found.with_context(|| format!("the cluster does not know {}", title(object)))?;
    let namespace = object.metadata.namespace.as_deref().unwrap_or(default);
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    })
}

/// The objects of a YAML text with any number of documents.
pub fn parse(yaml: &str) -> Result<Vec<DynamicObject>> {
    let values: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).context("reading YAML")?;
    let objects = values.into_iter().filter(|value| !value.is_null());
    objects.map(|value| Ok(serde_json::from_value(value)?)).collect()
}

/// Asks until the answer is `Some`; errors of the question count as "not yet" (the API server may be away).
///
/// # Errors
/// After `limit`, with `what` and the last error.
pub async fn wait_for<T, F>(what: &str, limit: Duration, mut question: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let begun = Instant::now();
    loop {
        let last = match question().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => String::new(),
            Err(error) => format!(" (last error: {error:#})"),
        };
        if begun.elapsed() > limit {
            bail!("waited {} s in vain for {what}{last}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the object's condition `kind` has `status`.
pub async fn wait_condition(
    api: &Api<DynamicObject>,
    name: &str,
    kind: &str,
    status: &str,
    limit: Duration,
) -> Result<DynamicObject> {
    let what = format!("{name}: condition {kind} = {status}");
    wait_for(&what, limit, || async {
        let object = api.get_opt(name).await?;
        Ok(object.filter(|object| condition(object, kind).is_some_and(|found| found["status"] == status)))
    })
    .await
}

/// The object's condition of a kind.
pub fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a serde_json::Value> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

fn title(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| types.kind.as_str());
    format!("{kind} {}", object.metadata.name.as_deref().unwrap_or("without a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_are_skipped() {
        let yaml = "---\n# nothing\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n";
        let names: Vec<_> = parse(yaml).unwrap().into_iter().filter_map(|object| object.metadata.name).collect();
        assert_eq!(names, ["a"]);
    }
}
