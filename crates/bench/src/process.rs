//! What the kernel knows of a process.

/// Resident memory in kB; `None` where there is no such process.
pub fn resident_kb(pid: u32) -> Option<u64> {
    status(pid, "VmRSS:")
}

/// The highest resident memory so far, in kB.
pub fn peak_kb(pid: u32) -> Option<u64> {
    status(pid, "VmHWM:")
}

/// How much processor time it has used, in milliseconds.
pub fn cpu_ms(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name may hold spaces; the times are the 12th and 13th field after it
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some((user + system) * 1000 / u64::try_from(ticks).ok()?.max(1))
}

fn status(pid: u32, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory() {
        let pid = std::process::id();
        assert!(super::resident_kb(pid).is_some_and(|kb| kb > 0));
        assert!(super::cpu_ms(pid).is_some());
        assert!(super::peak_kb(pid).is_some_and(|kb| kb > 0));
    }
}
