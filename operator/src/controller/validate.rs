//! From what was read to what can be planned. Pure.

use std::sync::Arc;

use penstock_api::{CacheRuntime, Dataset};
use penstock_plan::validate::{self, Invalid, Secrets, ValidPair};

use super::observed::Seen;

/// What was written, and whether it can be set up.
#[derive(Debug)]
pub(super) struct Validated {
    /// The runtime that serves the Dataset; `None` when none does.
    pub runtime: Option<Arc<CacheRuntime>>,
    pub pair: Result<ValidPair, Invalid>,
}

pub(super) fn validate(dataset: &Dataset, seen: &Seen) -> Validated {
    let rivals: Vec<&Dataset> = seen.rivals.iter().map(AsRef::as_ref).collect();
    match validate::bind(dataset, seen.runtime.as_deref(), &rivals) {
        Ok(runtime) => {
            Validated { runtime: seen.runtime.clone(), pair: validate::pair(dataset, runtime, &secrets(seen)) }
        }
        Err(problem) => Validated { runtime: None, pair: Err(problem) },
    }
}

fn secrets(seen: &Seen) -> Secrets {
    seen.secrets.iter().map(|(name, secret)| (name.clone(), secret.as_ref().into())).collect()
}
