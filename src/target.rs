//! A server as it is named on the command line: a name or an address, perhaps with a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use noray::config::units::parse_digits;

/// A server, as it was named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// Reads `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]` or `[IPV6]:PORT`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Self, String> {
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
            None if behind.is_empty() => default_port,
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

    /// The same with the end of an IPv6 address as the port, for those who have forgotten the brackets.
    pub(crate) fn with_last_group_as_port(&self, default_port: u16) -> Option<Self> {
        in_brackets(&self.host).filter(|_| self.port == default_port)
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

/// A port in words of the command line.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    parse_digits(text)
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("`{text}` is not a port, ports are 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, String> {
        Target::parse(text, 8890)
    }

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
            assert_eq!(parse(text), Ok(target.clone()), "{text}");
            assert_eq!(parse(&target.to_string()), Ok(target), "{text}");
        }
    }

    #[test]
    fn a_port_behind_an_address_without_brackets_is_recognized() {
        let meant = |text: &str| {
            let target: Target = parse(text).unwrap();
            target.with_last_group_as_port(8890).map(|target| target.to_string())
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
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
