//! Which CacheRuntime serves which Dataset.

use kube::ResourceExt;
use penstock_api::{CacheRuntime, Dataset, Reason};

use super::Invalid;

/// How a runtime stands to Datasets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Serves the Dataset of this name.
    Serves(String),
    /// Serves none, and why.
    None(Invalid),
}

/// The runtime that serves `dataset`, of all that are in its namespace. A runtime serves one Dataset: of several that
/// claim it the oldest has it.
pub fn bind<'a>(
    dataset: &Dataset,
    runtimes: impl IntoIterator<Item = &'a CacheRuntime>,
    datasets: &[&Dataset],
) -> Result<&'a CacheRuntime, Invalid> {
    let name = dataset.runtime_name();
    let Some(runtime) = runtimes.into_iter().find(|r| r.name_any() == name && r.metadata.deletion_timestamp.is_none())
    else {
        return Err(Invalid::new(
            Reason::RuntimeNotFound,
            format!(
                "CacheRuntime '{name}' does not exist; create it in the Dataset's namespace, or name another one in \
                     spec.runtime.name of a new Dataset"
            ),
        ));
    };
    match holder(name, datasets) {
        Some(holder) if holder.name_any() != dataset.name_any() => Err(Invalid::new(
            Reason::RuntimeTaken,
            format!(
                "CacheRuntime '{name}' serves Dataset '{}' already; create a CacheRuntime for this Dataset alone",
                holder.name_any()
            ),
        )),
        _ => Ok(runtime),
    }
}

/// The Dataset that a runtime serves, of all that are in its namespace.
pub fn dataset_of(runtime: &CacheRuntime, datasets: &[&Dataset]) -> Claim {
    let name = runtime.name_any();
    if let Some(holder) = holder(&name, datasets) {
        return Claim::Serves(holder.name_any());
    }
    let own = datasets.iter().find(|d| d.name_any() == name);
    Claim::None(match own {
        Some(dataset) => Invalid::new(
            Reason::DatasetTaken,
            format!(
                "Dataset '{name}' is served by CacheRuntime '{}', which its spec.runtime.name names; delete this runtime",
                dataset.runtime_name()
            ),
        ),
        None => Invalid::new(
            Reason::DatasetNotFound,
            format!("no Dataset '{name}' and none that names this runtime in spec.runtime.name; create one"),
        ),
    })
}

fn holder<'a>(runtime: &str, datasets: &[&'a Dataset]) -> Option<&'a Dataset> {
    datasets
        .iter()
        .filter(|d| d.runtime_name() == runtime)
        .min_by_key(|d| (d.metadata.creation_timestamp.as_ref().map(|t| t.0), d.name_any()))
        .copied()
}
