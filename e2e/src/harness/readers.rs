//! Pods that read a Dataset and check every byte.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams};

use super::{Case, Tree};
use crate::kubectl::wait_for;
use crate::pods::{self, Script};

/// A shell function `check` that reads every file named by standard input (as `sha256sum` lists them) past the kernel's page
/// cache, and ends the shell at the first error or wrong byte.
const CHECK: &str = r#"check() {
  while read -r want file; do
    got=$(dd "if=$file" bs=1M iflag=direct 2>/tmp/error | sha256sum)
    if [ "${got%% *}" != "$want" ]; then echo "WRONG $file ${got%% *}, not $want"; cat /tmp/error; ls -l "$file"; exit 1; fi
  done
}
"#;

/// A script that reads every file of the tree below /data once and checks it; what the kernel has cached does not count.
pub fn checked_pass(tree: &Tree) -> String {
    format!("{CHECK}check <<'END'\n{}END\n", tree.sums("/data/"))
}

/// A pod that reads and checks again and again until told to stop.
pub struct Loop<'a> {
    case: &'a Case<'a>,
    name: String,
}

impl<'a> Loop<'a> {
    /// Starts one; returns once it has read everything once.
    pub async fn start(case: &'a Case<'a>, name: &str, claim: &str, tree: &Tree, node: Option<&str>) -> Result<Self> {
        let script = format!(
            "{CHECK}pass=0\nwhile [ ! -e /tmp/stop ]; do check <<'END'\n{}END\npass=$((pass+1)); echo pass $pass; done",
            tree.sums("/data/")
        );
        let mut pod = Script::new(name, &script).in_namespace(&case.namespace).claim(claim, "/data");
        pod.node = node.map(str::to_owned);
        pods::start(&case.env.client(), &pod).await?;
        let reader = Self { case, name: name.to_owned() };
        reader.wait_passes(1).await?;
        Ok(reader)
    }

    /// Waits for this many more passes.
    pub async fn more(&self, passes: u64) -> Result<()> {
        let now = self.passes().await?;
        self.wait_passes(now + passes).await
    }

    /// How often it has read everything.
    ///
    /// # Errors
    /// When it has ended: it ends by itself only after an error or a wrong byte.
    pub async fn passes(&self) -> Result<u64> {
        let api: Api<Pod> = Api::namespaced(self.case.env.client(), &self.case.namespace);
        let phase = api.get(&self.name).await?.status.and_then(|status| status.phase).unwrap_or_default();
        let params = LogParams { tail_lines: Some(5), ..LogParams::default() };
        // A container that only begins has no log.
        let logs = api.logs(&self.name, &params).await.unwrap_or_default();
        if matches!(phase.as_str(), "Failed" | "Succeeded") {
            bail!("reader {} ended ({phase}):\n{logs}", self.name);
        }
        let passes = logs.lines().rev().find_map(|line| line.strip_prefix("pass ")?.parse().ok());
        Ok(passes.unwrap_or(0))
    }

    /// Ends the reader; returns its number of passes.
    ///
    /// # Errors
    /// When it has seen an error or a wrong byte.
    pub async fn stop(self) -> Result<u64> {
        let passes = self.passes().await?;
        let api: Api<Pod> = Api::namespaced(self.case.env.client(), &self.case.namespace);
        // With grace: a pod that is forced away is gone from the API while its process still reads.
        api.delete(&self.name, &DeleteParams::default()).await?;
        wait_for(&format!("reader {} to be gone", self.name), Duration::from_mins(1), || async {
            Ok(api.get_opt(&self.name).await?.is_none().then_some(()))
        })
        .await?;
        ensure!(passes > 0, "reader {} has read nothing", self.name);
        Ok(passes)
    }

    async fn wait_passes(&self, wanted: u64) -> Result<()> {
        let limit = Duration::from_mins(2);
        let what = format!("pass {wanted} of reader {}", self.name);
        let result = wait_for(&what, limit, || async {
            match self.passes().await {
                Ok(passes) => Ok((passes >= wanted).then_some(Ok(()))),
                // The API server may be away: only the reader's own end is final.
                Err(error) if error.is::<kube::Error>() => Err(error),
                Err(error) => Ok(Some(Err(error))),
            }
        });
        result.await.with_context(|| format!("reader {}", self.name))?
    }
}
