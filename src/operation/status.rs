//! The server's state in figures and words: what `/status` serves as JSON, and what `noray status` and the page show.
//!
//! A counter grows from the start of the server. Whoever wants a rate reads twice. A reader of another version skips
//! fields that it does not know, and takes the default for those that are missing.

use serde::{Deserialize, Serialize};

use crate::label::Label;
use crate::operation::metrics::{Family, Gauge, Metrics, PortState, Table};

/// Everything that is told. The page on monitoring explains each field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// When the server's process started, in seconds since 1970; `None` if the kernel does not say.
    pub started: Option<u64>,
    /// How long the server has been running, in seconds.
    pub uptime_seconds: f64,
    /// Why no new player should be sent to this server; `None` if it serves and is ready.
    pub not_ready: Option<String>,
    /// Whether the last reload failed, so that an older configuration is in force.
    pub has_reload_failed: bool,
    /// Players by TCP.
    pub players: Players,
    /// Relayed pairs.
    pub pairs: u64,
    /// Configured relay ports.
    pub relay_ports: RelayPorts,
    /// Datagrams at the registrar.
    pub registrar: Registrar,
    /// What was relayed.
    pub relayed: Relayed,
    /// Which part of that the kernel relays by itself.
    pub kernel_path: KernelPath,
    /// What was not relayed, by reason. Reasons that have not occurred are left out.
    pub dropped: Vec<Dropped>,
    /// Limits that were reached. Others are left out.
    pub bounds_reached: Vec<BoundReached>,
    /// How long the event loop's turns took. While one lasts, everything else waits.
    pub loop_turns: LoopTurns,
    /// The first and the newest warnings and errors of the log.
    pub warnings: Vec<Warning>,
}

/// Players by TCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Players {
    /// Connected now.
    pub connected: u64,
    /// Registered now.
    pub registered: u64,
    /// Their connection has ended, and their ids are kept for them.
    pub away: u64,
    /// As many may be connected.
    pub max_connected: u64,
}

/// How many relay ports are in which state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayPorts {
    /// By pairs.
    pub in_use: u64,
    /// For players' first introductions.
    pub reserved: u64,
    /// Neither.
    pub free: u64,
    /// They could not be bound at the start or the last handover.
    pub unbindable: u64,
}

/// Datagrams at the registrar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registrar {
    /// They set a player's address.
    pub set: u64,
    /// They repeated it.
    pub repeated: u64,
    /// They were no known PrivateID or had an impossible source.
    pub refused: u64,
}

/// What was relayed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relayed {
    /// How many datagrams.
    pub datagrams: u64,
    /// Their payload.
    pub bytes: u64,
}

/// What the kernel relays by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelPath {
    /// Whether its path is open. Otherwise everything takes the way through the sockets.
    pub is_open: bool,
    /// How many pairs it relays now.
    pub pairs: u64,
    /// How many of the relayed datagrams it relayed.
    pub datagrams: u64,
}

/// What was not relayed for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// The reason's label.
    pub reason: String,
    /// How many datagrams.
    pub datagrams: u64,
    /// What the reason means.
    pub meaning: String,
    /// What helps; `None` if nothing is wrong with the server.
    pub remedy: Option<String>,
}

/// A limit that was reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoundReached {
    /// The limit's label.
    pub bound: String,
    /// How often something was refused.
    pub times: u64,
    /// What was refused.
    pub meaning: String,
}

/// How long the event loop's turns took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoopTurns {
    /// Seconds of work in all of them.
    pub seconds: f64,
    /// How many took how long.
    pub counts: Vec<TurnCount>,
}

/// How many turns took longer than the entry before says, and no longer than this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnCount {
    /// In seconds; `None` for all that took longer.
    pub up_to_seconds: Option<f64>,
    /// How many.
    pub turns: u64,
}

/// A line of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// `warn` or `error`.
    pub level: String,
    /// What it says.
    pub text: String,
    /// How often it came, if it came more than once while it was kept.
    pub times: u64,
    /// How long ago it last came.
    pub seconds_ago: u64,
}

impl Status {
    /// What the metrics say. Readiness, uptime and warnings are left to the caller.
    pub fn of(metrics: &Metrics) -> Self {
        let ports = |state| metrics.relay_ports.of(state).value();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Metrics::process_start(),
            has_reload_failed: is_set(&metrics.has_reload_failed),
            players: Players {
                connected: metrics.tcp_connections.value(),
                registered: metrics.active_hosts.value(),
                away: metrics.table_entries.of(Table::AwayPlayers).value(),
                max_connected: metrics.max_connections.value(),
            },
            pairs: metrics.relay_count.value(),
            relay_ports: RelayPorts {
                in_use: ports(PortState::InUse),
                reserved: ports(PortState::Reserved),
                free: ports(PortState::Free),
                unbindable: ports(PortState::Unbindable),
            },
            registrar: Registrar {
                set: metrics.registrar_success.value(),
                repeated: metrics.registrar_repeat.value(),
                refused: metrics.registrar_fail.value(),
            },
            relayed: Relayed {
                datagrams: metrics.relay_datagrams.value(),
                bytes: metrics.relay_bytes.value(),
            },
            kernel_path: KernelPath {
                is_open: is_set(&metrics.kernel_path),
                pairs: metrics.kernel_pairs.value(),
                datagrams: metrics.kernel_datagrams.value(),
            },
            dropped: dropped(metrics),
            bounds_reached: bounds_reached(metrics),
            loop_turns: loop_turns(metrics),
            ..Self::default()
        }
    }

    /// One object.
    ///
    /// # Panics
    /// Never: all keys are strings.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("all keys are strings") + "\n"
    }

    /// Reads what a server serves.
    ///
    /// # Errors
    /// If it is no JSON, or has no version.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let status: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if status.version.is_empty() { Err("no version".to_owned()) } else { Ok(status) }
    }
}

fn is_set(gauge: &Gauge) -> bool {
    gauge.value() != 0
}

/// The labels whose numbers are not zero, with these.
fn occurred<L: Label, N>(
    family: &Family<L, N>,
    value: impl Fn(&N) -> u64,
) -> impl Iterator<Item = (L, u64)> {
    let all = L::ALL.iter().map(move |label| (*label, value(family.of(*label))));
    all.filter(|(_, count)| *count > 0)
}

fn dropped(metrics: &Metrics) -> Vec<Dropped> {
    let dropped = occurred(&metrics.relay_drops, |counter| counter.value());
    let explained = dropped.map(|(reason, datagrams)| {
        let help = reason.help();
        Dropped {
            reason: reason.label().to_owned(),
            datagrams,
            meaning: help.meaning.to_owned(),
            remedy: help.remedy.map(str::to_owned),
        }
    });
    explained.collect()
}

fn bounds_reached(metrics: &Metrics) -> Vec<BoundReached> {
    let reached = occurred(&metrics.bounds_reached, |counter| counter.value());
    let explained = reached.map(|(bound, times)| BoundReached {
        bound: bound.label().to_owned(),
        times,
        meaning: bound.meaning().to_owned(),
    });
    explained.collect()
}

fn loop_turns(metrics: &Metrics) -> LoopTurns {
    let counts = metrics.turn_duration.buckets();
    let count = |(up_to_seconds, turns)| TurnCount { up_to_seconds, turns };
    LoopTurns { seconds: metrics.turn_duration.sum(), counts: counts.map(count).collect() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::relay::DropReason;
    use crate::limits::bounds::Bound;

    #[test]
    fn what_the_metrics_say_is_told() {
        let metrics = Metrics::default();
        metrics.tcp_connections.set(3);
        metrics.relay_drops.of(DropReason::WrongIp).add(7);
        metrics.bounds_reached.of(Bound::Commands).add(2);
        metrics.turn_duration.observe_time(Duration::from_micros(2));
        metrics.turn_duration.observe_time(Duration::from_secs(2));
        let status = Status::of(&metrics);
        assert_eq!(status.players.connected, 3);
        let [dropped] = &status.dropped[..] else { panic!("{:?}", status.dropped) };
        assert_eq!((dropped.reason.as_str(), dropped.datagrams), ("wrong-ip", 7));
        assert!(dropped.remedy.as_ref().unwrap().contains("NORAY_UDP_RELAY_LATCHING=any"));
        let [reached] = &status.bounds_reached[..] else { panic!("{:?}", status.bounds_reached) };
        assert_eq!((reached.bound.as_str(), reached.times), ("commands", 2));
        assert_eq!(reached.meaning, Bound::Commands.meaning());
        let turns = status.loop_turns.counts.iter().filter(|count| count.turns == 1);
        let up_to: Vec<_> = turns.map(|count| count.up_to_seconds).collect();
        assert_eq!(up_to, [Some(0.000_002_5), None]);
        assert_eq!(Status::from_json(&status.json()), Ok(status));
    }

    #[test]
    fn a_server_of_another_version_is_read_too() {
        let text = r#"{"version":"9.0.0","players":{"connected":5,"new":1},"news":[]}"#;
        let status = Status::from_json(text).unwrap();
        assert_eq!((status.version.as_str(), status.players.connected), ("9.0.0", 5));
        assert_eq!(status.dropped, []);
        assert!(Status::from_json("{}").is_err());
    }
}
