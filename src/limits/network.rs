//! Networks: which IP addresses count as one owner, for limits that hold for each owner.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// One IPv4 address, or an IPv6 /64. A customer gets at least a /64 (RFC 6177) and can use any address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.into()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

impl Network {
    /// Whether it is one of IPv6.
    pub fn is_ipv6(self) -> bool {
        self.0.is_ipv6()
    }

    /// The first /64 of the IPv6 network of `bits` around it; an IPv4 network is its own.
    pub fn within(self, bits: u32) -> Self {
        match self.0 {
            IpAddr::V4(_) => self,
            IpAddr::V6(ip) => {
                Self(Ipv6Addr::from_bits(ip.to_bits() >> (128 - bits) << (128 - bits)).into())
            }
        }
    }

    /// Whether the internet can reach the network.
    pub fn is_public(self) -> bool {
        is_public(self.0)
    }
}

/// Whether the internet can reach the address: it is not private, shared or local.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // RFC 6890: this network, carrier-grade NAT, protocol assignments, benchmarks, reserved.
            let is_special = matches!(
                ip.octets(),
                [0, ..] | [100, 64..128, ..] | [192, 0, 0, _] | [198, 18..20, ..] | [240..=255, ..]
            );
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_special)
        }
        IpAddr::V6(ip) => {
            // RFC 6052: these addresses are translated to IPv4 addresses, which can be private.
            let is_translated = ip.segments()[..2] == [0x64, 0xff9b];
            let is_local = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local();
            !(is_local || is_translated)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ip: &str) -> Network {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn public_addresses_are_those_that_the_internet_can_reach() {
        for (ip, expected) in [
            ("203.0.113.1", true),
            ("100.63.0.1", true),
            ("100.64.0.1", false),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
            ("169.254.0.1", false),
            ("192.0.0.8", false),
            ("192.0.2.1", true),
            ("198.19.0.1", false),
            ("240.0.0.1", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("64:ff9b::a00:1", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn a_network_is_an_ipv6_64_or_an_ipv4_address() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
