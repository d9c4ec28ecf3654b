//! What the chart renders, over tables of values, and how Helm installs it on an API server. Needs no nodes.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use penstock_testkit::control_plane::ControlPlane;
use penstock_testkit::tools;
use serde_json::{Value, json};

const NAMESPACE: &str = "system";

/// The objects of a release with these values, or what Helm says.
fn render(release: &str, values: &Value) -> Result<Vec<Value>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), values.to_string()).unwrap();
    let mut helm = Command::new(tools::helm().unwrap());
    helm.args(["template", release]).arg(tools::workspace_root().join("charts/penstock"));
    helm.args(["--namespace", NAMESPACE, "--kube-version", "1.34.4", "--values"]).arg(file.path());
    let text = tools::output(&mut helm).map_err(|error| format!("{error:#}"))?;
    Ok(serde_saphyr::from_multiple::<Value>(&text).unwrap().into_iter().filter(|object| !object.is_null()).collect())
}

fn rendered(values: &Value) -> Vec<Value> {
    render("penstock", values).unwrap()
}

/// Kind, namespace and name.
fn id(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

#[track_caller]
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} in {:?}", objects.iter().map(id).collect::<Vec<_>>()))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Pod templates by the name of what makes them.
fn templates(objects: &[Value]) -> BTreeMap<String, &Value> {
    let workloads = objects.iter().filter(|object| object["spec"]["template"].is_object());
    workloads.map(|object| (id(object).2, &object["spec"]["template"])).collect()
}

fn is_part_of(part: &Value, whole: &Value) -> bool {
    let part = part.as_object().expect("labels");
    !part.is_empty() && part.iter().all(|(key, value)| &whole[key] == value)
}

/// All that is off by default.
fn everything() -> Value {
    json!({
        "podMonitor": {"enabled": true},
        "dashboard": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "networkPolicy": {"enabled": true, "metricsFrom": [{"namespaceSelector": {}}]},
        "criticalPods": {"quota": true},
    })
}

#[test]
fn wrong_values_are_refused_with_the_name_of_the_field() {
    for (values, words) in [
        (json!({"replicas": 3}), ["''", "'replicas'"]),
        (json!({"operator": {"replica": 3}}), ["/operator", "'replica'"]),
        (json!({"operator": {"replicas": "3"}}), ["/operator/replicas", "want integer"]),
        (json!({"operator": {"digest": "sha256:1"}}), ["/operator/digest", "sha256:1"]),
        (json!({"operator": {"resources": {"limits": 3}, "tolerations": {}}}), ["/operator/tolerations", "want array"]),
        (json!({"operator": {"podDisruptionBudget": {"maxUnavailable": "half"}}}), ["maxUnavailable", "half"]),
        (json!({"worker": {"ids": "Random"}}), ["/worker/ids", "'Platform'"]),
        (json!({"mount": {"kubeletDir": "var/lib/kubelet"}}), ["/mount/kubeletDir", "var/lib/kubelet"]),
        (json!({"mount": {"seLinuxOptions": {"kind": "spc_t"}}}), ["/mount/seLinuxOptions", "'kind'"]),
        (json!({"imagePullSecrets": ["registry"]}), ["/imagePullSecrets/0", "want object"]),
        (json!({"commonLabels": {"cost": 3}}), ["/commonLabels/cost", "want string"]),
        (json!({"networkPolicy": {"apiServerPorts": [70000]}}), ["/networkPolicy/apiServerPorts/0", "65,535"]),
        (json!({"podMonitor": {"interval": "often"}}), ["/podMonitor/interval", "often"]),
        (json!({"crds": {"keep": "yes"}}), ["/crds/keep", "want boolean"]),
    ] {
        let said = render("penstock", &values).expect_err("refused");
        assert!(words.iter().all(|word| said.contains(word)), "{values}: {said}");
    }
}

#[test]
fn objects_have_the_recommended_labels_and_the_users() {
    let mut values = everything();
    values["commonLabels"] = json!({"cost-center": "quant"});
    for object in rendered(&values) {
        let labels = &object["metadata"]["labels"];
        let expected = json!({
            "app.kubernetes.io/name": "penstock", "app.kubernetes.io/instance": "penstock",
            "app.kubernetes.io/part-of": "penstock", "app.kubernetes.io/managed-by": "Helm", "cost-center": "quant"
        });
        assert!(is_part_of(&expected, labels), "{:?}: {labels}", id(&object));
        assert!(labels["helm.sh/chart"].as_str().unwrap().starts_with("penstock-"), "{:?}", id(&object));
    }
}

#[test]
fn names_follow_release_and_overrides() {
    for (release, values, expected) in [
        ("penstock", json!({}), "penstock-operator"),
        ("my-penstock", json!({}), "my-penstock-operator"),
        ("cache", json!({}), "cache-penstock-operator"),
        ("cache", json!({"nameOverride": "data"}), "cache-data-operator"),
        ("cache", json!({"fullnameOverride": "data"}), "data-operator"),
    ] {
        let objects = render(release, &values).unwrap();
        let args = &find(&objects, "Deployment", expected)["spec"]["template"]["spec"]["containers"][0]["args"];
        let lease = json!(format!("--lease-name={expected}"));
        assert!(args.as_array().unwrap().contains(&lease), "{args}");
    }
}

#[test]
fn no_name_is_given_twice_neither_in_one_release_nor_in_two() {
    let mut first = everything();
    first["operator"] = json!({"watchNamespace": "one"});
    let mut second = everything();
    second["operator"] = json!({"watchNamespace": "two"});
    (second["mount"], second["crds"]) = (json!({"enabled": false}), json!({"enabled": false}));
    let mut seen = BTreeSet::new();
    for (release, values) in [("penstock", &first), ("team-two", &second)] {
        for object in render(release, values).unwrap() {
            assert!(seen.insert(id(&object)), "{release}: {:?}", id(&object));
        }
    }
}

#[test]
fn selectors_find_the_pods_of_one_component() {
    let objects = rendered(&everything());
    let templates = templates(&objects);
    for object in &objects {
        let selector = match object["kind"].as_str().unwrap() {
            "Deployment" | "DaemonSet" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
            "PodMonitor" if id(object).2 != "penstock-worker" => &object["spec"]["selector"]["matchLabels"],
            "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
            _ => continue,
        };
        let found: Vec<_> = templates
            .iter()
            .filter(|(_, template)| is_part_of(selector, &template["metadata"]["labels"]))
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(found, [id(object).2], "{:?}", id(object));
    }
    // A new version of the chart alone replaces no pod.
    for (name, template) in templates {
        let labels = template["metadata"]["labels"].as_object().unwrap();
        assert!(!labels.contains_key("helm.sh/chart") && !labels.contains_key("app.kubernetes.io/version"), "{name}");
    }
}

#[test]
fn only_what_mounts_is_privileged_and_that_runs_as_root() {
    let objects = rendered(&json!({"mount": {"seLinuxOptions": {"type": "spc_t"}}}));
    for (name, template) in templates(&objects) {
        let containers = template["spec"]["containers"].as_array().unwrap();
        for security in containers.iter().map(|container| &container["securityContext"]) {
            if ["penstock-mount", "penstock-keeper"].contains(&name.as_str()) {
                let expected = json!({"runAsUser": 0, "runAsNonRoot": false, "seLinuxOptions": {"type": "spc_t"}});
                assert!(is_part_of(&expected, security), "{name}: {security}");
            } else {
                let pod = &template["spec"]["securityContext"];
                assert_eq!((&pod["runAsNonRoot"], &pod["runAsUser"]), (&json!(true), &json!(65532)), "{name}");
            }
            assert_eq!(security["privileged"] == true, name == "penstock-mount", "{name}");
            if name != "penstock-mount" {
                let expected = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
                assert!(is_part_of(&expected, security), "{name}: {security}");
            }
        }
    }
    let platform = json!({"operator": {"podSecurityContext": {"runAsUser": null, "runAsGroup": null}}});
    let objects = rendered(&platform);
    let operator = &find(&objects, "Deployment", "penstock-operator")["spec"]["template"]["spec"];
    assert_eq!(operator["securityContext"]["runAsUser"], Value::Null);
}

#[test]
fn what_is_set_for_a_component_reaches_its_pods() {
    let part = json!({
        "extraArgs": ["--extra=1"], "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
        "resources": {"limits": {"memory": "1Gi"}}, "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"},
        "nodeSelector": {"pool": "x"}, "tolerations": [{"key": "t", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}}, "priorityClassName": "high", "serviceAccount": {"create": false, "name": "mine"},
    });
    let objects = rendered(&json!({
        "operator": part, "mount": part, "podLabels": {"all": "pods"}, "imagePullSecrets": [{"name": "registry"}]
    }));
    for (kind, name) in [("Deployment", "penstock-operator"), ("DaemonSet", "penstock-mount")] {
        let template = &find(&objects, kind, name)["spec"]["template"];
        let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
        for field in ["nodeSelector", "tolerations", "affinity", "priorityClassName"] {
            assert_eq!(pod[field], part[field], "{name} {field}");
        }
        assert_eq!(pod["serviceAccountName"], "mine", "{name}");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]), "{name}");
        assert_eq!(container["args"].as_array().unwrap().last(), Some(&json!("--extra=1")), "{name}");
        assert_eq!(container["env"].as_array().unwrap().last(), Some(&part["extraEnv"][0]), "{name}");
        assert_eq!(container["resources"]["limits"], part["resources"]["limits"], "{name}");
        assert!(is_part_of(&json!({"a": "b", "all": "pods"}), &template["metadata"]["labels"]), "{name}");
        assert_eq!(template["metadata"]["annotations"]["c"], "d", "{name}");
        assert!(container["readinessProbe"].is_object(), "{name}");
    }
    assert!(of_kind(&objects, "ServiceAccount").iter().all(|account| id(account).2 == "penstock-uninstall"));
}

#[test]
fn images_come_from_registry_tag_and_digest_or_are_named_whole() {
    let digest = format!("sha256:{}", "0".repeat(64));
    for (image, part, expected) in [
        (json!({}), json!({}), "ghcr.io/penstock/penstock-worker:0.1.0".to_owned()),
        (json!({"registry": "r.example/x", "tag": "2"}), json!({}), "r.example/x/penstock-worker:2".into()),
        (json!({}), json!({ "digest": digest }), format!("ghcr.io/penstock/penstock-worker:0.1.0@{digest}")),
        (json!({"tag": "2"}), json!({"image": "r.example/w:3"}), "r.example/w:3".into()),
    ] {
        let objects = rendered(&json!({ "image": image, "worker": part }));
        let operator = &find(&objects, "Deployment", "penstock-operator")["spec"]["template"]["spec"];
        let argument = json!(format!("--worker-image={expected}"));
        assert!(operator["containers"][0]["args"].as_array().unwrap().contains(&argument), "{expected}");
    }
}

#[test]
fn workers_learn_their_pull_secrets_and_who_gives_their_ids() {
    let (all, own) = (json!([{"name": "all"}]), json!([{"name": "a"}, {"name": "b"}]));
    for (values, expected) in [
        (json!({ "imagePullSecrets": all }), vec!["--worker-image-pull-secret=all", "--worker-ids=fixed"]),
        (
            json!({ "imagePullSecrets": all, "worker": { "imagePullSecrets": own, "ids": "Platform" } }),
            vec!["--worker-image-pull-secret=a", "--worker-image-pull-secret=b", "--worker-ids=platform"],
        ),
    ] {
        let objects = rendered(&values);
        let args =
            &find(&objects, "Deployment", "penstock-operator")["spec"]["template"]["spec"]["containers"][0]["args"];
        let args: Vec<_> = args.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let of_workers = |arg: &&str| arg.starts_with("--worker-image-pull") || arg.starts_with("--worker-ids");
        assert_eq!(args.into_iter().filter(of_workers).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn crds_are_installed_kept_and_left_out_as_the_values_say() {
    for (values, count, policy) in [
        (json!({}), 3, json!("keep")),
        (json!({"crds": {"keep": false}}), 3, Value::Null),
        (json!({"crds": {"enabled": false}}), 0, Value::Null),
    ] {
        let objects = rendered(&values);
        let crds = of_kind(&objects, "CustomResourceDefinition");
        assert_eq!(crds.len(), count, "{values}");
        for crd in crds {
            assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], policy, "{values}");
            let plain = tools::workspace_root()
                .join(format!("crds/penstock.dev_{}.yaml", crd["spec"]["names"]["plural"].as_str().unwrap()));
            let plain: Value = serde_saphyr::from_str(&std::fs::read_to_string(plain).unwrap()).unwrap();
            assert_eq!(crd["spec"], plain["spec"]);
        }
    }
}

#[test]
fn optional_objects_are_there_when_asked_for() {
    let kinds = ["PodMonitor", "NetworkPolicy", "ResourceQuota", "PodDisruptionBudget", "ConfigMap", "PrometheusRule"];
    let counts = |values: &Value| kinds.map(|kind| of_kind(&rendered(values), kind).len());
    assert_eq!(counts(&json!({})), [0, 0, 0, 1, 0, 0]);
    assert_eq!(counts(&everything()), [3, 3, 1, 1, 1, 1]);
    assert_eq!(counts(&json!({"operator": {"replicas": 1}})), [0; 6]);
    assert!(of_kind(&rendered(&json!({"mount": {"enabled": false}})), "DaemonSet").is_empty());
    // Metrics are found in one way, not in two.
    for (monitor, annotated) in [(false, true), (true, false)] {
        let objects = rendered(&json!({"podMonitor": {"enabled": monitor}}));
        let template = &find(&objects, "Deployment", "penstock-operator")["spec"]["template"];
        assert_eq!(template["metadata"]["annotations"]["prometheus.io/scrape"].is_string(), annotated);
    }
}

#[test]
fn alerts_go_off_for_their_causes_and_else_not() {
    let objects = rendered(&everything());
    let rules = &of_kind(&objects, "PrometheusRule")[0]["spec"]["groups"][0]["rules"];
    let named: BTreeSet<_> = rules.as_array().unwrap().iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    let tests = tools::workspace_root().join("e2e/testdata/alerts.test.yaml");
    let text = std::fs::read_to_string(&tests).unwrap();
    let untested: Vec<_> = named.iter().filter(|name| !text.contains(&format!("alertname: {name}\n"))).collect();
    assert!(named.len() > 5 && untested.is_empty(), "without a test: {untested:?}");
    let mut promtool = Command::new(tools::debian("promtool", "prometheus").unwrap());
    tools::output(promtool.args(["test", "rules"]).arg(tests)).unwrap();
}

#[test]
fn roles_are_bound_to_accounts_that_exist() {
    for values in [json!({}), json!({"operator": {"watchNamespace": "one", "serviceAccount": {"name": "other"}}})] {
        let objects = rendered(&values);
        let ids: BTreeSet<_> = objects.iter().map(id).collect();
        for binding in objects.iter().filter(|object| id(object).0.ends_with("RoleBinding")) {
            let subject = &binding["subjects"][0];
            let account = ("ServiceAccount".into(), NAMESPACE.into(), subject["name"].as_str().unwrap().into());
            assert!(ids.contains(&account), "{values} {:?} binds {account:?}", id(binding));
            let role = (
                binding["roleRef"]["kind"].as_str().unwrap().to_owned(),
                id(binding).1,
                binding["roleRef"]["name"].as_str().unwrap().to_owned(),
            );
            let role = if role.0 == "ClusterRole" { (role.0, String::new(), role.2) } else { role };
            assert!(ids.contains(&role), "{values} {:?} binds {role:?}", id(binding));
        }
    }
}

#[test]
fn the_uninstall_hook_has_rights_of_its_own_in_the_watched_namespace_alone() {
    let hook = |object: &Value| object["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete";
    for (watched, kinds) in [("", ["ClusterRole", "ClusterRole", "Role"]), ("one", ["ClusterRole", "Role", "Role"])] {
        let objects = rendered(&json!({"operator": {"watchNamespace": watched}}));
        let hooks: Vec<_> = objects.iter().filter(|object| hook(object)).cloned().collect();
        let mut roles: Vec<_> = hooks.iter().map(id).map(|id| id.0).filter(|kind| kind.ends_with("Role")).collect();
        roles.sort();
        assert_eq!(roles, kinds, "{watched}");
        let job = find(&hooks, "Job", "penstock-uninstall");
        assert_eq!(job["spec"]["template"]["spec"]["serviceAccountName"], "penstock-uninstall");
        let role = &hooks.iter().find(|object| id(object).2 == "penstock-uninstall-objects").unwrap();
        assert_eq!(id(role).1, watched);
        for rule in role["rules"].as_array().unwrap() {
            let verbs = rule["verbs"].as_array().unwrap();
            assert!(rule["resources"] != json!(["secrets"]) || !verbs.contains(&json!("list")), "{rule}");
        }
    }
    assert!(!rendered(&json!({"uninstall": {"enabled": false}})).iter().any(hook));
}

/// Helm on an API server; nothing is waited for, since no pod ever runs.
fn helm(plane: &ControlPlane, command: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(tools::helm().unwrap());
    let home = plane.folder().join("helm");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, &home);
    }
    helm.env("NO_PROXY", "*").env("no_proxy", "*");
    helm.args(command).args(["--namespace", NAMESPACE, "--kubeconfig"]).arg(plane.kubeconfig());
    tokio::task::block_in_place(|| tools::output(&mut helm)).map_err(|error| format!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_takes_over_the_crds_of_an_earlier_chart_and_leaves_them_behind() {
    let plane = ControlPlane::start().await.unwrap();
    let chart = tools::workspace_root().join("charts/penstock").display().to_string();
    let install = ["install", "penstock", &chart, "--create-namespace"];
    // As Helm installs what is in a chart's `crds/`: without a word of the release.
    plane.install_crds(tools::workspace_root().join("crds")).await.unwrap();
    let refused = helm(&plane, &install).unwrap_err();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");

    helm(&plane, &[&install[..], &["--take-ownership"]].concat()).unwrap();
    let crds = Api::<CustomResourceDefinition>::all(plane.client());
    let crd = crds.get("datasets.penstock.dev").await.unwrap();
    assert_eq!(crd.annotations()["meta.helm.sh/release-name"], "penstock");
    helm(&plane, &["upgrade", "penstock", &chart, "--set", "commonLabels.upgraded=yes"]).unwrap();
    assert_eq!(crds.get("datasets.penstock.dev").await.unwrap().labels()["upgraded"], "yes");

    // The hook would wait for a pod.
    helm(&plane, &["uninstall", "penstock", "--no-hooks"]).unwrap();
    crds.get("datasets.penstock.dev").await.unwrap();
    helm(&plane, &install).unwrap();
}
