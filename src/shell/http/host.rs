//! Which names a browser may use for this server.
//!
//! A web site can let its own name point to 127.0.0.1 and then read, in a visitor's browser, what the visitor's machine
//! serves there (DNS rebinding). Its requests name that site as `Host`. So the page and the status are only served to
//! requests that name an IP address, `localhost` or this machine.

use std::net::IpAddr;

/// Whether a request with this head names an IP address, `localhost` or the machine, which is called `machine`.
pub(super) fn is_own(head: &[u8], machine: Option<&str>) -> bool {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let mut hosts = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        name.eq_ignore_ascii_case(b"host").then_some(value)
    });
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    str::from_utf8(host).is_ok_and(|host| is_own_name(without_port(host.trim()), machine))
}

fn without_port(host: &str) -> &str {
    let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    // An IPv6 address stands in brackets, and colons in it begin no port.
    port.map_or(
        host,
        |(name, _)| if name.contains(':') && !name.ends_with(']') { host } else { name },
    )
}

fn is_own_name(name: &str, machine: Option<&str>) -> bool {
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_machine = |machine: &str| {
        let first_label = machine.split('.').next().unwrap_or_default();
        [machine, first_label].iter().any(|own| name.eq_ignore_ascii_case(own))
    };
    in_brackets.unwrap_or(name).parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || machine.is_some_and(is_machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(host: &str) -> bool {
        let head = format!("GET / HTTP/1.1\r\nAccept: */*\r\nHost: {host}\r\n\r\n");
        is_own(head.as_bytes(), Some("relay.example.org"))
    }

    #[test]
    fn addresses_localhost_and_the_machines_name_are_allowed() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8891",
            "10.0.0.5:9000",
            "[::1]",
            "[::1]:8891",
            "[2001:db8::1]:80",
            "localhost",
            "LocalHost:8891",
            "localhost.:8891",
            "relay.example.org:8891",
            "RELAY",
            "relay:1",
        ] {
            assert!(is_allowed(host), "{host}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for host in [
            "",
            "evil.example",
            "evil.example:8891",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "relay.evil.example",
            "evil.example.org",
            "[evil]",
            "relay.example.org@evil.example",
            "127.0.0.1 evil.example",
            "127.0.0.1:x",
        ] {
            assert!(!is_allowed(host), "{host}");
        }
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        assert!(is_own(b"GET / HTTP/1.1\r\nhOST:127.0.0.1\r\n\r\n", None));
        for head in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
            b"Host: 127.0.0.1\r\n\r\n",
        ] {
            assert!(!is_own(head, None), "{}", head.escape_ascii());
        }
    }
}
