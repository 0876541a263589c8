//! The relay's rules once more, as plainly as possible: lists that are searched from front to back, histories
//! that are read from the start, buckets that are filled. Slow, and nothing like the table it is held against.

use std::net::{IpAddr, SocketAddr};

use noray::core::relay::{Action, DropReason, Latching, RelayPort, RelaySettings};
use noray::limits::network::Network;
use noray::limits::relay::RelayLimits;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Everything is remembered; what the rules call state is looked up in the past.
pub(crate) struct Model {
    limits: RelayLimits,
    latching: Latching,
    own_ip: IpAddr,
    own_ports: Vec<u16>,
    free: Vec<u16>,
    reserved: Vec<(u64, u16)>,
    pub(crate) pairs: Vec<Pair>,
    all: Bucket,
    /// When which network sent how many bytes while half of `all` was gone.
    spent: Vec<(u64, Network, u64)>,
}

pub(crate) struct Pair {
    pub(crate) players: [u64; 2],
    pub(crate) ports: [u16; 2],
    sides: [Side; 2],
    /// Where the players' connections come from.
    connected_from: [IpAddr; 2],
    created: u64,
    forwarded: u64,
    traffic: u64,
}

/// One player, as heard at its partner's port.
struct Side {
    registered: SocketAddr,
    /// Since the registration.
    heard: Vec<Heard>,
    /// Bytes sent to the player while it was not heard, in the pair's whole life.
    unheard_bytes: u64,
    bucket: Bucket,
}

/// One datagram that came from the player's IP, or was taken for the player.
struct Heard {
    at: u64,
    from: SocketAddr,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    InPlace,
    Latched,
    TookBack,
    TurnedAway,
}

/// Tokens in billionths of a byte.
struct Bucket {
    level: i128,
    filled: u64,
}

impl Bucket {
    fn new(rate: u64, limits: &RelayLimits) -> Self {
        Self { level: depth(rate, limits), filled: 0 }
    }

    fn fill(&mut self, rate: u64, limits: &RelayLimits, now: u64) {
        let more = i128::from(now - self.filled) * i128::from(rate);
        self.level = (self.level + more).min(depth(rate, limits));
        self.filled = now;
    }
}

fn depth(rate: u64, limits: &RelayLimits) -> i128 {
    i128::try_from(limits.burst.as_nanos()).unwrap() * i128::from(rate)
}

impl Model {
    pub(crate) fn new(settings: RelaySettings, own_ip: IpAddr, ports: &[u16]) -> Self {
        let RelaySettings { limits, latching } = settings;
        Self {
            limits,
            latching,
            own_ip,
            own_ports: ports.to_vec(),
            free: ports.to_vec(),
            reserved: Vec::new(),
            pairs: Vec::new(),
            all: Bucket::new(limits.global_rate, &limits),
            spent: Vec::new(),
        }
    }

    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.pairs.len(), self.free.len(), self.reserved.len())
    }

    pub(crate) fn reserve(&mut self, player: u64) {
        if !self.free.is_empty() && self.reserved.iter().all(|(owner, _)| *owner != player) {
            self.reserved.push((player, self.free.remove(0)));
        }
    }

    pub(crate) fn leave(&mut self, player: u64) {
        if let Some(index) = self.reserved.iter().position(|(owner, _)| *owner == player) {
            self.free.push(self.reserved.remove(index).1);
        }
    }

    pub(crate) fn introduce(
        &mut self,
        asker: (u64, SocketAddr, IpAddr),
        host: (u64, SocketAddr, IpAddr),
        now: u64,
    ) -> Option<(u16, u16)> {
        let are_all_elsewhere = [asker, host].iter().all(|(_, at, from)| at.ip() != *from);
        if are_all_elsewhere && self.latching != Latching::Any {
            return None;
        }
        let players = [asker.0, host.0];
        let known =
            self.pairs.iter().position(|pair| players.iter().all(|p| pair.players.contains(p)));
        if let Some(index) = known {
            assert!(!self.is_over(&self.pairs[index], now), "a pair that is over was kept");
            let pair = &self.pairs[index];
            let first = usize::from(pair.players[0] != asker.0);
            return Some((pair.ports[first], pair.ports[1 - first]));
        }
        if self.free.len() + self.reserved.len() < 2 {
            return None;
        }
        let in_use = 2 * self.pairs.len();
        let size = in_use + self.free.len() + self.reserved.len();
        let left = size / 2 - self.pairs.len();
        let of_network = self
            .pairs
            .iter()
            .filter(|pair| Network::from(pair.connected_from[0]) == asker.2.into())
            .count();
        let cap = self.limits.max_per_network.0.unwrap_or(usize::MAX);
        let is_one_for_all = cap != usize::MAX && cap >= size / 2;
        if !is_one_for_all && (of_network >= cap || of_network >= (3 * left).max(1)) {
            return None;
        }
        let mut ports = [0; 2];
        for (player, port) in players.into_iter().zip(&mut ports) {
            if let Some(index) = self.reserved.iter().position(|(owner, _)| *owner == player) {
                *port = self.reserved.remove(index).1;
            }
        }
        for port in ports.iter_mut().filter(|port| **port == 0) {
            *port =
                if self.free.is_empty() { self.reserved.remove(0).1 } else { self.free.remove(0) };
        }
        let side = |registered| Side {
            registered,
            heard: Vec::new(),
            unheard_bytes: 0,
            bucket: Bucket::new(self.limits.pair_rate, &self.limits),
        };
        let sides = [side(asker.1), side(host.1)];
        self.pairs.push(Pair {
            players,
            ports,
            sides,
            connected_from: [asker.2, host.2],
            created: now,
            forwarded: now,
            traffic: 0,
        });
        Some((ports[0], ports[1]))
    }

    pub(crate) fn move_player(&mut self, player: u64, address: SocketAddr) {
        for pair in &mut self.pairs {
            for (side, owner) in pair.sides.iter_mut().zip(pair.players) {
                if owner == player {
                    side.registered = address;
                    side.heard.clear();
                }
            }
        }
    }

    /// The table freed that pair: it must have been over.
    pub(crate) fn free(&mut self, ports: [u16; 2], now: u64) {
        let index = self.pairs.iter().position(|pair| pair.ports == ports).expect("such a pair");
        assert!(self.is_over(&self.pairs[index], now), "{ports:?} was freed too early");
        self.free.extend(self.pairs.remove(index).ports);
    }

    /// After a sweep no pair is left that is over.
    pub(crate) fn check_swept(&self, now: u64) {
        assert!(
            !self.pairs.iter().any(|pair| self.is_over(pair, now)),
            "a pair outlived the sweep"
        );
    }

    fn is_over(&self, pair: &Pair, now: u64) -> bool {
        now - pair.forwarded >= nanos(self.limits.idle_timeout)
            || self.is_worn_out(pair, now).is_some()
    }

    fn is_worn_out(&self, pair: &Pair, now: u64) -> Option<DropReason> {
        if now - pair.created >= nanos(self.limits.lifetime) {
            Some(DropReason::LifetimeDuration)
        } else if pair.traffic >= self.limits.lifetime_traffic {
            Some(DropReason::LifetimeTraffic)
        } else {
            None
        }
    }

    pub(crate) fn datagram(
        &mut self,
        at: u16,
        source: SocketAddr,
        length: usize,
        now: u64,
    ) -> Action {
        let Some(index) = self.pairs.iter().position(|pair| pair.ports.contains(&at)) else {
            return Action::Drop(DropReason::NoPair);
        };
        let (limits, latching) = (self.limits, self.latching);
        let is_possible = self.is_possible(source);
        let worn_out = self.is_worn_out(&self.pairs[index], now);
        let pair = &mut self.pairs[index];
        let to = usize::from(pair.ports[0] != at);
        let from = 1 - to;
        let introduced = pair.created;
        if let Err(reason) = pair.sides[from].hear(source, is_possible, latching, introduced, now) {
            return Action::Drop(reason);
        }
        let are_all_elsewhere =
            pair.sides.iter().zip(pair.connected_from).all(|(side, ip)| side.registered.ip() != ip);
        if are_all_elsewhere && latching != Latching::Any {
            return Action::Drop(DropReason::Unconfirmed);
        }
        let bytes = length as u64 + 28;
        if let Some(reason) = worn_out {
            return Action::Drop(reason);
        }
        match pair.sides[to].last_heard() {
            None if pair.sides[to].unheard_bytes + bytes > 65_536 => {
                return Action::Drop(DropReason::ReceiverUnheard);
            }
            Some(at) if now - at >= nanos(limits.idle_timeout) => {
                return Action::Drop(DropReason::ReceiverSilent);
            }
            None | Some(_) => {}
        }
        let own = &mut pair.sides[from].bucket;
        own.fill(limits.pair_rate, &limits, now);
        self.all.fill(limits.global_rate, &limits, now);
        if own.level <= 0 {
            return Action::Drop(DropReason::PairBandwidth);
        }
        let sender = Network::from(pair.connected_from[from]);
        let is_half_empty = 2 * self.all.level <= depth(limits.global_rate, &limits);
        let has_share = || {
            let used = |of: &dyn Fn(Network) -> bool| -> f64 {
                let spent = self.spent.iter().filter(|(_, network, _)| of(*network));
                let time_constant = nanos(limits.burst / 2) as f64;
                spent
                    .map(|(at, _, b)| *b as f64 * (-((now - at) as f64) / time_constant).exp())
                    .sum()
            };
            let burst = limits.global_rate as f64 * limits.burst.as_secs_f64() / 2.0;
            let left = burst - used(&|_| true);
            left >= 1.0 && used(&|network| network == sender) < (3.0 * left).max(1.0)
        };
        if self.all.level <= 0 || (is_half_empty && !has_share()) {
            return Action::Drop(DropReason::GlobalBandwidth);
        }
        if is_half_empty {
            // After so long nothing is left of it.
            self.spent.retain(|(at, ..)| now - at < 50 * nanos(limits.burst));
            self.spent.push((now, sender, bytes));
        }
        let cost = i128::from(bytes) * i128::from(SECOND);
        own.level -= cost;
        self.all.level -= cost;
        pair.traffic += bytes;
        pair.forwarded = now;
        if pair.sides[to].last_heard().is_none() {
            pair.sides[to].unheard_bytes += bytes;
        }
        Action::Forward { via: RelayPort(pair.ports[from]), to: pair.sides[to].address() }
    }

    fn is_possible(&self, source: SocketAddr) -> bool {
        let is_own = source.ip() == self.own_ip && self.own_ports.contains(&source.port());
        source.port() != 0 && !source.ip().is_multicast() && !is_own
    }
}

impl Side {
    fn accepted(&self) -> impl DoubleEndedIterator<Item = &Heard> {
        self.heard.iter().filter(|heard| heard.how != How::TurnedAway)
    }

    fn address(&self) -> SocketAddr {
        self.accepted().next_back().map_or(self.registered, |heard| heard.from)
    }

    fn last_heard(&self) -> Option<u64> {
        self.accepted().next_back().map(|heard| heard.at)
    }

    fn hear(
        &mut self,
        source: SocketAddr,
        is_possible: bool,
        latching: Latching,
        introduced: u64,
        now: u64,
    ) -> Result<(), DropReason> {
        let how = self.judge(source, is_possible, latching, introduced, now)?;
        self.heard.push(Heard { at: now, from: source, how });
        if how == How::TurnedAway { Err(DropReason::WrongPort) } else { Ok(()) }
    }

    fn judge(
        &self,
        source: SocketAddr,
        is_possible: bool,
        latching: Latching,
        introduced: u64,
        now: u64,
    ) -> Result<How, DropReason> {
        let current = self.address();
        if source == current {
            return Ok(How::InPlace);
        }
        if !is_possible {
            return Err(DropReason::InvalidSource);
        }
        if self.may_return(source, now) {
            return Ok(How::TookBack);
        }
        let silence = self.last_heard().map(|at| now - at);
        let is_same_ip = source.ip() == current.ip() || source.ip() == self.registered.ip();
        let may_latch = match latching {
            Latching::Off => false,
            _ if is_same_ip && silence.is_none_or(|silence| silence >= 2 * SECOND) => true,
            Latching::Any => silence.is_none() && now - introduced <= 10 * SECOND,
            Latching::SameIp => false,
        };
        match (may_latch, is_same_ip) {
            (true, _) => Ok(How::Latched),
            (false, true) => Ok(How::TurnedAway),
            (false, false) => Err(DropReason::WrongIp),
        }
    }

    /// Reads the whole past: who lost its place to whom, and when.
    fn may_return(&self, source: SocketAddr, now: u64) -> bool {
        let mut rights: Vec<(SocketAddr, u64)> = Vec::new();
        for (index, heard) in self.heard.iter().enumerate() {
            let past = &self.heard[..index];
            match heard.how {
                How::TookBack => rights.clear(),
                How::Latched => {
                    let loser = past.iter().rfind(|h| h.how != How::TurnedAway);
                    let address = loser.map_or(self.registered, |h| h.from);
                    let is_rebinding = loser.is_some_and(|h| follows(past, heard.from, h.at));
                    if !is_rebinding {
                        rights.push((address, heard.at));
                    }
                }
                How::InPlace | How::TurnedAway => {}
            }
        }
        rights.iter().any(|(address, since)| *address == source && now - since <= 30 * SECOND)
    }
}

/// Whether `newcomer` began right behind `last` and went on, and nobody was turned away in the time before.
fn follows(past: &[Heard], newcomer: SocketAddr, last: u64) -> bool {
    let turned_away = || past.iter().filter(|h| h.how == How::TurnedAway);
    let run: Vec<&Heard> =
        turned_away().rev().take_while(|h| h.from == newcomer && h.at >= last).collect();
    let Some(first) = run.last() else {
        return false;
    };
    let before = turned_away().rev().nth(run.len());
    run.len() >= 8
        && first.at - last <= SECOND / 2
        && before.is_none_or(|h| first.at - h.at > 30 * SECOND)
}

fn nanos(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap()
}
