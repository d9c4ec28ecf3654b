use super::*;

/// A Dataset that names `runtime`, if any, and was created at `age` seconds of the epoch.
fn claimant(name: &str, runtime: Option<&str>, created: &str) -> Dataset {
    let mut spec = one_mount();
    if let Some(runtime) = runtime {
        spec["runtime"] = json!({"name": runtime});
    }
    let mut dataset = dataset_of(name, &spec);
    dataset.metadata.creation_timestamp = Some(serde_json::from_value(json!(created)).unwrap());
    dataset
}

const FIRST: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn runtimes(names: &[&str]) -> Vec<CacheRuntime> {
    names.iter().map(|name| runtime_of(name, &one_level())).collect()
}

#[test]
fn a_dataset_is_served_by_the_runtime_that_it_names_or_by_its_namesake() {
    for (named, there, expected) in [
        (None, &["a"][..], "a"),
        (None, &["b", "a"], "a"),
        (Some("b"), &["a", "b"], "b"),
        (Some("b"), &["b"], "b"),
        (Some("a"), &["a", "b"], "a"),
    ] {
        let dataset = claimant("a", named, FIRST);
        let there = runtimes(there);
        let bound = bind(&dataset, &there, &[&dataset]).unwrap();
        assert_eq!(bound.name_any(), expected, "{named:?} of {there:?}");
        // A watch may tell of the runtime before it tells of the Dataset.
        assert!(bind(&dataset, &there, &[]).is_ok());
    }
}

#[test]
fn a_dataset_without_its_runtime_is_told_which_one_it_lacks() {
    for (named, there, missing) in
        [(None, &[][..], "'a'"), (None, &["b", "aa"], "'a'"), (Some("b"), &["a"], "'b'"), (Some("b"), &[], "'b'")]
    {
        let dataset = claimant("a", named, FIRST);
        let there = runtimes(there);
        let got = bind(&dataset, &there, &[&dataset]);
        refused(missing, got, Reason::RuntimeNotFound, ["spec.runtime.name", missing, "create it"]);
    }
}

#[test]
fn a_runtime_that_is_going_serves_nobody() {
    let dataset = claimant("a", None, FIRST);
    let mut going = runtimes(&["a"]);
    going[0].metadata.deletion_timestamp = Some(serde_json::from_value(json!(FIRST)).unwrap());
    let got = bind(&dataset, &going, &[&dataset]);
    refused("going", got, Reason::RuntimeNotFound, ["spec.runtime.name", "'a'", "create it"]);
}

#[test]
fn of_several_datasets_that_claim_a_runtime_the_oldest_has_it_and_the_others_are_told() {
    for (ours, theirs, holder) in [
        (("a", FIRST), ("b", LATER), "a"),
        (("a", LATER), ("b", FIRST), "b"),
        // Of twins the first in the alphabet, so that all agree.
        (("a", FIRST), ("b", FIRST), "a"),
        (("c", FIRST), ("b", FIRST), "b"),
    ] {
        let ours = claimant(ours.0, Some("r"), ours.1);
        let theirs = claimant(theirs.0, Some("r"), theirs.1);
        let there = runtimes(&["r"]);
        for datasets in [[&ours, &theirs], [&theirs, &ours]] {
            for dataset in [&ours, &theirs] {
                let got = bind(dataset, &there, &datasets);
                if dataset.name_any() == holder {
                    assert_eq!(got.unwrap().name_any(), "r");
                } else {
                    let words = ["CacheRuntime 'r'", &*format!("Dataset '{holder}'"), "create a CacheRuntime"];
                    refused_with(got, Reason::RuntimeTaken, &words);
                }
            }
            assert_eq!(super::super::dataset_of(&there[0], &datasets), Claim::Serves(holder.into()));
        }
    }
}

fn refused_with(got: Result<&CacheRuntime, Invalid>, reason: Reason, words: &[&str]) {
    let invalid = got.unwrap_err();
    assert_eq!(invalid.reason, reason);
    assert!(words.iter().all(|word| invalid.message.contains(word)), "{invalid}");
}

#[test]
fn a_runtime_knows_whom_it_serves_and_else_why_it_serves_nobody() {
    let runtime = runtime_of("r", &one_level());
    let claim = |datasets: &[&Dataset]| super::super::dataset_of(&runtime, datasets);
    let namesake = claimant("r", None, FIRST);
    let namer = claimant("d", Some("r"), LATER);
    let elsewhere = claimant("r", Some("s"), FIRST);
    let stranger = claimant("x", None, FIRST);
    assert_eq!(claim(&[&stranger, &namesake]), Claim::Serves("r".into()));
    assert_eq!(claim(&[&stranger, &namer]), Claim::Serves("d".into()));
    assert_eq!(claim(&[&elsewhere, &namer]), Claim::Serves("d".into()));
    for (datasets, reason, words) in [
        (vec![], Reason::DatasetNotFound, ["spec.runtime.name", "'r'", "create one"]),
        (vec![&stranger], Reason::DatasetNotFound, ["spec.runtime.name", "'r'", "create one"]),
        (vec![&elsewhere, &stranger], Reason::DatasetTaken, ["spec.runtime.name", "CacheRuntime 's'", "delete this"]),
    ] {
        match claim(&datasets) {
            Claim::None(problem) => refused::<()>("claim", Err(problem), reason, words),
            Claim::Serves(name) => panic!("serves {name}"),
        }
    }
}
