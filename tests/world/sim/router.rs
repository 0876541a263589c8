//! Players' routers, in the words of RFC 4787: how they map, whom they let in, and when they forget.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::net::{Addr, SECOND, Time};
use super::random::{Rng, mix};

/// The kinds of the laboratory's routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouterKind {
    /// A public address.
    None,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    Home,
    /// Endpoint-independent mapping, address-dependent filtering.
    Restricted,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Address-dependent mapping, address- and port-dependent filtering.
    ByAddress,
    /// Address- and port-dependent mapping and filtering.
    Symmetric,
    /// The same, where each destination may be shown another IP.
    SeveralIps,
}

impl RouterKind {
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Home,
        Self::Restricted,
        Self::FullCone,
        Self::ByAddress,
        Self::Symmetric,
        Self::SeveralIps,
    ];

    pub fn maps_by_destination(self) -> bool {
        matches!(self, Self::ByAddress | Self::Symmetric | Self::SeveralIps)
    }

    fn filters_by_port(self) -> bool {
        matches!(self, Self::Home | Self::ByAddress | Self::Symmetric | Self::SeveralIps)
    }

    /// Whether two players that both send to the announced addresses, and to those that they hear, can meet.
    pub fn can_punch(self, other: Self) -> bool {
        let is_open = |kind| matches!(kind, Self::None | Self::FullCone);
        if self == Self::SeveralIps || other == Self::SeveralIps {
            return is_open(self) || is_open(other);
        }
        !(self.maps_by_destination() && other.filters_by_port()
            || other.maps_by_destination() && self.filters_by_port())
    }
}

/// A player's socket behind the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    pub peer: u16,
    pub socket: u8,
}

struct Mapping {
    inside: Inside,
    outside: Addr,
    last_sent: Time,
    /// Where it was sent to.
    known: Vec<Addr>,
    is_dead: bool,
}

/// A router with everybody behind it.
pub struct Router {
    pub kind: RouterKind,
    /// Its public IPs. Connections come from the first.
    pub ips: Vec<u16>,
    /// After how long it forgets a mapping through which nothing was sent.
    timeout: Time,
    random: Rng,
    mappings: Vec<Mapping>,
    by_inside: HashMap<u64, u32, Fast>,
    by_outside: HashMap<u64, u32, Fast>,
}

impl Router {
    pub fn new(kind: RouterKind, ips: Vec<u16>, timeout_s: u16, random: Rng) -> Self {
        let timeout = Time::from(timeout_s) * SECOND;
        let (by_inside, by_outside) = (HashMap::default(), HashMap::default());
        Self { kind, ips, timeout, random, mappings: Vec::new(), by_inside, by_outside }
    }

    /// What a datagram to `to` has as its source outside.
    pub fn send(&mut self, inside: Inside, to: Addr, now: Time) -> Addr {
        let destination = match self.kind {
            RouterKind::Symmetric | RouterKind::SeveralIps => to.key(),
            RouterKind::ByAddress => u32::from(to.ip) << 16,
            RouterKind::None | RouterKind::Home | RouterKind::Restricted | RouterKind::FullCone => {
                u32::MAX
            }
        };
        let key =
            u64::from(inside.peer) << 40 | u64::from(inside.socket) << 32 | u64::from(destination);
        let known = self.by_inside.get(&key).copied();
        let is_alive = |index: &u32| {
            let mapping = &self.mappings[*index as usize];
            !mapping.is_dead && (now - mapping.last_sent <= self.timeout || self.is_open())
        };
        let index = match known.filter(is_alive) {
            Some(index) => index,
            None => self.map(inside, key, now),
        };
        let mapping = &mut self.mappings[index as usize];
        mapping.last_sent = now;
        if !mapping.known.contains(&to) {
            mapping.known.push(to);
        }
        mapping.outside
    }

    fn is_open(&self) -> bool {
        self.kind == RouterKind::None
    }

    fn map(&mut self, inside: Inside, key: u64, now: Time) -> u32 {
        if let Some(old) = self.by_inside.get(&key) {
            self.mappings[*old as usize].is_dead = true;
        }
        let outside = self.unused();
        let index = u32::try_from(self.mappings.len()).expect("few mappings");
        let known = Vec::new();
        self.mappings.push(Mapping { inside, outside, last_sent: now, known, is_dead: false });
        self.by_inside.insert(key, index);
        self.by_outside.insert(outside.key().into(), index);
        index
    }

    /// An outside address that nobody has had, so that nobody gets what is meant for somebody else.
    fn unused(&mut self) -> Addr {
        loop {
            let is_several = self.kind == RouterKind::SeveralIps;
            let count = if is_several { self.ips.len() as u64 } else { 1 };
            let ip = self.ips[self.random.below(count) as usize];
            let outside = Addr { ip, port: 1024 + self.random.below(48_000) as u16 };
            if !self.by_outside.contains_key(&u64::from(outside.key())) {
                return outside;
            }
        }
    }

    /// Who gets a datagram that comes from outside, if anybody.
    pub fn receive(&self, at: Addr, from: Addr, now: Time) -> Option<Inside> {
        let mapping = &self.mappings[*self.by_outside.get(&u64::from(at.key()))? as usize];
        let is_over = now - mapping.last_sent > self.timeout;
        if mapping.is_dead || is_over && !self.is_open() {
            return None;
        }
        let is_known = match self.kind {
            RouterKind::None | RouterKind::FullCone => true,
            RouterKind::Restricted => mapping.known.iter().any(|known| known.ip == from.ip),
            RouterKind::Home
            | RouterKind::ByAddress
            | RouterKind::Symmetric
            | RouterKind::SeveralIps => mapping.known.contains(&from),
        };
        is_known.then_some(mapping.inside)
    }

    /// Forgets all mappings: what is sent next comes from other ports.
    pub fn forget(&mut self) {
        self.mappings.iter_mut().for_each(|mapping| mapping.is_dead = true);
        self.by_inside.clear();
    }
}

/// A fast hash for small keys. No table with it is iterated over.
#[derive(Default)]
pub struct FastHasher(u64);

pub type Fast = BuildHasherDefault<FastHasher>;

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0, number);
    }
}
