//! A real S3 server process, `SeaweedFS`, that pods reach through a counting proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use penstock_testkit::process::{ChildGuard, Spawn, free_port};
use penstock_testkit::proxy::{CountingProxy, Gate};
use penstock_testkit::tools;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::kubectl::wait_for;

const REGION: &str = "us-east-1";
/// Where the server keeps what it is given, in its own folder.
const DATA: &str = "data";

/// A running server; ends, with its data, when dropped.
pub struct SeaweedFs {
    proxy: CountingProxy,
    server: ChildGuard,
    ports: Ports,
    folder: TempDir,
}

/// Where the server's parts listen on loopback.
struct Ports {
    s3: u16,
    metrics: u16,
    /// By the name of their option.
    internal: Vec<(&'static str, u16)>,
}

impl Ports {
    fn free() -> Result<Self> {
        let names = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port.grpc",
        ];
        let internal = names.into_iter().map(|name| Ok((name, free_port()?))).collect::<Result<_>>()?;
        Ok(Self { s3: free_port()?, metrics: free_port()?, internal })
    }

    /// Sockets that the server makes beside its ports, whose paths cannot be chosen, and leaves there.
    fn sockets(&self) -> impl Iterator<Item = String> {
        let grpc = self.internal.iter().filter_map(|(name, port)| Some((name.strip_suffix(".port.grpc")?, port)));
        grpc.map(|(part, port)| format!("/tmp/seaweedfs-{part}-grpc-{port}.sock"))
    }
}

impl SeaweedFs {
    pub const ACCESS_KEY: &str = "penstock-e2e";
    pub const SECRET_KEY: &str = "penstock-e2e-secret";

    /// Starts the server on loopback and a proxy before it on `address` (the cluster's host address, or loopback).
    pub async fn start(address: IpAddr) -> Result<Self> {
        Self::start_behind(TcpListener::bind((address, 0)).await?).await
    }

    /// As [`Self::start`], with the proxy on a listener that may be of another network namespace.
    pub async fn start_behind(listener: TcpListener) -> Result<Self> {
        let program = tokio::task::spawn_blocking(tools::weed).await??;
        let folder = tempfile::Builder::new().prefix("penstock-s3.").tempdir()?;
        let ports = Ports::free()?;
        let identity = json!({
            "name": "e2e",
            "credentials": [{"accessKey": Self::ACCESS_KEY, "secretKey": Self::SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        });
        let config = folder.path().join("s3.json");
        std::fs::write(&config, json!({"identities": [identity]}).to_string())?;
        std::fs::create_dir(folder.path().join(DATA))?;
        let server = Spawn::new(program, folder.path().join("weed.log"))
            .args(arguments(folder.path(), &config, &ports))
            .env("HOME", folder.path())
            .start()?;
        let proxy = CountingProxy::start_on(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, ports.s3)))?;
        let mut server = Self { proxy, server, ports, folder };
        server.wait_ready().await?;
        Ok(server)
    }

    /// `http://ADDRESS:PORT`, path-style, for pods.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// Bytes that readers have received through [`Self::endpoint`]: objects, listings and headers.
    pub fn bytes_sent(&self) -> u64 {
        self.proxy.bytes_to_client()
    }

    /// Bytes of objects of `bucket` that were read, as the server itself counts: neither listings nor headers. Blocks.
    pub fn object_bytes(&self, bucket: &str) -> Result<u64> {
        Ok(object_bytes_of(bucket, &self.metrics()?))
    }

    /// Listings of `bucket` that were answered, as the server itself counts. Blocks.
    pub fn lists(&self, bucket: &str) -> Result<u64> {
        Ok(lists_of(bucket, &self.metrics()?))
    }

    fn metrics(&self) -> Result<String> {
        let mut command = Command::new(tools::debian("curl", "curl")?);
        command.args(["-sSf", "--noproxy", "*", &format!("http://127.0.0.1:{}/metrics", self.ports.metrics)]);
        tools::output(&mut command)
    }

    /// Lets the readers' traffic flow, wait or break.
    pub fn gate(&self, gate: Gate) {
        self.proxy.set(gate);
    }

    /// Makes a bucket. Blocks.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        curl(&["-X".into(), "PUT".into(), self.url(bucket)]).map(drop)
    }

    /// Stores an object; not counted. `key` must need no escaping in an address. Blocks.
    pub fn put(&self, bucket: &str, key: &str, data: &[u8]) -> Result<()> {
        let file = tempfile::NamedTempFile::new_in(self.folder.path())?;
        std::fs::write(file.path(), data)?;
        self.put_file(bucket, key, file.path())
    }

    /// As [`Self::put`], from a file.
    pub fn put_file(&self, bucket: &str, key: &str, file: &Path) -> Result<()> {
        curl(&["-T".into(), file.display().to_string(), self.url(&format!("{bucket}/{key}"))]).map(drop)
    }

    /// Stores empty objects, many at a time; not counted. Keys as for [`Self::put`]. Blocks.
    pub fn put_empty(&self, bucket: &str, keys: impl IntoIterator<Item = String>) -> Result<()> {
        let empty = tempfile::NamedTempFile::new_in(self.folder.path())?;
        self.put_all(bucket, keys.into_iter().map(|key| (key, empty.path())))
    }

    /// As [`Self::put_file`], many at a time.
    pub fn put_all<'a>(&self, bucket: &str, files: impl IntoIterator<Item = (String, &'a Path)>) -> Result<()> {
        let list = tempfile::NamedTempFile::new_in(self.folder.path())?;
        let lines = files.into_iter().map(|(key, file)| {
            format!(
                "upload-file = \"{}\"\nurl = \"{}\"\noutput = /dev/null\n",
                file.display(),
                self.url(&format!("{bucket}/{key}"))
            )
        });
        std::fs::write(list.path(), lines.collect::<String>())?;
        let list = list.path().display().to_string();
        curl(&["--parallel", "--parallel-max", "32", "--fail-early", "--config", &list].map(String::from)).map(drop)
    }

    /// Removes an object. Blocks.
    pub fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        curl(&["-X".into(), "DELETE".into(), self.url(&format!("{bucket}/{key}"))]).map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.ports.s3)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let limit = Duration::from_mins(1);
        let ready = wait_for("SeaweedFS to list its buckets", limit, || {
            let listing = curl(&[self.url("")]);
            async { Ok(listing?.contains("<ListAllMyBucketsResult").then_some(())) }
        });
        let result = ready.await;
        self.server.ensure_running()?;
        result.with_context(|| penstock_testkit::process::log_tail(self.server.log(), 15))
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.server.stop(Duration::from_secs(3));
        for socket in self.ports.sockets() {
            std::fs::remove_file(socket).ok();
        }
    }
}

/// Reads the count for a bucket out of the text format of Prometheus; a bucket that nobody read from is not in it.
fn object_bytes_of(bucket: &str, metrics: &str) -> u64 {
    let series = format!("SeaweedFS_s3_bucket_traffic_sent_bytes_total{{bucket=\"{bucket}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
    value.unwrap_or(0.0) as u64
}

/// The same for listings.
fn lists_of(bucket: &str, metrics: &str) -> u64 {
    let wanted = [format!("bucket=\"{bucket}\""), "type=\"LIST\"".into()];
    let series = metrics.lines().filter_map(|line| line.strip_prefix("SeaweedFS_s3_request_total{")?.split_once("} "));
    let lists = series.filter(|(labels, _)| wanted.iter().all(|label| labels.split(',').any(|have| have == label)));
    lists.filter_map(|(_, value)| value.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Sends signed requests; returns the answers' bodies.
fn curl(args: &[String]) -> Result<String> {
    let user = format!("{}:{}", SeaweedFs::ACCESS_KEY, SeaweedFs::SECRET_KEY);
    let sign = format!("aws:amz:{REGION}:s3");
    let base = ["-sS", "--fail-with-body", "--noproxy", "*", "--aws-sigv4", &sign, "--user", &user];
    // The signature covers the body's hash, which curl leaves to us for uploads.
    let unsigned = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"];
    tools::output(Command::new(tools::debian("curl", "curl")?).args(base).args(unsigned).args(args))
}

/// The command line; every part on loopback, on a port of its own.
fn arguments(folder: &Path, config: &Path, ports: &Ports) -> Vec<String> {
    let folder = folder.display();
    let mut args = vec![
        "server".to_owned(),
        format!("-dir={folder}/{DATA}"),
        "-ip=127.0.0.1".into(),
        "-ip.bind=127.0.0.1".into(),
        "-filer".into(),
        format!("-filer.localSocket={folder}/filer.sock"),
        "-s3".into(),
        format!("-s3.localSocket={folder}/s3.sock"),
        "-s3.port.iceberg=0".into(),
        "-s3.port.lance=0".into(),
        "-master.telemetry=false".into(),
        // Each bucket takes several volumes at its first write, and there are as many as fit the disk: small ones, or a
        // tenth test finds none left.
        "-master.volumeSizeLimitMB=64".into(),
        "-volume.max=0".into(),
        format!("-s3.port={}", ports.s3),
        format!("-s3.config={}", config.display()),
        format!("-metricsPort={}", ports.metrics),
    ];
    args.extend(ports.internal.iter().map(|(name, port)| format!("-{name}={port}")));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_the_bucket_counts() {
        let metrics = concat!(
            "# TYPE SeaweedFS_s3_bucket_traffic_sent_bytes_total counter\n",
            "SeaweedFS_s3_bucket_traffic_sent_bytes_total{bucket=\"a\"} 1.00001e+06\n",
            "SeaweedFS_s3_bucket_traffic_sent_bytes_total{bucket=\"ab\"} 9\n",
            "SeaweedFS_s3_bucket_traffic_received_bytes_total{bucket=\"a\"} 7\n",
            "SeaweedFS_s3_request_total{bucket=\"a\",code=\"200\",type=\"GET\"} 3\n",
            "SeaweedFS_s3_request_total{bucket=\"a\",code=\"200\",type=\"LIST\"} 40\n",
            "SeaweedFS_s3_request_total{bucket=\"a\",code=\"404\",type=\"LIST\"} 2\n",
            "SeaweedFS_s3_request_total{bucket=\"ab\",code=\"200\",type=\"LIST\"} 5\n",
        );
        assert_eq!(["a", "ab", "b"].map(|bucket| lists_of(bucket, metrics)), [42, 5, 0]);
        assert_eq!(["a", "ab", "b"].map(|bucket| object_bytes_of(bucket, metrics)), [1_000_010, 9, 0]);
    }
}
