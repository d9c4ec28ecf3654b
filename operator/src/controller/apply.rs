//! Writes objects: server-side apply by one field manager, and only what differs from what is there.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use parking_lot::Mutex;
use penstock_api::names::FIELD_MANAGER;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use crate::{metrics::Metrics, names::APPLIED_HASH};

/// No object has this resource version, for the first thing that etcd ever writes gets 2. An apply that expects it makes
/// the object, and fails with a conflict when there is one of that name: nobody's object is taken over, and no question
/// has to be asked before.
const ABSENT: &str = "1";

/// Longer than the API server needs to answer anything here; a request that hangs must not hold a Dataset up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} {kind} {name}: {source}")]
pub struct Error {
    pub verb: &'static str,
    pub kind: String,
    pub name: String,
    pub source: kube::Error,
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match &self.source {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// The namespace is going: nothing can be made in it any more, and nothing needs to be.
    pub fn is_terminating(&self) -> bool {
        self.status().is_some_and(|s| s.code == 403 && s.message.contains("being terminated"))
    }

    /// Someone else was faster: look again.
    pub fn is_race(&self) -> bool {
        self.status().is_some_and(|s| matches!(s.code, 404 | 409))
    }

    /// The API server understood and refuses: the same request will not do later either.
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|s| matches!(s.code, 400 | 403 | 422)) && !self.is_terminating()
    }
}

/// A watch that is further behind than this has lost an object: it is made again.
const BEHIND: Duration = Duration::from_secs(10);

/// The objects that were made and may not be in the watches yet. A Dataset counts as made once it was said to be bound.
#[derive(Debug, Default)]
pub struct Made(Mutex<HashMap<Key, Instant>>);

/// Kind, namespace (empty for none) and name.
type Key = (String, String, String);

impl Made {
    /// Whether the object is only missing because its watch is behind.
    pub fn is_awaited<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) -> bool {
        self.0.lock().get(&key::<K>(namespace, name)).is_some_and(|at| at.elapsed() < BEHIND)
    }

    pub fn forget<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        self.0.lock().remove(&key::<K>(namespace, name));
    }

    pub fn remember<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        let mut made = self.0.lock();
        made.retain(|_, at| at.elapsed() < BEHIND);
        made.insert(key::<K>(namespace, name), Instant::now());
    }
}

fn key<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Key {
    (K::kind(&()).into_owned(), namespace.to_owned(), name.to_owned())
}

#[derive(Clone, Copy)]
pub struct Applier<'a> {
    pub client: &'a Client,
    pub metrics: &'a Metrics,
    pub made: &'a Made,
}

impl Applier<'_> {
    /// Makes the object what `desired` says. `observed` is what is known to be there, in full or its metadata alone; without
    /// it the object is made, and that fails ([`Error::is_race`]) if there is one. With `expect`, a resource version, the
    /// write fails if someone else wrote meanwhile.
    pub async fn ensure<K, O>(
        &self,
        desired: K,
        observed: Option<&O>,
        expect: Option<String>,
    ) -> Result<Option<K>, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
        O: ResourceExt + Serialize,
    {
        let api = Api::namespaced(self.client.clone(), &desired.namespace().unwrap_or_default());
        self.ensure_in(&api, desired, observed, expect).await
    }

    /// The same for any scope. `None`: nothing was to be written.
    pub async fn ensure_in<K, O>(
        &self,
        api: &Api<K>,
        mut desired: K,
        observed: Option<&O>,
        expect: Option<String>,
    ) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
        O: ResourceExt + Serialize,
    {
        let name = desired.name_any();
        let (hash, fields) = fingerprint(&desired);
        if observed.is_some_and(|o| is_current(o, &hash, &fields)) {
            return Ok(None);
        }
        desired.annotations_mut().insert(APPLIED_HASH.into(), hash);
        desired.meta_mut().resource_version = if observed.is_some() { expect } else { Some(ABSENT.into()) };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.metrics.wrote();
        let patch = Patch::Apply(&desired);
        let written = limited(api.patch(&name, &params, &patch)).await;
        let written = written.map_err(|source| error::<K>("apply", &name, source))?;
        if observed.is_none() {
            self.made.remember::<K>(&written.namespace().unwrap_or_default(), &name);
        }
        Ok(Some(written))
    }

    /// Deletes an object that is known to be there; that it is gone already is fine.
    pub async fn delete<K>(&self, api: &Api<K>, name: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.metrics.wrote();
        match limited(api.delete(name, &DeleteParams::background())).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(error::<K>("delete", name, source)),
            Ok(_) => Ok(()),
        }
    }

    /// Merges `patch` into the object.
    pub async fn merge<K>(&self, api: &Api<K>, name: &str, patch: &Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.metrics.wrote();
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let merged = limited(api.patch(name, &params, &Patch::Merge(patch))).await;
        merged.map(drop).map_err(|source| error::<K>("patch", name, source))
    }

    /// Writes the whole status.
    pub async fn status<K>(&self, api: &Api<K>, name: &str, status: &impl Serialize) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.metrics.wrote();
        let body = serde_json::json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "status": status
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = limited(api.patch_status(name, &params, &Patch::Apply(&body))).await;
        written.map(drop).map_err(|source| error::<K>("write the status of", name, source))
    }
}

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    // On the heap, for many of these are awaited at once.
    match tokio::time::timeout(PATIENCE, Box::pin(request)).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
    }
}

fn error<K: Resource<DynamicType = ()>>(verb: &'static str, name: &str, source: kube::Error) -> Error {
    Error { verb, kind: K::kind(&()).into_owned(), name: name.to_owned(), source }
}

/// The hash of an object, and its fields.
fn fingerprint(object: &impl Serialize) -> (String, Value) {
    // Objects are plain data, whose serialisation does not fail.
    let fields = serde_json::to_value(object).unwrap_or_default();
    let hash = xxh3_128(fields.to_string().as_bytes());
    (format!("{hash:032x}"), fields)
}

/// Whether the object is what was last applied: nothing else is wanted, and nobody changed what was.
fn is_current<O: ResourceExt + Serialize>(observed: &O, hash: &str, desired: &Value) -> bool {
    if observed.annotations().get(APPLIED_HASH).map(String::as_str) != Some(hash) {
        return false;
    }
    let observed = serde_json::to_value(observed).unwrap_or_default();
    // Watched by its metadata alone, an object has neither.
    let fields = ["spec", "data"].into_iter().filter(|field| observed.get(field).is_some());
    fields.into_iter().all(|field| covers(&observed[field], &desired[field]))
}

/// Whether `observed` has everything that `desired` says; it may have more (defaults).
fn covers(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (_, Value::Null) => true,
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            // The API server writes quantities in a form of its own.
            matches!(key.as_str(), "resources" | "sizeLimit")
                || observed.get(key).map_or_else(|| is_empty(desired), |observed| covers(observed, desired))
        }),
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() >= desired.len() && observed.iter().zip(desired).all(|(o, d)| covers(o, d))
        }
        (observed, desired) => observed == desired,
    }
}

/// What the API server leaves out when it writes an object back.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(array) => array.is_empty(),
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_covers_what_was_asked_for_when_only_defaults_were_added() {
        for (observed, desired, covered) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 2}), json!({"a": 1}), false),
            (json!({"b": 2}), json!({"a": 1}), false),
            (json!({}), json!({"a": false, "b": {}}), true),
            (json!({"l": [{"x": 1, "y": 2}]}), json!({"l": [{"x": 1}]}), true),
            (json!({"l": []}), json!({"l": [{"x": 1}]}), false),
            (json!({"replicas": 5}), json!({"replicas": 3}), false),
            (json!({"sizeLimit": "1Gi"}), json!({"sizeLimit": "1024Mi"}), true),
        ] {
            assert_eq!(covers(&observed, &desired), covered, "{observed} {desired}");
        }
    }
}
