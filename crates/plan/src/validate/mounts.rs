use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::VolumeMount;
use kube::ResourceExt;
use penstock_api::{Dataset, Mount, SCHEMES};

use super::{Invalid, Secrets, ValidDataset, ValidMount, secrets};

pub(super) fn validate(dataset: &Dataset, named: &Secrets) -> Result<Vec<ValidMount>, Invalid> {
    let (spec, name) = (&dataset.spec, dataset.name_any());
    if spec.mounts.is_empty() {
        return Err(Invalid::spec("spec.mounts is empty; name at least one mountPoint"));
    }
    let mut seen = BTreeSet::new();
    let mut valid = Vec::with_capacity(spec.mounts.len());
    for (index, mount) in spec.mounts.iter().enumerate() {
        let field = format!("spec.mounts[{index}]");
        check_source(&field, &mount.mount_point)?;
        let path = path(&field, mount)?;
        if !seen.insert(path.clone()) {
            return Err(Invalid::spec(format!(
                "{field} appears at '/{path}', where an earlier mount is already; give it another path or name"
            )));
        }
        let (options, keys) = spec.effective_options(mount);
        let secret_options = secrets::options(&name, &field, &keys, named)?;
        valid.push(ValidMount { source: mount.mount_point.clone(), path, options, secret_options });
    }
    Ok(valid)
}

fn check_source(field: &str, source: &str) -> Result<(), Invalid> {
    let known = || SCHEMES.iter().map(|s| s.example).collect::<Vec<_>>().join(" or ");
    let Some(scheme) = SCHEMES.iter().find(|s| source.starts_with(s.prefix)) else {
        return Err(Invalid::spec(format!("{field}.mountPoint '{source}' has an unknown scheme; write {}", known())));
    };
    let rest = &source[scheme.prefix.len()..];
    let complete = match scheme.prefix {
        "local://" => rest.starts_with('/'),
        _ => !rest.is_empty() && !rest.starts_with('/'),
    };
    if complete {
        return Ok(());
    }
    Err(Invalid::spec(format!("{field}.mountPoint '{source}' is not complete; write {}", scheme.example)))
}

fn path(field: &str, mount: &Mount) -> Result<String, Invalid> {
    let path = mount.effective_path();
    let inner = path.strip_prefix('/').unwrap_or_default();
    let segments_are_plain = inner.is_empty() || inner.split('/').all(|s| !matches!(s, "" | "." | ".."));
    if path.starts_with('/') && segments_are_plain && !path.contains('\0') {
        return Ok(inner.to_owned());
    }
    Err(Invalid::spec(format!(
        "{field}.path '{path}' is not an absolute path without '.', '..' and empty parts; write one such as /data"
    )))
}

/// In Kubernetes a `local://` path exists in the worker only where a volume is mounted: the error for the first that is
/// not.
pub(super) fn uncovered_local_mount(dataset: &ValidDataset, volume_mounts: &[VolumeMount]) -> Option<Invalid> {
    let covers = |path: &str| {
        volume_mounts
            .iter()
            .map(|m| m.mount_path.trim_end_matches('/'))
            .any(|at| path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let (index, path) = dataset.mounts.iter().enumerate().find_map(|(index, mount)| {
        mount.source.strip_prefix("local://").filter(|path| !covers(path)).map(|path| (index, path))
    })?;
    Some(Invalid::spec(format!(
        "spec.mounts[{index}].mountPoint 'local://{path}': worker pods have no volume at {path}; bring one in with the \
         CacheRuntime's spec.worker.volumes and spec.worker.volumeMounts"
    )))
}
