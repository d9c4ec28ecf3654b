//! The part of the Rust test harness's command line that tools and people use.

/// Enough to hide what tests wait for, and few enough for pods on two cores.
const THREADS: usize = 3;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    pub(super) list: bool,
    /// Tests at once, of those that share the cluster.
    pub(super) threads: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { filters: Vec::new(), skip: Vec::new(), exact: false, list: false, threads: THREADS }
    }
}

impl Arguments {
    pub(super) fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--skip" => parsed.skip.push(args.next().ok_or("--skip needs a name")?),
                // Tests print as they go, whatever is asked.
                "--nocapture" | "--no-capture" | "--show-output" | "--include-ignored" | "-q" | "--quiet" => {}
                "--test-threads" => parsed.threads = threads(&args.next().ok_or("--test-threads needs a number")?)?,
                "--format" | "--color" => drop(args.next()),
                _ if arg.starts_with("--test-threads=") => {
                    parsed.threads = threads(arg.trim_start_matches("--test-threads="))?;
                }
                _ if arg.starts_with("--color=") => {}
                _ if arg.starts_with('-') => return Err(format!("unknown option {arg}")),
                _ => parsed.filters.push(arg),
            }
        }
        Ok(parsed)
    }

    pub(super) fn selects(&self, name: &str) -> bool {
        let matches = |pattern: &String| if self.exact { name == pattern } else { name.contains(pattern.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("--test-threads {text}: not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_select_by_part_of_the_name_and_skips_exclude() {
        let parse = |line: &str| Arguments::parse(line.split_whitespace().map(str::to_owned)).unwrap();
        for (line, name, selected) in [
            ("", "a::b", true),
            ("--test-threads=1 --nocapture", "a::b", true),
            ("b", "a::b", true),
            ("c", "a::b", false),
            ("c b", "a::b", true),
            ("--exact b", "a::b", false),
            ("--exact a::b", "a::b", true),
            ("--skip b", "a::b", false),
            ("--test-threads 1 a", "a::b", true),
        ] {
            assert_eq!(parse(line).selects(name), selected, "{line:?}");
        }
        assert!(Arguments::parse(["--nonsense".to_owned()]).is_err());
        assert!(Arguments::parse(["--test-threads=many".to_owned()]).is_err());
        assert_eq!(parse("").threads, THREADS);
        assert_eq!((parse("--test-threads 1").threads, parse("--test-threads=2").threads), (1, 2));
    }
}
