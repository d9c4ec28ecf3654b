use k8s_openapi::api::core::v1::Secret;

use super::*;

fn valid(spec: &Value, secrets: &Secrets) -> Result<ValidDataset, Invalid> {
    dataset(&dataset_of("a", spec), secrets)
}

fn secrets() -> Secrets {
    let data = [("id", "me"), ("secret", "hush")].map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()));
    let data = SecretData(data.into());
    [("keys".to_owned(), NamedSecret { data, usable_by: UsableBy::All })].into()
}

fn option(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

#[test]
fn the_whole_of_a_valid_dataset() {
    let spec = json!({
        "sharedOptions": {"region": "eu", "path-style": "true"},
        "sharedEncryptOptions": [option("access-key", "keys", "id"), option("secret-key", "keys", "id")],
        "mounts": [
            {"mountPoint": "s3://b/p", "name": "prices", "options": {"region": "us"},
             "encryptOptions": [option("secret-key", "keys", "secret")]},
            {"mountPoint": "local:///mnt/x", "name": "unused", "path": "/ref/sets"},
            {"mountPoint": "s3://c", "path": "/"}
        ]
    });
    let got = valid(&spec, &secrets()).unwrap();
    let mount = |source: &str, path: &str, region: &str, key: &str| ValidMount {
        source: source.into(),
        path: path.into(),
        options: [("path-style", "true"), ("region", region)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        secret_options: SecretData(
            [("access-key", "me"), ("secret-key", key)].map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into(),
        ),
    };
    let expected = [
        mount("s3://b/p", "prices", "us", "hush"),
        mount("local:///mnt/x", "ref/sets", "eu", "me"),
        mount("s3://c", "", "eu", "me"),
    ];
    assert_eq!(got.mounts, expected);
    assert!(!format!("{got:?}").contains("hush"));
    assert_eq!(dataset_of("a", &spec).spec.secret_names(), ["keys".to_owned()].into());
}

#[test]
fn mount_points_without_a_known_scheme_or_incomplete_ones_are_refused() {
    let field = "spec.mounts[0].mountPoint";
    let (schemes, s3) = ("s3://BUCKET/PREFIX or local:///PATH", "write s3://BUCKET/PREFIX");
    for (source, words) in [
        ("", [field, "''", schemes]),
        ("/data", [field, "'/data'", schemes]),
        ("nfs://server/x", [field, "'nfs://server/x'", schemes]),
        ("S3://b", [field, "'S3://b'", schemes]),
        ("s3:/b", [field, "'s3:/b'", schemes]),
        ("s3://", [field, "'s3://'", s3]),
        ("s3:///p", [field, "'s3:///p'", s3]),
        ("local://", [field, "'local://'", "write local:///PATH"]),
        ("local://data", [field, "'local://data'", "write local:///PATH"]),
    ] {
        let got = valid(&json!({"mounts": [{"mountPoint": source}]}), &Secrets::new());
        refused(source, got, Reason::InvalidSpec, words);
    }
}

#[test]
fn mounts_appear_at_plain_paths_that_no_other_has() {
    let (path, mend) = ("spec.mounts[0].path", "write one such as /data");
    let (second, another) = ("spec.mounts[1]", "give it another path or name");
    for (mounts, words) in [
        (json!([]), ["spec.mounts", "is empty", "name at least one mountPoint"]),
        (json!([{"path": "data"}]), [path, "'data'", mend]),
        (json!([{"path": ""}]), [path, "''", mend]),
        (json!([{"path": "/a/../b"}]), [path, "'/a/../b'", mend]),
        (json!([{"path": "/a/."}]), [path, "'/a/.'", mend]),
        (json!([{"path": "/a//b"}]), [path, "'/a//b'", mend]),
        (json!([{"path": "/a/"}]), [path, "'/a/'", mend]),
        (json!([{"path": "/a\u{0}"}]), [path, "'/a\u{0}'", mend]),
        (json!([{}, {}]), [second, "'/'", another]),
        (json!([{"name": "x"}, {"name": "x"}]), [second, "'/x'", another]),
        (json!([{"name": "x"}, {"name": "y", "path": "/x"}]), [second, "'/x'", another]),
        (json!([{"path": "/x/y"}, {"path": "/x/y"}]), [second, "'/x/y'", another]),
        (json!([{}, {"name": "y", "path": "/"}]), [second, "'/'", another]),
    ] {
        let mut spec = json!({ "mounts": mounts });
        for mount in spec["mounts"].as_array_mut().unwrap() {
            mount["mountPoint"] = json!("s3://b");
        }
        refused(&spec.to_string(), valid(&spec, &Secrets::new()), Reason::InvalidSpec, words);
    }
}

#[test]
fn a_secret_or_a_key_that_is_missing_is_named_and_no_other_key() {
    let (secret, key) = (Reason::SecretNotFound, Reason::SecretKeyNotFound);
    for (shared, own, reason, words) in [
        (vec![], vec![option("k", "no", "id")], secret, ["spec.mounts[0]: option 'k'", "Secret 'no'", "create it"]),
        (vec![option("k", "no", "id")], vec![], secret, ["option 'k'", "Secret 'no'", "correct encryptOptions"]),
        (
            vec![],
            vec![option("k", "keys", "x")],
            key,
            ["option 'k'", "key 'x' of Secret 'keys'", "no such key; add it"],
        ),
        (
            vec![option("k", "keys", "x")],
            vec![],
            key,
            ["spec.mounts[0]", "key 'x'", "add it or correct encryptOptions"],
        ),
        // The mount's own wins, so that the shared one is not missed.
        (vec![option("k", "no", "id")], vec![option("k", "keys", "x")], key, ["'k'", "'x'", "add it"]),
    ] {
        let mounts = json!([{"mountPoint": "s3://b", "encryptOptions": own}]);
        let spec = json!({"sharedEncryptOptions": shared, "mounts": mounts});
        let got = valid(&spec, &secrets());
        let message = &got.as_ref().unwrap_err().message;
        assert!(!message.contains("hush") && !message.contains("id, "), "{message}");
        refused(&spec.to_string(), got, reason, words);
    }
}

#[test]
fn a_secret_is_used_only_where_its_label_says_so() {
    let spec = json!({"mounts": [{"mountPoint": "s3://b", "encryptOptions": [option("k", "keys", "id")]}]});
    for (labels, allowed) in [
        (json!({}), false),
        (json!({"penstock.dev/usable-by-datasets": "true"}), true),
        (json!({"penstock.dev/usable-by-datasets": "a"}), true),
        (json!({"penstock.dev/usable-by-datasets": "b"}), false),
        (json!({"penstock.dev/usable-by-datasets": "false"}), false),
        (json!({"penstock.dev/usable-by-datasets": ""}), false),
    ] {
        let secret = json!({"metadata": {"name": "keys", "labels": labels}, "data": {"id": "aHVzaA=="}});
        let secret: Secret = serde_json::from_value(secret).unwrap();
        let got = valid(&spec, &[("keys".to_owned(), NamedSecret::from(&secret))].into());
        if allowed {
            assert_eq!(got.unwrap().mounts[0].secret_options.0["k"], b"hush", "{labels}");
        } else {
            let mend = "kubectl label secret keys penstock.dev/usable-by-datasets=a";
            refused(&labels.to_string(), got, Reason::SecretNotAllowed, ["option 'k'", "Secret 'keys'", mend]);
        }
    }
}

#[test]
fn a_secret_that_a_mount_does_without_is_not_asked_for() {
    let spec = json!({
        "sharedEncryptOptions": [option("k", "no", "id")],
        "mounts": [{"mountPoint": "s3://b", "options": {"k": "plain"}}]
    });
    assert!(dataset_of("a", &spec).spec.secret_names().is_empty());
    assert_eq!(valid(&spec, &Secrets::new()).unwrap().mounts[0].options["k"], "plain");
}

#[test]
fn a_local_path_is_in_worker_pods_only_where_a_volume_is_mounted() {
    for (source, volumes, covered) in [
        ("local:///mnt/x", &["/mnt/x"][..], true),
        ("local:///mnt/x", &["/mnt/x/"], true),
        ("local:///mnt/x/sub", &["/other", "/mnt/x"], true),
        ("local:///mnt/x/", &["/mnt/x"], true),
        ("local:///mnt/x", &["/"], true),
        ("s3://mnt", &[], true),
        ("local:///mnt/x", &[], false),
        ("local:///mnt/x", &["/mnt/x/sub"], false),
        ("local:///mnt/xy", &["/mnt/x"], false),
        ("local:///mnt/x", &["/mnt/xy"], false),
    ] {
        let spec = json!({"mounts": [{"mountPoint": "s3://b", "name": "b"}, {"mountPoint": source, "name": "x"}]});
        let volumes: Vec<_> = volumes.iter().map(|at| json!({"name": "v", "mountPath": at})).collect();
        let volumes: Vec<_> = serde_json::from_value(json!(volumes)).unwrap();
        let got = uncovered_local_mount(&valid(&spec, &Secrets::new()).unwrap(), &volumes);
        assert_eq!(got.is_none(), covered, "{source} {volumes:?}");
        if let Some(invalid) = got {
            let words = ["spec.mounts[1].mountPoint", "no volume at /mnt/x", "spec.worker.volumeMounts"];
            refused::<()>(source, Err(invalid), Reason::InvalidSpec, words);
        }
    }
}
