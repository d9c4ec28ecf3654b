//! What varies in the objects, a table for each part.

use penstock_placement::MemberList;

use super::*;
use crate::controller::plan::read_members;

fn pod_spec(plans: &Plans) -> Value {
    json!(statefulset(&plans.blueprint()))["spec"]["template"]["spec"].clone()
}

#[test]
fn memory_tiers_are_added_to_what_the_worker_itself_takes() {
    // The MEM tier of the minimal pair has 1Gi.
    for (resources, requests, limits) in [
        (json!({}), json!({"memory": "1280Mi"}), json!({"memory": "2Gi"})),
        (
            json!({"requests": {"memory": "512Mi"}, "limits": {"memory": "768Mi"}}),
            json!({"memory": "1536Mi"}),
            json!({"memory": "1792Mi"}),
        ),
        // The one that is not stated never contradicts the other.
        (json!({"requests": {"memory": "3Gi"}}), json!({"memory": "4Gi"}), json!({"memory": "4Gi"})),
        (json!({"limits": {"memory": "128Mi"}}), json!({"memory": "1152Mi"}), json!({"memory": "1152Mi"})),
        (json!({"limits": {"memory": "2Gi"}}), json!({"memory": "1280Mi"}), json!({"memory": "3Gi"})),
        (
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "example.org/gpu": "1"}}),
            json!({"cpu": "1", "memory": "1280Mi"}),
            json!({"cpu": "2", "example.org/gpu": "1", "memory": "2Gi"}),
        ),
    ] {
        let got = pod_spec(&Plans::with_worker(&json!({ "resources": resources })));
        let expected = json!({"requests": requests, "limits": limits});
        same(&resources.to_string(), &expected, &got["containers"][0]["resources"]);
    }
}

#[test]
fn tiers_on_the_nodes_disk_request_ephemeral_storage_and_no_memory() {
    let path = json!({"mediumType": "SSD", "quota": "1Gi", "path": "/mnt/ssd"});
    let claim = json!({"mediumType": "SSD", "quota": "1Gi", "volumeClaimTemplate": {"spec": {}}});
    let disk = json!({"mediumType": "SSD", "quota": "1Gi"});
    let (stated, limited) = (json!({"ephemeral-storage": "5Gi"}), json!({"ephemeral-storage": "6Gi"}));
    for (levels, resources, requested) in [
        (json!([disk]), json!({}), json!("1152Mi")),
        (json!([{"mediumType": "MEM", "quota": "1Gi"}, disk, disk]), json!({}), json!("2304Mi")),
        (json!([path]), json!({}), Value::Null),
        (json!([claim]), json!({}), Value::Null),
        (json!([disk]), json!({ "requests": stated }), json!("5Gi")),
        (json!([disk]), json!({ "limits": limited }), Value::Null),
    ] {
        let mut runtime = parse(golden!("minimal/runtime"));
        runtime["spec"]["tieredStore"]["levels"] = levels.clone();
        runtime["spec"]["worker"] = json!({ "resources": resources });
        let got = pod_spec(&Plans::new(&parse(golden!("minimal/dataset")), &runtime));
        let got = &got["containers"][0]["resources"];
        assert_eq!(got["requests"]["ephemeral-storage"], requested, "{levels} {resources}");
    }
    let got = pod_spec(&Plans::with_level(&disk));
    assert_eq!(got["containers"][0]["resources"]["limits"], json!({"memory": "1Gi"}));
}

#[test]
fn workers_have_the_account_that_the_runtime_names_and_a_token_only_when_asked() {
    for (account, name, token) in [
        (json!({}), "a-worker", false),
        (json!({"annotations": {"example.org/role": "r"}}), "a-worker", false),
        (json!({"name": "reader"}), "reader", false),
        (json!({"name": "reader", "automountToken": true}), "reader", true),
    ] {
        let got = pod_spec(&Plans::with_worker(&json!({ "serviceAccount": account })));
        let got = (got["serviceAccountName"].as_str().unwrap(), got["automountServiceAccountToken"].as_bool().unwrap());
        assert_eq!(got, (name, token), "{account}");
    }
}

#[test]
fn ids_are_fixed_or_the_platforms_and_what_the_runtime_says_wins() {
    let fixed =
        json!({"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"});
    let own =
        json!({"runAsUser": 7, "fsGroup": 8, "fsGroupChangePolicy": "Always", "seLinuxOptions": {"level": "s0:c1"}});
    let both = json!({"runAsGroup": 65532});
    for (ids, user, expected, mode) in [
        (Ids::Fixed, json!({}), vec![&fixed], 0o440),
        (Ids::Fixed, own.clone(), vec![&both, &own], 0o440),
        // Without a group of the pod, its own files must be readable for whoever it runs as.
        (Ids::Platform, json!({}), vec![], 0o444),
        (Ids::Platform, own.clone(), vec![&own], 0o440),
    ] {
        let mut plans = Plans::with_worker(&json!({ "securityContext": user }));
        plans.defaults.ids = ids;
        let got = pod_spec(&plans);
        let mut context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        for part in expected {
            context.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        same(&format!("{ids:?} {user}"), &context, &got["securityContext"]);
        assert_eq!(got["volumes"][0]["projected"]["defaultMode"], mode, "{ids:?} {user}");
    }
}

#[test]
fn the_installations_pull_secrets_serve_runtimes_without_their_own() {
    for (own, expected) in
        [(json!([]), json!([{"name": "ours"}])), (json!([{"name": "theirs"}]), json!([{"name": "theirs"}]))]
    {
        let mut plans = Plans::with_worker(&json!({ "imagePullSecrets": own }));
        plans.defaults.pull_secrets = vec!["ours".into()];
        assert_eq!(pod_spec(&plans)["imagePullSecrets"], expected, "{own}");
    }
}

#[test]
fn each_kind_of_level_has_its_volume() {
    for (level, volume) in [
        (json!({"mediumType": "MEM"}), json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}})),
        // What the file system itself takes is added: beyond the limit the kubelet would evict the pod.
        (json!({"mediumType": "SSD"}), json!({"emptyDir": {"sizeLimit": "1152Mi"}})),
        (
            json!({"mediumType": "HDD", "path": "/mnt/hdd"}),
            json!({"hostPath": {"path": "/mnt/hdd", "type": "DirectoryOrCreate"}}),
        ),
        (
            json!({"mediumType": "SSD", "volumeSource": {"hostPath": {"path": "/x", "type": "Directory"}}}),
            json!({"hostPath": {"path": "/x", "type": "Directory"}}),
        ),
        (
            json!({"mediumType": "MEM", "volumeSource": {"emptyDir": {"medium": "Memory"}}}),
            json!({"emptyDir": {"medium": "Memory"}}),
        ),
        (
            json!({"mediumType": "SSD", "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}),
            json!({"persistentVolumeClaim": {"claimName": "c"}}),
        ),
    ] {
        let (mut level, mut volume) = (level, volume);
        level["quota"] = json!("1Gi");
        volume["name"] = json!("penstock-tier-0");
        let plans = Plans::with_level(&level);
        same(&level.to_string(), &volume, &pod_spec(&plans)["volumes"][2]);
        assert_eq!(json!(statefulset(&plans.blueprint()))["spec"]["volumeClaimTemplates"], Value::Null);
    }
}

#[test]
fn a_claim_template_keeps_what_the_user_said_and_brings_its_volume_itself() {
    for (spec, modes, storage) in [
        (json!({}), json!(["ReadWriteOnce"]), "1152Mi"),
        (json!({"accessModes": ["ReadWriteOncePod"]}), json!(["ReadWriteOncePod"]), "1152Mi"),
        (json!({"resources": {"requests": {"storage": "5Gi"}}}), json!(["ReadWriteOnce"]), "5Gi"),
    ] {
        let template = json!({ "spec": spec });
        let plans = Plans::with_level(&json!({"mediumType": "SSD", "quota": "1Gi", "volumeClaimTemplate": template}));
        let expected = json!([{
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "penstock-tier-0"},
            "spec": {"accessModes": modes, "resources": {"requests": {"storage": storage}}}
        }]);
        let got = json!(statefulset(&plans.blueprint()));
        same(&spec.to_string(), &expected, &got["spec"]["volumeClaimTemplates"]);
        assert_eq!(pod_spec(&plans)["volumes"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn workers_spread_over_nodes_unless_the_user_has_an_order_of_their_own() {
    for (worker, spread) in [
        (json!({}), true),
        (json!({"nodeSelector": {"a": "b"}}), true),
        (json!({"affinity": {}}), false),
        (json!({"affinity": {"podAntiAffinity": {}}}), false),
    ] {
        let got = pod_spec(&Plans::with_worker(&worker));
        assert_eq!(got["topologySpreadConstraints"].is_array(), spread, "{worker}");
    }
}

#[test]
fn required_nodes_of_dataset_and_runtime_hold_together() {
    let term = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    let both = |a: &str, b: &str| json!({"matchExpressions": [{"key": a, "operator": "Exists"}, {"key": b, "operator": "Exists"}]});
    for (runtimes, datasets, expected) in [
        (vec![], vec!["d"], json!([term("d")])),
        (vec!["r"], vec![], json!([term("r")])),
        (vec!["r"], vec!["d"], json!([both("r", "d")])),
        (vec!["r", "s"], vec!["d", "e"], json!([both("r", "d"), both("r", "e"), both("s", "d"), both("s", "e")])),
    ] {
        let terms = |keys: &[&str]| {
            let terms: Vec<_> = keys.iter().map(|key| term(key)).collect();
            (!keys.is_empty()).then(|| json!({ "nodeSelectorTerms": terms }))
        };
        let (mut dataset, mut runtime) = (parse(golden!("minimal/dataset")), parse(golden!("minimal/runtime")));
        if let Some(required) = terms(&datasets) {
            dataset["spec"]["nodeAffinity"] = json!({ "required": required });
        }
        if let Some(required) = terms(&runtimes) {
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
            runtime["spec"]["worker"] = json!({ "affinity": affinity });
        }
        let got = pod_spec(&Plans::new(&dataset, &runtime));
        let got = &got["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        same("terms", &expected, &got["nodeSelectorTerms"]);
    }
}

#[test]
fn the_pod_template_is_the_same_whatever_the_mounts_and_other_when_tiers_change() {
    let dataset = parse(golden!("full/dataset"));
    let runtime = parse(golden!("full/runtime"));
    let template = |dataset: &Value, runtime: &Value| {
        let plans = Plans::new(dataset, runtime);
        json!(statefulset(&plans.blueprint()))["spec"]["template"].clone()
    };
    let before = template(&dataset, &runtime);
    let mut changed = dataset.clone();
    changed["spec"]["mounts"] = json!([{"mountPoint": "s3://elsewhere"}]);
    changed["spec"]["owner"] = json!({"uid": 5});
    changed["spec"]["consistency"] = json!({"mode": "Static"});
    assert_eq!(template(&changed, &runtime), before);
    for (field, value) in [("high", json!(0.99)), ("low", json!(0.1)), ("quota", json!("41Gi"))] {
        let mut changed = runtime.clone();
        changed["spec"]["tieredStore"]["levels"][0][field] = value;
        assert_ne!(template(&dataset, &changed), before, "{field}");
    }
}

#[test]
fn replicas_are_those_of_the_plan_and_the_time_of_a_hand_over_is_kept() {
    let mut plans = Plans::full();
    (plans.scaling.replicas, plans.scaling.drain_started) = (5, Some(1000));
    let got = statefulset(&plans.blueprint());
    assert_eq!(got.annotations()["penstock.dev/drain-started"], "1000");
    assert_eq!(got.spec.unwrap().replicas, Some(5));
}

#[test]
fn what_a_volume_says_of_the_cache_never_changes_once_it_is_there() {
    let plans = Plans::full();
    let b = plans.blueprint();
    let first = bound_volume(&b, "198.19.0.7", None);
    assert_eq!(bound_volume(&b, "198.19.0.8", Some(&first)).spec, first.spec);
    assert_eq!(cache_service(&b, Some("198.19.0.7")).spec.unwrap().cluster_ip.as_deref(), Some("198.19.0.7"));
    let ipv6 = bound_volume(&b, "fd00::7", None);
    assert_eq!(json!(ipv6)["spec"]["csi"]["volumeAttributes"]["endpoint"], "[fd00::7]:9440");
    let plans = Plans::minimal();
    let minimal = bound_volume(&plans.blueprint(), "198.19.0.7", None);
    let expected = json!({"dataset": "ns/a", "endpoint": "198.19.0.7:9440"});
    assert_eq!(json!(minimal)["spec"]["csi"]["volumeAttributes"], expected);
}

#[test]
fn a_member_list_is_read_back_and_one_that_cannot_be_read_is_empty() {
    let plans = Plans::full();
    assert_eq!(read_members(&members(&plans.blueprint())), plans.scaling.members);
    for data in [json!(null), json!({}), json!({"members.json": "{"}), json!({"other": "{}"})] {
        let map: ConfigMap = read(&json!({ "data": data }));
        assert_eq!(read_members(&map), MemberList::default(), "{data}");
    }
}

#[test]
fn quantities_are_written_in_the_largest_unit_that_is_exact() {
    for (bytes, expected) in [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1Ki"),
        (3 << 20, "3Mi"),
        ((1 << 30) + 1024, "1048577Ki"),
        (1 << 40, "1024Gi"),
        (2_000_000_000, "1953125Ki"),
        (u64::MAX, "18446744073709551615"),
    ] {
        assert_eq!(super::super::pod::bytes(bytes).0, expected);
    }
}

#[test]
fn claims_keep_the_storage_that_they_were_made_with_when_the_quota_changes() {
    let level = |quota: &str| json!({"mediumType": "SSD", "quota": quota, "volumeClaimTemplate": {"spec": {}}});
    let before = statefulset(&Plans::with_level(&level("1Gi")).blueprint());
    for quota in ["512Mi", "1Gi", "20Gi"] {
        let plans = Plans::with_level(&level(quota));
        let after = statefulset(&Blueprint { observed: Some(&before), ..plans.blueprint() }).spec.unwrap();
        assert_eq!(after.volume_claim_templates, before.spec.as_ref().unwrap().volume_claim_templates, "{quota}");
    }
}
