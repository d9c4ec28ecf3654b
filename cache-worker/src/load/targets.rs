//! Which files a load means.

use std::collections::BTreeSet;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use penstock_model::Path;
use penstock_wire::message::LoadTarget;

pub(super) struct Targets {
    /// Files and directories; none lies below another.
    pub(super) paths: BTreeSet<Path>,
    /// Directories below which globs match, none below another or below a path.
    pub(super) roots: BTreeSet<Path>,
    globs: GlobSet,
}

impl Targets {
    /// Without any target it is all. The error is a sentence for people.
    pub(super) fn new(targets: &[LoadTarget]) -> Result<Self, String> {
        let (mut paths, mut roots, mut globs) = (BTreeSet::new(), BTreeSet::new(), GlobSetBuilder::new());
        for target in targets {
            match target {
                LoadTarget::Path(path) => drop(paths.insert(path.clone())),
                LoadTarget::Glob(text) => {
                    globs.add(glob(text)?);
                    roots.insert(literal(text));
                }
            }
        }
        if targets.is_empty() {
            paths.insert(Path::new());
        }
        let paths = topmost(&paths);
        let mut roots = topmost(&roots);
        roots.retain(|root| !covers(&paths, root));
        let globs = globs.build().map_err(|error| error.to_string())?;
        Ok(Self { paths, roots, globs })
    }

    /// Whether a file below one of the roots is meant, and not by a path already.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        !covers(&self.paths, path) && std::str::from_utf8(path).is_ok_and(|path| self.globs.is_match(path))
    }
}

fn glob(text: &str) -> Result<Glob, String> {
    let built = GlobBuilder::new(text).literal_separator(true).build();
    built.map_err(|error| format!("glob '/{text}': {}; correct it", error.kind()))
}

/// The directory of the first parts of a glob that have nothing special.
fn literal(glob: &str) -> Path {
    let parts: Vec<&str> = glob.split('/').collect();
    let plain = parts[..parts.len() - 1].iter().take_while(|part| !part.contains(['*', '?', '[', '{', '\\']));
    plain.copied().collect::<Vec<_>>().join("/").into_bytes()
}

fn topmost(all: &BTreeSet<Path>) -> BTreeSet<Path> {
    all.iter().filter(|path| !above(path).any(|above| all.contains(above))).cloned().collect()
}

fn covers(all: &BTreeSet<Path>, path: &[u8]) -> bool {
    all.contains(path) || above(path).any(|above| all.contains(above))
}

/// The directories that `path` lies in, the root last.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = (0..path.len()).rev().filter(|at| path[*at] == b'/').map(|at| &path[..at]);
    slashes.chain((!path.is_empty()).then_some(&path[..0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(paths: &[&str], globs: &[&str]) -> Targets {
        let paths = paths.iter().map(|path| LoadTarget::Path(path.as_bytes().to_vec()));
        let globs = globs.iter().map(|glob| LoadTarget::Glob((*glob).to_owned()));
        Targets::new(&paths.chain(globs).collect::<Vec<_>>()).unwrap()
    }

    fn texts(paths: &BTreeSet<Path>) -> Vec<&str> {
        paths.iter().map(|path| std::str::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn without_targets_it_is_all() {
        assert_eq!(texts(&targets(&[], &[]).paths), [""]);
    }

    #[test]
    fn what_lies_below_another_target_is_looked_at_once() {
        let found = targets(&["a/b", "a", "ab", "c/d"], &["a/x/*.csv", "c/*/e*.csv", "c/**", "f/g?/h"]);
        assert_eq!(texts(&found.paths), ["a", "ab", "c/d"]);
        assert_eq!(texts(&found.roots), ["c", "f"]);
        for (path, expected) in [
            ("c/z/file", true),
            ("c/d/file", false),
            ("a/x/1.csv", false),
            ("f/g1/h", true),
            ("f/g1/h/i", false),
            ("f/g12/h", false),
        ] {
            assert_eq!(found.matches(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn a_glob_that_is_none_is_named() {
        let error = Targets::new(&[LoadTarget::Glob("a/[b".into())]).err().unwrap();
        assert!(error.starts_with("glob '/a/[b': "), "{error}");
    }
}
