//! How routes and a pair's state look in the kernel's maps: the structs of `forward.bpf.c` as bytes.

use std::net::{IpAddr, SocketAddr};

/// Bytes of a [`Route`] in its map.
pub const ROUTE_BYTES: usize = 112;

/// Bytes of a [`PairState`] in its map.
pub const PAIR_BYTES: usize = 104;

/// How many classes of sizes the program counts.
pub const SIZE_CLASSES: usize = 10;

/// What the program forwards at one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The exact source.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// The address and port that the datagram leaves from.
    pub via: SocketAddr,
    /// Which of the pair's players sends: 0 or 1.
    pub sender: u8,
    /// The datagram's time to live.
    pub ttl: u8,
    /// Where the pair's state is.
    pub slot: u32,
    /// The number of the interface where the datagram leaves.
    pub interface: u32,
    /// The largest IP packet that the way out takes.
    pub mtu: u32,
    /// When the pair's life ends. This and the rest are nanoseconds, of the kernel's monotonic clock.
    pub until: u64,
    /// For how long the receiver may be silent.
    pub patience: u64,
    /// Charged bytes a second.
    pub rate: u64,
    /// In which time an empty bucket fills.
    pub burst: u64,
    /// How often a datagram goes up as a proof.
    pub proof_interval: u64,
}

/// What the program knows of what a player sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// When the bucket will be full, in nanoseconds of the kernel's monotonic clock.
    pub full_at: u64,
    /// When the player was last heard.
    pub heard: u64,
    /// When a datagram last went up as a proof.
    pub proof_at: u64,
    /// How many did.
    pub proofs: u64,
    /// How many datagrams were forwarded.
    pub datagrams: u64,
    /// Their payload in bytes.
    pub payload: u64,
}

/// The state of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairState {
    /// What each player sent.
    pub sent: [Sent; 2],
    /// Charged bytes that the pair may still carry.
    pub left: i64,
}

/// The key of a port's route.
pub fn port_key(port: u16) -> [u8; 4] {
    u32::from(port).to_ne_bytes()
}

/// An address as the program compares it: IPv4 addresses are written as IPv6 ones.
pub fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

impl Route {
    /// As it is in the map.
    pub fn to_bytes(&self) -> [u8; ROUTE_BYTES] {
        let mut bytes = Vec::with_capacity(ROUTE_BYTES);
        for address in [self.from, self.to, self.via] {
            bytes.extend(address_bytes(address.ip()));
        }
        for address in [self.from, self.to, self.via] {
            bytes.extend(address.port().to_be_bytes());
        }
        bytes.extend([self.sender, self.ttl]);
        for number in [self.slot, self.interface, self.mtu, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        let Self { until, patience, rate, burst, proof_interval, .. } = *self;
        for number in [until, patience, rate, burst, proof_interval] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.try_into().expect("all fields together")
    }
}

impl PairState {
    /// As it is in the map.
    pub fn to_bytes(&self) -> [u8; PAIR_BYTES] {
        let numbers = self.sent.iter().flat_map(|sent| {
            [sent.full_at, sent.heard, sent.proof_at, sent.proofs, sent.datagrams, sent.payload]
        });
        let mut bytes: Vec<u8> = numbers.flat_map(u64::to_ne_bytes).collect();
        bytes.extend(self.left.to_ne_bytes());
        bytes.try_into().expect("all fields together")
    }

    /// What is in the map.
    pub fn from_bytes(bytes: &[u8; PAIR_BYTES]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |index: usize| u64::from_ne_bytes(numbers[index]);
        let sent = [0, 6].map(|first| Sent {
            full_at: number(first),
            heard: number(first + 1),
            proof_at: number(first + 2),
            proofs: number(first + 3),
            datagrams: number(first + 4),
            payload: number(first + 5),
        });
        Self { sent, left: i64::from_ne_bytes(numbers[12]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let sent = |first: u64| Sent {
            full_at: first,
            heard: first + 1,
            proof_at: first + 2,
            proofs: first + 3,
            datagrams: first + 4,
            payload: u64::MAX - first,
        };
        let state = PairState { sent: [sent(10), sent(20)], left: -5 };
        assert_eq!(PairState::from_bytes(&state.to_bytes()), state);
    }

    #[test]
    fn ipv4_addresses_are_mapped() {
        let mapped = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(address_bytes("192.0.2.7".parse().unwrap()), address_bytes(mapped));
    }
}
