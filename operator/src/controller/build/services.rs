use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use penstock_api::names::COMPONENT_WORKER;
use penstock_wire::config::{HTTP_PORT, WIRE_PORT};

use super::{Blueprint, pod};
use crate::names::VOLUME;

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: number.into(),
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    }
}

/// The `StatefulSet`'s: names of pods, also of those that are not ready, since peers talk to them.
pub fn headless_service(blueprint: &Blueprint<'_>) -> Service {
    Service {
        metadata: blueprint.of_runtime(blueprint.valid.names.worker(), COMPONENT_WORKER),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(blueprint.valid.names.selector(COMPONENT_WORKER)),
            ports: Some(vec![port("wire", WIRE_PORT), port("http", HTTP_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The mounts' first contact. `address` is the one that the volume names, which cannot change: a Service that was lost
/// comes back with it.
pub fn cache_service(blueprint: &Blueprint<'_>, address: Option<&str>) -> Service {
    Service {
        metadata: blueprint.of_dataset(blueprint.valid.names.cache(), VOLUME),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: address.map(str::to_owned),
            selector: Some(blueprint.valid.names.selector(COMPONENT_WORKER)),
            ports: Some(vec![port("wire", WIRE_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Without rights and without a token. It is there also where workers have another one, so that either may come and go.
pub fn service_account(blueprint: &Blueprint<'_>) -> ServiceAccount {
    let annotations = pod::own(&blueprint.runtime.spec.worker.service_account.annotations);
    let mut metadata = blueprint.of_runtime(blueprint.valid.names.worker(), COMPONENT_WORKER);
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    ServiceAccount { metadata, automount_service_account_token: Some(false), ..ServiceAccount::default() }
}

pub fn budget(blueprint: &Blueprint<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: blueprint.of_runtime(blueprint.valid.names.worker(), COMPONENT_WORKER),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            // One that does not serve must not hold up the drain of its node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            selector: Some(LabelSelector {
                match_labels: Some(blueprint.valid.names.selector(COMPONENT_WORKER)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
