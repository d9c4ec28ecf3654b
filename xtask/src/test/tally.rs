//! What became of the tests, from what their programs print.

use std::{fmt, process::ExitStatus};

/// Counts over all programs; `Display` is the closing summary.
#[derive(Default)]
pub(super) struct Tally {
    passed: usize,
    failed: Vec<Failure>,
    now: Failure,
}

/// Of one program.
#[derive(Default)]
struct Failure {
    program: String,
    tests: Vec<String>,
    /// How it ended, where no test's name tells it.
    end: Option<String>,
}

impl Tally {
    pub(super) fn begin(&mut self, program: &str) {
        self.now = Failure { program: program.to_owned(), ..Failure::default() };
    }

    /// A line that the program has printed.
    pub(super) fn line(&mut self, line: &str) {
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else {
            return;
        };
        if outcome.starts_with("ok") {
            self.passed += 1;
        } else if outcome.starts_with("FAILED") {
            self.now.tests.push(name.to_owned());
        }
    }

    pub(super) fn end(&mut self, end: anyhow::Result<ExitStatus>) {
        let mut program = std::mem::take(&mut self.now);
        match end {
            Ok(status) if status.success() => return,
            Ok(_) if !program.tests.is_empty() => {}
            Ok(status) => program.end = Some(status.to_string()),
            Err(error) => program.end = Some(format!("{error:#}")),
        }
        self.failed.push(program);
    }

    pub(super) fn is_failed(&self) -> bool {
        !self.failed.is_empty()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.failed.iter().map(|program| program.tests.len()).sum();
        write!(f, "{} tests passed, {failed} failed", self.passed)?;
        for Failure { program, tests, end } in &self.failed {
            write!(f, "\nFAILED {program}")?;
            for test in tests {
                write!(f, "\n    {test}")?;
            }
            if let Some(end) = end {
                write!(f, "\n    {end}; no test says that it failed")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_summary_names_programs_and_tests_that_failed() {
        let mut tally = Tally::default();
        tally.begin("crates/store");
        tally.line("test fills ... ok");
        tally.line("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.end(Ok(ExitStatus::from_raw(0)));
        tally.begin("e2e tests/penstock");
        tally.line("test reads::one ... ok (3.1 s)");
        tally.line("test reads::two ... FAILED (4.0 s)");
        tally.line("test reads::three - should panic ... ignored, no node access");
        tally.line("test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 9.00s");
        tally.end(Ok(ExitStatus::from_raw(1 << 8)));
        tally.begin("mount");
        tally.line("test one ... ok");
        tally.end(Ok(ExitStatus::from_raw(9)));
        assert!(tally.is_failed());
        assert_eq!(
            tally.to_string(),
            "3 tests passed, 1 failed\nFAILED e2e tests/penstock\n    reads::two\nFAILED mount\n    \
             signal: 9 (SIGKILL); no test says that it failed"
        );
    }
}
