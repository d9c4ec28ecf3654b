//! What has to be there before the operator can work: the CustomResourceDefinitions, and its rights. It is checked by each
//! replica, the one that leads and those that stand by.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, CustomResourceExt, api::PostParams};
use penstock_api::{CacheRuntime, DataLoad, Dataset, GROUP};
use tokio::{sync::Notify, time::timeout};

use crate::{
    readiness::Readiness,
    rights::{RIGHTS, Right, Scope},
};

/// Between two checks while nothing is missing. A watch that fails brings the next check forward.
const CALM: Duration = Duration::from_secs(30);
/// Between two checks while something is missing.
const MISSING: Duration = Duration::from_secs(5);
/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the operator works.
#[derive(Clone, Debug)]
pub struct Place {
    /// The operator's own namespace.
    pub own: String,
    /// The one namespace that it looks after; all when absent.
    pub watched: Option<String>,
}

/// Checks for ever, and tells `readiness` what is missing. `doubt` brings the next check forward.
pub async fn follow(client: Client, place: Place, doubt: Arc<Notify>, readiness: Readiness) {
    loop {
        let missing = match timeout(PATIENCE, missing(&client, &place)).await {
            Ok(Ok(missing)) => missing,
            Ok(Err(error)) => vec![format!("the API server does not say what the operator may do: {error}")],
            Err(_) => vec![format!("the API server has not answered within {} s", PATIENCE.as_secs())],
        };
        let pause = if missing.is_empty() { CALM } else { MISSING };
        readiness.report(missing);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = doubt.notified() => {}
        }
    }
}

/// One sentence for each thing that is missing, with what mends it.
pub async fn missing(client: &Client, place: &Place) -> kube::Result<Vec<String>> {
    let (mut definitions, rights) = tokio::try_join!(missing_definitions(client), missing_rights(client, place))?;
    definitions.extend(rights);
    Ok(definitions)
}

async fn missing_definitions(client: &Client) -> kube::Result<Vec<String>> {
    let dataset = Dataset::crd();
    let Some(version) = dataset.spec.versions.first() else { return Ok(Vec::new()) };
    let served: BTreeSet<String> = match client.list_api_group_resources(&format!("{GROUP}/{}", version.name)).await {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(kube::Error::Api(status)) if status.code == 404 => BTreeSet::new(),
        Err(error) => return Err(error),
    };
    let all = [Dataset::crd_name(), CacheRuntime::crd_name(), DataLoad::crd_name()];
    let plural = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let missing = all.into_iter().filter(|name| !served.contains(&plural(name)));
    let sentence = |name| {
        format!(
            "CustomResourceDefinition {name} is not installed in version {}; install the chart's CRDs",
            version.name
        )
    };
    Ok(missing.map(sentence).collect())
}

async fn missing_rights(client: &Client, place: &Place) -> kube::Result<Vec<String>> {
    let lacks = try_join_all(RIGHTS.iter().map(|right| refused(client, place, right))).await?;
    let lacks = RIGHTS.iter().zip(lacks).filter(|(_, verbs)| !verbs.is_empty());
    Ok(lacks.map(|(right, verbs)| lack(right, &verbs, place)).collect())
}

/// The verbs that are not granted.
async fn refused(client: &Client, place: &Place, right: &'static Right) -> kube::Result<Vec<&'static str>> {
    let mut refused = Vec::new();
    for verb in right.verbs {
        if !may(client, place, right, verb).await? {
            refused.push(*verb);
        }
    }
    Ok(refused)
}

/// Empty for all namespaces, and for what is in none.
fn namespace<'a>(right: &Right, place: &'a Place) -> &'a str {
    match right.scope {
        Scope::Watched => place.watched.as_deref().unwrap_or_default(),
        Scope::Own => &place.own,
        Scope::Cluster => "",
    }
}

fn lack(right: &Right, verbs: &[&str], place: &Place) -> String {
    let at = match (right.scope, namespace(right, place)) {
        (Scope::Cluster, _) => String::new(),
        (_, "") => " in all namespaces".into(),
        (_, namespace) => format!(" in namespace '{namespace}'"),
    };
    format!(
        "the operator may not {} {}{at}; upgrade the Helm release, or grant it to the operator's ServiceAccount",
        verbs.join(", "),
        right.object()
    )
}

async fn may(client: &Client, place: &Place, right: &Right, verb: &str) -> kube::Result<bool> {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let attributes = ResourceAttributes {
        namespace: Some(namespace(right, place).into()),
        verb: Some(verb.into()),
        group: Some(right.group.into()),
        resource: Some(resource.into()),
        subresource: Some(subresource.into()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named_with_its_place_and_the_mend() {
        let in_all = Place { own: "penstock-system".into(), watched: None };
        let in_one = Place { watched: Some("research".into()), ..in_all.clone() };
        let right = |resource: &str| RIGHTS.iter().find(|right| right.resource == resource).unwrap();
        for (resource, place, words) in [
            ("datasets/status", &in_all, "may not list, watch datasets/status.penstock.dev in all namespaces; upgrade"),
            ("pods", &in_one, "may not list, watch pods in namespace 'research'; upgrade the Helm release"),
            ("persistentvolumes", &in_one, "may not list, watch persistentvolumes; upgrade the Helm release"),
            ("leases", &in_one, "leases.coordination.k8s.io in namespace 'penstock-system'; upgrade"),
        ] {
            let sentence = lack(right(resource), &["list", "watch"], place);
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
