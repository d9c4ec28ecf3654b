//! Two operators of one cluster: one acts, and the other takes over.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Bench, FakeWorkers, wait_for};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Client;
use parking_lot::Mutex;
use penstock_operator::{
    controller::{self, Settings, build::WorkerDefaults},
    lease::{LeaderElection, Led, Timing},
    metrics::Metrics,
};
use penstock_testkit::{
    control_plane::client_from,
    proxy::{CountingProxy, Gate},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// When an operator began to act, and when it ended.
#[derive(Default)]
struct Term(Mutex<(Option<Instant>, Option<Instant>)>);

impl Term {
    fn began(&self) -> Option<Instant> {
        self.0.lock().0
    }

    fn ended(&self) -> Option<Instant> {
        self.0.lock().1
    }
}

/// Notes the end when it is dropped.
struct Acting(Arc<Term>);

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.0.lock().1 = Some(Instant::now());
    }
}

struct Operator {
    term: Arc<Term>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<Led<()>>,
}

/// Slow enough for a busy machine.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(8),
    renew_deadline: Duration::from_secs(5),
    retry: Duration::from_millis(200),
};

fn start(client: &Client, identity: &str, workers: &Arc<FakeWorkers>) -> Operator {
    let (term, metrics, stop) = (Arc::new(Term::default()), Arc::new(Metrics::default()), CancellationToken::new());
    let election = LeaderElection::new(client.clone(), "default", "penstock-operator", identity, TIMING);
    let settings = Settings {
        worker_image: "penstock:test".into(),
        worker_defaults: WorkerDefaults::default(),
        namespace: None,
        updating_runtimes: 1,
        watch_failed: Arc::default(),
    };
    let (client, workers) = (client.clone(), workers.clone());
    let (of_control, its_metrics, until) = (term.clone(), metrics.clone(), stop.clone());
    let task = tokio::spawn(async move {
        let control = |stop| async move {
            of_control.0.lock().0 = Some(Instant::now());
            let _acting = Acting(of_control);
            controller::run(client, settings, workers, its_metrics, stop).await.unwrap();
        };
        election.lead(&until, control).await
    });
    Operator { term, metrics, stop, task }
}

async fn leads(operator: &Operator, who: &str) {
    wait_for(&format!("{who} leads"), || async { operator.term.began() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_stopped_is_followed_by_the_one_that_stands_by() {
    let mut bench = Bench::start().await;
    bench.stop_operator().await;
    bench.namespace("ns").await;
    let first = start(&bench.client, "first", &bench.workers);
    leads(&first, "the first").await;
    let second = start(&bench.client, "second", &bench.workers);
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    assert_eq!(second.term.began(), None);

    first.stop.cancel();
    assert_eq!(first.task.await.unwrap(), Led::Ended(()));
    bench.pair("ns", "b").await;
    bench.bound("ns", "b").await;
    assert!(second.term.began() >= first.term.ended());
    second.stop.cancel();
    assert_eq!(second.task.await.unwrap(), Led::Ended(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_the_api_server_writes_nothing_once_another_leads() {
    let mut bench = Bench::start().await;
    bench.stop_operator().await;
    bench.namespace("ns").await;
    let (_, address) = bench.plane.url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let proxy = CountingProxy::start("127.0.0.1:0", address.parse().unwrap()).await.unwrap();
    let kubeconfig = std::fs::read_to_string(bench.plane.kubeconfig()).unwrap();
    let through = client_from(&kubeconfig.replace(&address, &proxy.address().to_string())).await.unwrap();

    let first = start(&through, "first", &bench.workers);
    leads(&first, "the first").await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    let second = start(&bench.client, "second", &bench.workers);

    // It has passes under way when it is cut off.
    for name in ["b", "c", "d"] {
        bench.pair("ns", name).await;
    }
    proxy.set(Gate::Stalled);
    leads(&second, "the second").await;
    let written = first.metrics.writes();
    assert_eq!(first.task.await.unwrap(), Led::Lost);
    assert!(first.term.ended() <= second.term.began(), "two act at once");
    proxy.set(Gate::Open);

    for name in ["b", "c", "d"] {
        bench.bound("ns", name).await;
        bench.there::<StatefulSet>("ns", &format!("{name}-worker")).await;
    }
    assert_eq!(first.metrics.writes(), written);
    second.stop.cancel();
    assert_eq!(second.task.await.unwrap(), Led::Ended(()));
}
