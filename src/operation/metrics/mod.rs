//! What the server counts, and the page that shows it to Prometheus.
//!
//! Counting is cheap and takes no lock: every number is an atomic. Labels come from closed sets ([`Label`]): nothing that a
//! stranger sends becomes one. Names that the older server in JavaScript has are kept, so that its dashboards go on
//! working. New names follow Prometheus's conventions.
//!
//! [`Label`]: crate::label::Label

mod kernel;
mod numbers;
mod page;

pub use numbers::{Bytes, Counter, Family, Gauge, Histogram, Scale, Seconds};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use numbers::Values;
use page::Page;

use crate::core::protocol::CommandKind;
use crate::core::relay::DropReason;
use crate::label::labels;
use crate::limits::bounds::Bound;
use crate::limits::connection_policy::DisconnectReason;

labels! {
    /// What a configured relay port is doing.
    pub enum PortState {
        /// Nothing.
        Free = "free",
        /// Kept for a registered player's first introduction. It is taken back if no other port is free.
        Reserved = "reserved",
        /// It carries one side of a pair.
        InUse = "in-use",
        /// It could not be bound at the start or the last handover.
        Unbindable = "unbindable",
    }
}

labels! {
    /// The tables in which the server keeps entries, besides relay ports.
    pub enum Table {
        /// Connections that the event loop knows.
        Players = "players",
        /// Players whose connection has ended and whose ids are kept.
        AwayPlayers = "away-players",
        /// Players by OpenID.
        OpenIds = "oids",
        /// Players by PrivateID.
        PrivateIds = "pids",
        /// Networks that have named wrong OpenIDs, or whose players have asked to `connect` unconfirmed.
        GuessingNetworks = "guessing-networks",
        /// Players that have pairs.
        Partners = "partners",
        /// Networks whose players have asked for pairs.
        RelayNetworks = "relay-networks",
        /// Networks that connections come from.
        ConnectedNetworks = "connected-networks",
    }
}

/// Declares [`Metrics`]: each number with its help text above it and its name behind it, and for a [`Family`] the name
/// of its label.
macro_rules! metrics {
    (
        $(#[$of_struct:meta])*
        pub struct Metrics {
            $($(#[doc = $help:literal])+ pub $field:ident: $kind:ty = $name:literal $(by $label:literal)?,)+
        }
    ) => {
        $(#[$of_struct])*
        pub struct Metrics { $($(#[doc = $help])+ pub $field: $kind,)+ }

        impl Metrics {
            fn write(&self, page: &mut Page) {
                $(page.metric($name, concat!($($help),+), &self.$field$(.by($label))?);)+
            }

            fn visit(&self, visit: &mut dyn FnMut(&str, &AtomicU64)) {
                $(self.$field.visit($name, visit);)+
            }
        }
    };
}

metrics! {
    /// Everything that the server counts, in the order of the page.
    #[derive(Debug, Default)]
    pub struct Metrics {
        /// Players connected by TCP.
        pub tcp_connections: Gauge = "noray_tcp_connections",
        /// Players that may be connected by TCP.
        pub max_connections: Gauge = "noray_max_connections",
        /// TCP connections refused because a cap was reached.
        pub connections_refused: Counter = "noray_connections_refused_total",
        /// TCP connections closed because of what the player did.
        pub connections_closed: Family<DisconnectReason, Counter> = "noray_connections_closed_total" by "reason",
        /// What was refused because a bound was reached.
        pub bounds_reached: Family<Bound, Counter> = "noray_bounds_reached_total" by "bound",
        /// Players that have registered.
        pub active_hosts: Gauge = "noray_active_hosts",
        /// Seconds from a command's arrival to its answer.
        pub command_duration: Family<CommandKind, Histogram<Seconds>> = "noray_command_duration" by "command",
        /// Commands that were answered with an error.
        pub command_exception: Family<CommandKind, Counter> = "noray_command_exception" by "command",
        /// Datagrams at the registrar that set a player's address.
        pub registrar_success: Counter = "noray_remote_registrar_success",
        /// Datagrams at the registrar that repeated a player's address.
        pub registrar_repeat: Counter = "noray_remote_registrar_repeat",
        /// Datagrams at the registrar that were no known PrivateID or had an impossible source.
        pub registrar_fail: Counter = "noray_remote_registrar_fail",
        /// Configured relay ports, by what they are doing.
        pub relay_ports: Family<PortState, Gauge> = "noray_relay_ports" by "state",
        /// Relayed pairs of players.
        pub relay_count: Gauge = "noray_relay_count",
        /// Relayed pairs freed because they were idle or past their lifetime.
        pub relay_expired: Counter = "noray_relay_expired",
        /// Payload bytes of relayed datagrams.
        pub relay_size: Histogram<Bytes> = "noray_relay_size",
        /// Seconds to relay a datagram, one of 1024 measured.
        pub relay_duration: Histogram<Seconds> = "noray_relay_duration",
        /// Datagrams that arrived at relay ports and were not relayed.
        pub relay_drops: Family<DropReason, Counter> = "noray_relay_drop_count" by "reason",
        /// Datagrams relayed.
        pub relay_datagrams: Counter = "noray_relay_datagrams_total",
        /// Payload bytes relayed.
        pub relay_bytes: Counter = "noray_relay_bytes_total",
        /// 1 while the kernel forwards established pairs by itself.
        pub kernel_path: Gauge = "noray_kernel_path",
        /// Relayed pairs that the kernel forwards now.
        pub kernel_pairs: Gauge = "noray_kernel_pairs",
        /// Datagrams that the kernel relayed; they count in the numbers of all relayed datagrams too.
        pub kernel_datagrams: Counter = "noray_kernel_datagrams_total",
        /// Errors when reading from UDP sockets.
        pub receive_errors: Counter = "noray_receive_errors_total",
        /// Seconds of work in a turn of the event loop.
        pub turn_duration: Histogram<Seconds> = "noray_loop_turn_duration_seconds",
        /// Entries in the server's tables.
        pub table_entries: Family<Table, Gauge> = "noray_table_entries" by "table",
        /// Log lines lost because they were too many, read too slowly or could not be written.
        pub log_lines_lost: Counter = "noray_log_lines_lost_total",
        /// Log lines about steps of players and relays left out on purpose because they were too many.
        pub log_lines_left_out: Counter = "noray_log_lines_left_out_total",
        /// 1 while the server is about to end.
        pub is_draining: Gauge = "noray_draining",
        /// 1 if the last reload failed, which the log explains.
        pub has_reload_failed: Gauge = "noray_config_last_reload_failed",
    }
}

impl Metrics {
    /// When this process started, in seconds since 1970.
    pub(crate) fn process_start() -> Option<u64> {
        kernel::start_time()
    }

    /// All values, by name and label, for another process that goes on counting.
    pub fn values(&self) -> BTreeMap<String, u64> {
        let mut values = BTreeMap::new();
        self.visit(&mut |name, value| {
            values.insert(name.to_owned(), value.load(Ordering::Relaxed));
        });
        values
    }

    /// Goes on with the values of another process. Values that this program does not know are ignored.
    pub fn restore(&self, values: &BTreeMap<String, u64>) {
        self.visit(&mut |name, value| {
            if let Some(known) = values.get(name) {
                value.store(*known, Ordering::Relaxed);
            }
        });
    }

    /// Everything in Prometheus's text format, with the kernel's numbers about the process and the machine.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        self.write(&mut page);
        page.head("noray_build_info", "gauge", "1, with the version as label.");
        page.value("noray_build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
        kernel::write_process(&mut page);
        kernel::write_machine(&mut page);
        page.into_text()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn another_process_goes_on_counting() {
        let metrics = Metrics::default();
        metrics.relay_size.observe(100);
        metrics.relay_drops.of(DropReason::WrongIp).add(3);
        let mut values = metrics.values();
        values.insert("noray_of_a_later_version".to_owned(), 1);
        let other = Metrics::default();
        other.restore(&values);
        other.relay_size.observe(100);
        other.relay_drops.of(DropReason::WrongIp).add(1);
        let text = other.text();
        for line in ["noray_relay_size_sum 200", "noray_relay_drop_count{reason=\"wrong-ip\"} 4"] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
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
