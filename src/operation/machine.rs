//! What this machine allows, compared with what the server needs: one sentence for each thing that it lacks, with the
//! remedy.

use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::geteuid;

use crate::config::units::PortList;
use crate::limits::network::is_public;
use crate::operation::os;

/// Threads and processes besides the players' threads: the server's own, and others under the same limit.
const SPARE_THREADS: u64 = 64;

/// What the server needs of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    pub(crate) udp_host: IpAddr,
    /// The ports of the registrar and of all relays.
    pub(crate) udp_ports: PortList,
    pub(crate) connections: usize,
    /// Bytes that the registrar's socket asked for, and what it got.
    pub(crate) receive_buffer: BufferSize,
}

/// A size that the kernel may grant in part, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferSize {
    pub(crate) asked: usize,
    pub(crate) got: usize,
}

/// What the machine allows. If it does not report a limit, none is assumed.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    ips: Vec<IpAddr>,
    /// The ports that the kernel gives to programs that ask for any port.
    ephemeral_ports: Option<RangeInclusive<u16>>,
    /// The ports among them that the kernel does not give.
    reserved_ports: PortList,
    thread_limits: Vec<ThreadLimit>,
}

#[derive(Clone, Debug)]
struct ThreadLimit {
    name: &'static str,
    limit: u64,
    /// How to raise it: a text that ends just before the number.
    remedy: &'static str,
}

impl Machine {
    /// What this machine allows now.
    pub(crate) fn read() -> Self {
        Self {
            ips: os::local_ips().unwrap_or_default(),
            ephemeral_ports: read("/proc/sys/net/ipv4/ip_local_port_range")
                .and_then(|text| ephemeral_ports(&text)),
            reserved_ports: read("/proc/sys/net/ipv4/ip_local_reserved_ports")
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or_else(|| [].into_iter().collect()),
            thread_limits: thread_limits(),
        }
    }

    /// What this machine lacks, a sentence each, with the remedy.
    pub(crate) fn shortcomings(&self, needs: &Needs) -> Vec<String> {
        let ports = self.unreserved_ports(&needs.udp_ports);
        let addresses = self.ambiguous_addresses(needs.udp_host);
        let threads = self.thread_limits.iter().filter_map(|limit| limit.lack(needs.connections));
        let buffer = needs.receive_buffer.lack();
        ports.into_iter().chain(addresses).chain(buffer).chain(threads).collect()
    }

    fn unreserved_ports(&self, own: &PortList) -> Option<String> {
        let range = self.ephemeral_ports.as_ref()?;
        let own = own.as_slice().iter().copied().filter(|port| range.contains(port));
        let own: Vec<u16> = own.filter(|port| !self.reserved_ports.contains(*port)).collect();
        if own.is_empty() {
            return None;
        }
        let all: PortList = self.reserved_ports.as_slice().iter().chain(&own).copied().collect();
        Some(format!(
            "{} of noray's UDP ports lie in {}-{}, from which the kernel gives ports to any program; a port that another \
             program has cannot be bound; keep them free: `sysctl -w net.ipv4.ip_local_reserved_ports={all}`",
            own.len(),
            range.start(),
            range.end()
        ))
    }

    fn ambiguous_addresses(&self, host: IpAddr) -> Option<String> {
        if !host.is_unspecified() {
            return None;
        }
        let public = |is_ipv4: bool| -> Vec<IpAddr> {
            let ips = self.ips.iter().copied().filter(|ip| ip.is_ipv4() == is_ipv4);
            ips.filter(|ip| is_public(*ip)).collect()
        };
        let families = [public(true), if host.is_ipv6() { public(false) } else { Vec::new() }];
        let several = families.into_iter().find(|ips| ips.len() > 1)?;
        let list: Vec<String> = several.iter().map(ToString::to_string).collect();
        Some(format!(
            "this machine has several public addresses ({}): answers by UDP leave from the one that the kernel chooses, \
             and players who use another one do not get them; set the one that players use: `NORAY_UDP_HOST={}`",
            list.join(", "),
            list[0]
        ))
    }
}

impl BufferSize {
    fn lack(self) -> Option<String> {
        let Self { asked, got } = self;
        (got < asked).then(|| {
            format!(
                "the registrar's receive buffer is {got} bytes, not {asked}: when many players come at once, \
                 datagrams are lost and players repeat them; `sysctl -w net.core.rmem_max={asked}`"
            )
        })
    }
}

impl ThreadLimit {
    fn lack(&self, connections: usize) -> Option<String> {
        let needed = connections as u64 + SPARE_THREADS;
        (self.limit < needed).then(|| {
            let Self { name, limit, remedy } = self;
            format!(
                "{name} allows {limit} threads, but {connections} players need {needed}: {remedy}{needed}`, or lower \
                 NORAY_MAX_CONNECTIONS"
            )
        })
    }
}

/// Every limit on threads that holds for this process.
fn thread_limits() -> Vec<ThreadLimit> {
    let of_user = || {
        // It does not hold for root.
        let (soft, _) = getrlimit(Resource::RLIMIT_NPROC).ok().filter(|_| !geteuid().is_root())?;
        (soft != RLIM_INFINITY).then_some(soft)
    };
    let limits = [
        (
            "kernel.threads-max",
            read_number("/proc/sys/kernel/threads-max"),
            "`sysctl -w kernel.threads-max=",
        ),
        ("kernel.pid_max", read_number("/proc/sys/kernel/pid_max"), "`sysctl -w kernel.pid_max="),
        ("the limit on processes", of_user(), "raise it, under systemd with `LimitNPROC="),
        (
            "the control group",
            control_group_limit("pids", ["pids.max"; 2]),
            "raise it, under systemd with `TasksMax=",
        ),
    ];
    let known = limits
        .into_iter()
        .filter_map(|(name, limit, remedy)| limit.map(|limit| ThreadLimit { name, limit, remedy }));
    known.collect()
}

/// How many mappings of memory a process may have.
pub(crate) fn max_mappings() -> Option<u64> {
    read_number("/proc/sys/vm/max_map_count")
}

/// Bytes of memory that the process may use, with what the kernel uses for it: the limit of its control group, or all that
/// the machine has.
pub(crate) fn memory_limit() -> Option<u64> {
    let in_all = read("/proc/meminfo").and_then(|text| os::number_after("MemTotal:", &text));
    let in_all = in_all.map(|kilobytes| 1024 * kilobytes);
    let of_group = control_group_limit("memory", ["memory.limit_in_bytes", "memory.max"]);
    in_all.into_iter().chain(of_group).min()
}

/// The lowest limit of the process's control group and of those above it. It is in the file `v1` or `v2`, by the version of
/// cgroups(7).
fn control_group_limit(controller: &str, [v1, v2]: [&str; 2]) -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    // Each line is `hierarchy:controllers:path`. In version 2, controllers is empty.
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        let (root, file) = match controllers {
            "" => (Path::new("/sys/fs/cgroup").to_owned(), v2),
            name if name == controller => (Path::new("/sys/fs/cgroup").join(name), v1),
            _ => return None,
        };
        let group = root.join(path);
        let above = group.ancestors().take_while(|group| group.starts_with(&root));
        above.filter_map(|group| read_number(group.join(file))).min()
    });
    limits.min()
}

fn ephemeral_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            ips: ips("127.0.0.1 10.0.0.5 172.17.0.1 203.0.113.5 fe80::1 fd00::1 2001:db8::5"),
            ephemeral_ports: Some(32_768..=60_999),
            reserved_ports: "49152-51200".parse().unwrap(),
            thread_limits: vec![ThreadLimit {
                name: "the control group",
                limit: 5000,
                remedy: "raise it, under systemd with `TasksMax=",
            }],
        }
    }

    fn needs() -> Needs {
        Needs {
            udp_host: "0.0.0.0".parse().unwrap(),
            udp_ports: "8809,49152-51200".parse().unwrap(),
            connections: 4096,
            receive_buffer: BufferSize { asked: 1000, got: 1000 },
        }
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split(' ').map(|ip| ip.parse().unwrap()).collect()
    }

    fn only_shortcoming(machine: &Machine, needs: &Needs) -> String {
        let [one] = &machine.shortcomings(needs)[..] else {
            panic!("{:?}", machine.shortcomings(needs));
        };
        one.clone()
    }

    #[test]
    fn a_prepared_machine_lacks_nothing() {
        assert_eq!(machine().shortcomings(&needs()), [""; 0]);
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_named_with_those_that_are_reserved_already() {
        let needs = Needs { udp_ports: "8809,40000-40009,49152-51200".parse().unwrap(), ..needs() };
        let text = only_shortcoming(&machine(), &needs);
        assert!(text.starts_with("10 of noray's UDP ports lie in 32768-60999"), "{text}");
        let remedy = "`sysctl -w net.ipv4.ip_local_reserved_ports=40000-40009,49152-51200`";
        assert!(text.ends_with(remedy), "{text}");
    }

    #[test]
    fn several_public_addresses_matter_where_none_is_named() {
        let several = Machine { ips: ips("203.0.113.5 203.0.113.6 10.0.0.1"), ..machine() };
        let text = only_shortcoming(&several, &needs());
        assert!(text.contains("(203.0.113.5, 203.0.113.6)"), "{text}");
        assert!(text.ends_with("`NORAY_UDP_HOST=203.0.113.5`"), "{text}");
        let named = Needs { udp_host: "203.0.113.6".parse().unwrap(), ..needs() };
        assert_eq!(several.shortcomings(&named), [""; 0]);
        let ipv6 = Machine { ips: ips("203.0.113.5 2001:db8::5 2001:db8::6"), ..machine() };
        assert_eq!(ipv6.shortcomings(&needs()), [""; 0], "IPv6 is not served");
        let both = Needs { udp_host: "::".parse().unwrap(), ..needs() };
        assert!(only_shortcoming(&ipv6, &both).contains("2001:db8::6"));
    }

    #[test]
    fn limits_on_threads_are_compared_with_the_cap() {
        let needs = Needs { connections: 10_000, ..needs() };
        let text = only_shortcoming(&machine(), &needs);
        let expected = "the control group allows 5000 threads, but 10000 players need 10064: raise it, under systemd with \
                        `TasksMax=10064`, or lower NORAY_MAX_CONNECTIONS";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_receive_buffer_that_is_too_small_is_named() {
        let needs = Needs { receive_buffer: BufferSize { asked: 1000, got: 208 }, ..needs() };
        let text = only_shortcoming(&machine(), &needs);
        assert!(text.ends_with("`sysctl -w net.core.rmem_max=1000`"), "{text}");
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read();
        assert!(machine.ips.iter().any(IpAddr::is_loopback));
        assert!(machine.ephemeral_ports.is_some());
        assert!(max_mappings().is_some());
        assert!(memory_limit().is_some_and(|bytes| bytes > 16 << 20));
    }
}
