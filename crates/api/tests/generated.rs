//! `crds/` holds what the types give.

use std::{fs, path::Path};

#[test]
fn the_files_in_crds_are_those_that_the_types_give() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let expected = penstock_api::crd_yaml();
    for (file, content) in &expected {
        let found = fs::read_to_string(folder.join(file)).unwrap_or_default();
        assert!(found == *content, "crds/{file} is old; write it anew: cargo run -p penstock-api --example crds");
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_crd = Path::new(&name).extension().is_some_and(|extension| extension == "yaml");
        assert!(!is_crd || expected.contains_key(&name), "crds/{name} belongs to no type; remove it");
    }
}

/// `kubectl apply` keeps the whole object in an annotation, which may have 256 KiB.
#[test]
fn a_client_side_apply_has_room_for_each_crd() {
    for crd in penstock_api::crds() {
        let size = serde_json::to_vec(&crd).unwrap().len();
        assert!(size < 200_000, "{:?} has {size} bytes", crd.metadata.name);
    }
}
