//! Events of pods whose mount was lost: kubelet tells of it only where its feature gate `CSIVolumeHealth` is on.

use std::{fmt, path::Path};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Config,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{
    state::{PodRef, Published, PublishedRecord},
    volumes::Volumes,
};

/// Publishes Events, where there is a cluster to publish them in.
pub struct Events(Option<Recorder>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.0.is_some()).finish()
    }
}

impl Events {
    /// By the file that `KUBECONFIG` names, or else the pod's service account; never by a user's own kubeconfig.
    pub async fn connect(node: &str) -> Self {
        let client = client().await.inspect_err(|error| tracing::info!(%error, "no cluster to publish Events in")).ok();
        let reporter = Reporter { controller: "penstock-mount".into(), instance: Some(node.to_owned()) };
        Self(client.map(|client| Recorder::new(client, reporter)))
    }

    /// In the background: an Event must not delay what it tells of, and one that is lost changes nothing.
    fn tell(&self, pod: &PodRef, note: String) {
        let Some(recorder) = self.0.clone() else { return };
        let (event, regarding) = (lost(note), reference(pod));
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &regarding).await {
                tracing::warn!(pod = regarding.name, reason = event.reason, %error, "an Event was not recorded");
            }
        });
    }
}

async fn client() -> anyhow::Result<Client> {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let is_named = std::env::var_os("KUBECONFIG").is_some();
    let config = if is_named { Config::infer().await? } else { Config::incluster()? };
    Ok(Client::try_from(config)?)
}

fn lost(note: String) -> Event {
    let (reason, action) = ("MountLost".to_owned(), "Mount".to_owned());
    Event { type_: EventType::Warning, reason, note: Some(note), action, secondary: None }
}

fn reference(pod: &PodRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

impl Volumes {
    /// Counts the lost session of `dataset` at `staging`, and tells the pods that have it mounted.
    pub(super) fn tell_lost(&self, staging: &Path, dataset: &str, why: &str) {
        self.metrics.lost.inc();
        for record in self.state.load_all::<PublishedRecord>() {
            let of_it = matches!(&record.what, Published::Dataset { staging_path } if staging_path == staging);
            if let Some(pod) = record.pod.filter(|_| of_it) {
                let note = format!(
                    "the mount of Dataset '{dataset}' is lost: {why}; reads fail with ENOTCONN until the pod is started \
                     again"
                );
                self.events.tell(&pod, note);
            }
        }
    }
}
