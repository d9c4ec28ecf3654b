//! How far a long build is: a bar on a terminal, a line now and then in a log.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines in a log.
const INTERVAL: Duration = Duration::from_secs(20);
/// Lines of what a failed command printed that its error carries.
const KEPT: usize = 40;

/// Runs a Go build with `-v`, which names each package and download on standard error, to its end. `count` tells how many
/// packages there are, where that can be known; it is asked while the build runs.
pub(crate) fn run(what: &str, build: &mut Command, count: impl FnOnce() -> Option<u64> + Send) -> Result<()> {
    eprintln!("{what}");
    let mut child = build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stderr.take().context("standard error is piped")?).lines();
    let progress = Progress::new()?;
    let mut last = VecDeque::new();
    std::thread::scope(|scope| {
        scope.spawn(|| count().map(|packages| progress.bar.set_length(packages)));
        let mut told = Instant::now();
        for line in lines.map_while(Result::ok) {
            progress.note(&line, &mut told);
            last.push_back(line);
            if last.len() > KEPT {
                last.pop_front();
            }
        }
    });
    let status = child.wait()?;
    let seconds = progress.bar.elapsed().as_secs();
    progress.bar.finish_and_clear();
    if !status.success() {
        bail!("{build:?} failed ({status}): {}", Vec::from(last).join("\n"));
    }
    eprintln!("    done after {seconds} s");
    Ok(())
}

struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Result<Self> {
        let style = "    {elapsed} {wide_bar} {pos}/{len} {msg:40!}";
        let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(style)?);
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Self { bar })
    }

    fn note(&self, line: &str, told: &mut Instant) {
        // Downloads come before the packages, and are not counted among them.
        if !line.starts_with("go: ") {
            self.bar.inc(1);
        }
        self.bar.set_message(line.to_owned());
        if self.bar.is_hidden() && told.elapsed() >= INTERVAL {
            *told = Instant::now();
            let all = self.bar.length().map(|all| format!(" of at most {all}")).unwrap_or_default();
            eprintln!("    {} s: {}{all} packages, now {line}", self.bar.elapsed().as_secs(), self.bar.position());
        }
    }
}
