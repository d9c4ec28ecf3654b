//! The chart gives the operator exactly the rights that it uses, and people the rights on Penstock's objects.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use penstock_operator::rights::{RIGHTS, Right, Scope};
use penstock_testkit::chart;
use serde_json::Value;

/// Scope, group, resource, verb.
type Grant = (Scope, String, String, String);

fn grants(scope: Scope, role: &Value) -> Vec<Grant> {
    let rules: Vec<PolicyRule> = serde_json::from_value(role["rules"].clone()).unwrap();
    let of = |rule: PolicyRule| {
        let mut all = Vec::new();
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                all.extend(rule.verbs.iter().map(|verb| (scope, group.clone(), resource.clone(), verb.clone())));
            }
        }
        all
    };
    rules.into_iter().flat_map(of).collect()
}

fn used(right: &Right) -> Vec<Grant> {
    let grant = |verb: &&str| (right.scope, right.group.into(), right.resource.into(), (*verb).into());
    right.verbs.iter().map(grant).collect()
}

/// The roles of the operator, each with the scope that its place gives it.
fn granted(roles: &[Value], watched: Option<&str>) -> BTreeSet<Grant> {
    let of_operator = |role: &&Value| {
        let name = role["metadata"]["name"].as_str().unwrap();
        name.starts_with("penstock-operator") && !role["rules"].is_null()
    };
    let scoped = |role: &Value| match (role["kind"].as_str().unwrap(), role["metadata"]["namespace"].as_str()) {
        ("ClusterRole", None) if watched.is_some() => grants(Scope::Cluster, role),
        ("ClusterRole", None) => grants(Scope::Watched, role).into_iter().map(without_namespace).collect(),
        ("Role", Some(namespace)) if Some(namespace) == watched => grants(Scope::Watched, role),
        ("Role", Some(chart::NAMESPACE)) => grants(Scope::Own, role),
        place => panic!("{place:?}"),
    };
    roles.iter().filter(of_operator).flat_map(scoped).collect()
}

/// Where all namespaces are looked after, one role holds what is in a namespace and what is in none.
fn without_namespace(grant: Grant) -> Grant {
    let (scope, group, resource, verb) = grant;
    let is_cluster = RIGHTS.iter().any(|right| right.scope == Scope::Cluster && right.resource == resource);
    (if is_cluster { Scope::Cluster } else { scope }, group, resource, verb)
}

#[test]
fn the_chart_grants_exactly_what_is_used_and_only_in_the_namespace_that_is_watched() {
    let used: BTreeSet<_> = RIGHTS.iter().flat_map(used).collect();
    for watched in [None, Some("research")] {
        let values: Vec<_> = watched.iter().map(|namespace| format!("operator.watchNamespace={namespace}")).collect();
        let granted = granted(&chart::roles(&values).unwrap(), watched);
        let missing: Vec<_> = used.difference(&granted).collect();
        let unused: Vec<_> = granted.difference(&used).collect();
        assert!(missing.is_empty() && unused.is_empty(), "{watched:?}: missing {missing:?}, unused {unused:?}");
    }
}

#[test]
fn the_cluster_s_own_view_and_edit_roles_take_in_penstock_s_objects() {
    let roles = chart::roles(&[]).unwrap();
    let of = |name: &str| -> ClusterRole {
        let role = roles.iter().find(|role| role["kind"] == "ClusterRole" && role["metadata"]["name"] == name);
        serde_json::from_value(role.unwrap().clone()).unwrap()
    };
    for (name, aggregated, verbs) in [
        ("penstock-view", &["view", "edit", "admin"][..], &["get", "list", "watch"][..]),
        ("penstock-edit", &["edit", "admin"], &["create", "update", "patch", "delete", "deletecollection"]),
    ] {
        let role = of(name);
        let labels = role.metadata.labels.unwrap();
        let into: BTreeSet<_> =
            labels.keys().filter_map(|label| label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")).collect();
        assert_eq!(into, aggregated.iter().copied().collect(), "{name}");
        let all = role.rules.unwrap();
        for resource in ["datasets", "cacheruntimes"] {
            let names = |rule: &&PolicyRule| rule.resources.iter().flatten().any(|name| name == resource);
            assert_eq!(all.iter().find(names).unwrap().verbs, verbs, "{name} {resource}");
        }
    }
}
