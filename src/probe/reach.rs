//! The first two hops: the server's name leads to addresses, and one of them takes a TCP connection.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};

use serde_json::json;

use super::control::ControlConnection;
use super::report::{Finding, Hop, command};
use super::request::DEFAULT_PORT;
use super::{ANSWER_TIME, HopResult};
use crate::target::Target;

/// How many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 4;

/// The addresses of the server, those of IPv4 first: the stock client uses no other. The system limits how long this
/// takes: by default 10 s for each name server (resolv.conf(5)).
pub(super) fn resolve(target: &Target) -> HopResult<Vec<SocketAddr>> {
    let found = (target.host.as_str(), target.port).to_socket_addrs();
    let (mut addresses, why) = match found {
        Ok(addresses) => (addresses.collect(), "it has no address".to_owned()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    if addresses.is_empty() {
        let seen = format!("`{}` does not lead to an address: {why}", target.host);
        let remedy = "Is the name spelled right? It needs an A record at your domain's provider. The \
                      server's IP address works here as well.";
        return Err(Finding::fail(Hop::Name, seen, remedy));
    }
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let finding = Finding::ok(Hop::Name, ips.join(", ")).with_facts(json!({ "addresses": ips }));
    if addresses.iter().any(SocketAddr::is_ipv4) {
        return Ok((finding, addresses));
    }
    Ok((finding.note("No IPv4: the stock client of Godot cannot connect."), addresses))
}

/// A connection to the first of the addresses that takes one.
pub(super) fn connect(addresses: &[SocketAddr], target: &Target) -> HopResult<ControlConnection> {
    let (mut seen, mut errors, mut remedies) = (Vec::new(), Vec::new(), Vec::new());
    for address in addresses {
        let (ip, port) = (address.ip(), address.port());
        let control = match ControlConnection::open(*address, ANSWER_TIME) {
            Ok(control) => control,
            Err(error) => {
                let (what, remedy) = obstacle(&error, port);
                seen.push(format!("{port}/tcp at {ip}: {what}"));
                errors.push(format!("{address}: {error}"));
                remedies.push(remedy);
                continue;
            }
        };
        let facts = json!({ "port": port, "address": ip.to_string(), "errors": errors });
        let but = if seen.is_empty() { "" } else { ", but " };
        let text = format!("{port}/tcp answers at {ip}{but}{}", seen.join("; "));
        let mut finding = Finding::ok(Hop::Connection, text).with_facts(facts);
        if ip.is_loopback() || control.local.ip() == ip {
            finding = finding.note(
                "This is the server's own machine, so no firewall is tried. Probe from another one.",
            );
        }
        if let Some(remedy) = remedies.first() {
            finding = finding.note(format!(
                "Players try the first address only. Take the wrong ones out of the name's records, \
                 or: {remedy}"
            ));
        }
        return Ok((finding, control));
    }
    let facts = json!({ "port": addresses[0].port(), "errors": errors });
    // The first address is the one that players use.
    let remedy = remedies.swap_remove(0);
    let finding = Finding::fail(Hop::Connection, seen.join("; "), remedy).with_facts(facts);
    Err(match target.with_last_group_as_port(DEFAULT_PORT) {
        Some(meant) => {
            finding.and_remedy(format!("Is {} meant as the port? Then write {meant}", meant.port))
        }
        None => finding,
    })
}

/// Why there is no connection, and what helps.
fn obstacle(error: &io::Error, port: u16) -> (String, String) {
    let kind = error.kind();
    if kind == ErrorKind::ConnectionRefused {
        let remedy = format!(
            "Is noray running there (systemctl status noray)? Is {port} its NORAY_SOCKET_PORT, and \
             NORAY_SOCKET_HOST not 127.0.0.1? A firewall that rejects looks the same."
        );
        ("refused: closed, not running, or draining".to_owned(), remedy)
    } else if kind == ErrorKind::TimedOut {
        let remedy = format!(
            "Open {port}/tcp in the server's firewall (with ufw: {}) and in the provider's (most have \
             one, in their web console). Is the machine up, and the address its own?",
            command(&format!("ufw allow {port}/tcp"))
        );
        (format!("no answer in {} s", ANSWER_TIME.as_secs()), remedy)
    } else if [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable].contains(&kind) {
        let remedy = "Is the address right, and is this machine online? For an IPv6 address both \
                      need IPv6. A firewall that rejects can look the same.";
        (format!("no way there ({error})"), remedy.to_owned())
    } else {
        let remedy = "Is the address right? A firewall on this machine may forbid it too.";
        (error.to_string(), remedy.to_owned())
    }
}
