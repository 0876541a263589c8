//! What is missing for the kernel's path, and how it is got.

use std::error::Error;
use std::fs;

/// The numbers of the capabilities (capabilities(7)).
const CAPABILITIES: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12)];

/// Why the kernel did not load the program.
pub(super) fn explain(error: &(dyn Error + 'static)) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        return format!(
            "the process has no {}; under systemd, install the drop-in of docs/kernel-path.md",
            missing.join(" and no ")
        );
    }
    // The verifier's words, which fill many lines, are for who changes the program.
    let text = error.to_string();
    let words = text.lines().next().unwrap_or_default();
    if is_denied(error) && text.lines().nth(1).is_none() {
        return format!(
            "the kernel refuses the system call bpf: {words}; a system-call filter or a user namespace forbids it, so \
             under systemd install the drop-in of docs/kernel-path.md, and in a container allow `bpf`"
        );
    }
    format!("the kernel does not load the program: {words}")
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(Ok(set)) = effective.map(|set| u64::from_str_radix(set.trim(), 16)) else {
        return Vec::new();
    };
    let is_missing = |(_, number): &&(&str, u32)| set & (1 << number) == 0;
    CAPABILITIES.iter().filter(is_missing).map(|(name, _)| *name).collect()
}

/// Whether one of the errors is EPERM.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut cause_or_none = Some(error);
    while let Some(cause) = cause_or_none {
        let of_system = cause.downcast_ref::<std::io::Error>();
        if of_system.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause_or_none = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        for (set, missing) in [
            ("0000000000000000", &["CAP_BPF", "CAP_NET_ADMIN"][..]),
            ("0000008000000000", &["CAP_NET_ADMIN"]),
            ("0000000000001000", &["CAP_BPF"]),
            ("000001ffffffffff", &[]),
        ] {
            assert_eq!(missing_capabilities(&format!("Name:\tnoray\nCapEff:\t{set}\n")), missing);
        }
    }
}
