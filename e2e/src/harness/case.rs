//! One test's own namespace on the cluster.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use penstock_testkit::tools;
use serde_json::json;

use super::{Env, Tree, blocking};
use crate::kubectl::{self, wait_condition, wait_for};
use crate::pods::{self, Finished, Script};
use crate::s3::SeaweedFs;

/// Generous: the machine may have two busy cores.
const LIMIT: Duration = Duration::from_mins(2);

/// What a test works with.
pub struct Case<'a> {
    pub env: &'a Env,
    pub namespace: String,
}

impl<'a> Case<'a> {
    pub(super) async fn begin(env: &'a Env, test: &str) -> Result<Self> {
        let case = Self { env, namespace: namespace_of(test) };
        let api: Api<Namespace> = Api::all(env.client());
        if api.get_opt(&case.namespace).await?.is_some() {
            case.end().await.context("removing what an earlier run left")?;
        }
        let namespace = serde_json::from_value(json!({"metadata": {"name": case.namespace}}))?;
        api.create(&PostParams::default(), &namespace).await.context("creating the test's namespace")?;
        // Pods cannot be created before it is there.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(env.client(), &case.namespace);
        wait_for("the default service account", LIMIT, || async { Ok(accounts.get_opt("default").await?) }).await?;
        Ok(case)
    }

    /// Deletes the namespace with all that is in it and waits until it is gone, volumes included.
    pub(super) async fn end(&self) -> Result<()> {
        self.end_workers().await?;
        let api: Api<Namespace> = Api::all(self.env.client());
        match api.delete(&self.namespace, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result?),
        }
        let gone = wait_for("the test's namespace to be gone", Duration::from_secs(90), || async {
            Ok(api.get_opt(&self.namespace).await?.is_none().then_some(()))
        });
        if let Err(error) = gone.await {
            let left = api.get_opt(&self.namespace).await.ok().flatten().and_then(|namespace| namespace.status);
            return Err(error.context(format!("left in it: {}", serde_json::to_string(&left)?)));
        }
        self.wait_no_volumes().await
    }

    /// Deletes the runtimes and waits for the end of their pods: Kubernetes looks at a namespace under deletion again only
    /// after half of the longest grace period of its pods.
    async fn end_workers(&self) -> Result<()> {
        match self.api("CacheRuntime").delete_collection(&DeleteParams::background(), &ListParams::default()).await {
            // A test may end without the CRDs.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result?),
        }
        let pods: Api<Pod> = Api::namespaced(self.env.client(), &self.namespace);
        let workers = ListParams::default().labels("app.kubernetes.io/component=worker");
        wait_for("the workers' pods to be gone", LIMIT, || async {
            Ok(pods.list(&workers).await?.items.is_empty().then_some(()))
        })
        .await
    }

    /// Waits until no volume of this namespace is left.
    pub async fn wait_no_volumes(&self) -> Result<()> {
        let api: Api<PersistentVolume> = Api::all(self.env.client());
        let of_this = |volume: &PersistentVolume| {
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_deref()) == Some(&self.namespace)
        };
        wait_for("the namespace's PersistentVolumes to be gone", LIMIT, || async {
            let volumes = api.list(&ListParams::default()).await?;
            Ok((!volumes.iter().any(of_this)).then_some(()))
        })
        .await
    }

    /// The name of the test's bucket.
    pub fn bucket(&self) -> &str {
        &self.namespace
    }

    /// Makes the test's bucket with these files (path and length).
    pub fn store(&self, files: &[(&str, usize)]) -> Result<Tree> {
        blocking(|| Tree::store(&self.env.s3, self.bucket(), 1, files))
    }

    /// Applies YAML into the test's namespace.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        kubectl::apply_yaml_in(&self.env.client(), &self.namespace, yaml).await
    }

    /// Datasets, CacheRuntimes of the test's namespace.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("penstock.dev", "v1alpha1", kind));
        Api::namespaced_with(self.env.client(), &self.namespace, &resource)
    }

    /// Waits until the Dataset's condition `kind` is `status`.
    pub async fn wait_dataset(&self, name: &str, kind: &str, status: &str) -> Result<DynamicObject> {
        wait_condition(&self.api("Dataset"), name, kind, status, LIMIT).await
    }

    /// Waits until a Dataset or a CacheRuntime is as `wanted` says.
    pub async fn wait_object(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&DynamicObject) -> bool,
    ) -> Result<DynamicObject> {
        let api = self.api(kind);
        wait_for(&format!("{kind} {name}: {what}"), LIMIT, || async { Ok(api.get_opt(name).await?.filter(&wanted)) })
            .await
    }

    /// The Secret with the S3 server's keys: name `s3`.
    pub fn secret_yaml(&self) -> String {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s3, labels: {{penstock.dev/usable-by-datasets: 'true'}}}}\nstringData: {{access-key: {}, secret-key: {}}}\n",
            SeaweedFs::ACCESS_KEY,
            SeaweedFs::SECRET_KEY
        )
    }

    /// A mount of a bucket of the S3 server, as an element of `spec.mounts` in flow style.
    pub fn mount_yaml(&self, source: &str, path: &str) -> String {
        format!(
            "{{mountPoint: 's3://{source}', path: '{path}', \
              options: {{endpoint: '{}', region: us-east-1, path-style: 'true'}}, encryptOptions: [\
              {{name: access-key, valueFrom: {{secretKeyRef: {{name: s3, key: access-key}}}}}}, \
              {{name: secret-key, valueFrom: {{secretKeyRef: {{name: s3, key: secret-key}}}}}}]}}",
            self.env.s3.endpoint()
        )
    }

    /// A Dataset of the test's bucket, which never asks again what was read once.
    pub fn dataset_yaml(&self, name: &str) -> String {
        let mount = self.mount_yaml(self.bucket(), "/");
        format!(
            "---\napiVersion: penstock.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\nspec: {{consistency: {{mode: Static}}, mounts: [{mount}]}}\n"
        )
    }

    /// Its CacheRuntime with one MEM tier.
    pub fn runtime_yaml(&self, name: &str, replicas: u32, quota: &str) -> String {
        format!(
            "---\napiVersion: penstock.dev/v1alpha1\nkind: CacheRuntime\nmetadata: {{name: {name}}}\n\
             spec: {{replicas: {replicas}, tieredStore: {{levels: [{{mediumType: MEM, quota: {quota}}}]}}}}\n"
        )
    }

    /// Sets up Secret, Dataset and CacheRuntime, and waits until all workers serve.
    pub async fn serve(&self, name: &str, replicas: u32, quota: &str) -> Result<()> {
        let all = [self.secret_yaml(), self.dataset_yaml(name), self.runtime_yaml(name, replicas, quota)].concat();
        self.apply(&all).await?;
        self.wait_dataset(name, "Ready", "True").await?;
        self.wait_workers(name, replicas).await
    }

    /// Waits until this many workers are ready and no other is left.
    pub async fn wait_workers(&self, name: &str, replicas: u32) -> Result<()> {
        let count = u64::from(replicas);
        let what = format!("{replicas} workers");
        let wanted = |object: &DynamicObject| {
            let number = |field: &str| object.data.pointer(field).and_then(serde_json::Value::as_u64);
            number("/status/readyReplicas") == Some(count) && number("/status/replicas") == Some(count)
        };
        self.wait_object("CacheRuntime", name, &what, wanted).await.map(drop)
    }

    /// A pod's script in the test's namespace, with the Dataset at /data.
    pub fn script(&self, name: &str, claim: &str, script: &str) -> Script {
        Script::new(name, script).in_namespace(&self.namespace).claim(claim, "/data")
    }

    /// Runs a script to its end; what it printed.
    pub async fn run(&self, script: &Script) -> Result<String> {
        pods::run_ok(&self.env.client(), script, LIMIT).await
    }

    /// Starts all scripts, then waits for the end of all; an exit code other than 0 is an error.
    pub async fn run_all(&self, scripts: &[Script]) -> Result<Vec<Finished>> {
        let client = self.env.client();
        for script in scripts {
            pods::start(&client, script).await?;
        }
        let mut all = Vec::new();
        for script in scripts {
            let finished = pods::finish(&client, &self.namespace, &script.name, LIMIT).await?;
            ensure!(finished.exit_code == 0, "pod {} on {}: {}", script.name, finished.node, finished.logs);
            all.push(finished);
        }
        for script in scripts {
            pods::kill(&client, &self.namespace, &script.name).await?;
        }
        Ok(all)
    }

    /// Waits until a pod's log has this line.
    pub async fn wait_log(&self, pod: &str, line: &str) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.env.client(), &self.namespace);
        wait_for(&format!("{line:?} in the log of {pod}"), LIMIT, || async {
            let logs = api.logs(pod, &LogParams::default()).await?;
            Ok(logs.lines().any(|found| found == line).then_some(()))
        })
        .await
    }

    /// Runs the real kubectl in the test's namespace; what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut kubectl = Command::new(tools::debian("kubectl", "kubernetes-client")?);
        kubectl.arg("--kubeconfig").arg(self.env.cluster.kubeconfig()).args(["--namespace", &self.namespace]);
        kubectl.args(args).env("NO_PROXY", "*").env("no_proxy", "*");
        blocking(|| tools::output(&mut kubectl))
    }

    /// Writes what helps to understand a failure to `target/e2e/NAMESPACE.txt`.
    pub(super) fn write_diagnostics(&self, error: &str) {
        let mut text = format!("{error}\n");
        let system = self.env.system_namespace();
        let questions: [&[&str]; 8] = [
            &["get", "datasets,cacheruntimes,statefulsets,pods,pvc,pv", "-o", "wide"],
            &["get", "datasets,cacheruntimes", "-o", "yaml"],
            &["describe", "pods"],
            &["get", "events"],
            &["logs", "-l", "app.kubernetes.io/component=worker", "--tail=100", "--prefix"],
            &["logs", "-n", system, "-l", "app.kubernetes.io/component=operator", "--tail=200"],
            &["logs", "-n", system, "-l", "app.kubernetes.io/component=mount", "--tail=100", "--prefix"],
            &["logs", "-n", system, "-l", "app.kubernetes.io/component=keeper", "--tail=20", "--prefix"],
        ];
        for question in questions {
            let answer = self.kubectl(question).unwrap_or_else(|error| format!("{error:#}"));
            text.extend(["\n=== kubectl ", &question.join(" "), "\n", &answer, "\n"]);
        }
        let folder: PathBuf = tools::workspace_root().join("target/e2e");
        let path = folder.join(format!("{}.txt", self.namespace));
        match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text)) {
            Ok(()) => println!("state of the cluster at the failure: {}", path.display()),
            Err(error) => println!("could not write {}: {error}", path.display()),
        }
    }
}

/// `module::a_test` becomes `e2e-a-test`, cut to what buckets and namespaces allow with room for more.
fn namespace_of(test: &str) -> String {
    let name = test.rsplit("::").next().unwrap_or(test).replace('_', "-");
    let cut: String = name.chars().take(40).collect();
    format!("e2e-{}", cut.trim_end_matches('-'))
}
