//! From a mount as a Dataset describes it to a store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::local::Local;
use crate::options::Options;
use crate::s3::S3;
use crate::{Ufs, UfsError};

/// A mount with its secrets merged in.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenMount {
    /// `s3://bucket/prefix` or `local:///path`.
    pub source: String,
    /// By the names in `docs/ufs.md`.
    pub options: BTreeMap<String, String>,
}

/// Shows which options there are, never what they hold: any of them may come from a Secret.
impl fmt::Debug for OpenMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.options.keys().collect();
        f.debug_struct("OpenMount").field("source", &self.source).field("options", &names).finish()
    }
}

/// Checks scheme and options; asks nothing of the store yet. Call it inside a tokio runtime.
pub fn open(mount: &OpenMount) -> Result<Arc<dyn Ufs>, UfsError> {
    let source = &mount.source;
    let Some((scheme, rest)) = source.split_once("://") else {
        return Err(UfsError::Misconfigured(format!(
            "mountPoint {source:?} has no scheme: write s3://BUCKET/PREFIX or local:///PATH"
        )));
    };
    let options = Options::parse(&mount.options)?;
    match scheme {
        "s3" => Ok(Arc::new(S3::open(source, rest, &options)?)),
        "local" => Ok(Arc::new(Local::open(source, rest)?)),
        _ => Err(UfsError::Misconfigured(format!(
            "mountPoint {source:?} has the unknown scheme {scheme:?}: use s3:// or local://"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: &str, options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match open(&OpenMount { source: source.into(), options }) {
            Err(UfsError::Misconfigured(text)) => text,
            Err(other) => panic!("{source}: {other:?}"),
            Ok(_) => panic!("{source} opened"),
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_option_value_and_mend() {
        let keys = [("access-key", "a"), ("secret-key", "b")];
        for (source, options, wanted) in [
            ("gopher://x", &keys[..], ["gopher", "s3://"]),
            ("bucket/prefix", &keys[..], ["bucket/prefix", "local:///"]),
            ("s3:///prefix", &keys[..], ["s3:///prefix", "bucket"]),
            ("s3://b//x", &keys[..], ["s3://b//x", "s3://b/x"]),
            ("local://relative", &[][..], ["local://relative", "local:///"]),
            ("local:///a/../b", &[][..], ["local:///a/../b", ".."]),
            ("s3://b", &[("access-key", "a")][..], ["access-key", "secret-key"]),
            ("s3://b", &[("session-token", "t")][..], ["session-token", "access-key"]),
            ("s3://b", &[("acces-key", "a")][..], ["acces-key", "access-key"]),
            ("s3://b", &[("path-style", "maybe")][..], ["maybe", "true"]),
            ("s3://b", &[("endpoint", "minio:9000")][..], ["minio:9000", "http://"]),
            (
                "s3://b",
                &[("anonymous", "true"), ("access-key", "a"), ("secret-key", "b")][..],
                ["anonymous", "access-key"],
            ),
            (
                "s3://b",
                &[("accessKey", "a"), ("access-key", "c"), ("secret-key", "b")][..],
                ["accessKey", "access-key"],
            ),
        ] {
            let text = refusal(source, options);
            assert!(wanted.iter().all(|part| text.contains(part)), "{source}: {text}");
        }
    }

    #[test]
    fn debug_output_shows_no_value() {
        let mount = OpenMount { source: "s3://b".into(), options: [("secret-key".into(), "hush".into())].into() };
        let shown = format!("{mount:?}");
        assert!(shown.contains("secret-key") && !shown.contains("hush"), "{shown}");
    }
}
