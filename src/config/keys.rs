//! The table of keys: the name, meaning, default and type of each key, and when a new value takes effect.
//!
//! Tests compare the example file and the README's table with it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::config::units::{ByteSize, PortList, TimeSpan, parse_digits};
use crate::config::{BlockedList, InterfaceNames, KernelPath, LogLevel};
use crate::core::host::Host;
use crate::core::id::{Alphabet, MAX_PRIVATE_ID};
use crate::core::relay::Latching;
use crate::label::Label;
use crate::limits::share::HardCap;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The name, in the file, in the environment and after `--set`.
    pub name: &'static str,
    /// The value if the key is not set.
    pub default: &'static str,
    /// What it means, in a sentence or two.
    pub help: &'static str,
    /// When a new value takes effect.
    pub takes_effect: TakesEffect,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

/// When a new value of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// With a reload.
    AtOnce,
    /// With a reload, by a handover.
    AtHandover,
    /// At the next start of the server.
    AtRestart,
}

/// Declares [`Config`] with a [`Key`] for each field. The comment above a field is the key's help. `read` turns text
/// into the value, and the value's `Display` turns it back.
macro_rules! keys {
    (
        $(#[$of_struct:meta])*
        pub struct Config {$(
            $(#[doc = $help:literal])+
            #[key($name:literal, default = $default:expr, read = $read:expr, takes_effect = $when:ident)]
            pub $field:ident: $type:ty,
        )+}
    ) => {
        $(#[$of_struct])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {$(
            $(#[doc = $help])+
            pub $field: $type,
        )+}

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $read($default).expect("the defaults are right"),)+ }
            }
        }

        /// All keys, in the order in which they are documented.
        pub const KEYS: &[Key] = &[$(
            Key {
                name: $name,
                default: $default,
                help: concat!($($help),+).trim_ascii_start(),
                takes_effect: TakesEffect::$when,
                set: |config, text| {
                    config.$field = $read(text)?;
                    Ok(())
                },
                show: |config| config.$field.to_string(),
            },
        )+];
    };
}

/// The 64 characters that the existing server draws ids from.
const ID_CHARACTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// The largest value of `NORAY_MAX_CONNECTIONS`.
pub const MAX_CONNECTIONS: usize = 100_000;

keys! {
    /// The configuration: a value for each key.
    pub struct Config {
        /// IP address to listen on for players (TCP). `::` serves IPv6 and IPv4.
        #[key("NORAY_SOCKET_HOST", default = "0.0.0.0", read = ip, takes_effect = AtHandover)]
        pub socket_host: IpAddr,

        /// TCP port for players.
        #[key("NORAY_SOCKET_PORT", default = "8890", read = port, takes_effect = AtHandover)]
        pub socket_port: u16,

        /// IP address to which the registrar and all relays bind (UDP). `::` serves IPv6 and IPv4.
        #[key("NORAY_UDP_HOST", default = "0.0.0.0", read = ip, takes_effect = AtRestart)]
        pub udp_host: IpAddr,

        /// UDP port at which players register their external address.
        #[key("NORAY_UDP_REGISTRAR_PORT", default = "8809", read = port, takes_effect = AtHandover)]
        pub registrar_port: u16,

        /// UDP ports for relays, two for each relayed pair: `2048`, `2048-2051` or `2048+3`, joined by commas.
        #[key("NORAY_UDP_RELAY_PORTS", default = "49152-51200", read = PortList::from_str, takes_effect = AtHandover)]
        pub relay_ports: PortList,

        /// IP address for metrics, health and status. Do not open it to the internet: anybody who reaches it can read it.
        #[key("NORAY_HTTP_HOST", default = "127.0.0.1", read = ip, takes_effect = AtHandover)]
        pub http_host: IpAddr,

        /// TCP port for metrics, health and status.
        #[key("NORAY_HTTP_PORT", default = "8891", read = port, takes_effect = AtHandover)]
        pub http_port: u16,

        /// How many players may be connected at once.
        #[key("NORAY_MAX_CONNECTIONS", default = "4096", read = count::<MAX_CONNECTIONS>, takes_effect = AtOnce)]
        pub max_connections: usize,

        /// How many of them may come from one IP address, beside its share. As many as `NORAY_MAX_CONNECTIONS` or more
        /// switch the shares off.
        #[key("NORAY_MAX_CONNECTIONS_PER_IP", default = "none", read = hard_cap::<MAX_CONNECTIONS>, takes_effect = AtOnce)]
        pub max_connections_per_ip: HardCap,

        /// A relay is freed after so much time without a relayed datagram.
        #[key("NORAY_UDP_RELAY_TIMEOUT", default = "30s", read = time_span, takes_effect = AtOnce)]
        pub relay_timeout: TimeSpan,

        /// How often the server looks for such relays.
        #[key("NORAY_UDP_RELAY_CLEANUP_INTERVAL", default = "30s", read = time_span, takes_effect = AtOnce)]
        pub relay_cleanup_interval: TimeSpan,

        /// Bytes per second in each direction of each relayed pair, headers included.
        #[key("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC", default = "128kb", read = size, takes_effect = AtOnce)]
        pub relay_max_individual_traffic: ByteSize,

        /// Bytes per second of all relays together.
        #[key("NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC", default = "1gb", read = size, takes_effect = AtOnce)]
        pub relay_max_global_traffic: ByteSize,

        /// How long a burst above these two rates may last.
        #[key("NORAY_UDP_RELAY_TRAFFIC_INTERVAL", default = "100ms", read = time_span, takes_effect = AtOnce)]
        pub relay_traffic_interval: TimeSpan,

        /// How long a relay may live.
        #[key("NORAY_UDP_RELAY_MAX_LIFETIME_DURATION", default = "4hr", read = time_span, takes_effect = AtOnce)]
        pub relay_max_lifetime_duration: TimeSpan,

        /// How much a relay may carry in its life, both directions together.
        #[key("NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC", default = "4gb", read = size, takes_effect = AtOnce)]
        pub relay_max_lifetime_traffic: ByteSize,

        /// Which sources count as the player at a relay: `same-ip` (the registered IP with any port), `any` (the first
        /// that is heard, for carriers that use several IPs for one player) or `off` (the registered address only).
        #[key("NORAY_UDP_RELAY_LATCHING", default = "same-ip", read = choice, takes_effect = AtOnce)]
        pub relay_latching: Latching,

        /// How many relays players of one IP address (IPv6: /64) may have asked for, beside their share. As many as
        /// there are pairs of ports or more switch the shares off.
        #[key("NORAY_UDP_RELAY_MAX_PER_IP", default = "none", read = hard_cap::<65_536>, takes_effect = AtOnce)]
        pub relay_max_per_ip: HardCap,

        /// Length of the OpenIDs, the join codes. 21 characters never collide; 5 are easy to type.
        #[key("NORAY_OID_LENGTH", default = "21", read = count::<256>, takes_effect = AtOnce)]
        pub oid_length: usize,

        /// The characters of the OpenIDs, each written out.
        #[key("NORAY_OID_CHARSET", default = ID_CHARACTERS, read = alphabet, takes_effect = AtOnce)]
        pub oid_charset: Alphabet,

        /// With `true`, OpenIDs are made of words, such as FalconTimberYolk.
        #[key("NORAY_ENABLE_WORDS_OID", default = "false", read = boolean, takes_effect = AtOnce)]
        pub enable_words_oid: bool,

        /// How many words such an OpenID has.
        #[key("NORAY_WORDS_OID_LENGTH", default = "3", read = count::<16>, takes_effect = AtOnce)]
        pub words_oid_length: usize,

        /// The beginning of every OpenID. It names this server, if you run several.
        #[key("NORAY_OID_PREFIX", default = "", read = prefix, takes_effect = AtOnce)]
        pub oid_prefix: String,

        /// A file with words, one a line, that no OpenID may contain, in any case, also with digits for letters.
        #[key("NORAY_OID_BLOCKED", default = "", read = blocked_list, takes_effect = AtOnce)]
        pub oid_blocked: BlockedList,

        /// Length of the PrivateIDs, the players' secrets.
        #[key("NORAY_PID_LENGTH", default = "128", read = count::<MAX_PRIVATE_ID>, takes_effect = AtOnce)]
        pub pid_length: usize,

        /// The characters of the PrivateIDs, each written out.
        #[key("NORAY_PID_CHARSET", default = ID_CHARACTERS, read = alphabet, takes_effect = AtOnce)]
        pub pid_charset: Alphabet,

        /// With `true`, players never learn each other's IP: all meet through the relay, also those who ask for `connect`.
        #[key("NORAY_RELAY_ONLY", default = "false", read = boolean, takes_effect = AtOnce)]
        pub relay_only: bool,

        /// The address or name at which players reach this server, for `NORAY_RELAY_ONLY`. By default, the address at
        /// which they registered. Set it if the machine has no public address of its own.
        #[key("NORAY_PUBLIC_HOST", default = "", read = public_host, takes_effect = AtOnce)]
        pub public_host: PublicHost,

        /// How long the ids of a player whose connection broke are kept for it. `0` keeps none.
        #[key("NORAY_RESUME_WINDOW", default = "1m", read = TimeSpan::from_str, takes_effect = AtOnce)]
        pub resume_window: TimeSpan,

        /// How long live relays may go on after SIGTERM, before the server ends.
        #[key("NORAY_DRAIN_TIMEOUT", default = "30s", read = time_span, takes_effect = AtOnce)]
        pub drain_timeout: TimeSpan,

        /// Whether the kernel forwards established pairs by itself: `off`, `auto` (if it can) or `required` (or the server
        /// does not start). The machine's firewall then sees only one of their datagrams in a while.
        #[key("NORAY_KERNEL_PATH", default = "off", read = choice, takes_effect = AtOnce)]
        pub kernel_path: KernelPath,

        /// The interfaces where it does, joined by commas. By default, all that are up.
        #[key("NORAY_KERNEL_INTERFACES", default = "", read = interface_names, takes_effect = AtOnce)]
        pub kernel_interfaces: InterfaceNames,

        /// Which lines the log has: `silent`, `fatal`, `error`, `warn`, `info`, `debug` or `trace`.
        #[key("NORAY_LOGLEVEL", default = "info", read = choice, takes_effect = AtOnce)]
        pub log_level: LogLevel,
    }
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

fn hard_cap<const MAX: usize>(text: &str) -> Result<HardCap, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(HardCap(None));
    }
    let cap = count::<MAX>(text).map_err(|what| format!("{what}, nor `none`"))?;
    Ok(HardCap(Some(cap)))
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

/// Refuses ranges as in regular expressions: every character stands for itself, and nobody means five of them.
fn alphabet(text: &str) -> Result<Alphabet, String> {
    let alphabet: Alphabet = text.parse()?;
    match with_ranges_written_out(text).or_else(|| with_ranges_written_out(&alphabet.to_string())) {
        Some(characters) => Err(format!(
            "`{text}` looks like a range, but every character stands for itself: write {characters}; a hyphen that is \
             meant goes to the end"
        )),
        None => Ok(alphabet),
    }
}

/// `A-D` becomes `ABCD`; `None` if there is no such range.
fn with_ranges_written_out(text: &str) -> Option<String> {
    let mut characters = String::new();
    let mut rest = text.as_bytes();
    let mut has_range = false;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if let [b'-', last, behind @ ..] = behind
            && is_range(*first, *last)
        {
            characters.extend((*first..=*last).map(char::from));
            (rest, has_range) = (behind, true);
        } else {
            characters.push(char::from(*first));
        }
    }
    has_range.then_some(characters)
}

/// Whether two characters with a hyphen between them are more likely a range than three characters.
fn is_range(first: u8, last: u8) -> bool {
    let classes: [fn(&u8) -> bool; 3] =
        [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit];
    last > first + 1 && classes.iter().any(|is_in| is_in(&first) && is_in(&last))
}

/// At most 64 characters that may stand in an OpenID.
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

/// The server's own host; `None` for where players find it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublicHost(pub Option<Host>);

impl fmt::Display for PublicHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |host| host.fmt(f))
    }
}

fn public_host(text: &str) -> Result<PublicHost, String> {
    if text.is_empty() { Ok(PublicHost(None)) } else { Ok(PublicHost(Some(text.parse()?))) }
}

/// The kernel takes names of at most 15 bytes without slashes and spaces.
fn interface_names(text: &str) -> Result<InterfaceNames, String> {
    let names: Vec<String> = text
        .split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    match names
        .iter()
        .find(|name| name.len() > 15 || name.contains(|c: char| c == '/' || c.is_whitespace()))
    {
        Some(bad) => Err(format!("`{bad}` is no name of an interface; `ip link` lists them")),
        None => Ok(InterfaceNames(names)),
    }
}

fn blocked_list(path: &str) -> Result<BlockedList, String> {
    if path.contains(char::is_control) {
        return Err("a file's name cannot have control characters here".to_owned());
    }
    Ok(BlockedList { path: path.to_owned(), ..BlockedList::default() })
}

fn choice<T: Label>(text: &str) -> Result<T, String> {
    let lower = text.to_ascii_lowercase();
    T::ALL.iter().copied().find(|choice| choice.label() == lower).ok_or_else(|| {
        let labels: Vec<&str> = T::ALL.iter().map(|choice| choice.label()).collect();
        format!("`{text}` is none of {}", labels.join(", "))
    })
}
