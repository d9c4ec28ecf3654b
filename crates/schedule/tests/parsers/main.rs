//! What other parsers make of the same expressions: each difference is one that `docs/schedules.md` explains.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod explained;
mod generated;
mod page;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    thread,
};

use explained::{CRONITER, Difference, RINGTAIL, ROBFIG, Witness, explained};
use jiff::{Timestamp, tz::TimeZone};
use penstock_schedule::{Days, Rule, Schedule};
use penstock_tools as tools;

/// When all parsers are asked for the next times, in seconds: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN: i64 = 1_767_225_600;

/// The next three times in seconds, with commas; `-` where the text is refused.
pub(crate) fn ours(text: &str) -> String {
    let Ok(schedule) = Schedule::parse(text) else { return "-".to_owned() };
    let rule = Rule { schedule, zone: TimeZone::UTC, days: Days::default() };
    let mut now = Timestamp::from_second(BEGIN).unwrap();
    let mut times = Vec::new();
    for _ in 0..3 {
        let Some(next) = rule.next(now) else { break };
        times.push(next.as_second().to_string());
        now = next;
    }
    times.join(",")
}

/// Shows all expressions to a program, one on a line; its lines.
fn asked(mut program: Command, expressions: &[String]) -> Vec<String> {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, text) = (child.stdin.take().unwrap(), expressions.join("\n") + "\n");
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    answer.lines().map(str::to_owned).collect()
}

static GO_WITNESS: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cron-witness");
    let mut build = Command::new(tools::debian("go", "golang-go").unwrap());
    tools::run(build.args(["build", "-o"]).arg(&program).arg(".").current_dir(folder())).unwrap();
    program
});

/// What robfig and ringtail say.
fn go_says(expressions: &[String]) -> (Vec<String>, Vec<String>) {
    let said = asked(Command::new(&*GO_WITNESS), expressions);
    said.iter().map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).unzip()
}

fn croniter_says(expressions: &[String]) -> Vec<String> {
    let (python, packages) = tools::python_packages("croniter-7.0.0", &["croniter==7.0.0"]).unwrap();
    let mut program = Command::new(python);
    program.arg(folder().join("croniter_says.py")).env("PYTHONPATH", packages);
    asked(program, expressions)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/witness")
}

/// Counts the differences by what explains them.
fn compare(witness: &Witness, expressions: &[String], ours: &[String], theirs: &[String]) {
    assert_eq!(expressions.len(), theirs.len(), "{} does not answer all", witness.name);
    let mut found: BTreeMap<Vec<Difference>, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    let mut differing = 0;
    for ((text, ours), theirs) in expressions.iter().zip(ours).zip(theirs).filter(|((_, ours), theirs)| ours != theirs)
    {
        differing += 1;
        match explained(witness, text, theirs) {
            Some(differences) => *found.entry(differences).or_default() += 1,
            None => unexplained.push(format!("'{text}': {ours} here, {theirs} there")),
        }
    }
    let name = witness.name;
    println!("{name}: of {} expressions, {differing} differ: {found:?}", expressions.len());
    let first = unexplained.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(unexplained.is_empty(), "{name}: {} are not explained:\n{first}", unexplained.len());
}

#[test]
fn other_parsers_agree_on_100_000_expressions_but_for_what_is_explained() {
    let expressions = generated::expressions();
    let (ours, (robfig, ringtail), croniter) = thread::scope(|scope| {
        let go = scope.spawn(|| go_says(&expressions));
        let python = scope.spawn(|| croniter_says(&expressions));
        let ours: Vec<_> = expressions.iter().map(|text| ours(text)).collect();
        (ours, go.join().unwrap(), python.join().unwrap())
    });
    compare(&ROBFIG, &expressions, &ours, &robfig);
    compare(&RINGTAIL, &expressions, &ours, &ringtail);
    compare(&CRONITER, &expressions, &ours, &croniter);
}
