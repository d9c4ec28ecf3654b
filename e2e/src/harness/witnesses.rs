//! Readers on several nodes that read and check all the while, and what they notice of what happens around them.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams};

use super::{Case, Tree, blocking};
use crate::kubectl::wait_for;
use crate::pods::{self, Script};
use crate::reader::Report;

const LIMIT: Duration = Duration::from_mins(3);

/// One reader on each of some nodes.
pub struct Witnesses<'a> {
    case: &'a Case<'a>,
    pods: Vec<String>,
    /// Bytes of objects that the UFS had sent when all had been read once.
    fetched: u64,
}

impl<'a> Witnesses<'a> {
    /// Starts them; returns once each has read everything, so that the UFS has nothing more to send.
    pub async fn start(case: &'a Case<'a>, claim: &str, tree: &Tree, nodes: &[String]) -> Result<Self> {
        let command = format!("exec penstock-e2e-reader /data {} <<'END'\n{}END\n", tree.seed, tree.lengths());
        let mut pods = Vec::new();
        for node in nodes {
            let script = Script::new(&format!("witness-{node}"), &command).in_namespace(&case.namespace);
            pods::start(&case.env.client(), &script.claim(claim, "/data").on(node)).await?;
            pods.push(format!("witness-{node}"));
        }
        let mut witnesses = Self { case, pods, fetched: 0 };
        witnesses.whole_pass().await?;
        witnesses.fetched = witnesses.object_bytes()?;
        ensure!(witnesses.fetched >= tree.bytes(), "the server counted {} bytes of the first pass", witnesses.fetched);
        Ok(witnesses)
    }

    /// Runs `work`, waits until each has read everything once more from then on, and prints the longest pause.
    ///
    /// # Errors
    /// That of `work`, or when a read failed or gave a wrong byte, or the UFS had to send anything again.
    pub async fn during<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let before: Vec<usize> = self.all_reports().await?.iter().map(Vec::len).collect();
        let result = work.await.with_context(|| what.to_owned())?;
        self.whole_pass().await.with_context(|| format!("readers after {what}"))?;
        let since = self.all_reports().await?.into_iter().zip(before);
        let seen = Seen(since.map(|(reports, before)| reports.into_iter().skip(before).collect()).collect());
        let again = self.object_bytes()? - self.fetched;
        println!("    {what}: {seen}; {again} bytes of objects fetched again");
        ensure!(again == 0, "{what}: the UFS sent {again} bytes of objects again");
        Ok(result)
    }

    /// Ends them.
    ///
    /// # Errors
    /// When one has seen an error or a wrong byte.
    pub async fn stop(self) -> Result<()> {
        let pods = self.api();
        try_join_all(self.pods.iter().map(|pod| self.last_report(pod))).await?;
        for pod in &self.pods {
            pods.delete(pod, &DeleteParams::default()).await?;
        }
        for pod in &self.pods {
            wait_for(&format!("{pod} to be gone"), LIMIT, || async {
                Ok(pods.get_opt(pod).await?.is_none().then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until each has read everything from now on.
    async fn whole_pass(&self) -> Result<()> {
        try_join_all(self.pods.iter().map(|pod| self.whole_pass_of(pod))).await.map(drop)
    }

    async fn whole_pass_of(&self, pod: &str) -> Result<()> {
        let now = self.last_report(pod).await?.passes;
        // The one under way has begun before.
        let wanted = if now == 0 { 1 } else { now + 2 };
        wait_for(&format!("pass {wanted} of {pod}"), LIMIT, || async {
            match self.last_report(pod).await {
                Ok(report) => Ok((report.passes >= wanted).then_some(Ok(()))),
                // The API server or the kubelet may be away: only what the reader itself says is final.
                Err(error) if error.is::<kube::Error>() => Err(error),
                Err(error) => Ok(Some(Err(error))),
            }
        })
        .await?
    }

    /// The newest report; an empty one before the first.
    async fn last_report(&self, pod: &str) -> Result<Report> {
        let status = self.api().get(pod).await?.status.unwrap_or_default();
        // A container that only begins has no log.
        let params = LogParams { tail_lines: Some(1), ..LogParams::default() };
        let log = self.api().logs(pod, &params).await.unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
            bail!("{pod} ended: {log}");
        }
        let report = log.lines().next_back().map(serde_json::from_str::<Report>).transpose();
        let report = report.with_context(|| format!("{pod} says {log}"))?.unwrap_or_default();
        ensure!(report.errors == 0 && report.wrong == 0, "{pod} noticed: {report:?}");
        Ok(report)
    }

    async fn all_reports(&self) -> Result<Vec<Vec<Report>>> {
        try_join_all(self.pods.iter().map(|pod| async {
            let log = self.api().logs(pod, &LogParams::default()).await?;
            anyhow::Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
        }))
        .await
    }

    fn object_bytes(&self) -> Result<u64> {
        blocking(|| self.case.env.s3.object_bytes(self.case.bucket()))
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.case.env.client(), &self.case.namespace)
    }
}

/// The reports of some time, by reader.
struct Seen(Vec<Vec<Report>>);

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = |reports: &Vec<Report>| reports.iter().map(|report| report.longest_ms).max().unwrap_or(0);
        let pauses: Vec<_> = self.0.iter().map(longest).collect();
        write!(f, "0 errors, 0 wrong bytes, longest pauses {pauses:?} ms")
    }
}
