//! The network of the world: addresses, datagrams and lines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::random::Rng;

/// Simulated time in nanoseconds since the world began.
pub type Time = u64;

pub const MS: Time = 1_000_000;
pub const SECOND: Time = 1000 * MS;

/// An IP, by its place among [`Ips`], and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr {
    pub ip: u16,
    pub port: u16,
}

impl Addr {
    /// As one number, for tables.
    pub fn key(self) -> u32 {
        u32::from(self.ip) << 16 | u32::from(self.port)
    }
}

/// Who is at an IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Server,
    Router(u16),
    /// A player without translation.
    Peer(u16),
    /// A victim of forgers: it exists, and never sends anything.
    Bystander,
}

/// All IPs of the world. The last 16 bits of each are its place here.
#[derive(Default)]
pub struct Ips {
    all: Vec<(IpAddr, Owner)>,
}

impl Ips {
    pub fn add_v4(&mut self, owner: Owner) -> u16 {
        let place = self.place();
        let [high, low] = place.to_be_bytes();
        self.all.push((Ipv4Addr::new(81, 7, high, low).into(), owner));
        place
    }

    /// In the /64 with that number.
    pub fn add_v6(&mut self, network: u16, owner: Owner) -> u16 {
        let place = self.place();
        let ip = Ipv6Addr::new(0x2a0c, 0x9a40, network >> 8, network & 0xff, 0, 0, 0, place);
        self.all.push((ip.into(), owner));
        place
    }

    fn place(&self) -> u16 {
        u16::try_from(self.all.len()).expect("a small world")
    }

    pub fn ip(&self, place: u16) -> IpAddr {
        self.all[usize::from(place)].0
    }

    pub fn get(&self, place: u16) -> Option<IpAddr> {
        self.all.get(usize::from(place)).map(|(ip, _)| *ip)
    }

    pub fn owner(&self, place: u16) -> Owner {
        self.all[usize::from(place)].1
    }

    pub fn socket_addr(&self, addr: Addr) -> SocketAddr {
        SocketAddr::new(self.ip(addr.ip), addr.port)
    }

    /// The address, if it is one of this world.
    pub fn find(&self, address: SocketAddr) -> Option<Addr> {
        let place = match address.ip() {
            IpAddr::V4(ip) => u16::from_be_bytes([ip.octets()[2], ip.octets()[3]]),
            IpAddr::V6(ip) => ip.segments()[7],
        };
        let is_here = self.all.get(usize::from(place)).is_some_and(|(ip, _)| *ip == address.ip());
        is_here.then_some(Addr { ip: place, port: address.port() })
    }
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes that are kept elsewhere: what goes to the registrar, and what it answers.
    Bytes,
    /// The add-on's handshake: whether the sender has read one, and whether it knows that it was read.
    Handshake {
        read: bool,
        known: bool,
    },
    /// In place of ENet's own bytes: a client asks, and a host answers.
    Ask,
    Verify,
    Game,
    Junk,
}

/// A datagram under way. Its content is its kind, its sender and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub from: Addr,
    pub to: Addr,
    /// Who really sent it.
    pub sender: u16,
    /// The source is not the sender's.
    pub is_forged: bool,
    pub kind: Kind,
    pub length: u16,
    /// Counts the sender's datagrams; of [`Kind::Bytes`], where they are.
    pub number: u32,
}

/// A player's line to the internet. Each datagram passes the sender's and the receiver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub delay_ms: u16,
    pub jitter_ms: u16,
    /// Of a thousand.
    pub loss: u16,
    pub duplicates: u16,
    /// Of a thousand, datagrams that come late by up to three times the jitter.
    pub late: u16,
}

impl Line {
    pub const PERFECT: Self = Self { delay_ms: 5, jitter_ms: 0, loss: 0, duplicates: 0, late: 0 };

    /// How long a datagram takes, unless it is lost.
    pub fn pass(&self, random: &mut Rng) -> Option<Time> {
        (!random.is_hit(self.loss)).then(|| self.time(random))
    }

    pub fn time(&self, random: &mut Rng) -> Time {
        let mut jitter = Time::from(self.jitter_ms) * MS;
        if random.is_hit(self.late) {
            jitter *= 3;
        }
        Time::from(self.delay_ms) * MS + random.below(jitter.max(MS / 2))
    }
}
