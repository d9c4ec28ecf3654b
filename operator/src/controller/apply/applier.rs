//! Writes objects: server-side apply by one field manager, and only what differs from what is there.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use penstock_api::names::{FIELD_MANAGER, LABEL_DATASET};
use penstock_plan::validate::Invalid;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    super::{
        observed::is_ours,
        refusal::{is_refusal, sentence},
        written::Written,
    },
    compare::{fingerprint, is_current},
};
use crate::{metrics::Metrics, names::APPLIED_HASH};

/// No object has this resource version, for the first thing that etcd ever writes gets 2. An apply that expects it makes
/// the object, and fails with a conflict when there is one of that name: nobody's object is taken over, and no question
/// has to be asked before.
const ABSENT: &str = "1";

/// Longer than the API server needs to answer anything here; a request that hangs must not hold a Dataset up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {verb} {kind} {name}: {source}")]
    Request { verb: &'static str, kind: String, name: String, source: kube::Error },
    #[error("{kind} {name} exists and is not Penstock's")]
    Taken { kind: String, name: String },
    /// It is there, although its watch has not told.
    #[error("{kind} {name} is not in the watch yet")]
    Unseen { kind: String, name: String },
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Request { source: kube::Error::Api(status), .. } => Some(status),
            _ => None,
        }
    }

    /// The namespace is going: nothing can be made in it any more, and nothing needs to be.
    pub fn is_terminating(&self) -> bool {
        self.status().is_some_and(|s| s.code == 403 && s.message.contains("being terminated"))
    }

    /// Someone else was faster: look again.
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Unseen { .. }) || self.status().is_some_and(|s| matches!(s.code, 404 | 409))
    }

    /// What the API server refuses, and would refuse again.
    pub fn refusal(&self) -> Option<Invalid> {
        match self {
            Self::Request { source: kube::Error::Api(status), kind, name, .. } => {
                (!self.is_terminating() && is_refusal(status)).then(|| sentence(kind, name, status))
            }
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
pub struct Applier<'a> {
    pub client: &'a Client,
    pub metrics: &'a Metrics,
    pub written: &'a Written,
}

impl Applier<'_> {
    /// Makes the object what `desired` says. `observed` is what is known to be there, in full or its metadata alone; without
    /// it the object is made, and that fails if there is one: with [`Error::Taken`] if it is not ours. With `expect`, a
    /// resource version, the write fails if someone else wrote meanwhile.
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
        match limited(api.patch(&name, &params, &patch)).await {
            Ok(written) => {
                self.written.remember(&written);
                Ok(Some(written))
            }
            Err(kube::Error::Api(status)) if status.code == 409 && observed.is_none() => {
                Err(occupied(api, &desired, kube::Error::Api(status)).await)
            }
            Err(source) => Err(error::<K>("apply", &name, source)),
        }
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

    /// Deletes this very object, not one that has its name by now.
    pub async fn delete_this<K>(&self, api: &Api<K>, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.metrics.wrote();
        let name = object.name_any();
        let preconditions = Preconditions { uid: object.uid(), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        limited(api.delete(&name, &params)).await.map(drop).map_err(|source| error::<K>("delete", &name, source))
    }

    /// Merges `patch` into the object; a list takes the place of the list.
    pub async fn merge<K>(&self, api: &Api<K>, name: &str, patch: &Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.patch(api, name, &Patch::Merge(patch)).await
    }

    /// Merges `patch` into an object of Kubernetes' own; the elements of lists are merged by their keys.
    pub async fn merge_lists<K>(&self, api: &Api<K>, name: &str, patch: &Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.patch(api, name, &Patch::Strategic(patch)).await
    }

    async fn patch<K>(&self, api: &Api<K>, name: &str, patch: &Patch<&Value>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.metrics.wrote();
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patched = limited(api.patch(name, &params, patch)).await;
        patched.map(drop).map_err(|source| error::<K>("patch", name, source))
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
        let written = written.map_err(|source| error::<K>("write the status of", name, source))?;
        self.written.remember(&written);
        Ok(())
    }
}

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    // On the heap, for many of these are awaited at once.
    match tokio::time::timeout(PATIENCE, Box::pin(request)).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
    }
}

/// Why an object that was not seen could not be made.
async fn occupied<K>(api: &Api<K>, desired: &K, conflict: kube::Error) -> Error
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let (kind, name) = (K::kind(&()).into_owned(), desired.name_any());
    let dataset = desired.labels().get(LABEL_DATASET).map(String::as_str).unwrap_or_default();
    match limited(api.get_metadata_opt(&name)).await {
        Ok(Some(found)) if is_ours(&found, dataset) => Error::Unseen { kind, name },
        Ok(Some(_)) => Error::Taken { kind, name },
        Ok(None) => error::<K>("apply", &name, conflict),
        Err(source) => error::<K>("read", &name, source),
    }
}

pub(in crate::controller) fn error<K>(verb: &'static str, name: &str, source: kube::Error) -> Error
where
    K: Resource<DynamicType = ()>,
{
    Error::Request { verb, kind: K::kind(&()).into_owned(), name: name.to_owned(), source }
}
