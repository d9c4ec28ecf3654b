//! Which tests run at the same time.

use std::future::Future;
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Test;

/// Runs all tests by `run`: on `threads` threads those that share the cluster, then the exclusive ones on this thread.
/// Returns what `run` returned, or nothing when `interrupted` ended first. Blocks; tests may block their threads too.
pub(super) fn run_all<T: Send>(
    tests: &[Test],
    threads: usize,
    interrupted: impl Future<Output = ()> + Send + 'static,
    run: impl AsyncFn(&Test) -> T + Sync,
) -> Option<Vec<T>> {
    let runtime = Handle::current();
    let (stop, stopped) = watch::channel(false);
    let waiting = runtime.spawn(async move {
        interrupted.await;
        let _ = stop.send(true);
        // The channel stays open: a closed one would count as an interrupt.
        std::future::pending::<()>().await;
    });
    let results = Mutex::new(Vec::new());
    let work = |tests: &Mutex<Vec<&Test>>| {
        let mut stopped = stopped.clone();
        loop {
            let Some(test) = tests.lock().pop() else { return };
            let result = runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => None,
                    result = run(test) => Some(result),
                }
            });
            let Some(result) = result else { return };
            results.lock().push(result);
        }
    };
    let (exclusive, shared): (Vec<&Test>, Vec<&Test>) = tests.iter().rev().partition(|test| test.exclusive);
    let (exclusive, shared) = (Mutex::new(exclusive), Mutex::new(shared));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(&shared));
        }
    });
    work(&exclusive);
    waiting.abort();
    let interrupted = *stopped.borrow();
    (!interrupted).then(|| results.into_inner())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Barrier;

    use super::*;

    fn test(name: &'static str, exclusive: bool) -> Test {
        Test { name, run: |_| Box::pin(async { Ok(()) }), exclusive }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tests_that_share_the_cluster_run_side_by_side_and_exclusive_ones_alone() {
        let tests = [test("a", false), test("alone", true), test("b", false), test("also", true), test("c", false)];
        // All three are under way at once, or this never ends.
        let (together, running) = (Barrier::new(3), AtomicUsize::new(0));
        let run = async |test: &Test| {
            let others = running.fetch_add(1, Ordering::SeqCst);
            if test.exclusive {
                tokio::task::yield_now().await;
                assert_eq!(others, 0, "{}", test.name);
            } else {
                together.wait().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            test.name
        };
        let mut names = super::super::blocking(|| run_all(&tests, 3, std::future::pending(), run)).unwrap();
        assert_eq!(names[3..], ["alone", "also"]);
        names.sort_unstable();
        assert_eq!(names, ["a", "alone", "also", "b", "c"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_interrupt_ends_running_tests_and_begins_no_other() {
        let tests = [test("a", false), test("b", false), test("alone", true)];
        let begun = AtomicUsize::new(0);
        let run = async |_: &Test| {
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        };
        assert!(super::super::blocking(|| run_all(&tests, 1, tokio::task::yield_now(), run)).is_none());
        assert!(begun.into_inner() <= 1);
    }
}
