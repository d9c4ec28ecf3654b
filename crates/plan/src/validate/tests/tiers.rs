use penstock_api::autoscaling::ScaleIn;

use super::*;

fn levels(levels: &Value) -> Result<ValidRuntime, Invalid> {
    runtime(&runtime_of("a", &json!({"tieredStore": {"levels": levels}})))
}

#[test]
fn the_whole_of_a_valid_runtime() {
    let spec = json!({
        "replicas": 3, "drainTimeoutSeconds": 7, "client": {"readahead": "64Mi"},
        "tieredStore": {"levels": [
            {"mediumType": "MEM", "quota": "16Mi"},
            {"mediumType": "SSD", "quota": "1.5Gi", "path": "/mnt/ssd", "high": 1, "low": 0.5},
            {"mediumType": "HDD", "quota": "2e12"}
        ]}
    });
    let got = runtime(&runtime_of("a", &spec)).unwrap();
    let tier = |medium, quota, high, low, path: Option<&str>| ValidTier {
        medium,
        quota,
        high,
        low,
        path: path.map(str::to_owned),
    };
    let tiers = vec![
        tier(Medium::Mem, 16 << 20, 0.95, 0.9, None),
        tier(Medium::Ssd, 3 << 29, 1.0, 0.5, Some("/mnt/ssd")),
        tier(Medium::Hdd, 2_000_000_000_000, 0.95, 0.9, None),
    ];
    let (weight, memory) = (got.weight(), got.memory());
    let drain_timeout = Duration::from_secs(7);
    assert_eq!(
        got,
        ValidRuntime {
            replicas: 3,
            tiers,
            drain_timeout,
            drain_bandwidth: None,
            scale_in: ScaleIn::HandOver,
            readahead: Some(64 << 20)
        }
    );
    assert_eq!((weight, memory), ((16 << 20) + (3 << 29) + 2_000_000_000_000, 16 << 20));
}

#[test]
fn what_is_not_said_of_a_runtime_has_defaults() {
    let got = runtime(&runtime_of("a", &one_level())).unwrap();
    assert_eq!((got.replicas, got.drain_timeout, got.readahead), (1, Duration::from_mins(10), None));
}

#[test]
fn quotas_that_are_none_or_too_small_are_refused() {
    let field = "spec.tieredStore.levels[1].quota";
    for (quota, words) in [
        ("lots", [field, "'lots'", "such as 40Gi"]),
        ("", [field, "''", "such as 40Gi"]),
        ("-1Gi", [field, "'-1Gi'", "of 0 or more"]),
        ("8Ei", [field, "'8Ei'", "write a smaller quantity"]),
        ("0", [field, "'0'", "write 16Mi or more"]),
        ("16", [field, "'16'", "write 16Mi or more"]),
        ("16777215", [field, "'16777215'", "write 16Mi or more"]),
        ("16M", [field, "'16M'", "write 16Mi or more"]),
    ] {
        let got = levels(&json!([{"mediumType": "MEM", "quota": "16Mi"}, {"mediumType": "SSD", "quota": quota}]));
        refused(quota, got, Reason::InvalidSpec, words);
    }
}

#[test]
fn watermarks_that_are_not_in_order_are_refused() {
    for (low, high, words) in [
        (0.95, 0.9, ["levels[0]", "low 0.95 and high 0.9", "write low 0.9 and high 0.95"]),
        (0.9, 0.9, ["levels[0]", "low 0.9 and high 0.9", "write low"]),
        (0.0, 0.9, ["levels[0]", "low 0 and", "write low"]),
        (-0.5, 0.9, ["levels[0]", "low -0.5 and", "write low"]),
        (0.9, 1.01, ["levels[0]", "high 1.01", "high 0.95"]),
    ] {
        let got = levels(&json!([{"mediumType": "MEM", "quota": "1Gi", "low": low, "high": high}]));
        refused(&format!("{low} {high}"), got, Reason::InvalidSpec, words);
    }
    let mut runtime = runtime_of("a", &one_level());
    runtime.spec.tiered_store.levels[0].low = f64::NAN;
    refused("NaN", super::runtime(&runtime), Reason::InvalidSpec, ["levels[0]", "low NaN", "write low"]);
}

#[test]
fn levels_have_at_most_one_place_and_no_two_have_the_same() {
    let ssd = |fields: Value| {
        let mut level = json!({"mediumType": "SSD", "quota": "1Gi"});
        level.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        level
    };
    let (source, claim) = (json!({"emptyDir": {}}), json!({"spec": {}}));
    let keep = "keep one of them";
    let own = "give each level a directory of its own";
    for (level, words) in [
        (json!([]), ["spec.tieredStore.levels", "is empty", "name at least one level"]),
        (json!([ssd(json!({"path": "ssd"}))]), ["levels[0].path", "'ssd'", "such as /mnt/cache"]),
        (json!([ssd(json!({"path": "/a", "volumeSource": source}))]), ["levels[0]", "volumeSource", keep]),
        (json!([ssd(json!({"path": "/a", "volumeClaimTemplate": claim}))]), ["levels[0]", "path", keep]),
        (json!([ssd(json!({"volumeSource": source, "volumeClaimTemplate": claim}))]), ["levels[0]", "more than", keep]),
        (json!([ssd(json!({"path": "/a"})), ssd(json!({"path": "/a"}))]), ["levels[1].path", "'/a'", own]),
        (json!([ssd(json!({"path": "/a/"})), ssd(json!({})), ssd(json!({"path": "/a"}))]), ["levels[2]", "'/a'", own]),
    ] {
        refused(&level.to_string(), levels(&level), Reason::InvalidSpec, words);
    }
    assert!(levels(&json!([ssd(json!({"path": "/a"})), ssd(json!({"path": "/a/b"})), ssd(json!({}))])).is_ok());
}

#[test]
fn a_readahead_that_is_no_number_of_bytes_is_refused() {
    let field = "spec.client.readahead";
    for (readahead, words) in [
        ("far", [field, "'far'", "such as 40Gi"]),
        ("-1", [field, "'-1'", "of 0 or more"]),
        ("9e18Gi", [field, "'9e18Gi'", "suffix"]),
    ] {
        let mut spec = one_level();
        spec["client"] = json!({ "readahead": readahead });
        refused(readahead, runtime(&runtime_of("a", &spec)), Reason::InvalidSpec, words);
    }
}
