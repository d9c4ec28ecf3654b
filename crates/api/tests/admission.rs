//! A real API server takes the CRDs and the good examples, and refuses each bad one with a message that names field,
//! value and mend.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use kube::{
    Client,
    api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use penstock_api::{GROUP, VERSION, crds};
use penstock_testkit::control_plane::ControlPlane;
use serde_json::Value;

fn crds_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds")
}

struct Example {
    file: String,
    /// What the refusal of the last object must contain.
    expected: Vec<String>,
    objects: Vec<DynamicObject>,
}

fn examples(kind: &str) -> Result<Vec<Example>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(crds_folder().join("testdata").join(kind))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Example> {
    let text = fs::read_to_string(path)?;
    let expected = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).map(str::to_owned).collect();
    let objects = serde_saphyr::from_multiple(&text).with_context(|| path.display().to_string())?;
    Ok(Example { file: path.file_name().unwrap().to_string_lossy().into_owned(), expected, objects })
}

fn api(client: &Client, object: &DynamicObject) -> Api<DynamicObject> {
    let kind = &object.types.as_ref().expect("apiVersion and kind").kind;
    let plural = format!("{}s", kind.to_lowercase());
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), &plural);
    Api::namespaced_with(client.clone(), "default", &resource)
}

/// As `kubectl apply` does it: create, or else a merge patch.
async fn apply(client: &Client, object: &DynamicObject) -> Result<DynamicObject, kube::Error> {
    let api = api(client, object);
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = object.metadata.name.clone().expect("a name");
            api.patch(&name, &PatchParams::default(), &Patch::Merge(object)).await
        }
        answer => answer,
    }
}

async fn delete(client: &Client, objects: &[DynamicObject]) {
    for object in objects {
        let name = object.metadata.name.clone().expect("a name");
        let _ = api(client, object).delete(&name, &DeleteParams::default()).await;
    }
}

/// What is wrong with how the server answered a bad example; the refusal goes to `refusals`.
async fn try_invalid(client: &Client, example: &Example, refusals: &mut String) -> Result<(), String> {
    let (last, first) = example.objects.split_last().ok_or("holds no object")?;
    for object in first {
        apply(client, object).await.map_err(|error| format!("the objects before the last must be good: {error}"))?;
    }
    let answer = apply(client, last).await;
    delete(client, &example.objects).await;
    let message = match answer {
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(other) => return Err(other.to_string()),
        Ok(_) => return Err("was accepted".to_owned()),
    };
    let _ = writeln!(refusals, "{message}");
    if example.expected.is_empty() {
        return Err("has no '# expect: ' lines".to_owned());
    }
    match example.expected.iter().find(|expected| !message.contains(*expected)) {
        Some(missing) => Err(format!("refused without '{missing}': {message}")),
        None => Ok(()),
    }
}

/// Of each rule, the literal parts of its message in their order.
fn literals_of_rules() -> Vec<Vec<String>> {
    fn collect(value: &Value, found: &mut Vec<Vec<String>>) {
        match value {
            Value::Object(map) => {
                if map.contains_key("rule") && map.contains_key("messageExpression") {
                    let expression = map["messageExpression"].as_str().expect("an expression is a string");
                    let literals = expression.split('"').skip(1).step_by(2);
                    let parts = literals.flat_map(|text| text.split("%s")).flat_map(|text| text.split("%d"));
                    found.push(parts.map(str::to_owned).collect());
                }
                map.values().for_each(|child| collect(child, found));
            }
            Value::Array(list) => list.iter().for_each(|child| collect(child, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for crd in crds() {
        collect(&serde_json::to_value(crd).unwrap(), &mut found);
    }
    found
}

/// Whether `text` has all `parts`, one after the other.
fn has_in_order(text: &str, parts: &[String]) -> bool {
    let mut rest = Some(text);
    for part in parts {
        rest = rest.and_then(|rest| Some(rest.split_once(part.as_str())?.1));
    }
    rest.is_some()
}

#[tokio::test]
async fn the_api_server_refuses_each_bad_example_with_field_value_and_mend() {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(crds_folder()).await.unwrap();
    let client = plane.client();

    let mut problems = BTreeMap::new();
    let mut refusals = String::new();
    for example in examples("invalid").unwrap() {
        if let Err(problem) = try_invalid(&client, &example, &mut refusals).await {
            problems.insert(example.file, problem);
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    let rules = literals_of_rules();
    assert!(rules.len() > 20, "the rules of the CRDs were not found: {rules:?}");
    let unmet: Vec<_> =
        rules.iter().filter(|parts| !refusals.lines().any(|refusal| has_in_order(refusal, parts))).collect();
    assert!(unmet.is_empty(), "no bad example meets the rules that say: {unmet:#?}");
}

#[tokio::test]
async fn the_api_server_takes_each_good_example_with_its_defaults() {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(crds_folder()).await.unwrap();
    let client = plane.client();

    for example in examples("valid").unwrap() {
        for object in &example.objects {
            let taken = apply(&client, object).await.unwrap_or_else(|error| panic!("{}: {error}", example.file));
            check_readable(&taken).unwrap_or_else(|error| panic!("{}: {error}", example.file));
        }
        delete(&client, &example.objects).await;
    }
}

/// The examples of the user pages, each after a comment that says so.
fn of_pages() -> Result<Vec<(String, DynamicObject)>> {
    let mut found = Vec::new();
    for page in fs::read_dir(crds_folder().join("../docs"))? {
        let page = page?.path();
        let Ok(text) = fs::read_to_string(&page) else { continue };
        for part in text.split("<!-- example -->\n```yaml\n").skip(1) {
            let (yaml, _) = part.split_once("```").context("an example without an end")?;
            found.push((page.display().to_string(), serde_saphyr::from_str(yaml)?));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn the_api_server_takes_the_examples_of_the_user_pages() {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(crds_folder()).await.unwrap();
    let examples = of_pages().unwrap();
    assert!(examples.len() >= 3, "{}", examples.len());
    for (page, object) in examples {
        let taken = apply(&plane.client(), &object).await.unwrap_or_else(|error| panic!("{page}: {error}"));
        check_readable(&taken).unwrap_or_else(|error| panic!("{page}: {error}"));
    }
}

/// What the server made of an object is read by the types, which agree with it on defaults.
fn check_readable(object: &DynamicObject) -> Result<()> {
    let stored = serde_json::to_value(object)?;
    let mut written = match stored["kind"].as_str() {
        Some("Dataset") => serde_json::to_value(serde_json::from_value::<penstock_api::Dataset>(stored.clone())?)?,
        Some("DataLoad") => serde_json::to_value(serde_json::from_value::<penstock_api::DataLoad>(stored.clone())?)?,
        _ => serde_json::to_value(serde_json::from_value::<penstock_api::CacheRuntime>(stored.clone())?)?,
    };
    let mut expected = stored["spec"].clone();
    // Empty objects and numbers of another form mean the same.
    normalise(&mut expected);
    normalise(&mut written["spec"]);
    anyhow::ensure!(written["spec"] == expected, "{:#} became {:#}", expected, written["spec"]);
    Ok(())
}

fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(normalise);
            map.retain(|_, child| !child.as_object().is_some_and(serde_json::Map::is_empty));
        }
        Value::Array(list) => list.iter_mut().for_each(normalise),
        Value::Number(number) => *value = Value::String(number.as_f64().unwrap_or_default().to_string()),
        Value::String(text) => {
            if let Ok(number) = text.parse::<f64>() {
                *value = Value::String(number.to_string());
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn kubectl_scale_finds_replicas_and_selector_of_a_runtime() {
    use kube::api::ObjectMeta;
    use penstock_api::{CacheRuntime, CacheRuntimeStatus};

    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(crds_folder()).await.unwrap();
    let runtimes: Api<CacheRuntime> = Api::default_namespaced(plane.client());
    let text = fs::read_to_string(crds_folder().join("testdata/valid/full.yaml")).unwrap();
    let (_, second) = text.split_once("\n---\n").unwrap();
    let mut runtime: CacheRuntime = serde_saphyr::from_str(second).unwrap();
    runtime.metadata = ObjectMeta { name: Some("scaled".to_owned()), ..ObjectMeta::default() };
    runtimes.create(&PostParams::default(), &runtime).await.unwrap();

    let status = CacheRuntimeStatus {
        replicas: 2,
        selector: Some("penstock.dev/runtime=scaled".to_owned()),
        ..CacheRuntimeStatus::default()
    };
    let params = PatchParams::default();
    runtimes.patch_status("scaled", &params, &Patch::Merge(serde_json::json!({ "status": status }))).await.unwrap();
    let scale = runtimes.get_scale("scaled").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(3));
    let seen = scale.status.unwrap();
    assert_eq!((seen.replicas, seen.selector.as_deref()), (2, Some("penstock.dev/runtime=scaled")));

    let five = Patch::Merge(serde_json::json!({ "spec": { "replicas": 5 } }));
    runtimes.patch_scale("scaled", &params, &five).await.unwrap();
    assert_eq!(runtimes.get("scaled").await.unwrap().spec.replicas, 5);
}
