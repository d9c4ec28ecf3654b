//! What other parsers make of the same expressions: each difference is one that `docs/schedules.md` explains.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use jiff::{Timestamp, tz::TimeZone};
use penstock_schedule::{Days, Rule, Schedule};
use penstock_tools as tools;

const EXPRESSIONS: usize = 100_000;
const MONTHS: [&str; 12] = ["jan", "FEB", "mar", "apr", "May", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "MON", "tue", "wed", "Thu", "fri", "sat"];

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn field(&mut self, least: u64, most: u64, names: &[&str]) -> String {
        let one = |random: &mut Self| {
            // Now and then one that is out of range.
            let number = least + random.below(most - least + 1) + u64::from(random.below(60) == 0) * (most + 1);
            match names.get((number - least) as usize) {
                Some(name) if random.below(4) == 0 => (*name).to_owned(),
                _ => number.to_string(),
            }
        };
        match self.below(12) {
            0..=3 => "*".to_owned(),
            4 => "?".to_owned(),
            5 => format!("*/{}", 1 + self.below(most)),
            6 => format!("{}/{}", one(self), 1 + self.below(most)),
            7 => format!("{}-{}", one(self), one(self)),
            8 => format!("{},{}", one(self), one(self)),
            9 => format!("*/{},{}", 2 + self.below(most), one(self)),
            10 if self.below(20) == 0 => {
                ["L", "15W", "5#2", "", "1,,2", "*/0", "+1"][self.below(7) as usize].to_owned()
            }
            _ => one(self),
        }
    }

    fn expression(&mut self) -> String {
        let mut fields = vec![
            self.field(0, 59, &[]),
            self.field(0, 23, &[]),
            self.field(1, 31, &[]),
            self.field(1, 12, &MONTHS),
            self.field(0, 7, &DAYS),
        ];
        if self.below(2) == 0 {
            fields.insert(0, self.field(0, 59, &[]));
        }
        fields.join(" ")
    }
}

fn ours(text: &str) -> String {
    let Ok(schedule) = Schedule::parse(text) else { return "-".to_owned() };
    let rule = Rule { schedule, zone: TimeZone::UTC, days: Days::default() };
    let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
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

/// What explains that another parser says something else; none where it should say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Five fields are minute first here, and second first there.
    SecondFirst,
    /// 7 is Sunday here.
    Sunday,
    /// What never comes is refused here.
    Never,
    /// Empty list items, signs and the like are refused here.
    Sloppy,
    /// A step on a star still counts as a star for the rule of days here.
    StarWithStep,
    /// `?` stands in any field here.
    QuestionMark,
    /// `N/STEP` goes on to the last here, as in the kubernetes-cronhpa-controller.
    StepFromNumber,
    /// Ranges that go backwards are refused here.
    Backwards,
    /// L, W and # are refused here.
    Quartz,
    /// Times are looked for further ahead here.
    Further,
    /// A range of one number is that number here.
    OneWide,
}

struct Seen<'a> {
    text: &'a str,
    fields: Vec<&'a str>,
    ours: &'a str,
    theirs: &'a str,
}

impl Seen<'_> {
    /// Of day of month and day of week.
    fn has_star_with_step(&self) -> bool {
        let [.., day, _, weekday] = self.fields.as_slice() else { return false };
        [day, weekday].iter().any(|field| field.split(',').any(|item| item.starts_with("*/") || item.starts_with("?/")))
    }

    fn has(&self, what: &str) -> bool {
        self.text.contains(what)
    }

    fn weekday_has_seven(&self) -> bool {
        self.fields.last().is_some_and(|field| field.split([',', '-', '/']).any(|part| part == "7"))
    }

    fn steps_from_number(&self) -> bool {
        self.fields
            .iter()
            .flat_map(|field| field.split(','))
            .any(|item| item.split_once('/').is_some_and(|(range, _)| !range.contains(['*', '?', '-'])))
    }

    fn is_refused_here_alone(&self) -> bool {
        self.ours == "-" && self.theirs != "-"
    }

    fn has_range_of_one(&self) -> bool {
        let place = |names: &[&str], end: &str| names.iter().position(|name| name.eq_ignore_ascii_case(end));
        let number = |end: &str| {
            let named = place(&DAYS, end).or(place(&MONTHS, end).map(|month| month + 1));
            named.map_or(end.to_owned(), |number| number.to_string())
        };
        let is_one = |item: &str| {
            let ends = item.split('/').next().and_then(|range| range.split_once('-'));
            ends.is_some_and(|(a, b)| number(a) == number(b))
        };
        self.fields.iter().flat_map(|field| field.split(',')).any(is_one)
    }

    fn says_never(&self) -> bool {
        matches!(Schedule::parse(self.text), Err(penstock_schedule::ScheduleError::Never { .. }))
    }

    fn goes_backwards(&self) -> bool {
        matches!(Schedule::parse(self.text), Err(penstock_schedule::ScheduleError::Backwards { .. }))
    }
}

type Explains = fn(&Seen<'_>) -> bool;

fn table(witness: &str) -> Vec<(Difference, Explains)> {
    use Difference::{
        Backwards, Further, Never, OneWide, Quartz, QuestionMark, SecondFirst, Sloppy, StarWithStep, StepFromNumber,
        Sunday,
    };
    let never: (Difference, Explains) = (Never, |seen| seen.is_refused_here_alone() && seen.says_never());
    let sunday: (Difference, Explains) = (Sunday, |seen| seen.theirs == "-" && seen.weekday_has_seven());
    let sloppy: (Difference, Explains) =
        (Sloppy, |seen| seen.is_refused_here_alone() && (seen.has(",,") || seen.has("+") || seen.has("/0")));
    let further: (Difference, Explains) = (Further, |seen| seen.theirs != "-" && seen.ours.starts_with(seen.theirs));
    match witness {
        "ringtail" => vec![(SecondFirst, |seen| seen.fields.len() < 6), sunday, never, sloppy, further],
        "robfig" => vec![sunday, never, sloppy, further, (StarWithStep, |seen| seen.has_star_with_step())],
        "croniter" => vec![
            never,
            sloppy,
            (QuestionMark, |seen| seen.theirs == "-" && seen.has("?")),
            (StepFromNumber, |seen| seen.steps_from_number()),
            (Backwards, |seen| seen.is_refused_here_alone() && seen.goes_backwards()),
            (OneWide, |seen| seen.has_range_of_one()),
            further,
            (Quartz, |seen| seen.is_refused_here_alone() && (seen.has("L") || seen.has("#") || seen.has("W"))),
            (StarWithStep, |seen| seen.has_star_with_step()),
        ],
        other => panic!("no table for {other}"),
    }
}

/// Counts the differences by what explains them.
fn compared(witness: &str, expressions: &[String], theirs: &[String]) -> BTreeMap<Difference, usize> {
    assert_eq!(expressions.len(), theirs.len(), "{witness} does not answer all");
    let table = table(witness);
    let mut found = BTreeMap::new();
    for (text, theirs) in expressions.iter().zip(theirs) {
        let ours = ours(text);
        if ours == *theirs {
            continue;
        }
        let seen = Seen { text, fields: text.split_whitespace().collect(), ours: &ours, theirs };
        let explained = table.iter().find(|(_, explains)| explains(&seen));
        let (difference, _) = explained.unwrap_or_else(|| panic!("'{text}': {ours} here, {theirs} in {witness}"));
        *found.entry(*difference).or_default() += 1;
    }
    println!("{witness}: of {} expressions, different: {found:?}", expressions.len());
    found
}

fn expressions() -> Vec<String> {
    let mut random = Random(0x5eed_cafe);
    (0..EXPRESSIONS).map(|_| random.expression()).collect()
}

fn witness() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/witness")
}

#[test]
fn the_parsers_of_kubernetes_autoscalers_agree_but_for_what_is_explained() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cron-witness");
    let mut build = Command::new(tools::debian("go", "golang-go").unwrap());
    tools::run(build.args(["build", "-o"]).arg(&program).arg(".").current_dir(witness())).unwrap();
    let expressions = expressions();
    let said = asked(Command::new(program), &expressions);
    let (robfig, ringtail): (Vec<_>, Vec<_>) =
        said.iter().map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).unzip();
    assert!(compared("robfig", &expressions, &robfig).len() > 2);
    assert!(compared("ringtail", &expressions, &ringtail).contains_key(&Difference::SecondFirst));
}

#[test]
fn croniter_agrees_but_for_what_is_explained() {
    let (python, packages) = tools::python_packages("croniter-7.0.0", &["croniter==7.0.0"]).unwrap();
    let mut program = Command::new(python);
    program.arg(witness().join("croniter_says.py")).env("PYTHONPATH", packages);
    let expressions = expressions();
    let said = asked(program, &expressions);
    assert!(compared("croniter", &expressions, &said).len() > 2);
}
