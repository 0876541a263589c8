//! The one table of keys: what each is called, means, takes and is by default. The example file, the README's
//! table and `--check-config` are all held against it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::config::units::{ByteSize, PortList, TimeSpan, parse_digits};
use crate::config::{Config, LogLevel};
use crate::core::id::MAX_PRIVATE_ID;
use crate::core::relay::Latching;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// The name, in the file, in the environment and behind `--set`.
    pub name: &'static str,
    /// The value if nobody sets it.
    pub default: &'static str,
    /// What it means, in a sentence or two.
    pub help: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

impl Key {
    /// Whether a change takes effect only at the next start: addresses and ports are bound once.
    pub fn needs_restart(&self) -> bool {
        ["_HOST", "_PORT", "_PORTS"].iter().any(|end| self.name.ends_with(end))
    }
}

/// A key whose value is one field of [`Config`], read by a function and written by `Display`.
macro_rules! key {
    ($name:literal, $default:expr, $field:ident, $read:expr, $help:literal) => {
        Key {
            name: $name,
            default: $default,
            help: $help,
            set: |config, text| {
                config.$field = $read(text)?;
                Ok(())
            },
            show: |config| config.$field.to_string(),
        }
    };
}

/// The 64 characters that the existing server draws ids from.
const ID_CHARACTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// All keys, in the order in which they are documented.
pub const KEYS: &[Key] = &[
    key!(
        "NORAY_SOCKET_HOST",
        "0.0.0.0",
        socket_host,
        ip,
        "IP address to listen on for players (TCP). `::` serves IPv6 and IPv4."
    ),
    key!("NORAY_SOCKET_PORT", "8890", socket_port, port, "TCP port for players."),
    key!(
        "NORAY_UDP_HOST",
        "0.0.0.0",
        udp_host,
        ip,
        "IP address to which the registrar and all relays bind (UDP). `::` serves IPv6 and IPv4."
    ),
    key!(
        "NORAY_UDP_REGISTRAR_PORT",
        "8809",
        registrar_port,
        port,
        "UDP port at which players register their external address."
    ),
    key!(
        "NORAY_UDP_RELAY_PORTS",
        "49152-51200",
        relay_ports,
        PortList::from_str,
        "UDP ports for relays, two a relayed pair: `2048`, `2048-2051` or `2048+3`, joined by commas."
    ),
    key!(
        "NORAY_HTTP_HOST",
        "127.0.0.1",
        http_host,
        ip,
        "IP address for metrics and health. Not for the world: anybody who reaches it can read it."
    ),
    key!("NORAY_HTTP_PORT", "8891", http_port, port, "TCP port for metrics and health."),
    key!(
        "NORAY_MAX_CONNECTIONS",
        "4096",
        max_connections,
        count::<100_000>,
        "How many players may be connected at once."
    ),
    key!(
        "NORAY_MAX_CONNECTIONS_PER_IP",
        "1024",
        max_connections_per_ip,
        count::<100_000>,
        "How many of them from one IP address; many players share the one of their carrier."
    ),
    key!(
        "NORAY_UDP_RELAY_TIMEOUT",
        "30s",
        relay_timeout,
        time_span,
        "After how long without a relayed datagram a relay is freed."
    ),
    key!(
        "NORAY_UDP_RELAY_CLEANUP_INTERVAL",
        "30s",
        relay_cleanup_interval,
        time_span,
        "How often relays are looked through for such ones."
    ),
    key!(
        "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC",
        "128kb",
        relay_max_individual_traffic,
        size,
        "Bytes per second in each direction of each relayed pair, headers included."
    ),
    key!(
        "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC",
        "1gb",
        relay_max_global_traffic,
        size,
        "Bytes per second of all relays together."
    ),
    key!(
        "NORAY_UDP_RELAY_TRAFFIC_INTERVAL",
        "100ms",
        relay_traffic_interval,
        time_span,
        "How long a burst above these rates may last."
    ),
    key!(
        "NORAY_UDP_RELAY_MAX_LIFETIME_DURATION",
        "4hr",
        relay_max_lifetime_duration,
        time_span,
        "How long a relay may live."
    ),
    key!(
        "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC",
        "4gb",
        relay_max_lifetime_traffic,
        size,
        "How much a relay may carry in its life, both directions together."
    ),
    Key {
        name: "NORAY_UDP_RELAY_LATCHING",
        default: "same-ip",
        help: "Which sources count as the player at a relay: `same-ip` (the registered IP with any port), `any` \
               (the first that is heard, for carriers that use several IPs for one player) or `off` (the \
               registered address only).",
        set: |config, text| {
            config.relay_latching = choice(text, LATCHINGS)?;
            Ok(())
        },
        show: |config| name_of(config.relay_latching, LATCHINGS).to_owned(),
    },
    key!(
        "NORAY_UDP_RELAY_MAX_PER_IP",
        "64",
        relay_max_per_ip,
        count::<65_536>,
        "How many relays players of one IP address (IPv6: /64) may have asked for once three quarters of the ports are \
         in use."
    ),
    key!(
        "NORAY_OID_LENGTH",
        "21",
        oid_length,
        count::<256>,
        "Length of the OpenIDs, the join codes. 21 never collide; 5 are easy to type."
    ),
    key!(
        "NORAY_OID_CHARSET",
        ID_CHARACTERS,
        oid_charset,
        FromStr::from_str,
        "The characters of the OpenIDs, each written out."
    ),
    key!(
        "NORAY_ENABLE_WORDS_OID",
        "false",
        enable_words_oid,
        boolean,
        "`true` makes OpenIDs of words, such as FalconTimberYolk."
    ),
    key!("NORAY_WORDS_OID_LENGTH", "3", words_oid_length, count::<16>, "How many words."),
    key!(
        "NORAY_OID_PREFIX",
        "",
        oid_prefix,
        prefix,
        "Stands in front of every OpenID and so names this server, for those who run several."
    ),
    key!(
        "NORAY_PID_LENGTH",
        "128",
        pid_length,
        count::<MAX_PRIVATE_ID>,
        "Length of the PrivateIDs, the players' secrets."
    ),
    key!(
        "NORAY_PID_CHARSET",
        ID_CHARACTERS,
        pid_charset,
        FromStr::from_str,
        "The characters of the PrivateIDs, each written out."
    ),
    key!(
        "NORAY_DRAIN_TIMEOUT",
        "30s",
        drain_timeout,
        time_span,
        "How long live relays may go on after SIGTERM, before the server ends."
    ),
    Key {
        name: "NORAY_LOGLEVEL",
        default: "info",
        help: "`silent`, `fatal`, `error`, `warn`, `info`, `debug` or `trace`.",
        set: |config, text| {
            config.log_level = choice(text, LOG_LEVELS)?;
            Ok(())
        },
        show: |config| name_of(config.log_level, LOG_LEVELS).to_owned(),
    },
];

const LATCHINGS: &[(&str, Latching)] =
    &[("same-ip", Latching::SameIp), ("any", Latching::Any), ("off", Latching::Off)];

const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("silent", LogLevel::Silent),
    ("fatal", LogLevel::Fatal),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// The configuration of somebody who sets nothing: every key's default, read like any other value, takes the
/// place of what stands here.
pub(super) fn defaults() -> Config {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let characters = || ID_CHARACTERS.parse().expect("they are printable ASCII");
    let no_time = TimeSpan(Duration::ZERO);
    let mut config = Config {
        oid_length: 0,
        oid_charset: characters(),
        enable_words_oid: false,
        words_oid_length: 0,
        oid_prefix: String::new(),
        pid_length: 0,
        pid_charset: characters(),
        socket_host: nowhere,
        socket_port: 0,
        http_host: nowhere,
        http_port: 0,
        udp_host: nowhere,
        registrar_port: 0,
        relay_ports: [].into_iter().collect(),
        relay_timeout: no_time,
        relay_cleanup_interval: no_time,
        relay_max_individual_traffic: ByteSize(0),
        relay_max_global_traffic: ByteSize(0),
        relay_traffic_interval: no_time,
        relay_max_lifetime_duration: no_time,
        relay_max_lifetime_traffic: ByteSize(0),
        relay_latching: Latching::Off,
        relay_max_per_ip: 0,
        max_connections: 0,
        max_connections_per_ip: 0,
        drain_timeout: no_time,
        log_level: LogLevel::Silent,
    };
    for key in KEYS {
        (key.set)(&mut config, key.default).expect("the defaults are right");
    }
    config
}

/// The known key that looks most like `name`.
pub(super) fn nearest(name: &str) -> &'static str {
    let distance = |key: &&Key| strsim::damerau_levenshtein(&name.to_ascii_uppercase(), key.name);
    KEYS.iter().min_by_key(distance).expect("there are keys").name
}

fn ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    bare.parse().map_err(|_| {
        let all = Ipv6Addr::UNSPECIFIED;
        format!(
            "`{text}` is not an IP address; for all of them write 0.0.0.0 (IPv4) or {all} (both)"
        )
    })
}

fn port(text: &str) -> Result<u16, String> {
    parse_digits(text).ok_or_else(|| {
        format!("`{text}` is not a port, ports are 1 to 65535 (and 0: any that is free)")
    })
}

fn count<const MAX: usize>(text: &str) -> Result<usize, String> {
    parse_digits(text)
        .filter(|count| (1..=MAX).contains(count))
        .ok_or_else(|| format!("`{text}` is not a whole number from 1 to {MAX}"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn time_span(text: &str) -> Result<TimeSpan, String> {
    let span: TimeSpan = text.parse()?;
    let is_enough = span.0 >= Duration::from_millis(1);
    if is_enough { Ok(span) } else { Err(format!("`{text}` is shorter than 1ms")) }
}

fn size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.0 == 0 { Err(format!("`{text}` would let nothing pass")) } else { Ok(size) }
}

/// Up to 64 characters that may stand in an OpenID.
fn prefix(text: &str) -> Result<String, String> {
    if text.len() > 64 {
        return Err(format!("`{text}` is longer than 64 characters"));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        Some(bad) => {
            Err(format!("{bad:?} cannot be part of an id, use printable ASCII without spaces"))
        }
        None => Ok(text.to_owned()),
    }
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let lower = text.to_ascii_lowercase();
    let found = choices.iter().find(|(name, _)| *name == lower);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}

fn name_of<T: PartialEq>(value: T, choices: &[(&'static str, T)]) -> &'static str {
    choices.iter().find(|(_, choice)| *choice == value).expect("every value has a name").0
}
