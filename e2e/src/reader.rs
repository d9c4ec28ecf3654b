//! What runs in a reader's pod: reads files of known content until told to stop, and checks every byte.
//!
//! Two threads read at once: one walks through all files in random order as programs do that open, read and close; the
//! other keeps every file open and reads from random places. A third prints a [`Report`] each second.

mod account;
mod ways;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use account::Account;
use ways::{Held, Opened};

/// How often a report is printed.
const PERIOD: Duration = Duration::from_secs(1);

/// One line of a reader's log. All but `longest_ms` count from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How often every file was opened, read to its end and closed.
    pub passes: u64,
    pub bytes: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Reads that gave a wrong byte or too few, and listings with a name too many or too few.
    pub wrong: u64,
    /// The longest that a call took since the last report, or has been under way by now, in milliseconds.
    pub longest_ms: u64,
    /// The first error or wrong answer.
    pub first: Option<String>,
}

/// A file that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the folder.
    pub path: String,
    pub length: u64,
}

impl File {
    /// From `LENGTH PATH`.
    pub fn parse(line: &str) -> Result<Self> {
        let (length, path) = line.split_once(' ').with_context(|| format!("{line:?} is not `LENGTH PATH`"))?;
        Ok(Self { path: path.to_owned(), length: length.parse().with_context(|| format!("{line:?}"))? })
    }
}

/// What the ways of reading have in common.
struct Tree {
    folder: PathBuf,
    seed: u64,
    files: Vec<File>,
}

/// Reads until SIGTERM.
pub fn run(folder: PathBuf, seed: u64, files: Vec<File>) -> Result<()> {
    let tree = Arc::new(Tree { folder, seed, files });
    let account = Arc::new(Account::default());
    let (opened, held) = (Opened::new(tree.clone()), Held::new(tree));
    let (first, second) = (account.clone(), account.clone());
    std::thread::spawn(move || opened.run(&first));
    std::thread::spawn(move || held.run(&second));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(report(&account))
}

async fn report(account: &Account) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let ended = tokio::time::timeout(PERIOD, terminate.recv()).await.is_ok();
        println!("{}", serde_json::to_string(&account.report())?);
        if ended {
            return Ok(());
        }
    }
}
