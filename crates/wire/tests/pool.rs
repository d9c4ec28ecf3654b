//! The pool's connections: how many there are, what goes over which, and what becomes of broken ones.
#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod common;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::{Server, keys, read, start, tcp_server};
use futures::future::join_all;
use penstock_testkit::proxy::{CountingProxy, Gate};
use penstock_wire::{
    Address, CallError, Pool,
    message::{MAX_READ, Request},
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

const BULK: u32 = MAX_READ as u32;

fn small() -> Request {
    Request::ReadLink { path: b"link".to_vec() }
}

/// A server behind a proxy, the proxy's address, and a pool.
async fn behind_proxy() -> (Server, CountingProxy, Address, Arc<Pool>) {
    let server = tcp_server().await;
    let proxy = CountingProxy::start("127.0.0.1:0", server.tcp().parse().unwrap()).await.unwrap();
    let address = Address::Tcp(proxy.address().to_string());
    let pool = Arc::new(Pool::new(server.mount()));
    (server, proxy, address, pool)
}

#[tokio::test]
async fn what_is_small_does_not_wait_behind_bytes_in_bulk() {
    let (server, proxy, address, pool) = behind_proxy().await;
    pool.call(&address, small()).await.unwrap();
    proxy.set(Gate::Slow(1 << 20));
    let bulk = tokio::spawn({
        let (pool, address) = (pool.clone(), address.clone());
        async move { pool.call(&address, read(0, BULK)).await }
    });
    while server.service.calls.load(Ordering::Relaxed) < 2 && !bulk.is_finished() {
        sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..20 {
        pool.call(&address, small()).await.unwrap();
    }
    assert!(!bulk.is_finished(), "4 MiB at 1 MiB/s are still under way");
    proxy.set(Gate::Open);
    bulk.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_second_connection_for_bulk_is_made_only_while_the_first_is_in_use() {
    let (_server, proxy, address, pool) = behind_proxy().await;
    for _ in 0..5 {
        pool.call(&address, read(0, BULK)).await.unwrap();
    }
    assert_eq!(proxy.connections(), 1);
    for result in join_all((0..20).map(|_| pool.call(&address, read(0, BULK)))).await {
        result.unwrap();
    }
    assert_eq!(proxy.connections(), 2);
    for result in join_all((0..20).map(|_| pool.call(&address, small()))).await {
        result.unwrap();
    }
    assert_eq!(proxy.connections(), 3, "small ones share one");
}

#[tokio::test]
async fn where_no_second_connection_can_be_made_the_first_serves_all() {
    let server = tcp_server().await;
    let (address, relay) = server.relay().await;
    let pool = Pool::new(server.mount());
    pool.call(&address, read(0, BULK)).await.unwrap();
    for result in join_all((0..8).map(|_| pool.call(&address, read(0, BULK)))).await {
        result.unwrap();
    }
    drop(pool);
    relay.await.unwrap();
}

#[tokio::test]
async fn cut_connections_fail_the_calls_in_flight_and_the_pool_renews_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = start(listener.into(), Address::Tcp(addr.to_string()), keys());
    let pool = Pool::new(server.mount());
    pool.call(&server.address, read(1, 1)).await.unwrap();
    let Server { address, keys, shutdown, task, .. } = server;
    shutdown.cancel();
    task.await.unwrap();

    let gone = pool.call(&address, read(1, 1)).await;
    assert!(matches!(gone, Err(CallError::Connection(_))), "{gone:?}");
    let again = start(TcpListener::bind(addr).await.unwrap().into(), address.clone(), keys);
    again.service.epoch.store(5, Ordering::Relaxed);
    let newest = pool.newest();
    timeout(Duration::from_secs(5), async {
        while pool.call(&address, read(1, 1)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!((newest.borrow().epoch, newest.borrow().address.as_ref()), (5, Some(&address)));
}
