//! Mounts that outlive the node plugin: real processes, killed as a node kills them. Needs root and `/dev/fuse`.

#![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]

#[path = "csi/double.rs"]
#[allow(dead_code)]
mod double;
#[path = "../../cache-worker/tests/common/fleet.rs"]
mod fleet;
#[path = "common/memory.rs"]
mod memory;
#[path = "keeper/node.rs"]
mod node;
#[path = "csi/rig.rs"]
#[allow(dead_code)]
mod rig;
#[path = "common/workers.rs"]
mod workers;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
};

use k8s_openapi::api::{core::v1::ObjectReference, events::v1::Event};
use kube::{Api, api::ListParams};
use node::{Node, Readers};
use penstock_mount::keeper::{Client, KeeperError};
use penstock_testkit::control_plane::ControlPlane;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, recvmsg, sendmsg, socket_with,
};

#[tokio::test(flavor = "multi_thread")]
async fn readers_notice_pauses_only_while_the_plugin_is_killed_ten_times() {
    let mut node = Node::start().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    let readers = Readers::start(&node, "one");
    for round in 1..=10 {
        let before = readers.read();
        node.kill_plugin();
        node.start_plugin().await;
        readers.go_on(before).await;
        assert_eq!(node.metric("penstock_mount_takeovers_total").await, 1, "round {round}");
        assert_eq!(node.metric("penstock_mount_lost_sessions_total").await, 0);
    }
    readers.end();
    // Kubelet's calls meet what an earlier plugin made.
    node.publish("one").await;
    node.publish("two").await;
    assert_eq!(node.rig.mounts().len(), 3);
    node.leave(&["one", "two"]).await;
    node.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_kernel_reads_by_itself_are_read_on_without_a_pause() {
    let mut node = Node::start_beside_its_worker().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    Node::read_whole(&node.open("one")).await.unwrap();
    let open = node.open("one");
    for _ in 0..3 {
        node.kill_plugin();
        Node::read_whole(&open).await.unwrap();
        node.start_plugin().await;
        Node::read_whole(&open).await.unwrap();
        Node::read_whole(&node.open("one")).await.unwrap();
    }
    drop(open);
    node.leave(&["one"]).await;
    node.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_was_killed_is_given_the_mounts_again() {
    let mut node = Node::start().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    let readers = Readers::start(&node, "one");
    for _ in 0..2 {
        let before = readers.read();
        node.kill_keeper();
        readers.go_on(before).await;
        node.start_keeper();
        node.until_kept(1).await;
        let before = readers.read();
        node.kill_plugin();
        node.start_plugin().await;
        readers.go_on(before).await;
    }
    readers.end();
    node.leave(&["one"]).await;
    node.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_told_to_end_waits_for_the_keeper_that_has_just_come() {
    let mut node = Node::start().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    let readers = Readers::start(&node, "one");
    let before = readers.read();
    node.kill_keeper();
    node.tell_plugin_to_end();
    node.start_keeper();
    node.plugin_ends();
    node.start_plugin().await;
    readers.go_on(before).await;
    // The old one still answers, and takes what it has with it.
    let before = readers.read();
    node.replace_keeper(|node| {
        node.tell_plugin_to_end();
        node.plugin_ends();
    });
    node.start_plugin().await;
    readers.go_on(before).await;
    readers.end();
    assert_eq!(node.metric("penstock_mount_lost_sessions_total").await, 0);
    node.leave(&["one"]).await;
    node.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_die_at_once_the_mount_is_lost_told_and_made_anew() {
    let mut node = Node::start().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    let held = File::open(node.rig.target("one")).unwrap();
    let plane = ControlPlane::start().await.unwrap();
    node.kubeconfig = Some(plane.kubeconfig().to_owned());
    node.kill_both();
    let told = rustix::io::Errno::from_io_error(&held.metadata().unwrap_err()).unwrap();
    assert!([rustix::io::Errno::NOTCONN, rustix::io::Errno::CONNABORTED].contains(&told), "{told}");
    node.start_keeper();
    node.start_plugin().await;
    assert_eq!(node.metric("penstock_mount_lost_sessions_total").await, 1);
    let condition = node.rig.stats("one").await.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("died"), "{}", condition.message);
    let event = event(&plane).await;
    assert_eq!((event.type_.as_deref(), event.reason.as_deref()), (Some("Warning"), Some("MountLost")));
    assert_eq!(event.regarding.unwrap(), pod("one"));
    let text = event.note.unwrap();
    assert!(text.contains(node.dataset) && text.contains("ended at the same time") && text.contains("started again"));
    // As kubelet does from time to time.
    node.publish("one").await;
    node.check("one");
    assert!(!node.rig.stats("one").await.unwrap().volume_condition.unwrap().abnormal);
    node.leave(&["one"]).await;
    node.assert_nothing_is_left().await;
}

/// The pod's only Event.
async fn event(plane: &ControlPlane) -> Event {
    let events = Api::<Event>::namespaced(plane.client(), "default");
    loop {
        let found = events.list(&ListParams::default().fields("reason=MountLost")).await.unwrap().items;
        if let [event] = found.as_slice() {
            return event.clone();
        }
        assert!(found.is_empty(), "{found:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn pod(name: &str) -> ObjectReference {
    let some = |text: &str| Some(text.to_owned());
    ObjectReference {
        api_version: some("v1"),
        kind: some("Pod"),
        namespace: some("default"),
        name: some(name),
        uid: Some(format!("uid-{name}")),
        ..ObjectReference::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_goes_while_no_plugin_runs_is_let_go_by_the_keeper_too() {
    let mut node = Node::start().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    node.until_kept(1).await;
    node.kill_plugin();
    for path in node.rig.mounts().iter().rev() {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    node.start_plugin().await;
    node.until_kept(0).await;
    node.leave(&["one"]).await;
    node.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keeper_the_plugin_works_and_says_so() {
    let mut node = Node::start().await;
    node.start_plugin().await;
    node.publish("one").await;
    node.check("one");
    assert_eq!(node.metric("penstock_mount_keeper_connected").await, 0);
    assert_eq!(node.metric("penstock_mount_volumes").await, 1);
    node.leave(&["one"]).await;
    node.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_user_reaches_the_keeper_and_the_key_is_on_no_disk() {
    let mut node = Node::start().await;
    node.start_keeper();
    node.start_plugin().await;
    node.publish("one").await;
    node.until_kept(1).await;
    assert_eq!(fs::metadata(node.keeper_socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let key = node.key();
    for folder in ["staged", "published", "keeper"] {
        for entry in fs::read_dir(node.rig.options.state_dir.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read(&path).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(key), "{}", path.display());
        }
    }
    node.leave(&["one"]).await;
}

/// One packet and its answer, in the words of the first release.
fn say(socket: &OwnedFd, text: &str, descriptors: &[&OwnedFd]) -> (String, usize) {
    tell(socket, text, descriptors);
    hear(socket).map(|(text, descriptors)| (text, descriptors.len())).unwrap()
}

fn tell(socket: &OwnedFd, text: &str, descriptors: &[&OwnedFd]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

fn hear(socket: &OwnedFd) -> Option<(String, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let (mut ancillary, mut bytes) = (RecvAncillaryBuffer::new(&mut space), [0; 9000]);
    let mut room = [IoSliceMut::new(&mut bytes)];
    let len = recvmsg(socket, &mut room, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    (len > 0).then(|| (String::from_utf8_lossy(&bytes[..len]).into_owned(), descriptors))
}

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_answers_the_first_release_s_plugin_and_refuses_later_words_politely() {
    let mut node = Node::start().await;
    node.start_keeper();
    let socket = seqpacket();
    connect(&socket, &SocketAddrUnix::new(node.keeper_socket()).unwrap()).unwrap();
    let file: OwnedFd = File::open("/dev/null").unwrap().into();
    let done = (r#"{"version":1}"#.to_owned(), 0);
    assert_eq!(say(&socket, r#"{"verb":"put","name":"/b","label":"x,y"}"#, &[&file, &file]), done);
    assert_eq!(say(&socket, r#"{"verb":"put","name":"/a","label":"x","later":{"field":[1]}}"#, &[&file]), done);
    let first = (r#"{"version":1,"name":"/a","label":"x"}"#.to_owned(), 1);
    let second = (r#"{"version":1,"name":"/b","label":"x,y"}"#.to_owned(), 2);
    assert_eq!(say(&socket, r#"{"verb":"next"}"#, &[]), first);
    assert_eq!(say(&socket, r#"{"verb":"next","after":"/a"}"#, &[]), second);
    assert_eq!(say(&socket, r#"{"verb":"next","after":"/b"}"#, &[]), done);
    for (odd, reason) in [
        (r#"{"verb":"migrate","name":"/a"}"#, "migrate"),
        (r#"{"verb":"put"}"#, "a name is missing"),
        ("not json", "expected"),
    ] {
        let (answer, descriptors) = say(&socket, odd, &[]);
        assert!(answer.starts_with(r#"{"version":1,"error":"#) && answer.contains(reason), "{answer}");
        assert_eq!(descriptors, 0);
    }
    assert_eq!(say(&socket, r#"{"verb":"remove","name":"/a"}"#, &[]), done);
    assert_eq!(say(&socket, r#"{"verb":"remove","name":"/a"}"#, &[]), done);
    assert_eq!(say(&socket, r#"{"verb":"next"}"#, &[]), second);
    let client = Client::connect(&node.keeper_socket()).unwrap();
    let many = [file.as_fd(); 9];
    assert!(matches!(client.put("/c", "", &many), Err(KeeperError::Unreachable(_))), "more than the protocol allows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_of_the_first_release_serves_this_plugin() {
    let mut node = Node::start().await;
    let path = node.keeper_socket();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = seqpacket();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 8).unwrap();
    // Frozen: it knows three verbs, reads three fields, and serves one connection after the other.
    std::thread::spawn(move || {
        let mut kept: std::collections::BTreeMap<String, (String, Vec<OwnedFd>)> = std::collections::BTreeMap::new();
        while let Ok(socket) = accept(&listener) {
            while let Some((text, descriptors)) = hear(&socket) {
                let request: serde_json::Value = serde_json::from_str(&text).unwrap();
                let field = |name: &str| request[name].as_str().map(str::to_owned);
                let done = r#"{"version":1}"#;
                match request["verb"].as_str().unwrap() {
                    "put" => {
                        kept.insert(field("name").unwrap(), (field("label").unwrap(), descriptors));
                        tell(&socket, done, &[]);
                    }
                    "remove" => {
                        kept.remove(&field("name").unwrap());
                        tell(&socket, done, &[]);
                    }
                    "next" => match kept.iter().find(|(name, _)| field("after").is_none_or(|after| **name > after)) {
                        None => tell(&socket, done, &[]),
                        Some((name, (label, descriptors))) => {
                            let answer = serde_json::json!({"version": 1, "name": name, "label": label}).to_string();
                            tell(&socket, &answer, &descriptors.iter().collect::<Vec<_>>());
                        }
                    },
                    _ => tell(&socket, r#"{"version":1,"error":"unknown"}"#, &[]),
                }
            }
        }
    });
    node.start_plugin().await;
    node.publish("one").await;
    let readers = Readers::start(&node, "one");
    let before = readers.read();
    node.kill_plugin();
    node.start_plugin().await;
    readers.go_on(before).await;
    readers.end();
    assert_eq!(node.metric("penstock_mount_takeovers_total").await, 1);
    node.leave(&["one"]).await;
    let names: BTreeSet<_> = node.rig.mounts().into_iter().collect();
    assert!(names.is_empty());
}
