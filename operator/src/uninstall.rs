//! What runs before the operator is removed: takes down what it made, so that nothing waits for a program that is gone.
//!
//! Datasets and CacheRuntimes stay, without Penstock's finalizer and without a status. A later installation serves them
//! again. While pods use a Dataset nothing is touched: their mounts would be left without a server.

mod inventory;

use std::{fmt, time::Duration};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use penstock_api::{Dataset, names::FINALIZER};
use serde_json::json;

use crate::names::selector_text;
use inventory::Inventory;

/// Between two looks at what is still there.
const PAUSE: Duration = Duration::from_secs(1);

/// What to take down.
#[derive(Clone, Debug, clap::Args)]
pub struct UninstallOptions {
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "penstock-system")]
    pub namespace: String,
    /// Name of the operator's Deployment, which is scaled to zero first.
    #[arg(long, default_value = "penstock-operator")]
    pub deployment: String,
    /// The namespace that the operator looks after; all when absent.
    #[arg(long)]
    pub watch_namespace: Option<String>,
    /// Seconds until this gives up, starts the operator again and says what is still there.
    #[arg(long, default_value_t = 240)]
    pub timeout_seconds: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {doing}: {source}")]
    Api { doing: String, source: kube::Error },
    #[error(
        "pods still use Datasets: {0}. Nothing was removed. Delete these pods, or what makes them, and uninstall \
         again. (helm uninstall --no-hooks removes Penstock all the same, and leaves their mounts without a server.)"
    )]
    InUse(List),
    #[error(
        "after {seconds} s there is still {left}. The operator was started again. See why they stay (kubectl \
         describe), and uninstall again."
    )]
    Stuck { seconds: u64, left: List },
}

/// Some names in a sentence: the first few, and how many there are besides.
#[derive(Debug, PartialEq, Eq)]
pub struct List(Vec<String>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        f.write_str(&self.0.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Adds what was tried to a failure of the API server.
fn failed(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let doing = doing.into();
    move |source| Error::Api { doing, source }
}

/// Takes down all that the operator made. May be repeated, also after it was cut off.
///
/// # Errors
/// Pods use a Dataset, or something did not go in time; the operator then goes on as before.
pub async fn run(client: Client, options: &UninstallOptions) -> Result<(), Error> {
    let inventory = Inventory { client: client.clone(), namespace: options.watch_namespace.clone() };
    nobody_reads(&inventory).await?;
    let operator = Operator { client, options };
    let replicas = operator.scale_to(0).await?;
    let done = take_down(&inventory, &operator, options).await;
    if done.is_err()
        && let Some(replicas) = replicas
        && let Err(error) = operator.scale_to(replicas).await
    {
        tracing::error!(%error, "the operator stays stopped: kubectl scale its Deployment by hand");
    }
    done
}

async fn take_down(inventory: &Inventory, operator: &Operator<'_>, options: &UninstallOptions) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(options.timeout_seconds);
    let wait = |left: Vec<String>| async move {
        if tokio::time::Instant::now() > deadline {
            return Err(Error::Stuck { seconds: options.timeout_seconds, left: List(left) });
        }
        tracing::info!(left = %List(left), "waiting");
        tokio::time::sleep(PAUSE).await;
        Ok(())
    };
    loop {
        match operator.pods().await? {
            pods if pods.is_empty() => break,
            pods => wait(pods).await?,
        }
    }
    // Pods that came meanwhile.
    nobody_reads(inventory).await?;
    let datasets = inventory.datasets().await?;
    remove(inventory, &datasets).await?;
    loop {
        match inventory.left().await? {
            left if left.is_empty() => break,
            left => wait(left).await?,
        }
    }
    release(inventory, &datasets).await
}

async fn nobody_reads(inventory: &Inventory) -> Result<(), Error> {
    let users = inventory.users(&inventory.datasets().await?).await?;
    if users.is_empty() { Ok(()) } else { Err(Error::InUse(List(users))) }
}

/// Claims first: nobody can begin to use one that is being deleted. Budgets before workers.
async fn remove(inventory: &Inventory, datasets: &[Dataset]) -> Result<(), Error> {
    inventory.remove::<PersistentVolumeClaim>().await?;
    inventory.remove::<PodDisruptionBudget>().await?;
    inventory.remove::<StatefulSet>().await?;
    inventory.remove_volumes().await?;
    inventory.remove::<Service>().await?;
    inventory.remove::<ConfigMap>().await?;
    inventory.remove::<ServiceAccount>().await?;
    inventory.remove_secrets(datasets).await
}

/// Lets the Datasets go whenever someone deletes them, and says no more of them what nobody looks after.
async fn release(inventory: &Inventory, datasets: &[Dataset]) -> Result<(), Error> {
    for dataset in datasets {
        let namespace = dataset.namespace().unwrap_or_default();
        let (api, name) = (Api::<Dataset>::namespaced(inventory.client.clone(), &namespace), dataset.name_any());
        let others: Vec<_> = dataset.finalizers().iter().filter(|f| *f != FINALIZER).collect();
        let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
        let status = Patch::Merge(json!({ "status": null }));
        let finalizers = Patch::Merge(json!({ "metadata": { "finalizers": others } }));
        let params = PatchParams::default();
        let released = async {
            api.patch_status(&name, &params, &status).await?;
            api.patch(&name, &params, &finalizers).await
        };
        match released.await {
            Err(error) if !gone(&error) => Err(failed(format!("release Dataset {namespace}/{name}"))(error))?,
            _ => tracing::info!(dataset = format!("{namespace}/{name}"), "released"),
        }
    }
    Ok(())
}

/// The Deployment of the operator.
struct Operator<'a> {
    client: Client,
    options: &'a UninstallOptions,
}

impl Operator<'_> {
    fn api(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.options.namespace)
    }

    /// Returns how many replicas there were; `None` when there is no Deployment.
    async fn scale_to(&self, replicas: i32) -> Result<Option<i32>, Error> {
        let (api, name) = (self.api(), &self.options.deployment);
        let doing = || format!("scale Deployment {}/{name} to {replicas}", self.options.namespace);
        let Some(found) = api.get_opt(name).await.map_err(failed(doing()))? else { return Ok(None) };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        api.patch_scale(name, &PatchParams::default(), &patch).await.map_err(failed(doing()))?;
        tracing::info!(deployment = name, replicas, "scaled");
        Ok(found.spec.and_then(|spec| spec.replicas))
    }

    /// Those that still run.
    async fn pods(&self) -> Result<Vec<String>, Error> {
        let doing = "look for the operator's pods";
        let found = self.api().get_opt(&self.options.deployment).await.map_err(failed(doing))?;
        let Some(labels) = found.and_then(|found| found.spec?.selector.match_labels) else { return Ok(Vec::new()) };
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.options.namespace);
        let pods = api.list(&ListParams::default().labels(&selector_text(&labels))).await.map_err(failed(doing))?;
        Ok(pods.iter().filter(|pod| inventory::runs(pod)).map(|pod| inventory::place("pod", pod)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_names_the_first_and_counts_the_others() {
        let list = |count: usize| List((1..=count).map(|n| format!("p{n}")).collect()).to_string();
        assert_eq!(list(2), "p1, p2");
        assert_eq!(list(10), "p1, p2, p3, p4, p5, p6, p7, p8 and 2 more");
    }
}
