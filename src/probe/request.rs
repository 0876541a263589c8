//! The command line of `noray probe`, with its mistakes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use argh::FromArgs;
use noray::config::units::{PortList, parse_digits};

/// The port that is probed if none is named: the default of `NORAY_SOCKET_PORT`.
const DEFAULT_PORT: u16 = 8890;

/// Play a host and a client against a noray server, from another machine than the server's own, and say for each hop
/// what was seen and what helps. Exit status: 0 if a game would work, 1 if not.
#[derive(Clone, Debug, FromArgs)]
#[argh(subcommand, name = "probe", help_triggers("-h", "--help", "help"))]
pub(crate) struct Request {
    /// the server: a name, an IPv4 or an IPv6 address, with its TCP port if that is not 8890; an IPv6
    /// address that has a port stands in brackets
    #[argh(positional, arg_name = "host[:port]")]
    pub(super) target: Target,
    /// the server's NORAY_UDP_REGISTRAR_PORT (default: 8809)
    #[argh(option, arg_name = "port", default = "8809", from_str_fn(port))]
    pub(super) registrar_port: u16,
    /// the server's NORAY_UDP_RELAY_PORTS (default: 49152-51200)
    #[argh(option, arg_name = "ports", default = "(49_152..=51_200).collect()")]
    pub(super) relay_ports: PortList,
    /// print JSON, at the end
    #[argh(switch)]
    pub(super) json: bool,
}

/// A server, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for Target {
    type Err = String;

    /// `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]` or `[IPV6]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains('/') {
            return Err(format!("`{text}` is a web address, give only the name in it"));
        }
        let (host, behind) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| format!("`{text}` has no `]`"))?,
            // More than one colon is an IPv6 address, and no port.
            None if text.matches(':').count() > 1 => (text, ""),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match behind.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if behind.is_empty() => DEFAULT_PORT,
            None => return Err(format!("`{text}`: what stands behind `]` is no port")),
        };
        if host.is_empty() {
            return Err("the host is missing, write for instance noray.example.org".to_owned());
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("`{}` is not a name", host.escape_debug()));
        }
        // An interface may follow: fe80::1%eth0.
        let address = host.split('%').next().unwrap_or(host);
        if host.contains(':') && address.parse::<IpAddr>().is_err() {
            let hint = in_brackets(host).map(|meant| format!(", is {meant} meant?"));
            let hint = hint.unwrap_or_default();
            return Err(format!("`{text}` is neither HOST:PORT nor an IPv6 address{hint}"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Target {
    /// The same with the end of an IPv6 address as the port, for those who have forgotten the brackets.
    pub(super) fn with_last_group_as_port(&self) -> Option<Self> {
        in_brackets(&self.host).filter(|_| self.port == DEFAULT_PORT)
    }
}

/// `ADDRESS:PORT`, where the port has four digits or more.
fn in_brackets(text: &str) -> Option<Target> {
    let (host, digits) = text.rsplit_once(':').filter(|(_, digits)| digits.len() >= 4)?;
    let address: Ipv6Addr = host.parse().ok()?;
    Some(Target { host: address.to_string(), port: port(digits).ok()? })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn port(text: &str) -> Result<u16, String> {
    parse_digits(text)
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("`{text}` is not a port, ports are 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let cases = [
            ("noray.example.org", "noray.example.org", 8890),
            ("noray.example.org:9000", "noray.example.org", 9000),
            ("203.0.113.10", "203.0.113.10", 8890),
            ("203.0.113.10:1", "203.0.113.10", 1),
            ("2001:db8::10", "2001:db8::10", 8890),
            ("::1", "::1", 8890),
            ("[2001:db8::10]", "2001:db8::10", 8890),
            ("[2001:db8::10]:9000", "2001:db8::10", 9000),
            ("[fe80::1%eth0]:9000", "fe80::1%eth0", 9000),
        ];
        for (text, host, port) in cases {
            let target = Target { host: host.to_owned(), port };
            assert_eq!(text.parse(), Ok(target.clone()), "{text}");
            assert_eq!(target.to_string().parse(), Ok(target), "{text}");
        }
    }

    #[test]
    fn a_port_behind_an_address_without_brackets_is_recognized() {
        let meant = |text: &str| {
            let target: Target = text.parse().unwrap();
            target.with_last_group_as_port().map(|target| target.to_string())
        };
        assert_eq!(meant("2001:db8::10:8890").as_deref(), Some("[2001:db8::10]:8890"));
        for text in ["2001:db8::10", "2001:db8::beef", "[2001:db8::8890]:9000", "a:8890"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }

    #[test]
    fn a_wrong_target_is_refused_with_the_reason() {
        let cases = [
            ("", "missing"),
            (":8890", "missing"),
            ("[]:8890", "missing"),
            ("a:", "not a port"),
            ("a:0", "not a port"),
            ("a:65536", "not a port"),
            ("a:x", "not a port"),
            ("[::1", "no `]`"),
            ("[::1]8890", "no port"),
            ("a:b:c", "IPv6"),
            ("2001:db8::10:50000", "is [2001:db8::10]:50000 meant?"),
            ("http://a", "web address"),
            ("https://a:8890/b", "web address"),
            ("a/b", "web address"),
            ("a b", "not a name"),
        ];
        for (text, word) in cases {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
