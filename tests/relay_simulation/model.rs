//! The relay's rules once more, as plainly as possible: lists that are searched from front to back, histories
//! that are read from the start, buckets that are filled. Slow, and nothing like the table it is held against.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use noray::core::relay::{Action, DropReason, Latching, RelayPort, RelaySettings};
use noray::label::Label;
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
    spent: Spent,
    /// The same for what was sent to each host while it was silent, and while it had many pairs.
    spent_on_hosts: HashMap<(u64, &'static str), Spent>,
    /// Each datagram at a port without a pair: port, source, when.
    strays: Vec<(u16, SocketAddr, u64)>,
    /// Whose datagrams were expected at a port of a pair that ended, and when it ended.
    former: Vec<(u16, u64, u64)>,
    /// Who was heard where whose datagrams were expected, since the last full minute.
    visits: Vec<(SocketAddr, Expected)>,
    visits_since: u64,
}

/// When, by which network, how many bytes.
type Spent = Vec<(u64, Network, u64)>;

/// A player, or nobody at that port.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Player(u64),
    Nobody(u16),
}

pub(crate) struct Pair {
    pub(crate) players: [u64; 2],
    pub(crate) ports: [u16; 2],
    sides: [Side; 2],
    /// Where the players' connections come from.
    connected_from: [IpAddr; 2],
    /// When each player was heard first.
    first_heard: [Option<u64>; 2],
    created: u64,
    forwarded: u64,
    traffic: u64,
}

/// One player, as heard at its partner's port.
struct Side {
    registered: SocketAddr,
    /// All addresses that had the place since the registration.
    holders: Vec<Holder>,
    /// The sources that are remembered, the one that was heard last at the end.
    others: Vec<Other>,
    /// Who lost the place by falling silent, when, and whether it was settled.
    losers: Vec<(SocketAddr, u64, bool)>,
    /// When one of them came back.
    came_back: Option<u64>,
    /// Bytes sent to the player while it was not heard, in the pair's whole life.
    unheard_bytes: u64,
    bucket: Bucket,
}

struct Holder {
    address: SocketAddr,
    /// When it was heard in its place. The first time is when it got it.
    heard: Vec<u64>,
    /// Whether it came back and had settled before.
    was_settled: bool,
    doubted: Option<u64>,
}

struct Other {
    address: SocketAddr,
    /// When it was heard, and when the holder of the place had been heard last.
    heard: Vec<(u64, Option<u64>)>,
    is_early: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Unheard,
    Settling,
    Doubted,
    Settled,
    Silent,
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
            spent_on_hosts: HashMap::new(),
            strays: Vec::new(),
            former: Vec::new(),
            visits: Vec::new(),
            visits_since: 0,
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
        let side = |registered, port| Side {
            registered,
            holders: Vec::new(),
            others: early(&self.strays, port, now),
            losers: Vec::new(),
            came_back: None,
            unheard_bytes: 0,
            bucket: Bucket::new(self.limits.pair_rate, &self.limits),
        };
        let sides = [side(asker.1, ports[1]), side(host.1, ports[0])];
        self.strays.retain(|(port, ..)| !ports.contains(port));
        self.pairs.push(Pair {
            players,
            ports,
            sides,
            connected_from: [asker.2, host.2],
            first_heard: [None; 2],
            created: now,
            forwarded: now,
            traffic: 0,
        });
        Some((ports[0], ports[1]))
    }

    pub(crate) fn move_player(&mut self, player: u64, address: SocketAddr) {
        self.sides_of(player).for_each(|side| side.register(address));
    }

    /// The player says its PrivateID once more.
    pub(crate) fn repeat(&mut self, player: u64, now: u64) {
        self.sides_of(player).for_each(|side| side.doubt(now));
    }

    fn sides_of(&mut self, player: u64) -> impl Iterator<Item = &mut Side> {
        self.pairs
            .iter_mut()
            .flat_map(|pair| pair.sides.iter_mut().zip(pair.players))
            .filter(move |(_, owner)| *owner == player)
            .map(|(side, _)| side)
    }

    /// Whether `source` is taken for a player at that port whenever the place there is free.
    #[allow(dead_code, reason = "the property tests share the model and do not ask")]
    pub(crate) fn is_trusted(&self, at: u16, source: SocketAddr) -> bool {
        let pair = self.pairs.iter().find(|pair| pair.ports.contains(&at)).expect("a pair");
        let from = usize::from(pair.ports[0] == at);
        let side = &pair.sides[from];
        let is_early = side.others.iter().any(|other| other.address == source && other.is_early);
        source == side.registered
            || !(is_early || self.is_sprayer(source, Expected::Player(pair.players[from])))
    }

    fn visit(&mut self, source: SocketAddr, expected: Expected, now: u64) {
        if now - self.visits_since >= 60 * SECOND {
            self.visits.clear();
            self.visits_since = now;
        }
        if !self.visits.contains(&(source, expected)) {
            self.visits.push((source, expected));
        }
    }

    fn is_sprayer(&self, source: SocketAddr, here: Expected) -> bool {
        self.visits.iter().filter(|(visitor, at)| *visitor == source && *at != here).count() >= 3
    }

    /// The table freed that pair: it must have been over.
    pub(crate) fn free(&mut self, ports: [u16; 2], now: u64) {
        let index = self.pairs.iter().position(|pair| pair.ports == ports).expect("such a pair");
        assert!(self.is_over(&self.pairs[index], now), "{ports:?} was freed too early");
        let Pair { ports: [to_asker, to_host], players: [asker, host], .. } =
            self.pairs.remove(index);
        self.free.extend([to_asker, to_host]);
        self.former.extend([(to_asker, host, now), (to_host, asker, now)]);
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
        } else if now - pair.created >= 30 * SECOND
            && pair
                .first_heard
                .iter()
                .any(|at| at.is_none_or(|at| at - pair.created >= 30 * SECOND))
        {
            Some(DropReason::ReceiverUnheard)
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
        let is_possible = self.is_possible(source);
        let Some(index) = self.pairs.iter().position(|pair| pair.ports.contains(&at)) else {
            if is_possible {
                let former = self.former.iter().rfind(|(port, ..)| *port == at);
                let expected = match former {
                    Some((_, player, end)) if now - end < 60 * SECOND => Expected::Player(*player),
                    Some(_) | None => Expected::Nobody(at),
                };
                self.visit(source, expected, now);
                self.strays.push((at, source, now));
            }
            return Action::Drop(DropReason::NoPair);
        };
        let (limits, latching) = (self.limits, self.latching);
        let mut is_sprayer = false;
        let pair = &self.pairs[index];
        let from = usize::from(pair.ports[0] == at);
        if source != pair.sides[from].address() {
            if !is_possible {
                return Action::Drop(DropReason::InvalidSource);
            }
            let expected = Expected::Player(pair.players[from]);
            self.visit(source, expected, now);
            is_sprayer = self.is_sprayer(source, expected);
        }
        let host = self.pairs[index].players[1];
        let is_crowd =
            self.pairs.iter().filter(|pair| pair.players[1] == host).count() > self.limits.crowd;
        let worn_out = self.is_worn_out(&self.pairs[index], now);
        let pair = &mut self.pairs[index];
        let to = 1 - from;
        let is_soon = now - pair.created <= 10 * SECOND;
        let heard = pair.sides[from].hear(source, is_sprayer, latching, is_soon, now);
        if let Err(reason) = heard {
            return Action::Drop(reason);
        }
        pair.first_heard[from].get_or_insert(now);
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
        let last = pair.sides[to].last_heard();
        let own = &mut pair.sides[from].bucket;
        own.fill(limits.pair_rate, &limits, now);
        self.all.fill(limits.global_rate, &limits, now);
        if own.level <= 0 {
            return Action::Drop(DropReason::PairBandwidth);
        }
        let sender = Network::from(pair.connected_from[from]);
        let is_silent = last.is_none_or(|at| now - at >= 3 * SECOND);
        let hosts_rate = match (to, is_silent, is_crowd) {
            (1, true, _) => Some((DropReason::SilentHost, 65_536.0)),
            (1, false, true) => {
                Some((DropReason::HostBandwidth, limits.crowd as f64 * limits.pair_rate as f64))
            }
            _ => None,
        };
        if let Some((reason, rate)) = hosts_rate {
            let spent = self.spent_on_hosts.entry((host, reason.label())).or_default();
            if !has_share(spent, sender, rate, SECOND, now) {
                return Action::Drop(reason);
            }
        }
        let is_half_empty = 2 * self.all.level <= depth(limits.global_rate, &limits);
        let burst = limits.global_rate as f64 * limits.burst.as_secs_f64() / 2.0;
        let time = nanos(limits.burst / 2);
        let has_share = || has_share(&self.spent, sender, burst, time, now);
        if self.all.level <= 0 || (is_half_empty && !has_share()) {
            return Action::Drop(DropReason::GlobalBandwidth);
        }
        if is_half_empty {
            spend(&mut self.spent, sender, bytes, time, now);
        }
        if let Some((reason, _)) = hosts_rate {
            let spent = self.spent_on_hosts.entry((host, reason.label())).or_default();
            spend(spent, sender, bytes, SECOND, now);
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
    fn address(&self) -> SocketAddr {
        self.holders.last().map_or(self.registered, |holder| holder.address)
    }

    fn last_heard(&self) -> Option<u64> {
        self.holders.last().and_then(|holder| holder.heard.last()).copied()
    }

    fn hear(
        &mut self,
        source: SocketAddr,
        is_sprayer: bool,
        latching: Latching,
        is_soon: bool,
        now: u64,
    ) -> Result<(), DropReason> {
        if source == self.address() {
            match self.holders.last_mut() {
                Some(holder) => holder.heard.push(now),
                None => self.give_place(source, now),
            }
            return Ok(());
        }
        let state = self.state(now);
        let is_registered = source == self.registered;
        let is_barred = (is_sprayer || latching == Latching::Off) && !is_registered;
        let is_loser = |(loser, at, was_settled): &&(SocketAddr, u64, bool)| {
            *loser == source && now - at <= 30 * SECOND && (*was_settled || state != State::Settled)
        };
        let lost = self.losers.iter().find(is_loser).copied();
        if !is_barred && let Some((_, _, was_settled)) = lost {
            self.losers.clear();
            self.came_back = Some(now);
            self.give_place(source, now);
            self.holders.last_mut().expect("it has the place").was_settled = was_settled;
            return Ok(());
        }
        let is_claim = matches!(state, State::Settling | State::Doubted) && self.may_claim(now);
        if is_registered && (is_claim || state == State::Unheard) {
            self.give_place(source, now);
            return Ok(());
        }
        let is_same_ip = source.ip() == self.address().ip() || source.ip() == self.registered.ip();
        let is_any_ip = latching == Latching::Any && is_soon && state == State::Unheard;
        if !is_same_ip && !is_any_ip {
            return Err(DropReason::WrongIp);
        }
        if is_barred {
            return Err(DropReason::WrongPort);
        }
        self.remember(source, self.last_heard(), now);
        let this = self.others.last().expect("it was remembered");
        if !self.may_take(this, state, now) {
            return Err(DropReason::WrongPort);
        }
        let is_gap = matches!(state, State::Settling | State::Doubted);
        let is_first = self.came_back.is_none_or(|at| now - at > 30 * SECOND);
        if state == State::Silent || (is_gap && is_first) {
            let loser = self.holders.last().expect("it was heard");
            if !self.is_rebinding(this) {
                self.losers.push((loser.address, now, loser.state() == State::Settled));
            }
        }
        self.give_place(source, now);
        Ok(())
    }

    /// Whether nobody has replaced the registered address in the last 30 s.
    fn may_claim(&self, now: u64) -> bool {
        let changes = self.holders.windows(2);
        let mut losses = changes.filter(|two| two[0].address == self.registered);
        losses.all(|two| now - two[1].heard[0] > 30 * SECOND)
    }

    fn state(&self, now: u64) -> State {
        let Some(holder) = self.holders.last() else {
            return State::Unheard;
        };
        if now - holder.last() >= 2 * SECOND { State::Silent } else { holder.state() }
    }

    fn may_take(&self, this: &Other, state: State, now: u64) -> bool {
        let is_stranger = self.is_stranger(this);
        let is_gap =
            self.last_heard().is_some_and(|at| now - at >= 1250 * MILLISECOND) && this.run().0 >= 2;
        let is_open = match state {
            State::Silent => true,
            State::Unheard => !is_stranger,
            State::Settling => !is_stranger && is_gap,
            State::Doubted => is_gap,
            State::Settled => false,
        };
        let is_in_the_way = |other: &Other| {
            let (run, began) = other.run();
            let is_better = match (self.is_stranger(other), is_stranger) {
                (false, true) => true,
                (true, false) => false,
                _ => other.heard[0].0 < this.heard[0].0,
            };
            let goes_on =
                now - other.last() <= GAP && self.last_heard().is_none_or(|at| began >= at);
            is_better && goes_on && run >= 2
        };
        is_open && !self.others.iter().any(is_in_the_way)
    }

    /// It was there before the pair, or at the same time as the one in place.
    fn is_stranger(&self, other: &Other) -> bool {
        other.is_early || self.last_heard().is_some_and(|at| at > other.heard[0].0 + GAP)
    }

    /// It began right behind the one in place and went on, and nobody else was there in the time before.
    fn is_rebinding(&self, this: &Other) -> bool {
        let (first, last) = (this.heard[0].0, self.last_heard().expect("somebody was in place"));
        let was_alone = self
            .others
            .iter()
            .filter(|other| other.address != this.address)
            .all(|other| other.last() + 30 * SECOND < first);
        was_alone && this.run().0 >= 8 && (last..=last + GAP).contains(&first)
    }

    fn give_place(&mut self, source: SocketAddr, now: u64) {
        self.others.retain(|other| other.address != source);
        let holder =
            Holder { address: source, heard: vec![now], was_settled: false, doubted: None };
        self.holders.push(holder);
    }

    fn remember(&mut self, source: SocketAddr, last_in_place: Option<u64>, now: u64) {
        remember(&mut self.others, source, last_in_place, now);
    }

    fn register(&mut self, address: SocketAddr) {
        for index in 0..self.others.len() {
            self.others[index].is_early = self.is_stranger(&self.others[index]);
        }
        self.registered = address;
        self.holders.clear();
        self.losers.clear();
        self.came_back = None;
    }

    fn doubt(&mut self, now: u64) {
        let ip = self.registered.ip();
        let is_contested = self
            .others
            .iter()
            .any(|other| other.address.ip() == ip && now - other.last() <= 30 * SECOND);
        let holder = self.holders.last_mut();
        if let Some(holder) = holder.filter(|holder| is_contested && holder.doubted.is_none()) {
            holder.doubted = Some(now);
        }
    }
}

/// How long a player that plays is silent at most.
const GAP: u64 = 750 * MILLISECOND;

const MILLISECOND: u64 = SECOND / 1000;

impl Holder {
    fn last(&self) -> u64 {
        self.heard[self.heard.len() - 1]
    }

    /// The state in which it was last heard.
    fn state(&self) -> State {
        // It may have been doubted after its last datagram.
        let is_doubted = self.doubted.is_some_and(|doubted| self.last() < doubted + 5 * SECOND);
        match () {
            () if is_doubted => State::Doubted,
            () if self.was_settled || self.last() - self.heard[0] >= 5 * SECOND => State::Settled,
            () => State::Settling,
        }
    }
}

impl Other {
    fn last(&self) -> u64 {
        self.heard[self.heard.len() - 1].0
    }

    /// How many datagrams came since the one in place was heard, and when the first of them did.
    fn run(&self) -> (usize, u64) {
        let (mut count, mut began) = (0, self.heard[0].0);
        for (at, in_place) in &self.heard {
            if in_place.is_some_and(|in_place| began < in_place) {
                (count, began) = (0, *at);
            }
            count += 1;
        }
        (count, began)
    }
}

/// Who was heard at a port before a pair began there.
fn early(strays: &[(u16, SocketAddr, u64)], port: u16, now: u64) -> Vec<Other> {
    let mut others = Vec::new();
    for (_, source, at) in strays.iter().filter(|(at, ..)| *at == port) {
        remember(&mut others, *source, None, *at);
    }
    forget(&mut others, now);
    others.into_iter().map(|other| Other { is_early: true, ..other }).collect()
}

fn forget(others: &mut Vec<Other>, now: u64) {
    others.retain(|other| now - other.last() <= 60 * SECOND);
}

/// The last eight, each for a minute.
fn remember(others: &mut Vec<Other>, source: SocketAddr, last_in_place: Option<u64>, now: u64) {
    forget(others, now);
    let known = others.iter().position(|other| other.address == source);
    let mut other = match known {
        Some(index) => others.remove(index),
        None => Other { address: source, heard: Vec::new(), is_early: false },
    };
    other.heard.push((now, last_in_place));
    others.push(other);
    if others.len() > 8 {
        others.remove(0);
    }
}

fn nanos(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap()
}

/// Whether the network may send more, by all that was sent before and decays in `time`.
fn has_share(spent: &[(u64, Network, u64)], who: Network, burst: f64, time: u64, now: u64) -> bool {
    let used = |of: &dyn Fn(Network) -> bool| -> f64 {
        let spent = spent.iter().filter(|(_, network, _)| of(*network));
        spent.map(|(at, _, b)| *b as f64 * (-((now - at) as f64) / time as f64).exp()).sum()
    };
    let left = burst - used(&|_| true);
    left >= 1.0 && used(&|network| network == who) < (3.0 * left).max(1.0)
}

fn spend(spent: &mut Spent, who: Network, bytes: u64, time: u64, now: u64) {
    // After so long nothing is left of it.
    spent.retain(|(at, ..)| now - at < 50 * time);
    spent.push((now, who, bytes));
}
