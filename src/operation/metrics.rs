//! Serves nothing itself: what the server counts, as atomics, and their text in Prometheus's format.
//!
//! The names of the existing server are kept, so that its dashboards go on working; new ones follow Prometheus's
//! conventions. Labels come from closed sets only: nothing that a stranger sends becomes one.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::protocol::CommandKind;
use crate::core::relay::DropReason;
use crate::limits::bounds::Bound;
use crate::limits::conduct::Misconduct;

/// A number that only grows, or a level that goes up and down.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds from any thread.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds, if no other thread ever writes this number: 0.5 ns, where [`Self::add`] takes 5.
    pub fn add_as_only_writer(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Sets a level.
    pub fn set(&self, level: usize) {
        self.0.store(level as u64, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a measured value fell between two bounds. Written by one thread only.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bounds, ascending, in the unit that is observed.
    bounds: &'static [u64],
    /// How many of it are one of the unit that is shown.
    per_shown: f64,
    counts: Vec<Number>,
    sum: Number,
}

/// In nanoseconds, from what a thread's wake-up takes to what a player notices.
const TIME_BOUNDS: &[u64] = &[
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    1_000_000_000,
];

/// In bytes: games send small datagrams, Ethernet carries 1472, UDP 65,507.
const SIZE_BOUNDS: &[u64] = &[32, 64, 128, 256, 512, 1024, 1472, 4096, 16_384, 65_536];

impl Histogram {
    fn new(bounds: &'static [u64], per_shown: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| Number::default()).collect();
        Self { bounds, per_shown, counts, sum: Number::default() }
    }

    fn of_seconds() -> Self {
        Self::new(TIME_BOUNDS, 1e9)
    }

    /// Counts one value, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        self.counts[bucket.unwrap_or(self.bounds.len())].add_as_only_writer(1);
        self.sum.add_as_only_writer(value);
    }

    /// Counts one span of time.
    pub fn observe_time(&self, span: Duration) {
        self.observe(crate::time::nanos(span));
    }
}

/// What a configured relay port is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nothing.
    Free,
    /// Kept for a registered player's first introduction, and taken back if no other is free.
    Reserved,
    /// It carries one side of a pair.
    InUse,
    /// It could not be bound at start.
    Unbindable,
}

impl PortState {
    /// All of them, each at the index `self as usize`.
    pub const ALL: [Self; 4] = [Self::Free, Self::Reserved, Self::InUse, Self::Unbindable];

    /// The metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Reserved => "reserved",
            Self::InUse => "in-use",
            Self::Unbindable => "unbindable",
        }
    }
}

/// What the server keeps entries of, beside relay ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Connections that the event loop knows.
    Players,
    /// Players by OpenID.
    OpenIds,
    /// Players by PrivateID.
    PrivateIds,
    /// Networks that have named wrong OpenIDs, or whose players have asked to `connect` unconfirmed.
    GuessingNetworks,
    /// Players that have pairs.
    Partners,
    /// Networks whose players have asked for the pairs.
    RelayNetworks,
    /// Networks that connections come from.
    ConnectedNetworks,
}

impl Table {
    /// All of them, each at the index `self as usize`.
    pub const ALL: [Self; 7] = [
        Self::Players,
        Self::OpenIds,
        Self::PrivateIds,
        Self::GuessingNetworks,
        Self::Partners,
        Self::RelayNetworks,
        Self::ConnectedNetworks,
    ];

    /// The metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Players => "players",
            Self::OpenIds => "oids",
            Self::PrivateIds => "pids",
            Self::GuessingNetworks => "guessing-networks",
            Self::Partners => "partners",
            Self::RelayNetworks => "relay-networks",
            Self::ConnectedNetworks => "connected-networks",
        }
    }
}

/// Everything that the server counts.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is documented by its help text, below")]
pub struct Metrics {
    pub tcp_connections: Number,
    pub max_connections: Number,
    pub connections_refused: Number,
    pub bounds_reached: [Number; Bound::ALL.len()],
    pub connections_closed: [Number; Misconduct::ALL.len()],
    pub active_hosts: Number,
    pub command_duration: [Histogram; CommandKind::ALL.len()],
    pub command_exception: [Number; CommandKind::ALL.len()],
    pub registrar_success: Number,
    pub registrar_fail: Number,
    pub registrar_repeat: Number,
    pub relay_ports: [Number; PortState::ALL.len()],
    pub relay_count: Number,
    pub relay_expired: Number,
    pub relay_size: Histogram,
    pub relay_duration: Histogram,
    pub relay_drops: [Number; DropReason::ALL.len()],
    pub relay_datagrams: Number,
    pub relay_bytes: Number,
    pub receive_errors: Number,
    pub turn_duration: Histogram,
    pub table_entries: [Number; Table::ALL.len()],
    pub log_lines_lost: Number,
    pub is_draining: Number,
    pub has_reload_failed: Number,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            tcp_connections: Number::default(),
            max_connections: Number::default(),
            connections_refused: Number::default(),
            bounds_reached: Default::default(),
            connections_closed: Default::default(),
            active_hosts: Number::default(),
            command_duration: std::array::from_fn(|_| Histogram::of_seconds()),
            command_exception: Default::default(),
            registrar_success: Number::default(),
            registrar_fail: Number::default(),
            registrar_repeat: Number::default(),
            relay_ports: Default::default(),
            relay_count: Number::default(),
            relay_expired: Number::default(),
            relay_size: Histogram::new(SIZE_BOUNDS, 1.0),
            relay_duration: Histogram::of_seconds(),
            relay_drops: Default::default(),
            relay_datagrams: Number::default(),
            relay_bytes: Number::default(),
            receive_errors: Number::default(),
            turn_duration: Histogram::of_seconds(),
            table_entries: Default::default(),
            log_lines_lost: Number::default(),
            is_draining: Number::default(),
            has_reload_failed: Number::default(),
        }
    }
}

impl Metrics {
    /// Everything in Prometheus's text format.
    pub fn text(&self) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        page.gauge("noray_tcp_connections", "Players connected by TCP", &self.tcp_connections);
        page.gauge(
            "noray_max_connections",
            "Players that may be connected by TCP",
            &self.max_connections,
        );
        page.counter(
            "noray_connections_refused_total",
            "TCP connections refused because a cap was reached",
            &self.connections_refused,
        );
        let name = "noray_connections_closed_total";
        page.head(name, "counter", "TCP connections closed because of what the player did");
        for (misconduct, number) in Misconduct::ALL.into_iter().zip(&self.connections_closed) {
            page.value(name, &format!("reason=\"{}\"", misconduct.label()), number.value());
        }
        let name = "noray_bounds_reached_total";
        page.head(name, "counter", "What was refused because a bound was reached");
        for (bound, number) in Bound::ALL.into_iter().zip(&self.bounds_reached) {
            page.value(name, &format!("bound=\"{}\"", bound.label()), number.value());
        }
        page.gauge("noray_active_hosts", "Players that have registered", &self.active_hosts);
        self.write_commands(&mut page);
        page.counter(
            "noray_remote_registrar_success",
            "Datagrams at the registrar that set a player's address",
            &self.registrar_success,
        );
        page.counter(
            "noray_remote_registrar_repeat",
            "Datagrams at the registrar that repeated a player's address",
            &self.registrar_repeat,
        );
        page.counter(
            "noray_remote_registrar_fail",
            "Datagrams at the registrar that were no known PrivateID or had an impossible source",
            &self.registrar_fail,
        );
        self.write_relays(&mut page);
        self.write_server(&mut page);
        process::write(&mut page);
        machine::write(&mut page);
        page.0
    }

    fn write_commands(&self, page: &mut Page) {
        let name = "noray_command_duration";
        page.head(name, "histogram", "Seconds from a command's arrival to its answer");
        for (kind, histogram) in CommandKind::ALL.into_iter().zip(&self.command_duration) {
            page.histogram(name, &format!("command=\"{}\"", kind.name()), histogram);
        }
        let name = "noray_command_exception";
        page.head(name, "counter", "Commands that were answered with an error");
        for (kind, number) in CommandKind::ALL.into_iter().zip(&self.command_exception) {
            page.value(name, &format!("command=\"{}\"", kind.name()), number.value());
        }
    }

    fn write_relays(&self, page: &mut Page) {
        let name = "noray_relay_ports";
        page.head(name, "gauge", "Configured relay ports, by what they are doing");
        for (state, number) in PortState::ALL.into_iter().zip(&self.relay_ports) {
            page.value(name, &format!("state=\"{}\"", state.label()), number.value());
        }
        page.gauge("noray_relay_count", "Relayed pairs of players", &self.relay_count);
        page.counter(
            "noray_relay_expired",
            "Relayed pairs freed because they were idle or past their lifetime",
            &self.relay_expired,
        );
        let name = "noray_relay_size";
        page.head(name, "histogram", "Payload bytes of relayed datagrams");
        page.histogram(name, "", &self.relay_size);
        let name = "noray_relay_duration";
        page.head(name, "histogram", "Seconds to relay a datagram, one of 1024 measured");
        page.histogram(name, "", &self.relay_duration);
        let name = "noray_relay_drop_count";
        page.head(name, "counter", "Datagrams that arrived at relay ports and were not relayed");
        for (reason, number) in DropReason::ALL.into_iter().zip(&self.relay_drops) {
            page.value(name, &format!("reason=\"{}\"", reason.label()), number.value());
        }
        page.counter("noray_relay_datagrams_total", "Datagrams relayed", &self.relay_datagrams);
        page.counter("noray_relay_bytes_total", "Payload bytes relayed", &self.relay_bytes);
        page.counter(
            "noray_receive_errors_total",
            "Errors when reading from UDP sockets",
            &self.receive_errors,
        );
    }

    fn write_server(&self, page: &mut Page) {
        let name = "noray_loop_turn_duration_seconds";
        page.head(name, "histogram", "Seconds of work in a turn of the event loop");
        page.histogram(name, "", &self.turn_duration);
        let name = "noray_table_entries";
        page.head(name, "gauge", "Entries in the server's tables");
        for (table, number) in Table::ALL.into_iter().zip(&self.table_entries) {
            page.value(name, &format!("table=\"{}\"", table.label()), number.value());
        }
        page.counter(
            "noray_log_lines_lost_total",
            "Log lines lost because they were too many, read too slowly or could not be written",
            &self.log_lines_lost,
        );
        page.gauge("noray_draining", "1 while the server is about to end", &self.is_draining);
        page.gauge(
            "noray_config_last_reload_failed",
            "1 if the last reload changed nothing because the configuration was wrong",
            &self.has_reload_failed,
        );
        let name = "noray_build_info";
        page.head(name, "gauge", "1, with the version as label");
        page.value(name, concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    }
}

/// Text in Prometheus's format.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}."));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn counter(&mut self, name: &str, help: &str, number: &Number) {
        self.head(name, "counter", help);
        self.value(name, "", number.value());
    }

    fn gauge(&mut self, name: &str, help: &str, number: &Number) {
        self.head(name, "gauge", help);
        self.value(name, "", number.value());
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bounds =
            histogram.bounds.iter().map(|bound| (*bound as f64 / histogram.per_shown).to_string());
        let mut total = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
            total += count.value();
            self.value(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), total);
        }
        let sum = histogram.sum.value() as f64 / histogram.per_shown;
        self.value(&format!("{name}_sum"), labels, sum);
        self.value(&format!("{name}_count"), labels, total);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes everything");
        self.0.push('\n');
    }
}

/// What the kernel says of this process.
mod process {
    use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
    use nix::sys::time::TimeValLike;

    use super::Page;

    /// Leaves out what cannot be read.
    pub(super) fn write(page: &mut Page) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let micros = (usage.user_time() + usage.system_time()).num_microseconds();
            let name = "process_cpu_seconds_total";
            page.head(name, "counter", "Processor time used, in seconds");
            page.value(name, "", micros as f64 / 1e6);
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let of_status = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let mut gauge = |name: &str, help: &str, value: Option<u64>| {
            if let Some(value) = value {
                page.head(name, "gauge", help);
                page.value(name, "", value);
            }
        };
        let bytes = |kilobytes: u64| kilobytes * 1024;
        gauge("process_resident_memory_bytes", "Resident memory", of_status("VmRSS:").map(bytes));
        gauge("process_virtual_memory_bytes", "Virtual memory", of_status("VmSize:").map(bytes));
        gauge("process_threads", "Threads", of_status("Threads:"));
        gauge("process_open_fds", "Open file descriptors", open_files());
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft);
        gauge("process_max_fds", "Limit on open file descriptors", limit.ok());
        gauge("process_start_time_seconds", "Start, in seconds since 1970", start_time());
    }

    /// Newer kernels tell the number at once (proc_pid_fd(5): since Linux 6.2); listing all takes milliseconds with
    /// ten thousand players.
    fn open_files() -> Option<u64> {
        let told = std::fs::metadata("/proc/self/fd").ok()?.len();
        if told > 0 {
            Some(told)
        } else {
            Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)
        }
    }

    /// When the process started: its age in clock ticks since boot, and when the boot was.
    fn start_time() -> Option<u64> {
        /// `sysconf(_SC_CLK_TCK)` on every Linux that Rust runs on.
        const TICKS_PER_SECOND: u64 = 100;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // proc(5): the 22nd field; the second is in brackets and may hold spaces.
        let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let machine = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(boot.trim().parse::<u64>().ok()? + ticks / TICKS_PER_SECOND)
    }
}

/// What the kernel says of this machine, or of the network namespace that the server is in.
mod machine {
    use super::Page;

    /// Leaves out what cannot be read.
    pub(super) fn write(page: &mut Page) {
        let ipv4 = std::fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
        let ipv6 = std::fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
        if let Some(overflows) = udp_overflows(&ipv4, &ipv6) {
            let name = "noray_machine_udp_overflows_total";
            let help = "Datagrams lost because a UDP socket's buffer was full, of all programs on the machine";
            page.head(name, "counter", help);
            page.value(name, "", overflows);
        }
    }

    /// From the texts of `/proc/net/snmp`, a line of names above a line of numbers, and of `/proc/net/snmp6`, if
    /// there is IPv6.
    pub(super) fn udp_overflows(ipv4: &str, ipv6: &str) -> Option<u64> {
        let mut lines = ipv4.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, numbers) = (lines.next()?.split(' '), lines.next()?.split(' '));
        let (_, of_ipv4) = names.zip(numbers).find(|(name, _)| *name == "RcvbufErrors")?;
        let of_ipv6 = ipv6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
        Some(of_ipv4.parse::<u64>().ok()? + of_ipv6.map_or(Some(0), |n| n.trim().parse().ok())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_overflows_are_those_of_both_families() {
        let ipv4 = "Tcp: RcvbufErrors\nTcp: 7\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 1 20 3\n\
                    UdpLite: InDatagrams RcvbufErrors\nUdpLite: 8 9\n";
        let ipv6 = "Udp6InDatagrams   \t5\nUdp6RcvbufErrors  \t4\nUdpLite6RcvbufErrors \t6\n";
        assert_eq!(machine::udp_overflows(ipv4, ipv6), Some(24));
        assert_eq!(machine::udp_overflows(ipv4, ""), Some(20));
        assert_eq!(machine::udp_overflows("", ipv6), None);
        assert!(Metrics::default().text().contains("\nnoray_machine_udp_overflows_total "));
    }

    #[test]
    fn histograms_count_up_to_their_bounds() {
        let metrics = Metrics::default();
        for size in [0, 32, 33, 1400, 65_507, 70_000] {
            metrics.relay_size.observe(size);
        }
        metrics.relay_duration.observe_time(Duration::from_micros(2));
        let text = metrics.text();
        for line in [
            "noray_relay_size_bucket{le=\"32\"} 2",
            "noray_relay_size_bucket{le=\"64\"} 3",
            "noray_relay_size_bucket{le=\"1472\"} 4",
            "noray_relay_size_bucket{le=\"65536\"} 5",
            "noray_relay_size_bucket{le=\"+Inf\"} 6",
            "noray_relay_size_sum 136972",
            "noray_relay_size_count 6",
            "noray_relay_duration_bucket{le=\"0.0000025\"} 1",
            "noray_relay_drop_count{reason=\"wrong-ip\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
    }
}
