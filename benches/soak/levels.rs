//! Where the server stands: what it holds, by its own metrics and by the kernel's.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{HTTP, Process};

/// For how long relays and players that are gone may still be held.
const PATIENCE: Duration = Duration::from_secs(20);

/// What memory may grow by after the first round: the allocator's pages are in use in part.
const MEMORY_SLACK_KB: f64 = 2048.0;

/// By how many the open files may differ: the requests for the metrics open and close some themselves.
const FILES_SLACK: u64 = 3;

/// What must be back where it was: gauges.
const HELD: [&str; 14] = [
    "process_threads",
    "process_open_fds",
    "noray_tcp_connections",
    "noray_active_hosts",
    "noray_relay_count",
    "noray_relay_ports{state=\"reserved\"}",
    "noray_table_entries{table=\"players\"}",
    "noray_table_entries{table=\"away-players\"}",
    "noray_table_entries{table=\"oids\"}",
    "noray_table_entries{table=\"pids\"}",
    "noray_table_entries{table=\"guessing-networks\"}",
    "noray_table_entries{table=\"partners\"}",
    "noray_table_entries{table=\"relay-networks\"}",
    "noray_table_entries{table=\"connected-networks\"}",
];

#[derive(Clone)]
pub(crate) struct Levels {
    metrics: String,
    resident_kb: f64,
}

impl Levels {
    pub(crate) const HEADING: &str = "resident  threads  files  connections  relays  other entries";

    /// Waits until nobody is connected and no relay lives, for a while at most.
    pub(crate) fn at_rest(noray: &Process) -> Self {
        Self::wait_until(noray, |levels| HELD[2..].iter().all(|name| levels.metric(name) == 0))
    }

    /// Waits until the server is where it was when it was fresh, for a while at most: a thread ends a moment after its
    /// player has left.
    pub(crate) fn back_at(noray: &Process, fresh: &Self) -> Self {
        Self::wait_until(noray, |levels| levels.is_back_at(fresh).is_ok())
    }

    fn wait_until(noray: &Process, is_so: impl Fn(&Self) -> bool) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let levels = Self::read(noray);
            if is_so(&levels) || Instant::now() > deadline {
                return levels;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn read(noray: &Process) -> Self {
        let mut stream = TcpStream::connect(HTTP).expect("metrics are served");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("they are");
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).expect("they are");
        Self { metrics, resident_kb: noray.resident_kb() }
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let line = self.metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    }

    pub(crate) fn metrics_that_start(&self, with: &str) -> impl Iterator<Item = u64> {
        let lines = self.metrics.lines().filter(move |line| line.starts_with(with));
        lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
    }

    /// Whether what must be back where it was is there.
    ///
    /// # Errors
    /// The first gauge that is not.
    pub(crate) fn is_back_at(&self, fresh: &Self) -> Result<(), String> {
        for name in HELD {
            let slack = if name == "process_open_fds" { FILES_SLACK } else { 0 };
            let (now, before) = (self.metric(name), fresh.metric(name));
            if now.abs_diff(before) > slack {
                return Err(format!("{name} is not back where it was: {now}, not {before}"));
            }
        }
        Ok(())
    }

    /// The allocator keeps what the first round's crowd needed, and no more.
    pub(crate) fn must_have_grown_no_more_than(&self, after_first: &Self, round: u64) {
        let grown = self.resident_kb - after_first.resident_kb;
        assert!(
            grown <= MEMORY_SLACK_KB,
            "{grown} kB more than after the first round, in round {round}"
        );
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: u64 = HELD[3..].iter().map(|name| self.metric(name)).sum();
        write!(
            f,
            "{:>5.1} MB {:>8} {:>6} {:>12} {:>7} {:>14}",
            self.resident_kb / 1024.0,
            self.metric(HELD[0]),
            self.metric(HELD[1]),
            self.metric(HELD[2]),
            self.metric("noray_relay_count"),
            entries - self.metric("noray_relay_count"),
        )
    }
}
