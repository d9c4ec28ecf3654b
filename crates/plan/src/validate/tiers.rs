use std::collections::BTreeSet;

use penstock_api::{Level, MediumType, TieredStore};
use penstock_model::Medium;

use super::{Invalid, ValidTier};

/// Below this a tier cannot hold a few extents of several readers.
const SMALLEST_QUOTA: u64 = 16 << 20;

pub(super) fn validate(store: &TieredStore) -> Result<Vec<ValidTier>, Invalid> {
    if store.levels.is_empty() {
        return Err(Invalid::spec("spec.tieredStore.levels is empty; name at least one level"));
    }
    let mut taken = BTreeSet::new();
    let mut tiers = Vec::with_capacity(store.levels.len());
    for (index, level) in store.levels.iter().enumerate() {
        let field = format!("spec.tieredStore.levels[{index}]");
        let tier = tier(&field, level)?;
        if let Some(path) = &level.path
            && !taken.insert(path.trim_end_matches('/'))
        {
            return Err(Invalid::spec(format!(
                "{field}.path '{path}' is that of an earlier level; give each level a directory of its own"
            )));
        }
        tiers.push(tier);
    }
    Ok(tiers)
}

fn tier(field: &str, level: &Level) -> Result<ValidTier, Invalid> {
    let quota = level.quota_bytes().map_err(|e| Invalid::spec(format!("{field}.quota: {e}")))?;
    if quota < SMALLEST_QUOTA {
        return Err(Invalid::spec(format!("{field}.quota '{}' is below 16Mi; write 16Mi or more", level.quota.0)));
    }
    let (high, low) = (level.high, level.low);
    if !(low > 0.0 && low < high && high <= 1.0) {
        return Err(Invalid::spec(format!(
            "{field}: low {low} and high {high} do not satisfy 0 < low < high <= 1; write low 0.9 and high 0.95, say"
        )));
    }
    let sources = [level.path.is_some(), level.volume_source.is_some(), level.volume_claim_template.is_some()];
    if sources.into_iter().filter(|s| *s).count() > 1 {
        return Err(Invalid::spec(format!(
            "{field} has more than one of path, volumeSource and volumeClaimTemplate; keep one of them"
        )));
    }
    if let Some(path) = level.path.as_deref().filter(|path| !path.starts_with('/')) {
        return Err(Invalid::spec(format!("{field}.path '{path}' is not absolute; write one such as /mnt/cache")));
    }
    let medium = match level.medium_type {
        MediumType::Mem => Medium::Mem,
        MediumType::Ssd => Medium::Ssd,
        MediumType::Hdd => Medium::Hdd,
    };
    Ok(ValidTier { medium, quota, high, low, path: level.path.clone() })
}
