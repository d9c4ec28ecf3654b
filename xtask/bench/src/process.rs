//! What processes use, as the kernel counts it.

use std::fs;

use anyhow::Context;

/// Seconds of all processors that the process has used since its start (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = after_name(&stat)?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// Bytes, by the name of a line in `/proc/PID/status`: `VmRSS` for all that is resident, `RssAnon` for what is no file's.
pub(super) fn memory(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes: u64 = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes << 10)
}

/// The process and all that it started, and what those started. Looks at no others, which may hang in the kernel.
pub(super) fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut family = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Children are listed with the thread that started them, which may have ended meanwhile.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            family.extend(self::family(child.parse()?)?);
        }
    }
    Ok(family)
}

/// The second field is a name in brackets that may hold blanks and brackets.
fn after_name(stat: &str) -> anyhow::Result<&str> {
    Ok(stat.rsplit_once(") ").context("no program name in stat")?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_belongs_to_the_family_and_uses_memory() {
        let mut child = std::process::Command::new("sleep").arg("300").spawn().unwrap();
        let family = family(std::process::id());
        let memory = memory(child.id(), "VmRSS");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.unwrap().contains(&child.id()));
        assert!(memory.unwrap() > 0);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
