//! What is particular to S3: keys that are no paths, credentials, failures.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use penstock_model::Kind;
use penstock_testkit::s3::{S3Options, S3Server};
use penstock_ufs::{OpenMount, Ufs, UfsError, open};

async fn server() -> S3Server {
    S3Server::start(S3Options::default()).await.unwrap()
}

fn mount(server: &S3Server, source: &str, changes: &[(&str, &str)]) -> Arc<dyn Ufs> {
    let endpoint = server.endpoint();
    let mut options = BTreeMap::from([
        ("endpoint", endpoint.as_str()),
        ("access-key", server.access_key()),
        ("secret-key", server.secret_key()),
    ]);
    options.extend(changes.iter().copied());
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    open(&OpenMount { source: source.into(), options }).unwrap()
}

async fn names(ufs: &dyn Ufs, path: &str) -> Vec<(String, Kind)> {
    let pages: Vec<_> = ufs.list(path.as_bytes()).try_collect().await.unwrap();
    let entries = pages.into_iter().flat_map(|page| page.entries);
    let mut names: Vec<_> = entries.map(|entry| (String::from_utf8(entry.name).unwrap(), entry.status.kind)).collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    names
}

#[tokio::test]
async fn keys_that_are_no_paths_are_left_out() {
    let server = server().await;
    for key in ["p/a", "p//b", "p/d//e", "p/./f", "p/../g", "p/..", "p/.", "/h", "//", "p/x/./y", "q"] {
        server.put("data", key, key).unwrap();
    }
    let ufs = mount(&server, "s3://data", &[]);
    let directory = |name: &str| (name.to_owned(), Kind::Directory);
    let file = |name: &str| (name.to_owned(), Kind::File);
    assert_eq!(names(&*ufs, "").await, [directory("p"), file("q")]);
    assert_eq!(names(&*ufs, "p").await, [file("a"), directory("d"), directory("x")]);
    assert_eq!(names(&*ufs, "p/d").await, []);
}

#[tokio::test]
async fn a_key_that_is_also_a_prefix_is_a_directory() {
    let server = server().await;
    for key in ["a", "a b", "a/1", "marker/", "marker/x", "z"] {
        server.put("data", key, key).unwrap();
    }
    let ufs = mount(&server, "s3://data/", &[]);
    assert_eq!(ufs.stat(b"a").await.unwrap().kind, Kind::Directory);
    let shown: Vec<_> = names(&*ufs, "").await.into_iter().map(|(name, kind)| (name, kind == Kind::File)).collect();
    let wanted = [("a", false), ("a b", true), ("marker", false), ("z", true)];
    assert_eq!(shown, wanted.map(|(name, file)| (name.to_owned(), file)));
    assert_eq!(names(&*ufs, "marker").await, [("x".to_owned(), Kind::File)]);
}

#[tokio::test]
async fn a_prefix_means_the_same_with_and_without_slash() {
    let server = server().await;
    for key in ["pre/x", "prefix", "pre fix/y"] {
        server.put("data", key, key).unwrap();
    }
    for source in ["s3://data/pre", "s3://data/pre/"] {
        assert_eq!(names(&*mount(&server, source, &[]), "").await, [("x".to_owned(), Kind::File)], "{source}");
    }
    assert_eq!(names(&*mount(&server, "s3://data/pre fix", &[]), "").await, [("y".to_owned(), Kind::File)]);
}

#[tokio::test]
async fn a_stat_costs_at_most_two_requests_and_a_read_one() {
    let server = server().await;
    server.put("data", "dir/file", "data").unwrap();
    let ufs = mount(&server, "s3://data", &[]);
    let version = ufs.stat(b"dir/file").await.unwrap().version.unwrap();
    let requests = server.requests();
    assert_eq!((requests.head, requests.list, requests.get), (1, 1, 0));
    server.reset_counts();
    ufs.read(b"dir/file", &version, 1, 2).await.unwrap();
    assert_eq!((server.requests().get, server.sent_bytes()), (1, 2));
}

#[tokio::test]
async fn failures_of_the_store_are_tried_again() {
    let server = server().await;
    server.put("data", "file", vec![7; 600_000]).unwrap();
    let ufs = mount(&server, "s3://data", &[]);
    let version = ufs.stat(b"file").await.unwrap().version.unwrap();
    server.faults(|faults| (faults.fail_gets, faults.fail_lists) = (2, 2));
    assert_eq!(ufs.read(b"file", &version, 0, 600_000).await.unwrap(), vec![7; 600_000]);
    assert_eq!(names(&*ufs, "").await.len(), 1);
    assert_eq!((server.requests().get, server.requests().list), (3, 1 + 3));

    server.faults(|faults| (faults.cut_bodies, faults.cut_after) = (2, 100_000));
    assert_eq!(ufs.read(b"file", &version, 0, 600_000).await.unwrap(), vec![7; 600_000]);
    server.faults(|faults| faults.cut_bodies = u32::MAX);
    let cut = ufs.read(b"file", &version, 0, 600_000).await;
    assert!(matches!(cut, Err(UfsError::Unavailable(_))), "{cut:?}");
}

#[tokio::test]
async fn a_store_that_stays_broken_is_given_up_in_bounded_time() {
    let server = server().await;
    server.put("data", "file", "data").unwrap();
    let ufs = mount(&server, "s3://data", &[]);
    let version = ufs.stat(b"file").await.unwrap().version.unwrap();
    server.faults(|faults| faults.fail_gets = u32::MAX);
    let begin = Instant::now();
    let error = ufs.read(b"file", &version, 0, 4).await.unwrap_err();
    assert!(matches!(&error, UfsError::Unavailable(text) if text.contains("InternalError")), "{error:?}");
    assert_eq!(server.requests().get, 5);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_archived_object_is_refused_with_its_mend() {
    let server = server().await;
    server.put_archived("data", "old", "data").unwrap();
    let ufs = mount(&server, "s3://data", &[]);
    let version = ufs.stat(b"old").await.unwrap().version.unwrap();
    let error = ufs.read(b"old", &version, 0, 4).await.unwrap_err();
    assert!(matches!(&error, UfsError::Denied(text) if text.contains("restore")), "{error:?}");
}

#[tokio::test]
async fn anonymous_and_session_tokens_open_what_they_should() {
    let open_server = S3Server::start(S3Options { anonymous: true, ..Default::default() }).await.unwrap();
    open_server.put("data", "file", "data").unwrap();
    let anonymous = [("anonymous", "true"), ("access-key", ""), ("secret-key", "")];
    let ufs = mount(&open_server, "s3://data", &anonymous);
    let version = ufs.stat(b"file").await.unwrap().version.unwrap();
    assert_eq!(ufs.read(b"file", &version, 0, 4).await.unwrap(), "data");
    let closed = server().await;
    let refused = mount(&closed, "s3://data", &anonymous).probe().await;
    assert!(matches!(&refused, Err(UfsError::Denied(_))), "{refused:?}");

    let options = S3Options { session_token: Some("a-token".into()), ..Default::default() };
    let token_server = S3Server::start(options).await.unwrap();
    mount(&token_server, "s3://data", &[("session-token", "a-token")]).probe().await.unwrap();
    for wrong in ["", "b-token"] {
        let refused = mount(&token_server, "s3://data", &[("session-token", wrong)]).probe().await;
        assert!(matches!(&refused, Err(UfsError::Denied(text)) if text.contains("session-token")), "{refused:?}");
    }
}

#[tokio::test]
async fn what_users_get_wrong_is_named_with_its_mend() {
    let server = server().await;
    let closed_port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let probe =
        async |source: &str, changes: &[(&str, &str)]| mount(&server, source, changes).probe().await.unwrap_err();

    let error = probe("s3://absent-bucket/x", &[]).await;
    assert!(matches!(&error, UfsError::Misconfigured(text) if text.contains("absent-bucket")), "{error:?}");
    let error = probe("s3://data", &[("access-key", "wrong")]).await;
    assert!(matches!(&error, UfsError::Denied(text) if text.contains("access-key")), "{error:?}");
    let error = probe("s3://data", &[("secret-key", "wrong")]).await;
    assert!(matches!(&error, UfsError::Denied(text) if text.contains("secret-key")), "{error:?}");
    let error = probe("s3://data", &[("endpoint", &closed_port)]).await;
    assert!(
        matches!(&error, UfsError::Unavailable(text) if text.contains(&closed_port) && text.contains("refused")),
        "{error:?}"
    );
    let error = probe("s3://data", &[("endpoint", "http://no-such-host.invalid:9000")]).await;
    assert!(matches!(&error, UfsError::Unavailable(text) if text.contains("no-such-host.invalid")), "{error:?}");
    // The same through stat, whose HEAD answers tell less.
    let error = mount(&server, "s3://data", &[("secret-key", "wrong")]).stat(b"x").await.unwrap_err();
    assert!(matches!(&error, UfsError::Denied(text) if text.contains("secret-key")), "{error:?}");
    let error = mount(&server, "s3://absent-bucket", &[]).stat(b"x").await.unwrap_err();
    assert!(matches!(&error, UfsError::Misconfigured(_)), "{error:?}");
}

#[tokio::test]
async fn bodies_may_lie_in_files_and_the_server_on_threads_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let options = S3Options { directory: Some(directory.path().to_owned()), ..Default::default() };
    let server = tokio::task::spawn_blocking(|| S3Server::start_on_own_threads(options).unwrap()).await.unwrap();
    server.put("data", "file", vec![9; 200_000]).unwrap();
    let ufs = mount(&server, "s3://data", &[]);
    let version = ufs.stat(b"file").await.unwrap().version.unwrap();
    assert_eq!(ufs.read(b"file", &version, 50_000, 150_000).await.unwrap(), vec![9; 150_000]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn less_than_was_asked_for_is_no_change_while_the_version_is_the_same() {
    let server = server().await;
    server.put("data", "f", vec![1; 1000]).unwrap();
    let ufs = mount(&server, "s3://data", &[]);
    let version = ufs.stat(b"f").await.unwrap().version.unwrap();
    let short = async || {
        server.faults(|faults| faults.short_bodies = 1);
        ufs.read(b"f", &version, 0, 1000).await
    };
    assert!(matches!(short().await, Err(UfsError::Unavailable(_))), "the object is as it was");
    assert_eq!(ufs.read(b"f", &version, 0, 1000).await.unwrap().len(), 1000);
    server.put("data", "f", vec![2; 500]).unwrap();
    assert_eq!(short().await, Err(UfsError::Changed));
}
