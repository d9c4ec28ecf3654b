//! Runs the end-to-end tests on one cluster with Penstock installed: side by side in namespaces of their own, then, one
//! after the other, those that need the cluster to themselves.
//!
//! A test program of its own (`harness = false`), because the cluster must go down after the last test, also after a
//! panic or an interrupt; Rust's own harness has no such moment. Takes the arguments that matter of Rust's own: filters,
//! `--exact`, `--skip`, `--list`, `--test-threads`.

mod arguments;
mod case;
mod data;
mod env;
mod install;
mod readers;
mod schedule;
mod witnesses;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};

use arguments::Arguments;
pub use case::Case;
pub use data::Tree;
pub use env::Env;
pub use install::Release;
pub use readers::{Loop, checked_pass};
pub use witnesses::Witnesses;

/// Longer than any test takes on a busy machine of two cores.
const LIMIT: Duration = Duration::from_mins(8);

/// A test and its name.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub run: for<'a> fn(&'a Case<'a>) -> BoxFuture<'a, Result<()>>,
    /// No other test runs meanwhile.
    pub exclusive: bool,
}

/// A list of [`Test`]s from paths of `async fn(&Case<'_>) -> anyhow::Result<()>`, named by those paths. A test that touches
/// what others share (the operator, the node plugins, the chart, the API server, a node), or counts what others cause too,
/// is marked `#[exclusive]`.
#[macro_export]
macro_rules! e2e_tests {
    ($($(#[$mark:ident])? $test:path),* $(,)?) => {
        [$({
            fn run<'a>(case: &'a $crate::harness::Case<'a>) -> ::futures::future::BoxFuture<'a, ::anyhow::Result<()>> {
                Box::pin($test(case))
            }
            $crate::harness::Test { name: stringify!($test), run, exclusive: stringify!($($mark)?) == "exclusive" }
        }),*]
    };
}

/// Returned as an error by a test that cannot run here.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The `main` of a test program.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let selected: Vec<Test> = tests.iter().filter(|test| arguments.selects(test.name)).copied().collect();
    if arguments.list {
        for test in &selected {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let filtered = tests.len() - selected.len();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&selected, filtered, arguments.threads)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The number of failed tests.
async fn run(tests: &[Test], filtered: usize, threads: usize) -> Result<usize> {
    println!("\nrunning {} tests", tests.len());
    let begun = Instant::now();
    let mut outcomes = Vec::new();
    if !tests.is_empty() {
        let env = tokio::select! {
            env = Env::start() => env?,
            () = interrupted() => bail!("interrupted"),
        };
        println!("cluster and Penstock stand after {:.1} s", begun.elapsed().as_secs_f64());
        let all =
            blocking(|| schedule::run_all(tests, threads, interrupted(), async |test: &Test| told(test, &env).await));
        env.stop();
        let Some(all) = all else { bail!("interrupted") };
        outcomes = all;
    }
    let count = |wanted: &Outcome| outcomes.iter().filter(|outcome| *outcome == wanted).count();
    let (passed, skipped) = (count(&Outcome::Passed), count(&Outcome::Skipped));
    let failed: Vec<_> = outcomes.iter().filter_map(Outcome::failed).collect();
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(failed.len())
}

/// What became of a test.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    Failed(&'static str),
}

impl Outcome {
    fn failed(&self) -> Option<&'static str> {
        if let Self::Failed(name) = self { Some(name) } else { None }
    }
}

/// Runs a test and prints how it ended.
async fn told(test: &Test, env: &Env) -> Outcome {
    println!("test {} begins", test.name);
    let begun = Instant::now();
    let result = one(test, env).await;
    let seconds = begun.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            println!("test {} ... ok ({seconds:.1} s)", test.name);
            Outcome::Passed
        }
        Err(error) if error.is::<Skip>() => {
            println!("test {} ... ignored, {error}", test.name);
            Outcome::Skipped
        }
        Err(error) => {
            println!("test {} ... FAILED ({seconds:.1} s)\n{error:#}", test.name);
            Outcome::Failed(test.name)
        }
    }
}

/// A test in a namespace of its own, which must be empty and gone in the end.
async fn one(test: &Test, env: &Env) -> Result<()> {
    let case = Case::begin(env, test.name).await?;
    let guarded = AssertUnwindSafe(tokio::time::timeout(LIMIT, (test.run)(&case))).catch_unwind();
    let result = match guarded.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(anyhow::anyhow!("not done after {} s", LIMIT.as_secs())),
        Err(panic) => Err(anyhow::anyhow!("panicked: {}", text_of(panic.as_ref()))),
    };
    if let Err(error) = &result
        && !error.is::<Skip>()
    {
        case.write_diagnostics(&format!("{error:#}"));
    }
    let ended = case.end().await;
    result.and(ended)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Runs what blocks without holding up other tasks.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
