//! The worker pod: fits the restricted Pod Security Standard unless the user asks for the node's network or disks.

mod scheduling;
mod security;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
        ObjectFieldSelector, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SecurityContext,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;
use penstock_api::{
    NetworkMode, Quota,
    names::{COMPONENT_WORKER, RESERVED_LABEL_PREFIXES},
};
use penstock_plan::{rollout, validate::ValidTier};
use penstock_wire::config::{HTTP_PORT, WIRE_PORT};

use super::Blueprint;
use crate::names::{REVISION, TIERS};

pub use security::Ids;
pub(super) use volumes::tier_volume;

/// The container of the worker in its pod.
pub const WORKER_CONTAINER: &str = "worker";
/// Longer than a worker finishes what is in flight.
const GRACE_SECONDS: i64 = 30;
/// Autoscalers and spot nodes give a pod minutes at most, and Kubernetes looks at a namespace under deletion again only
/// after half of the longest grace period in it.
const MOST_HAND_OVER_SECONDS: i64 = 120;
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// Memory of a worker besides its tiers, unless the user says otherwise: the index, buffers, connections.
const MEMORY_REQUEST: u64 = 256 << 20;
const MEMORY_LIMIT: u64 = 1 << 30;

/// The configuration's hash is not part of it: mounts change without a restart.
pub(super) fn template(blueprint: &Blueprint<'_>) -> PodTemplateSpec {
    let worker = &blueprint.runtime.spec.worker;
    let mut labels = own(&worker.pod_metadata.labels);
    labels.extend(blueprint.valid.names.labels(COMPONENT_WORKER));
    let mut annotations = own(&worker.pod_metadata.annotations);
    annotations.insert(TIERS.into(), tiers(blueprint));
    annotations.insert(REVISION.into(), blueprint.revision.into());
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }),
        spec: Some(pod(blueprint)),
    }
}

/// A worker opens its tiers once: when they change, its pod does.
fn tiers(blueprint: &Blueprint<'_>) -> String {
    let tier = |tier: &ValidTier| format!("{:?} {} {} {}", tier.medium, tier.quota, tier.high, tier.low);
    blueprint.valid_runtime.tiers.iter().map(tier).collect::<Vec<_>>().join(", ")
}

/// Without those that are Penstock's to set.
pub(super) fn own(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let reserved = |key: &str| RESERVED_LABEL_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    metadata.iter().filter(|(key, _)| !reserved(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn pod(blueprint: &Blueprint<'_>) -> PodSpec {
    let worker = &blueprint.runtime.spec.worker;
    let host_network = worker.network_mode == NetworkMode::HostNetwork;
    let tolerations: Vec<_> = worker.tolerations.iter().chain(&blueprint.dataset.spec.tolerations).cloned().collect();
    PodSpec {
        affinity: scheduling::affinity(blueprint),
        automount_service_account_token: Some(worker.service_account.automount_token),
        containers: vec![container(blueprint)],
        dns_policy: host_network.then(|| "ClusterFirstWithHostNet".into()),
        enable_service_links: Some(false),
        host_network: host_network.then_some(true),
        image_pull_secrets: pull_secrets(blueprint),
        node_selector: (!worker.node_selector.is_empty()).then(|| worker.node_selector.clone()),
        security_context: Some(security::context(blueprint)),
        service_account_name: Some(
            worker.service_account.name.clone().unwrap_or_else(|| blueprint.valid.names.worker()),
        ),
        termination_grace_period_seconds: Some(GRACE_SECONDS.saturating_add(hand_over_seconds(blueprint))),
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        topology_spread_constraints: scheduling::spread(blueprint),
        volumes: Some(volumes::volumes(blueprint)),
        ..PodSpec::default()
    }
}

fn pull_secrets(blueprint: &Blueprint<'_>) -> Option<Vec<LocalObjectReference>> {
    let own = &blueprint.runtime.spec.worker.image_pull_secrets;
    let defaults = blueprint.defaults.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    let secrets: Vec<_> = if own.is_empty() { defaults.collect() } else { own.clone() };
    (!secrets.is_empty()).then_some(secrets)
}

fn container(blueprint: &Blueprint<'_>) -> Container {
    let worker = &blueprint.runtime.spec.worker;
    Container {
        name: WORKER_CONTAINER.into(),
        image: Some(blueprint.image.to_owned()),
        image_pull_policy: worker.image_pull_policy.map(|p| p.to_string()),
        command: Some(vec!["penstock-worker".into()]),
        args: Some(args()),
        env: Some(env(blueprint)),
        ports: Some(vec![port("wire", WIRE_PORT), port("http", HTTP_PORT)]),
        liveness_probe: Some(Probe { failure_threshold: Some(6), ..liveness(10) }),
        readiness_probe: Some(Probe { failure_threshold: Some(2), ..probe("/readyz", 2) }),
        // Rebuilding the index of a large tier takes its time.
        startup_probe: Some(Probe { failure_threshold: Some(600), ..liveness(1) }),
        resources: Some(resources(blueprint)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(volumes::mounts(blueprint)),
        ..Container::default()
    }
}

fn args() -> Vec<String> {
    [
        "--config-dir",
        volumes::CONFIG_DIR,
        "--id",
        "$(POD_NAME)",
        "--listen",
        &format!("[::]:{WIRE_PORT}"),
        "--http",
        &format!("[::]:{HTTP_PORT}"),
        "--socket-dir",
        volumes::SOCKET_DIR,
    ]
    .map(str::to_owned)
    .into()
}

/// Whatever is told in arguments every worker has to know, also one of an older release: new things are told here.
fn env(blueprint: &Blueprint<'_>) -> Vec<EnvVar> {
    let field = |path: &str| ObjectFieldSelector { field_path: path.into(), ..ObjectFieldSelector::default() };
    let pod_name = EnvVar {
        name: "POD_NAME".into(),
        value_from: Some(EnvVarSource { field_ref: Some(field("metadata.name")), ..EnvVarSource::default() }),
        ..EnvVar::default()
    };
    let hand_over = EnvVar {
        name: "PENSTOCK_HAND_OVER_SECONDS".into(),
        value: Some(hand_over_seconds(blueprint).to_string()),
        ..EnvVar::default()
    };
    let own = [pod_name, hand_over];
    let users = blueprint.runtime.spec.worker.env.iter().filter(|e| own.iter().all(|own| own.name != e.name));
    own.iter().chain(users).cloned().collect()
}

/// How long a worker may hand over when its pod goes. What outlives the pod need not be handed over.
fn hand_over_seconds(blueprint: &Blueprint<'_>) -> i64 {
    if rollout::outlives_pods(&blueprint.runtime.spec) {
        0
    } else {
        i64::from(blueprint.runtime.spec.drain_timeout_seconds).min(MOST_HAND_OVER_SECONDS)
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// A worker that hangs hands nothing over.
fn liveness(period: i32) -> Probe {
    Probe { termination_grace_period_seconds: Some(GRACE_SECONDS), ..probe("/healthz", period) }
}

/// The user's, with the bytes of tiers added: tmpfs counts into the pod's memory, an emptyDir on the node's disk into its
/// ephemeral storage.
fn resources(blueprint: &Blueprint<'_>) -> ResourceRequirements {
    let mut resources = blueprint.runtime.spec.worker.resources.clone().unwrap_or_default();
    ephemeral_storage(&mut resources, volumes::on_nodes_disk(blueprint));
    memory(&mut resources, blueprint.valid_runtime.memory());
    resources
}

/// Without a request the scheduler would place tiers where they do not fit. What the user says of it stands.
fn ephemeral_storage(resources: &mut ResourceRequirements, tiers: u64) {
    let stated = |q: &Option<BTreeMap<String, Quantity>>| q.as_ref().is_some_and(|q| q.contains_key(EPHEMERAL_STORAGE));
    if tiers > 0 && !stated(&resources.requests) && !stated(&resources.limits) {
        resources.requests.get_or_insert_default().insert(EPHEMERAL_STORAGE.into(), bytes(tiers));
    }
}

fn memory(resources: &mut ResourceRequirements, tiers: u64) {
    let add = |quantities: Option<BTreeMap<String, Quantity>>, default: u64| {
        let mut quantities = quantities.unwrap_or_default();
        let base = quantities.get("memory").and_then(|q| Quota::bytes(q).ok()).unwrap_or(default);
        quantities.insert("memory".into(), bytes(base.saturating_add(tiers)));
        quantities
    };
    let stated = |q: &Option<BTreeMap<String, Quantity>>| {
        q.as_ref().and_then(|q| q.get("memory")).and_then(|q| Quota::bytes(q).ok())
    };
    let limit = stated(&resources.limits);
    // A request may not exceed the limit, a limit not be below the request.
    let request =
        stated(&resources.requests).or_else(|| limit.map(|l| l.min(MEMORY_REQUEST))).unwrap_or(MEMORY_REQUEST);
    resources.limits = Some(add(resources.limits.take(), limit.unwrap_or(MEMORY_LIMIT.max(request))));
    resources.requests = Some(add(resources.requests.take(), request));
}

/// As the API server writes it back, so that nothing seems changed.
pub(super) fn bytes(count: u64) -> Quantity {
    let units = [("Gi", 1u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let text = units.iter().find(|(_, unit)| count > 0 && count.is_multiple_of(*unit));
    Quantity(text.map_or_else(|| count.to_string(), |(suffix, unit)| format!("{}{suffix}", count / unit)))
}
