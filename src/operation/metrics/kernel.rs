//! The kernel's numbers about this process and this machine. A number that cannot be read is left out.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

use super::page::Page;
use crate::operation::os;

/// The names are those of Prometheus's own client libraries.
pub(super) fn write_process(page: &mut Page) {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let cpu = usage.map(|usage| (usage.user_time() + usage.system_time()).num_microseconds());
    page.reading(
        "process_cpu_seconds_total",
        "counter",
        "Processor time used, in seconds.",
        cpu.ok().map(|micros| micros as f64 / 1e6),
    );
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of_status = |key| os::number_after(key, &status);
    let bytes = |kilobytes: u64| kilobytes * 1024;
    let most_files = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", of_status("VmRSS:").map(bytes)),
        ("process_virtual_memory_bytes", "Virtual memory.", of_status("VmSize:").map(bytes)),
        ("process_threads", "Threads.", of_status("Threads:")),
        ("process_open_fds", "Open file descriptors.", open_files()),
        ("process_max_fds", "Limit on open file descriptors.", most_files),
        ("process_start_time_seconds", "Start, in seconds since 1970.", start_time()),
    ] {
        page.reading(name, "gauge", help, value);
    }
}

/// Since Linux 6.2 the folder's size is the number (proc_pid_fd(5)). In older kernels the size is zero, and counting takes
/// milliseconds with ten thousand players.
fn open_files() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 { Some(size) } else { Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64) }
}

/// When the process started: the time of the boot, and the ticks from there to its start.
pub(super) fn start_time() -> Option<u64> {
    /// `sysconf(_SC_CLK_TCK)` on every Linux that Rust runs on.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The 22nd field (proc(5)). The second is in brackets and may hold spaces.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    Some(os::number_after("btime", &machine)? + ticks / TICKS_PER_SECOND)
}

/// The numbers of the machine, or of the network namespace that the server is in.
pub(super) fn write_machine(page: &mut Page) {
    let ipv4 = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let ipv6 = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    page.reading(
        "noray_machine_udp_overflows_total",
        "counter",
        "Datagrams lost because a UDP socket's buffer was full, of all programs on the machine.",
        udp_overflows(&ipv4, &ipv6),
    );
}

/// From the text of `/proc/net/snmp`, with a line of names above a line of numbers, and that of `/proc/net/snmp6`, which is
/// empty without IPv6.
fn udp_overflows(ipv4: &str, ipv6: &str) -> Option<u64> {
    let mut lines = ipv4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let (_, of_ipv4) = names.zip(numbers).find(|(name, _)| *name == "RcvbufErrors")?;
    let of_ipv6 = os::number_after("Udp6RcvbufErrors", ipv6).unwrap_or(0);
    Some(of_ipv4.parse::<u64>().ok()? + of_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_overflows_are_those_of_both_families() {
        let ipv4 = "Tcp: RcvbufErrors\nTcp: 7\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 1 20 3\n\
                    UdpLite: InDatagrams RcvbufErrors\nUdpLite: 8 9\n";
        let ipv6 = "Udp6InDatagrams   \t5\nUdp6RcvbufErrors  \t4\nUdpLite6RcvbufErrors \t6\n";
        assert_eq!(udp_overflows(ipv4, ipv6), Some(24));
        assert_eq!(udp_overflows(ipv4, ""), Some(20));
        assert_eq!(udp_overflows("", ipv6), None);
        let mut page = Page::default();
        write_machine(&mut page);
        assert!(page.into_text().contains("\nnoray_machine_udp_overflows_total "));
    }
}
