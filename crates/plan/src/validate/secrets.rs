//! A Secret belongs to whoever may write it: a Dataset, whose author may have no right on Secrets, uses only those that say
//! so.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use penstock_api::{Reason, SecretKeySelector, names::LABEL_USABLE_BY_DATASETS};

use super::{Invalid, SecretData, Secrets};

/// A Secret that a Dataset names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedSecret {
    pub data: SecretData,
    pub usable_by: UsableBy,
}

/// The Datasets of its namespace that may use a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UsableBy {
    #[default]
    Nobody,
    All,
    One(String),
}

impl UsableBy {
    fn includes(&self, dataset: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::All => true,
            Self::One(name) => name == dataset,
        }
    }
}

impl From<&Secret> for NamedSecret {
    fn from(secret: &Secret) -> Self {
        let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        let usable_by = match secret.labels().get(LABEL_USABLE_BY_DATASETS).map(String::as_str) {
            None | Some("") => UsableBy::Nobody,
            Some("true") => UsableBy::All,
            Some(dataset) => UsableBy::One(dataset.to_owned()),
        };
        Self { data: SecretData(data.collect()), usable_by }
    }
}

/// The values of a mount's options that come from Secrets. `field` is the mount, for messages; those name no key that the
/// Dataset does not name.
pub(super) fn options(
    dataset: &str,
    field: &str,
    keys: &BTreeMap<String, SecretKeySelector>,
    secrets: &Secrets,
) -> Result<SecretData, Invalid> {
    let value = |(option, key): (&String, &SecretKeySelector)| {
        let at = format!("{field}: option '{option}' takes its value from key '{}' of Secret '{}'", key.key, key.name);
        let secret = secrets.get(&key.name).ok_or_else(|| {
            let mend = "which does not exist; create it in the Dataset's namespace or correct encryptOptions";
            Invalid::new(Reason::SecretNotFound, format!("{at}, {mend}"))
        })?;
        if !secret.usable_by.includes(dataset) {
            return Err(Invalid::new(Reason::SecretNotAllowed, format!("{at}, {}", not_allowed(&key.name, dataset))));
        }
        let value = secret.data.0.get(&key.key).ok_or_else(|| {
            Invalid::new(
                Reason::SecretKeyNotFound,
                format!("{at}, which has no such key; add it or correct encryptOptions"),
            )
        })?;
        Ok((option.clone(), value.clone()))
    };
    keys.iter().map(value).collect::<Result<_, _>>().map(SecretData)
}

fn not_allowed(secret: &str, dataset: &str) -> String {
    format!(
        "which does not let Dataset '{dataset}' use it; someone who may write the Secret labels it: kubectl label secret \
         {secret} {LABEL_USABLE_BY_DATASETS}={dataset}"
    )
}
