//! How much memory listings may take: what the container allows decides, so that no option is needed.

use std::path::Path;

use penstock_model::{Medium, TierConfig};

/// Where nothing limits the worker.
const UNLIMITED: u64 = 512 << 20;
/// Whatever the limit is.
const LEAST: u64 = 32 << 20;
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes for listings beside these tiers.
pub(crate) fn for_listings(tiers: &[TierConfig]) -> usize {
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_of(&group, |file| std::fs::read_to_string(file).ok());
    let in_memory = tiers.iter().filter(|tier| tier.medium == Medium::Mem).map(|tier| tier.quota).sum();
    share(limit, in_memory) as usize
}

/// Half of what memory tiers leave: the other half is for connections and reads.
fn share(limit: Option<u64>, in_memory: u64) -> u64 {
    limit.map_or(UNLIMITED, |limit| limit.saturating_sub(in_memory) / 2).max(LEAST)
}

/// The lowest limit of the process's control group (`/proc/self/cgroup`, version 2) and those around it.
fn limit_of(group: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let path = group.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new(CGROUPS).join(path);
    let groups = own.ancestors().take_while(|group| group.starts_with(CGROUPS));
    groups.filter_map(|group| read(&group.join("memory.max"))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_around_counts() {
        let files = |file: &Path| match file.to_str() {
            Some("/sys/fs/cgroup/pod/worker/memory.max") => Some("max\n".to_owned()),
            Some("/sys/fs/cgroup/pod/memory.max") => Some("3000\n".to_owned()),
            Some("/sys/fs/cgroup/memory.max") => Some("5000\n".to_owned()),
            _ => None,
        };
        for (group, limit) in [("0::/pod/worker\n", Some(3000)), ("0::/\n", Some(5000)), ("1:memory:/pod\n", None)] {
            assert_eq!(limit_of(group, files), limit, "{group}");
        }
        assert_eq!(limit_of("0::/", |_| None), None);
    }

    #[test]
    fn listings_get_half_of_what_tiers_leave() {
        for (limit, tiers, share_of_it) in
            [(Some(9 << 30), 8 << 30, 512 << 20), (Some(1 << 30), 2 << 30, LEAST), (None, 1 << 40, UNLIMITED)]
        {
            assert_eq!(share(limit, tiers), share_of_it);
        }
    }
}
