//! The part of the Rust test harness's command line that tools and people use.

/// What to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    pub(super) list: bool,
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
                // Tests run one after the other and print as they go, whatever is asked.
                "--nocapture" | "--no-capture" | "--show-output" | "--include-ignored" | "-q" | "--quiet" => {}
                "--test-threads" | "--format" | "--color" => drop(args.next()),
                _ if arg.starts_with("--test-threads=") || arg.starts_with("--color=") => {}
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
    }
}
