//! What is there: users of Datasets, and what the operator made.

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams},
};
use penstock_api::{
    Dataset,
    names::{LABEL_DATASET, LABEL_MANAGED_BY, MANAGED_BY},
};
use penstock_plan::Names;
use serde::de::DeserializeOwned;

use super::{Error, failed};
use crate::names::{NAMESPACE_LABEL, SELECTOR};

/// Of one list; the API server goes on where it ended.
const PAGE: u32 = 500;

/// Objects of all namespaces, or of one.
pub(super) struct Inventory {
    pub(super) client: Client,
    pub(super) namespace: Option<String>,
}

/// `KIND NAMESPACE/NAME`, or without a namespace.
pub(super) fn place(kind: &str, object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

/// A pod that has ended holds nothing.
pub(super) fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

impl Inventory {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    pub(super) async fn datasets(&self) -> Result<Vec<Dataset>, Error> {
        list(&self.api(), &ListParams::default()).await
    }

    /// Pods that mount the claim of a Dataset: `pod NAMESPACE/NAME (Dataset NAME)`.
    pub(super) async fn users(&self, datasets: &[Dataset]) -> Result<Vec<String>, Error> {
        let claims: BTreeSet<_> =
            datasets.iter().map(|dataset| (dataset.namespace().unwrap_or_default(), dataset.name_any())).collect();
        let namespaces: BTreeSet<_> = claims.iter().map(|(namespace, _)| namespace).collect();
        let mut users = Vec::new();
        for namespace in namespaces {
            let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
            for pod in list(&api, &ListParams::default()).await?.iter().filter(|pod| runs(pod)) {
                let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
                let names = volumes.filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name));
                let of_ours = names.filter(|name| claims.contains(&(namespace.clone(), (*name).clone())));
                users.extend(of_ours.map(|name| format!("{} (Dataset {name})", place("pod", pod))));
            }
        }
        Ok(users)
    }

    /// Deletes all of one kind that the operator made.
    pub(super) async fn remove<K>(&self) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        for object in list(&self.api::<K>(), &ListParams::default().labels(SELECTOR)).await? {
            let api = Api::<K>::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
            delete(&api, &object.name_any()).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_volumes(&self) -> Result<(), Error> {
        let api = Api::<PersistentVolume>::all(self.client.clone());
        for volume in self.volumes().await? {
            delete(&api, &volume.name_any()).await?;
        }
        Ok(())
    }

    /// By their names: the right to list Secrets is nobody's.
    pub(super) async fn remove_secrets(&self, datasets: &[Dataset]) -> Result<(), Error> {
        for dataset in datasets {
            let names = Names::new(dataset.namespace().unwrap_or_default(), dataset.name_any());
            let api = Api::<Secret>::namespaced(self.client.clone(), &names.namespace);
            for name in [names.worker(), names.client_secret()] {
                let found = api.get_opt(&name).await.map_err(failed(format!("read Secret {name}")))?;
                if found.is_some_and(|secret| is_of(&secret, &names)) {
                    delete(&api, &name).await?;
                }
            }
        }
        Ok(())
    }

    /// What takes its time: pods that end, claims that wait for them, volumes that wait for claims.
    pub(super) async fn left(&self) -> Result<Vec<String>, Error> {
        let ours = ListParams::default().labels(SELECTOR);
        let pods = list(&self.api::<Pod>(), &ours).await?;
        let claims = list(&self.api::<PersistentVolumeClaim>(), &ours).await?;
        let volumes = self.volumes().await?;
        Ok(pods
            .iter()
            .map(|pod| place("pod", pod))
            .chain(claims.iter().map(|claim| place("claim", claim)))
            .chain(volumes.iter().map(|volume| place("volume", volume)))
            .collect())
    }

    async fn volumes(&self) -> Result<Vec<PersistentVolume>, Error> {
        let selector = match &self.namespace {
            Some(namespace) => format!("{SELECTOR},{NAMESPACE_LABEL}={namespace}"),
            None => SELECTOR.to_owned(),
        };
        list(&Api::all(self.client.clone()), &ListParams::default().labels(&selector)).await
    }
}

fn is_of(secret: &Secret, names: &Names) -> bool {
    let label = |key: &str| secret.labels().get(key).map(String::as_str);
    label(LABEL_MANAGED_BY) == Some(MANAGED_BY) && label(LABEL_DATASET) == Some(names.dataset.as_str())
}

async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut params = params.clone().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = match api.list(&params).await {
            // Without its CustomResourceDefinition there are none of a kind.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(all),
            page => page.map_err(failed(format!("list {}", K::plural(&()))))?,
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop).map_err(failed(format!("delete {} {name}", K::kind(&())))),
    }
}
