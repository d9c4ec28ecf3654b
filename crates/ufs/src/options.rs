//! Option names, in the spellings that users bring along from other tools.

use std::collections::BTreeMap;

use crate::UfsError;

/// The name in our documents, and what else it is called, without case, `-`, `_` and `.`.
const NAMES: [(&str, &[&str]); 7] = [
    ("endpoint", &["endpoint", "endpointurl", "s3endpoint", "awsendpointurl"]),
    ("region", &["region", "s3region", "awsregion"]),
    ("path-style", &["pathstyle", "forcepathstyle", "s3pathstyle", "s3forcepathstyle"]),
    ("access-key", &["accesskey", "accesskeyid", "awsaccesskeyid", "s3accesskey"]),
    ("secret-key", &["secretkey", "secretaccesskey", "awssecretkey", "awssecretaccesskey", "s3secretkey"]),
    ("session-token", &["sessiontoken", "awssessiontoken", "s3sessiontoken"]),
    ("anonymous", &["anonymous"]),
];

/// A mount's options under their canonical names.
#[derive(Default)]
pub(crate) struct Options<'a> {
    values: BTreeMap<&'static str, Given<'a>>,
}

struct Given<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> Options<'a> {
    pub(crate) fn parse(given: &'a BTreeMap<String, String>) -> Result<Self, UfsError> {
        let mut options = Self::default();
        for (name, value) in given {
            let Some(canonical) = canonical(name) else {
                let known: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
                return Err(UfsError::Misconfigured(format!(
                    "option {name:?} is unknown: remove it, or use one of {}",
                    known.join(", ")
                )));
            };
            let value = value.trim();
            match options.values.insert(canonical, Given { name, value }) {
                Some(other) if other.value != value => {
                    return Err(UfsError::Misconfigured(format!(
                        "options {:?} and {name:?} both set {canonical}, to different values: keep one",
                        other.name
                    )));
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// An empty value counts as none.
    pub(crate) fn get(&self, canonical: &str) -> Option<&'a str> {
        self.values.get(canonical).map(|given| given.value).filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, canonical: &str) -> Result<Option<bool>, UfsError> {
        match self.get(canonical) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(value) => {
                Err(UfsError::Misconfigured(format!("option {canonical} is {value:?}: write \"true\" or \"false\"")))
            }
        }
    }
}

fn canonical(name: &str) -> Option<&'static str> {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '-' | '_' | '.')).map(|c| c.to_ascii_lowercase()).collect();
    NAMES.iter().find(|(_, aliases)| aliases.contains(&plain.as_str())).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_other_tools_mean_the_same() {
        for (spelling, wanted) in [
            ("endpoint", Some("endpoint")),
            ("s3.endpoint", Some("endpoint")),
            ("pathStyle", Some("path-style")),
            ("force-path-style", Some("path-style")),
            ("aws.accessKeyId", Some("access-key")),
            ("AWS_SECRET_ACCESS_KEY", Some("secret-key")),
            ("aws.secretKey", Some("secret-key")),
            ("session_token", Some("session-token")),
            ("secret", None),
        ] {
            assert_eq!(canonical(spelling), wanted, "{spelling}");
        }
    }
}
