//! What users get wrong. Each mistake has its message (field, value, mend) in a Condition and an Event or at admission,
//! crashes nothing, and is forgotten once it is mended.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::Api;
use kube::api::DeleteParams;
use penstock_e2e::harness::{Case, Skip, blocking};
use penstock_e2e::kubectl::condition;
use penstock_e2e::pods::Script;
use penstock_e2e::s3::SeaweedFs;
use serde_json::json;

use crate::says::{
    Said, complains, event, mend, no_more_crashed, nothing_crashed, operator_restarts, recovers, refused,
    worker_restarts,
};

/// A CacheRuntime of one worker with these levels.
fn runtime(name: &str, levels: &str) -> String {
    format!(
        "---\napiVersion: penstock.dev/v1alpha1\nkind: CacheRuntime\nmetadata: {{name: {name}}}\n\
         spec: {{replicas: 1, tieredStore: {{levels: [{levels}]}}}}\n"
    )
}

fn dataset(name: &str, mount: &str) -> String {
    format!(
        "---\napiVersion: penstock.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\nspec: {{mounts: [{mount}]}}\n"
    )
}

fn secret(name: &str, keys: &[(&str, &str)]) -> String {
    let data: Vec<_> = keys.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Secret\n\
         metadata: {{name: {name}, labels: {{penstock.dev/usable-by-datasets: 'true'}}}}\n\
         stringData: {{{}}}\n",
        data.join(", ")
    )
}

const SMALL: &str = "{mediumType: MEM, quota: 32Mi}";
const SECRET_KEY: (&str, &str) = ("secret-key", SeaweedFs::SECRET_KEY);
const ACCESS_KEY: (&str, &str) = ("access-key", SeaweedFs::ACCESS_KEY);

/// A pod reads one file of each Dataset.
async fn pods_read(case: &Case<'_>, names: &[&str], file: &str) -> Result<()> {
    let commands: Vec<_> = names.iter().map(|name| format!("sha256sum /data/{name}/{file}")).collect();
    let script = Script::new("reader", &commands.join("\n")).in_namespace(&case.namespace);
    let script = names.iter().fold(script, |script, name| script.claim(name, &format!("/data/{name}")));
    let printed = case.run(&script).await?;
    ensure!(printed.lines().count() == names.len(), "{printed}");
    Ok(())
}

pub(crate) async fn an_unknown_scheme_a_bad_quota_and_a_long_name_are_refused(case: &Case<'_>) -> Result<()> {
    let scheme = dataset("a", "{mountPoint: 'gopher://old/data', path: /}");
    refused(case, &scheme, &["spec.mounts[0].mountPoint", "'gopher://old/data'", "write s3://BUCKET/PREFIX"]).await?;
    let field = "spec.tieredStore.levels[0].quota";
    for (quota, value) in [("40 GB", "'40 GB'"), ("'0'", "'0'"), ("-1Gi", "'-1Gi'")] {
        let bad = runtime("a", &format!("{{mediumType: MEM, quota: {quota}}}"));
        refused(case, &bad, &[field, value, "such as 40Gi"]).await?;
    }
    let long = "market-data-of-all-exchanges-and-all-their-days";
    let good = "{mountPoint: 's3://market-data', path: /, options: {anonymous: 'true'}}";
    for manifest in [dataset(long, good), runtime(long, SMALL)] {
        refused(case, &manifest, &["metadata.name", long, "at most 45"]).await?;
    }
    // Mended, all of them are taken.
    case.apply(&dataset("a", good)).await?;
    case.apply(&dataset(&long[..45], good)).await?;
    case.apply(&runtime(&long[..45], SMALL)).await?;
    // Names of all objects fit, up to the pods'.
    case.wait_dataset(&long[..45], "Bound", "True").await?;
    case.wait_workers(&long[..45], 1).await
}

pub(crate) async fn a_missing_secret_one_without_the_label_and_a_missing_key_are_named(case: &Case<'_>) -> Result<()> {
    let before = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    case.apply(&[case.dataset_yaml("a"), runtime("a", SMALL)].concat()).await?;
    let words = ["spec.mounts[0]", "'access-key'", "Secret 's3'", "create it"];
    for kind in ["Dataset", "CacheRuntime"] {
        complains(case, kind, "a", Said::no("Ready", "SecretNotFound", &words)).await?;
    }
    let unlabelled = secret("s3", &[ACCESS_KEY, ("secretkey", "hush")]).replace("'true'", "'another'");
    case.apply(&unlabelled).await?;
    let words = ["'access-key'", "Secret 's3'", "kubectl label secret s3 penstock.dev/usable-by-datasets=a"];
    complains(case, "Dataset", "a", Said::no("Ready", "SecretNotAllowed", &words)).await?;
    case.apply(&secret("s3", &[ACCESS_KEY, ("secretkey", "hush")])).await?;
    let words = ["spec.mounts[0]", "'secret-key'", "Secret 's3'", "add it"];
    for kind in ["Dataset", "CacheRuntime"] {
        complains(case, kind, "a", Said::no("Ready", "SecretKeyNotFound", &words)).await?;
    }
    let shown = case.kubectl(&["get", "datasets,cacheruntimes,events", "-o", "yaml"])?;
    ensure!(!shown.contains("hush"), "a secret value is shown");
    case.apply(&case.secret_yaml()).await?;
    recovers(case, "Dataset", "a", "Bound", "Bound").await?;
    recovers(case, "Dataset", "a", "Ready", "WorkersReady").await?;
    pods_read(case, &["a"], "x").await?;
    nothing_crashed(case, &before).await
}

pub(crate) async fn wrong_credentials_an_unreachable_endpoint_and_a_missing_bucket_are_named(
    case: &Case<'_>,
) -> Result<()> {
    let before = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    let bucket = case.bucket();
    let absent = format!("{bucket}-absent");
    let endpoint = case.env.s3.endpoint();
    let nobody = format!("http://{}:9", case.env.cluster.host_address().context("no host address")?);
    let all = [
        case.secret_yaml(),
        secret("wrong", &[ACCESS_KEY, ("secret-key", "not-the-key")]),
        dataset("denied", &case.mount_yaml(bucket, "/").replace("name: s3", "name: wrong")),
        dataset("unreachable", &case.mount_yaml(bucket, "/").replace(&endpoint, &nobody)),
        dataset("bucketless", &case.mount_yaml(&absent, "/")),
        ["denied", "unreachable", "bucketless"].map(|name| runtime(name, SMALL)).concat(),
    ];
    case.apply(&all.concat()).await?;
    let source = format!("s3://{bucket}");
    let complaints: [(&str, &str, &[&str]); 3] = [
        ("denied", "UfsDenied", &["mount '/'", &source, "SignatureDoesNotMatch", "correct option secret-key"]),
        ("unreachable", "UfsUnreachable", &["mount '/'", &source, &nobody, "correct option endpoint"]),
        ("bucketless", "UfsMisconfigured", &["mount '/'", &absent, "correct the bucket in mountPoint"]),
    ];
    for (name, reason, words) in complaints {
        for kind in ["MountsHealthy", "Ready"] {
            complains(case, "Dataset", name, Said::no(kind, reason, words)).await?;
        }
        let shown = case.api("Dataset").get(name).await?.data;
        ensure!(shown["status"]["mounts"][0]["ready"] == false, "{shown}");
        ensure!(shown["status"]["phase"] == "Bound", "{shown}");
    }
    case.apply(&secret("wrong", &[ACCESS_KEY, SECRET_KEY])).await?;
    case.apply(&dataset("unreachable", &case.mount_yaml(bucket, "/"))).await?;
    blocking(|| {
        case.env.s3.create_bucket(&absent)?;
        case.env.s3.put(&absent, "x", b"here now")
    })?;
    for (name, ..) in complaints {
        recovers(case, "Dataset", name, "MountsHealthy", "MountsHealthy").await?;
        recovers(case, "Dataset", name, "Ready", "WorkersReady").await?;
    }
    pods_read(case, &complaints.map(|(name, ..)| name), "x").await?;
    nothing_crashed(case, &before).await
}

pub(crate) async fn a_claim_of_somebody_elses_is_left_alone(case: &Case<'_>) -> Result<()> {
    let before = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    let theirs = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\n\
        spec: {storageClassName: none, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    case.apply(theirs).await?;
    case.apply(&[case.secret_yaml(), case.dataset_yaml("a"), runtime("a", SMALL)].concat()).await?;
    let words = ["PersistentVolumeClaim 'a'", "is not Penstock's", "delete that PersistentVolumeClaim"];
    complains(case, "Dataset", "a", Said::no("Bound", "NameTaken", &words)).await?;
    complains(case, "CacheRuntime", "a", Said::no("Ready", "NameTaken", &words)).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(case.env.client(), &case.namespace);
    let claim = claims.get("a").await?;
    ensure!(claim.metadata.labels.is_none() && claim.metadata.owner_references.is_none(), "{:?}", claim.metadata);
    ensure!(claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.as_deref() == Some("none")), "{claim:?}");
    claims.delete("a", &DeleteParams::default()).await?;
    recovers(case, "Dataset", "a", "Bound", "Bound").await?;
    recovers(case, "Dataset", "a", "Ready", "WorkersReady").await?;
    pods_read(case, &["a"], "x").await?;
    nothing_crashed(case, &before).await
}

pub(crate) async fn of_two_runtimes_for_one_dataset_one_serves_and_the_other_is_told(case: &Case<'_>) -> Result<()> {
    let before = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    let named = |name: &str| case.dataset_yaml(name).replace("spec: {", "spec: {runtime: {name: fast}, ");
    case.apply(&[case.secret_yaml(), named("a"), runtime("a", SMALL), runtime("fast", SMALL)].concat()).await?;
    let words = ["Dataset 'a'", "CacheRuntime 'fast'", "delete this runtime"];
    complains(case, "CacheRuntime", "a", Said::no("Ready", "DatasetTaken", &words)).await?;
    case.wait_dataset("a", "Ready", "True").await?;
    // And the other way round: two Datasets for one runtime.
    case.apply(&named("b")).await?;
    let words = ["CacheRuntime 'fast'", "Dataset 'a'", "create a CacheRuntime"];
    complains(case, "Dataset", "b", Said::no("Ready", "RuntimeTaken", &words)).await?;
    pods_read(case, &["a"], "x").await?;
    case.api("CacheRuntime").delete("a", &DeleteParams::default()).await?;
    case.api("Dataset").delete("a", &DeleteParams::default()).await?;
    recovers(case, "Dataset", "b", "Ready", "WorkersReady").await?;
    pods_read(case, &["b"], "x").await?;
    nothing_crashed(case, &before).await
}

pub(crate) async fn a_tier_path_that_is_not_writable_is_named(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let path = format!("/var/lib/{}", case.namespace);
    let result = not_writable(case, &path).await;
    for node in case.env.cluster.nodes() {
        blocking(|| case.env.cluster.node_exec(node, &["rm", "-rf", &path]))?;
    }
    result
}

async fn not_writable(case: &Case<'_>, path: &str) -> Result<()> {
    let before = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    // The kubelet makes the directory, as root.
    let level = format!("{{mediumType: SSD, quota: 32Mi, path: {path}}}");
    case.apply(&[case.secret_yaml(), case.dataset_yaml("a"), runtime("a", &level)].concat()).await?;
    let words = ["spec.tieredStore.levels[0]", path, "is not writable", "let user 65532 write there"];
    complains(case, "CacheRuntime", "a", Said::no("TiersHealthy", "TierUnusable", &words)).await?;
    // Without a cache it serves all the same.
    pods_read(case, &["a"], "x").await?;
    let pod = case.kubectl(&["get", "pods", "-l", "app.kubernetes.io/component=worker", "-o", "name"])?;
    let node = case.kubectl(&["get", pod.trim(), "-o", "jsonpath={.spec.nodeName}"])?;
    blocking(|| case.env.cluster.node_exec(&node, &["chown", "65532", path]))?;
    recovers(case, "CacheRuntime", "a", "TiersHealthy", "TiersHealthy").await?;
    pods_read(case, &["a"], "x").await?;
    let cached = |object: &kube::core::DynamicObject| object.data.pointer("/status/cachedBytes") == Some(&1000.into());
    case.wait_object("CacheRuntime", "a", "1000 bytes cached", cached).await?;
    nothing_crashed(case, &before).await
}

pub(crate) async fn a_quota_larger_than_its_medium_is_named(case: &Case<'_>) -> Result<()> {
    let before = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    let all = [
        case.secret_yaml(),
        case.dataset_yaml("disk"),
        runtime("disk", "{mediumType: SSD, quota: 900Ti}"),
        case.dataset_yaml("memory"),
        runtime("memory", "{mediumType: MEM, quota: 8Ti}"),
    ];
    case.apply(&all.concat()).await?;
    let disk =
        ["disk-worker-0", "Insufficient ephemeral-storage", "quotas of the SSD and HDD levels", "900TiB", "lower"];
    let memory = ["memory-worker-0", "Insufficient memory", "quotas of the MEM levels", "8.00TiB", "lower"];
    for (name, words) in [("disk", disk), ("memory", memory)] {
        for kind in ["CacheRuntime", "Dataset"] {
            complains(case, kind, name, Said::no("Ready", "Unschedulable", &words)).await?;
        }
    }
    for (name, medium) in [("disk", "SSD"), ("memory", "MEM")] {
        let levels = json!([{"mediumType": medium, "quota": "32Mi"}]);
        mend(case, "CacheRuntime", name, json!({"spec": {"tieredStore": {"levels": levels}}})).await?;
    }
    // A new pod takes the old one's place, so that nobody reports for a moment: the Event is about the workers.
    for name in ["disk", "memory"] {
        recovers(case, "CacheRuntime", name, "Ready", "WorkersReady").await?;
    }
    let healthy = |object: &kube::core::DynamicObject| {
        condition(object, "TiersHealthy").is_some_and(|found| found["status"] == "True")
    };
    case.wait_object("CacheRuntime", "disk", "TiersHealthy", healthy).await?;
    recovers(case, "Dataset", "memory", "Ready", "WorkersReady").await?;
    pods_read(case, &["disk", "memory"], "x").await?;
    nothing_crashed(case, &before).await
}

pub(crate) async fn an_image_that_cannot_run_is_named(case: &Case<'_>) -> Result<()> {
    let operator = operator_restarts(case).await?;
    case.store(&[("x", 1000)])?;
    let programless = penstock_e2e::image::toolbox_name();
    let images = [
        ("absent", "penstock.test/absent:1", "ImageUnavailable", "cannot be had"),
        ("misnamed", "Penstock.test/NO:IMAGE:1", "ImageUnavailable", "cannot be had"),
        ("programless", programless.as_str(), "WorkerCrashing", "cannot be started"),
    ];
    let mut all = vec![case.secret_yaml()];
    for (name, image, ..) in images {
        let spec = format!("spec: {{worker: {{image: '{image}'}}, ");
        all.extend([case.dataset_yaml(name), runtime(name, SMALL).replace("spec: {", &spec)]);
    }
    case.apply(&all.concat()).await?;
    for (name, image, reason, what) in images {
        let pod = format!("{name}-worker-0");
        let words = [image, pod.as_str(), what, "mend spec.worker"];
        complains(case, "CacheRuntime", name, Said::no("Ready", reason, &words)).await?;
        complains(case, "Dataset", name, Said::no("Ready", reason, &words)).await?;
    }
    for (name, ..) in images {
        mend(case, "CacheRuntime", name, json!({"spec": {"worker": {"image": null}}})).await?;
    }
    for (name, ..) in images {
        recovers(case, "CacheRuntime", name, "Ready", "WorkersReady").await?;
        event(case, "Dataset", name, "Normal", "WorkersReady", &[]).await?;
    }
    // An image is changed in place, so that the pod remembers the crashes of the bad one.
    let workers = worker_restarts(case).await?;
    pods_read(case, &images.map(|(name, ..)| name), "x").await?;
    no_more_crashed(case, &operator, &workers).await
}

/// Secrets that a pair owns carry the mounts' key; the user's own stay theirs.
pub(crate) async fn secrets_of_users_are_never_written(case: &Case<'_>) -> Result<()> {
    case.store(&[("x", 1000)])?;
    case.apply(&[secret("a-worker", &[("theirs", "hush")]), case.secret_yaml()].concat()).await?;
    case.apply(&[case.dataset_yaml("a"), runtime("a", SMALL)].concat()).await?;
    let words = ["Secret 'a-worker'", "is not Penstock's", "delete that Secret"];
    complains(case, "Dataset", "a", Said::no("Ready", "NameTaken", &words)).await?;
    let secrets: Api<Secret> = Api::namespaced(case.env.client(), &case.namespace);
    let theirs = secrets.get("a-worker").await?.data.unwrap_or_default();
    ensure!(theirs.keys().eq(["theirs"]), "it has {:?} now", theirs.keys());
    secrets.delete("a-worker", &DeleteParams::default()).await?;
    recovers(case, "Dataset", "a", "Ready", "WorkersReady").await
}
