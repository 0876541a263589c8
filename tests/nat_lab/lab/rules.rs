//! Runs nothing: the routers' rules as text for `nft`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::{REGISTRAR_PORT, Router};

/// Drops what comes in without a mapping, silently. In `input`, before conntrack confirms an entry: otherwise a
/// stranger's datagram would take the port from the player who punches a hole to that stranger later.
pub const FILTER: &str = r#"
table inet filter {
    chain inbound {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain through {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "br0" oifname "wan" accept
        iifname "wan" ct status dnat accept
    }
}
"#;

/// A machine's own firewall: drops what comes in, silently, but for answers and what `open` says.
pub fn firewall(open: &str) -> String {
    format!(
        "table inet firewall\n\
         delete table inet firewall\n\
         table inet firewall {{\n\
         chain inbound {{\n\
         type filter hook input priority filter; policy drop;\n\
         iifname \"lo\" accept\n\
         ct state established,related accept\n\
         meta l4proto {{ icmp, ipv6-icmp }} accept\n\
         {open}\n\
         }}\n\
         }}\n"
    )
}

/// Who gets an external port for itself.
#[derive(Clone, Copy)]
pub struct Heir {
    pub ip: IpAddr,
    pub port: u16,
}

/// How a router maps, in place of how it did before.
pub fn mapping_rules(router: Router, number: u8, generation: u16, heir: Option<Heir>) -> String {
    let ports = generation_ports(generation);
    let (first, last) = (ports.start(), ports.end());
    // Apart, so that the registrar never sees the port of another destination by chance.
    let (registrars, others) = (first + 2999, first + 3000);
    let [ip, other_ip] = public_ips(number);
    let map = match router {
        Router::None => unreachable!("no router, no rules"),
        Router::Home | Router::FullCone => {
            let hosts = (FIRST_HOST..).take(HOSTS.into());
            let ip = |host| format!("192.168.{number}.{host}");
            hosts.map(|host| masquerade_one(&ip(host), &host_ports(generation, host))).collect()
        }
        Router::Symmetric | Router::CarrierGrade => format!(
            "udp dport {REGISTRAR_PORT} masquerade to :{first}-{registrars} fully-random\n\
             meta l4proto udp masquerade to :{others}-{last} fully-random\n"
        ),
        Router::SeveralIps => format!(
            "udp dport {REGISTRAR_PORT} snat to {ip}:{first}-{registrars}\n\
             meta l4proto udp snat to {other_ip}:{others}-{last} fully-random\n\
             snat to {ip}\n"
        ),
    };
    let inherit = heir
        .map_or(String::new(), |Heir { ip, port }| masquerade_one(&ip.to_string(), &(port..=port)));
    let cone = if router == Router::FullCone { cone_rules(&ports, heir) } else { String::new() };
    format!(
        "table ip nat\n\
         delete table ip nat\n\
         table ip nat {{\n\
         chain post {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         oifname != \"wan\" return\n\
         {inherit}{map}masquerade\n\
         }}\n\
         {cone}}}\n"
    )
}

/// How a provider's router maps a machine without a public address of its own: `public` is `inside` and the reverse.
pub fn one_to_one_rules(public: IpAddr, inside: IpAddr) -> String {
    format!(
        "table ip nat\n\
         delete table ip nat\n\
         table ip nat {{\n\
         chain pre {{\n\
         type nat hook prerouting priority dstnat; policy accept;\n\
         iifname \"wan\" ip daddr {public} dnat to {inside}\n\
         }}\n\
         chain post {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         oifname \"wan\" ip saddr {inside} snat to {public}\n\
         }}\n\
         }}\n"
    )
}

fn masquerade_one(ip: &str, ports: &RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    format!("ip saddr {ip} meta l4proto udp masquerade to :{first}-{last}\n")
}

/// Endpoint-independent filtering: a table of external ports, learnt from what leaves. Only ports of the generation
/// are learnt: a datagram that leaves by an old mapping while the rules change must not keep it open.
fn cone_rules(ports: &RangeInclusive<u16>, heir: Option<Heir>) -> String {
    let (first, last) = (ports.start(), ports.end());
    let learn = "ct direction original \
                 update @cone { udp sport : ct original ip saddr . ct original proto-src }";
    let inherit = heir.map_or(String::new(), |Heir { ip, port }| {
        format!("oifname \"wan\" ct original ip saddr {ip} udp sport {port} {learn}\n")
    });
    format!(
        "map cone {{\n\
         type inet_service : ipv4_addr . inet_service\n\
         size 65535\n\
         flags dynamic,timeout\n\
         timeout 2m\n\
         }}\n\
         chain pre {{\n\
         type nat hook prerouting priority dstnat; policy accept;\n\
         iifname \"wan\" meta l4proto udp dnat to udp dport map @cone\n\
         }}\n\
         chain learn {{\n\
         type filter hook postrouting priority srcnat + 10; policy accept;\n\
         {inherit}oifname \"wan\" udp sport {first}-{last} {learn}\n\
         }}\n"
    )
}

/// External ports are partitioned by generation, so that a mapping that was forgotten never comes back by chance,
/// and by host: plain masquerading is endpoint-independent only as long as no two hosts want the same port.
const FIRST_PORT: u16 = 4000;
const PORTS_OF_HOST: u16 = 500;
const HOSTS: u16 = 30;
pub const GENERATIONS: u16 = 4;

/// The last byte of the first host's address in a LAN. The router has 1.
pub const FIRST_HOST: u8 = 2;

fn generation_ports(generation: u16) -> RangeInclusive<u16> {
    let first = FIRST_PORT + generation * HOSTS * PORTS_OF_HOST;
    first..=first + HOSTS * PORTS_OF_HOST - 1
}

pub fn host_ports(generation: u16, number: u8) -> RangeInclusive<u16> {
    let index = u16::from(number - FIRST_HOST);
    assert!(index < HOSTS, "a LAN has at most {HOSTS} hosts");
    let first = generation_ports(generation).start() + index * PORTS_OF_HOST;
    first..=first + PORTS_OF_HOST - 1
}

/// The public addresses of a router with that number. Only [`Router::SeveralIps`] has the second.
pub fn public_ips(number: u8) -> [Ipv4Addr; 2] {
    [Ipv4Addr::new(203, 0, 113, number), Ipv4Addr::new(198, 51, 100, number)]
}
