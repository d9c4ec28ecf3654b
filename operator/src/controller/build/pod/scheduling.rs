//! Where worker pods may go.

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorTerm, PodAffinityTerm, PodAntiAffinity,
        TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use penstock_api::{
    Placement,
    names::{COMPONENT_WORKER, LABEL_COMPONENT, LABEL_DATASET, LABEL_MANAGED_BY, LABEL_PART_OF, MANAGED_BY, PART_OF},
};

use super::super::Blueprint;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The runtime's own affinity, the Dataset's required nodes in addition, and distance from other Datasets when it is
/// Exclusive.
pub(super) fn affinity(blueprint: &Blueprint<'_>) -> Option<Affinity> {
    let mut affinity = blueprint.runtime.spec.worker.affinity.clone().unwrap_or_default();
    if let Some(required) = blueprint.dataset.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref()) {
        let node: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
        let both = match node.required_during_scheduling_ignored_during_execution.take() {
            Some(own) => both(&own, required),
            None => required.clone(),
        };
        node.required_during_scheduling_ignored_during_execution = Some(both);
    }
    if blueprint.dataset.spec.placement == Placement::Exclusive {
        let pods: &mut PodAntiAffinity = affinity.pod_anti_affinity.get_or_insert_default();
        let terms = pods.required_during_scheduling_ignored_during_execution.get_or_insert_default();
        terms.extend(apart(blueprint));
    }
    (affinity != Affinity::default()).then_some(affinity)
}

/// Terms are alternatives, what is in a term holds together: every pair of alternatives.
fn both(a: &NodeSelector, b: &NodeSelector) -> NodeSelector {
    let join = |a: &NodeSelectorTerm, b: &NodeSelectorTerm| NodeSelectorTerm {
        match_expressions: concat(a.match_expressions.as_ref(), b.match_expressions.as_ref()),
        match_fields: concat(a.match_fields.as_ref(), b.match_fields.as_ref()),
    };
    let pairs = a.node_selector_terms.iter().flat_map(|a| b.node_selector_terms.iter().map(move |b| join(a, b)));
    NodeSelector { node_selector_terms: pairs.collect() }
}

fn concat<T: Clone>(a: Option<&Vec<T>>, b: Option<&Vec<T>>) -> Option<Vec<T>> {
    let all: Vec<T> = a.into_iter().chain(b).flatten().cloned().collect();
    (!all.is_empty()).then_some(all)
}

/// Workers of other Datasets of this namespace, and all workers of other namespaces (where a Dataset of the same name
/// is another one). The scheduler keeps others away from this one's nodes by the same terms.
fn apart(blueprint: &Blueprint<'_>) -> [PodAffinityTerm; 2] {
    let names = &blueprint.valid.names;
    let requirement = |key: &str, operator: &str, value: &str| LabelSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: Some(vec![value.into()]),
    };
    let workers = vec![
        requirement(LABEL_MANAGED_BY, "In", MANAGED_BY),
        requirement(LABEL_PART_OF, "In", PART_OF),
        requirement(LABEL_COMPONENT, "In", COMPONENT_WORKER),
    ];
    let select = |expressions| Some(LabelSelector { match_expressions: Some(expressions), ..LabelSelector::default() });
    let mut others = workers.clone();
    others.push(requirement(LABEL_DATASET, "NotIn", &names.dataset));
    let elsewhere = requirement("kubernetes.io/metadata.name", "NotIn", &names.namespace);
    [
        PodAffinityTerm { label_selector: select(others), topology_key: HOSTNAME.into(), ..PodAffinityTerm::default() },
        PodAffinityTerm {
            label_selector: select(workers),
            namespace_selector: select(vec![elsewhere]),
            topology_key: HOSTNAME.into(),
            ..PodAffinityTerm::default()
        },
    ]
}

/// Workers of one runtime prefer different nodes, unless the user has an order of their own.
pub(super) fn spread(blueprint: &Blueprint<'_>) -> Option<Vec<TopologySpreadConstraint>> {
    if blueprint.runtime.spec.worker.affinity.is_some() {
        return None;
    }
    Some(vec![TopologySpreadConstraint {
        label_selector: Some(LabelSelector {
            match_labels: Some(blueprint.valid.names.selector(COMPONENT_WORKER)),
            ..LabelSelector::default()
        }),
        max_skew: 1,
        topology_key: HOSTNAME.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..TopologySpreadConstraint::default()
    }])
}
