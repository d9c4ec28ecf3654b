//! The node plugin with real FUSE mounts and real serving processes. Needs root and `/dev/fuse`.

#![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]

#[path = "csi/double.rs"]
mod double;
#[path = "csi/rig.rs"]
mod rig;

use std::{fs, io::Read, os::unix::net::UnixListener, time::Duration};

use penstock_mount::csi::proto::{
    csi::NodeStageVolumeRequest,
    registration::{InfoRequest, registration_client::RegistrationClient},
};
use rig::{KEY, Rig, VOLUME, is_running, map, text};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_and_goes_and_every_call_can_be_repeated() {
    let rig = Rig::start().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    assert_eq!(rig.read("one").unwrap(), double::CONTENT);

    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    rig.publish("two").await.unwrap();
    assert_eq!(rig.read("two").unwrap(), double::CONTENT);
    assert_eq!(rig.mounts().len(), 3);
    let process = rig.processes()[0];
    assert!(is_running(process));

    let refused = fs::write(rig.target("one").join("new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    for _ in 0..2 {
        rig.unpublish("one").await.unwrap();
        assert!(!rig.target("one").exists());
    }
    assert_eq!(rig.read("two").unwrap(), double::CONTENT);
    rig.unpublish("two").await.unwrap();
    for _ in 0..2 {
        rig.unstage().await.unwrap();
        assert!(!is_running(process));
    }
    assert!(rig.mounts().is_empty() && rig.processes().is_empty());
    assert_eq!(fs::read_dir(rig.options.state_dir.join("published")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_published_while_the_mount_still_waits_for_a_worker_to_answer() {
    let mut rig = Rig::start().await;
    rig.options.mount_program = Some(env!("CARGO_BIN_EXE_penstock-mount").into());
    rig.restart().await;
    // The kernel takes connections; nobody ever answers on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig.endpoint = silent.local_addr().unwrap().to_string();
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    // The first connection is still open: had the mount waited for an answer, it would have given up on it by now.
    let mut connection = silent.accept().await.unwrap().0.into_std().unwrap();
    let mut said = [0; 4096];
    loop {
        match connection.read(&mut said) {
            Ok(0) => panic!("the mount gave up on a worker before the volume was published"),
            Ok(_) => {}
            Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    let process = rig.processes()[0];
    assert!(is_running(process));
    rig.unpublish("one").await.unwrap();
    rig.unstage().await.unwrap();
    assert!(rig.mounts().is_empty() && !is_running(process));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_is_replaced_at_once_under_the_feet_of_its_readers() {
    let mut rig = Rig::start().await;
    rig.options.mount_program = Some(env!("CARGO_BIN_EXE_penstock-mount").into());
    rig.restart().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    let held = fs::File::open(rig.target("one")).unwrap();
    let mut earlier = Vec::new();
    for _ in 0..3 {
        let died = rig.processes()[0];
        earlier.push(died);
        rustix::process::kill_process(rig.process(), Signal::KILL).unwrap();
        while is_running(died) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Waits for the next process, and needs no worker.
        let target = rig.target("one");
        let looked = tokio::task::spawn_blocking(move || fs::metadata(target)).await.unwrap();
        assert!(looked.unwrap().is_dir() && held.metadata().unwrap().is_dir());
        let condition = rig.stats("one").await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
    }
    assert!(!earlier.contains(&rig.processes()[0]));
    assert_eq!(rig.mounts().len(), 2);
    drop(held);
    let process = rig.processes()[0];
    rig.unpublish("one").await.unwrap();
    rig.unstage().await.unwrap();
    assert!(rig.mounts().is_empty() && !is_running(process));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_in_no_command_line_environment_or_record() {
    let rig = Rig::start().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    let pid = rig.processes()[0].pid;
    for file in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&shown).contains(KEY), "{file}");
    }
    for folder in ["staged", "published"] {
        for entry in fs::read_dir(rig.options.state_dir.join(folder)).unwrap() {
            assert!(!fs::read_to_string(entry.unwrap().path()).unwrap().contains(KEY));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_whose_session_nobody_can_take_over_is_replaced_at_the_next_publish() {
    let rig = Rig::start().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    let died = rig.processes()[0];
    rustix::process::kill_process(rig.process(), Signal::KILL).unwrap();
    while is_running(died) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = rig.read("one").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    assert!(rig.stats("one").await.unwrap().volume_condition.unwrap().abnormal);

    rig.publish("one").await.unwrap();
    assert_eq!(rig.read("one").unwrap(), double::CONTENT);
    assert_ne!(rig.processes()[0], died);
    assert!(!rig.stats("one").await.unwrap().volume_condition.unwrap().abnormal);
    assert_eq!(rig.mounts().len(), 2);
    rig.stage().await.unwrap();
    rig.unpublish("one").await.unwrap();
    rig.unstage().await.unwrap();
    assert!(rig.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_process_keeps_nobody_from_unmounting() {
    let rig = Rig::start().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    let process = rig.processes()[0];
    rustix::process::kill_process(rig.process(), Signal::STOP).unwrap();
    while !fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap().contains(") T ") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let target = rig.target("one");
    let reader = std::thread::spawn(move || fs::read_to_string(target.join(double::FILE)));
    let condition = rig.stats("one").await.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal, "{}", condition.message);

    rig.unpublish("one").await.unwrap();
    rig.unstage().await.unwrap();
    assert!(rig.mounts().is_empty() && !is_running(process));
    assert!(reader.join().unwrap().is_err());
    assert!(!rig.options.state_dir.join("fusectl").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_plugin_adopts_mounts_that_are_still_served() {
    let mut rig = Rig::start().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    let process = rig.processes()[0];
    rig.restart().await;
    assert_eq!(rig.read("one").unwrap(), double::CONTENT);
    rig.publish("one").await.unwrap();
    rig.publish("two").await.unwrap();
    rig.stage().await.unwrap();
    assert_eq!(rig.read("two").unwrap(), double::CONTENT);
    assert_eq!(rig.processes(), [process]);
    rig.unpublish("one").await.unwrap();
    rig.unpublish("two").await.unwrap();
    rig.unstage().await.unwrap();
    assert!(rig.mounts().is_empty() && !is_running(process));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_plugin_removes_dead_mounts_and_mounts_anew_when_given_the_key() {
    let mut rig = Rig::start().await;
    rig.stage().await.unwrap();
    rig.publish("one").await.unwrap();
    let process = rig.processes()[0];
    rig.halt().await;
    rustix::process::kill_process(rig.process(), Signal::KILL).unwrap();
    while is_running(process) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.restart().await;
    assert!(!rig.mounts().contains(&rig.staging()));

    let error = rig.publish("one").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("nodePublishSecretRef"), "{}", error.message());

    let mut request = rig.publish_request("one");
    request.secrets = rig::secrets();
    rig.node().await.node_publish_volume(request).await.unwrap();
    assert_eq!(rig.read("one").unwrap(), double::CONTENT);
    assert_eq!(rig.mounts().len(), 2);
    rig.unpublish("one").await.unwrap();
    rig.unstage().await.unwrap();
    assert!(rig.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_start_leaves_no_mount() {
    let rig = Rig::start().await;
    let mut request = rig.stage_request();
    request.volume_context.insert("dataset".into(), double::REFUSED.into());
    let error = rig.node().await.node_stage_volume(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("before the mount was ready"), "{}", error.message());
    assert!(rig.mounts().is_empty() && rig.processes().is_empty());
    rig.stage().await.unwrap();
    rig.unstage().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_a_small_socket_directory_of_its_own_pod() {
    let rig = Rig::start().await;
    let mut request = rig.publish_request("worker");
    request.staging_target_path.clear();
    request.readonly = false;
    request.volume_context = map(&[
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.namespace", "ns"),
        ("csi.storage.k8s.io/pod.uid", "4f1c"),
        ("csi.storage.k8s.io/pod.name", "prices-worker-0"),
        ("dataset", "prices"),
        ("purpose", "worker-socket"),
    ]);
    for _ in 0..2 {
        rig.node().await.node_publish_volume(request.clone()).await.unwrap();
    }
    assert_eq!(rig.mounts().len(), 1);
    let directory = rig.options.state_dir.join("sockets/ns/prices/4f1c");
    // The path inside of the target is too long for a socket in a deep temporary directory, so only a file is made.
    fs::write(rig.target("worker").join("worker.sock"), "").unwrap();
    assert!(directory.join("worker.sock").exists());
    let filled = fs::write(rig.target("worker").join("much"), vec![1; 128 << 10]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    std::os::unix::fs::symlink("/etc/hostname", rig.target("worker").join("link")).unwrap();
    assert!(fs::read(rig.target("worker").join("link")).is_err(), "a link leads out of the directory");
    assert!(!rig.stats("worker").await.unwrap().volume_condition.unwrap().abnormal);
    for _ in 0..2 {
        rig.unpublish("worker").await.unwrap();
    }
    assert!(!directory.exists() && !rig.target("worker").exists());

    request.volume_context.remove("purpose");
    let error = rig.node().await.node_publish_volume(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("PersistentVolumeClaim"), "{}", error.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_the_field_at_fault() {
    type Spoil = fn(&mut NodeStageVolumeRequest);
    let cases: [(Spoil, &str); 8] = [
        (|r| r.volume_id.clear(), "volume_id"),
        (|r| r.staging_target_path.clear(), "staging_target_path"),
        (|r| r.staging_target_path = "/etc/x".into(), "outside of the kubelet directory"),
        (|r| r.volume_capability = None, "volume_capability"),
        (|r| r.secrets.clear(), "client.key"),
        (|r| drop(r.secrets.insert("client.key".into(), "short".into())), "client.key"),
        (|r| drop(r.secrets.remove("peer.pub")), "peer.pub is missing"),
        (|r| drop(r.volume_context.remove("endpoint")), "endpoint"),
    ];
    let rig = Rig::start().await;
    for (spoil, message) in cases {
        let mut request = rig.stage_request();
        spoil(&mut request);
        let error = rig.node().await.node_stage_volume(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
    assert!(rig.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_volumes_cannot_share_a_staging_path() {
    let rig = Rig::start().await;
    rig.stage().await.unwrap();
    let mut request = rig.stage_request();
    request.volume_id = "ns/other/1".into();
    let error = rig.node().await.node_stage_volume(request).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains(VOLUME));
    rig.unstage().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelet_is_told_where_the_plugin_listens_as_long_as_it_does() {
    let mut rig = Rig::start().await;
    let mut client = RegistrationClient::new(rig::channel(&rig.registration_socket()).await);
    let info = client.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "csi.penstock.dev"));
    let expected = rig.root().join("kubelet/plugins/csi.penstock.dev/csi.sock");
    assert_eq!((info.endpoint, info.supported_versions), (text(&expected), vec!["1.0.0".to_owned()]));
    drop(client);
    rig.halt().await;
    assert!(!rig.registration_socket().exists() && !rig.socket().exists());
    // A socket that a killed plugin left is replaced.
    drop(UnixListener::bind(rig.socket()).unwrap());
    rig.restart().await;
    rig.stage().await.unwrap();
    rig.unstage().await.unwrap();
}
