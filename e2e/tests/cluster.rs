//! The cluster itself: nodes, pods, the network between them, shared mounts, and that nothing is left of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_e2e::cluster::{Cluster, ClusterOptions, KUBECONFIG_VARIABLE};
use penstock_e2e::image;
use penstock_e2e::pods::{self, Script};
use penstock_e2e::s3::SeaweedFs;

const LIMIT: Duration = Duration::from_mins(1);

/// One test, because there is one cluster and it takes all of the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_runs_pods_joins_them_and_leaves_nothing_behind() -> Result<()> {
    if let Ok(path) = std::env::var(KUBECONFIG_VARIABLE) {
        eprintln!("skipped: the cluster of {path} is somebody's own");
        return Ok(());
    }
    if Cluster::running().await?.is_some() {
        eprintln!("skipped: a cluster is up; this test brings up its own");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let toolbox = folder.path().join("toolbox.tar");
    image::toolbox(&toolbox, &[])?;
    let begun = Instant::now();
    let cluster = Cluster::up(ClusterOptions { images: vec![toolbox], ..ClusterOptions::default() }).await?;
    eprintln!("up after {:?}", begun.elapsed());

    pods_print_on_every_node(&cluster).await?;
    pods_reach_each_other_services_and_the_api(&cluster).await?;
    mounts_in_shared_folders_reach_other_pods(&cluster).await?;
    pods_read_from_s3(&cluster).await?;
    the_api_server_can_go_away_and_come_back(&cluster).await?;
    a_shaped_link_is_slow(&cluster)?;

    let begun = Instant::now();
    cluster.down()?;
    eprintln!("down after {:?}", begun.elapsed());
    nothing_is_left()
}

async fn pods_print_on_every_node(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let script = Script::new(&format!("hello-{node}"), "echo hello from $(hostname)").on(node);
        let finished = pods::run(&cluster.client(), &script, LIMIT).await?;
        ensure!(finished.logs.contains("hello from hello-"), "{finished:?}");
        ensure!(finished.node == *node, "{finished:?}");
    }
    Ok(())
}

async fn pods_reach_each_other_services_and_the_api(cluster: &Cluster) -> Result<()> {
    let client = cluster.client();
    let serve = "mkdir /tmp/www; echo served > /tmp/www/x; exec httpd -f -p 8080 -h /tmp/www";
    pods::start(&client, &Script::new("server", serve).on("node1")).await?;
    let server = pods::wait_ready(&client, "default", "server", LIMIT).await?;
    let service = "{apiVersion: v1, kind: Service, metadata: {name: server}, spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}}";
    let service = penstock_e2e::kubectl::apply_yaml(&client, service).await?;
    let service = service[0].data.pointer("/spec/clusterIP").and_then(|ip| ip.as_str()).context("no ClusterIP")?;
    let pod = server.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    // The same node as well: an answer must take the way of the question back.
    for node in ["node1", "node2"] {
        let script = format!(
            "timeout 10 wget -q -O - http://{pod}:8080/x
             for i in 1 2 3 4 5; do timeout 10 wget -q -O - http://{service}/x && break; sleep 1; done
             nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null
             test -s {token}/token && test -s {token}/ca.crt"
        );
        let logs = pods::run_ok(&client, &Script::new(&format!("client-{node}"), &script).on(node), LIMIT).await?;
        ensure!(logs.matches("served").count() == 2, "{logs}");
    }
    pods::kill(&client, "default", "server").await
}

async fn mounts_in_shared_folders_reach_other_pods(cluster: &Cluster) -> Result<()> {
    let client = cluster.client();
    let yaml = |name: &str, propagation: &str, privileged: bool, script: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: node2, terminationGracePeriodSeconds: 0,
               containers: [{{name: main, image: {}, command: [/bin/sh, -ec, '{script}'], securityContext: {{privileged: {privileged}}},
                 volumeMounts: [{{name: x, mountPath: /x, mountPropagation: {propagation}}}]}}],
               volumes: [{{name: x, hostPath: {{path: /var/lib/penstock, type: DirectoryOrCreate}}}}]}}}}",
            image::TOOLBOX
        )
    };
    let maker = "mkdir -p /x/m; mount -t tmpfs tmpfs /x/m; echo through > /x/m/file; sleep 1000";
    penstock_e2e::kubectl::apply_yaml(&client, &yaml("maker", "Bidirectional", true, maker)).await?;
    pods::wait_ready(&client, "default", "maker", LIMIT).await?;
    let reader = "until cat /x/m/file; do sleep 1; done; sleep 1000";
    penstock_e2e::kubectl::apply_yaml(&client, &yaml("reader", "HostToContainer", false, reader)).await?;
    pods::wait_ready(&client, "default", "reader", LIMIT).await?;
    ensure!(cluster.node_exec("node2", &["cat", "/var/lib/penstock/m/file"])? == "through\n");
    let (node, id) = pods::container_id(&client, "default", "reader", "main").await?;
    cluster.kill_container(&node, &id)?;
    penstock_e2e::kubectl::wait_for("the killed container to be started again", LIMIT, || async {
        let (_, now) = pods::container_id(&client, "default", "reader", "main").await?;
        Ok((now != id).then_some(()))
    })
    .await
}

async fn pods_read_from_s3(cluster: &Cluster) -> Result<()> {
    let server = SeaweedFs::start(cluster.host_address().context("no host address")?).await?;
    server.create_bucket("prices")?;
    server.put("prices", "a/b.csv", &vec![b'x'; 100_000])?;
    // Refused without a key: pods reach the server, and it checks.
    let script = format!("timeout 10 wget -S -O - {}/prices/a/b.csv 2>&1 || true", server.endpoint());
    let logs = pods::run_ok(&cluster.client(), &Script::new("s3", &script), LIMIT).await?;
    ensure!(logs.contains("403"), "{logs}");
    ensure!(server.bytes_sent() > 100 && server.bytes_sent() < 10_000, "{} bytes", server.bytes_sent());
    Ok(())
}

async fn the_api_server_can_go_away_and_come_back(cluster: &Cluster) -> Result<()> {
    let stopped = cluster.stop_api_server()?;
    ensure!(cluster.client().apiserver_version().await.is_err());
    cluster.start_api_server(stopped).await?;
    cluster.freeze_api_server(Duration::from_secs(1)).await?;
    pods::run_ok(&cluster.client(), &Script::new("after-outage", "true"), LIMIT).await?;
    Ok(())
}

fn a_shaped_link_is_slow(cluster: &Cluster) -> Result<()> {
    cluster.shape("node3", Some(50))?;
    let queue = cluster.node_exec("node3", &["tc", "qdisc", "show", "dev", "eth0"])?;
    ensure!(queue.contains("rate 50Mbit"), "{queue}");
    cluster.shape("node3", None)
}

fn nothing_is_left() -> Result<()> {
    let output = |program: &str, args: &[&str]| -> Result<String> {
        Ok(String::from_utf8(std::process::Command::new(program).args(args).output()?.stdout)?)
    };
    let left = [
        output("ip", &["netns", "list"])?,
        output("ip", &["-br", "link"])?,
        output("ip", &["route"])?,
        std::fs::read_to_string("/proc/self/mountinfo")?,
        output("find", &["/sys/fs/cgroup", "-maxdepth", "2", "-name", "pns-*"])?,
    ];
    for text in left {
        ensure!(!text.contains("pns-") && !text.contains("penstock/cluster"), "left behind: {text}");
    }
    for process in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        ensure!(!command.contains("penstock/cluster/"), "left behind: {command}");
    }
    Ok(())
}
