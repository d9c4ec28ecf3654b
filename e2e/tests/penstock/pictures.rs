//! The dashboard and the alerts, asked of a real Prometheus that scrapes what runs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use penstock_e2e::harness::{Case, Loop, Skip, blocking};
use penstock_e2e::kubectl::wait_for;
use penstock_testkit::process::{Spawn, free_port};
use penstock_testkit::tools;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(2);
const DATASET: &str = "drawn";
/// Panels that are empty where nothing is wrong, was scaled or loaded, or too little was read.
const MAY_BE_EMPTY: [&str; 6] = [
    "Why that many",
    "Hand-over",
    "DataLoads",
    "Errors of the stores",
    "Conditions that do not hold",
    "Predicted hit ratio by number of workers",
];

pub(crate) async fn prometheus_draws_the_dashboard_and_reads_the_alerts(case: &Case<'_>) -> Result<()> {
    // Prometheus runs on this machine and reaches the pods of its own cluster.
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let tree = case.store(&[("a", 5_000_000), ("b", 60_001)])?;
    case.serve(DATASET, 2, "64Mi").await?;
    let reader = Loop::start(case, "reader", DATASET, &tree, None).await?;
    let folder = tempfile::tempdir()?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let config = config(case).await?;
    std::fs::write(folder.path().join("prometheus.yml"), serde_json::to_vec(&config)?)?;
    let program = blocking(|| tools::debian("prometheus", "prometheus"))?;
    let args = [
        format!("--config.file={}", folder.path().join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", folder.path().join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    let prometheus = Spawn::new(program, folder.path().join("log")).args(args).start()?;
    reader.more(2).await?;
    for (title, query) in queries()? {
        let query = query.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$dataset", ".*");
        let wanted = usize::from(!MAY_BE_EMPTY.contains(&title.as_str()));
        wait_for(&format!("an answer for {title}: {query}"), LIMIT, || async {
            let found = ask(&address, "query", &query)?["result"].as_array().map_or(0, Vec::len);
            Ok((found >= wanted).then_some(()))
        })
        .await?;
    }
    // Whether they go off is tested without a cluster: other tests' objects are unwell on purpose.
    wait_for("all alerts to be evaluated", LIMIT, || async {
        let rules = ask(&address, "rules", "")?;
        let rules = rules["groups"][0]["rules"].as_array().context("no rules")?.clone();
        let failed = rules.iter().find(|rule| rule["health"] == "err");
        ensure!(failed.is_none(), "{failed:?}");
        Ok(rules.iter().all(|rule| rule["health"] == "ok").then_some(()))
    })
    .await?;
    blocking(|| drop(prometheus));
    reader.stop().await.map(drop)
}

/// What the `PodMonitor`s of the chart come to for the pods that run now.
async fn config(case: &Case<'_>) -> Result<Value> {
    let pods: Api<Pod> = Api::all(case.env.client());
    let mut targets = Vec::new();
    for (part, port) in [("operator", 8080), ("mount", 9442), ("worker", 9441)] {
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/component={part}"));
        for pod in pods.list(&selector).await? {
            let address =
                pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a pod has no address")?;
            let mut labels = json!({"namespace": pod.namespace(), "pod": pod.name_any()});
            if let Some(dataset) = pod.labels().get("penstock.dev/dataset") {
                labels["penstock_dev_dataset"] = json!(dataset);
            }
            targets.push(json!({"targets": [format!("{address}:{port}")], "labels": labels}));
        }
    }
    let job = json!({
        "job_name": "penstock", "scrape_interval": "2s", "scrape_timeout": "2s", "honor_labels": true,
        "static_configs": targets,
    });
    let alerts = tools::workspace_root().join("charts/penstock/files/alerts.yaml");
    Ok(json!({"scrape_configs": [job], "rule_files": [alerts], "global": {"evaluation_interval": "2s"}}))
}

/// Title and expression of all that the dashboard draws.
fn queries() -> Result<Vec<(String, String)>> {
    let text = std::fs::read(tools::workspace_root().join("charts/penstock/files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_slice(&text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |panel: &Value| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let title = text(&panel["title"]);
        targets.into_iter().map(move |target| (title.clone(), text(&target["expr"]))).collect::<Vec<_>>()
    };
    Ok(panels.iter().flat_map(of).collect())
}

/// `data` of an answer of Prometheus' HTTP API.
fn ask(address: &str, what: &str, query: &str) -> Result<Value> {
    let mut curl = std::process::Command::new(blocking(|| tools::debian("curl", "curl"))?);
    curl.args(["--silent", "--noproxy", "*", "--get", "--data-urlencode"]).arg(format!("query={query}"));
    let answer = blocking(|| tools::output(curl.arg(format!("http://{address}/api/v1/{what}"))));
    // It may not listen yet.
    let Ok(answer) = answer else { return Ok(Value::Null) };
    let answer: Value = serde_json::from_str(&answer).context(answer)?;
    ensure!(answer["status"] == "success", "{query}: {answer}");
    Ok(answer["data"].clone())
}
