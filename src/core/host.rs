//! A host as players write it: an IP address or a name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name (RFC 1123, section 2.1).
const MAX_NAME: usize = 253;

/// The longest part of a name between two dots.
const MAX_LABEL: usize = 63;

/// A host: an IP address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address, which is not that of all interfaces.
    Ip(IpAddr),
    /// A name that players resolve.
    Name(Arc<str>),
}

impl fmt::Display for Host {
    /// As it stands before a port: an IPv6 address has brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(format!("no player can reach `{text}`"));
            }
            return Ok(Self::Ip(ip));
        }
        let is_label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        // The last part has a letter; else it is a mistyped address.
        let ends_with_name = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
        if name.len() <= MAX_NAME && name.split('.').all(is_label) && ends_with_name {
            return Ok(Self::Name(text.into()));
        }
        Err(format!("`{text}` is neither an IP address nor a host name, without a port"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, shown) in [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8::7", "[2001:db8::7]"),
            ("[2001:db8::7]", "[2001:db8::7]"),
            ("relay.example", "relay.example"),
            ("eu1.relay.example.", "eu1.relay.example."),
            ("localhost", "localhost"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "a b",
            "-a.example",
            "a..b",
            "relay.example:8890",
            "1.2.3",
            "256.1.1.1",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
