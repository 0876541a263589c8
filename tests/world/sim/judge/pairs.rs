//! Who is sent what through the relay: the judge's own book of pairs, made of what players were told.

mod promises;

use std::collections::BTreeMap;

use promises::DATAGRAM;

use super::weapons::ALLOWANCE;
use super::{Judge, Promises, SLACK, shown};
use crate::world::net::{Addr, Datagram, Kind, SECOND, Time};

/// How long a game must have run undisturbed before the judge expects each datagram to pass. A changed address takes its
/// place after 2 s of the old one's silence, and a player is safe in its place when it was heard for 5 s.
const SETTLED: Time = 6 * SECOND;
const FOLLOWED: Time = 3 * SECOND;

/// After this time a pair ends if one of its players was never heard.
const UNHEARD: Time = 25 * SECOND;

/// How often a player must be heard to be safe in its place.
const ALIVE: Time = SECOND;

/// One side of a pair.
struct Side {
    player: usize,
    peer: u16,
    /// The player's own port: its partner sends there.
    port: u16,
    /// Where its datagrams come from, and since when they come from there alone.
    from: Option<Addr>,
    from_since: Time,
    first: Time,
    last: Time,
    /// When its datagram or its PrivateID last came.
    alive: Time,
    /// Its new registered address, while nothing has come from there: it may be sent the allowance, however long that takes.
    unheard_at: Option<Addr>,
    sent_unheard: u64,
    /// Since when there has been no gap, and its bytes in the current second.
    steady_since: Time,
    second: Time,
    bytes: u64,
    rate: Meter,
}

/// What passes in a direction at a rate: when the last of it would have passed.
#[derive(Default)]
struct Meter {
    clear_at: Time,
}

impl Meter {
    /// How far the rate is behind what has passed.
    fn count(&mut self, bytes: u64, rate: u64, now: Time) -> Time {
        let behind = self.clear_at.saturating_sub(now);
        let takes = u128::from(bytes) * u128::from(SECOND) / u128::from(rate.max(1));
        self.clear_at = self.clear_at.max(now) + takes as Time;
        behind
    }
}

struct Pair {
    sides: [Side; 2],
    opened: Time,
    forwarded: Time,
    carried: u64,
    /// When the players were told of it last, as it may have been opened anew then, and what it has carried since.
    told: Time,
    carried_since: u64,
    is_closed: bool,
}

/// The datagram that is being handled: its pair, its sender's side, and whether each must pass.
#[derive(Clone, Copy)]
struct Current {
    pair: usize,
    sender: usize,
    must_pass: bool,
    is_forwarded: bool,
}

#[derive(Default)]
pub(super) struct Pairs {
    all: Vec<Pair>,
    /// The newest pair that was told each port, and one more.
    by_port: Vec<u32>,
    by_players: BTreeMap<(usize, usize), usize>,
    current: Option<Current>,
    reloaded: Option<Time>,
    /// What came for relays in this second, and in the one before.
    second: Time,
    bytes: Bytes,
    bytes_before: Bytes,
    total: Meter,
}

/// Bytes that came for relays.
#[derive(Clone, Copy, Default)]
struct Bytes {
    all: u64,
    of_honest: u64,
}

impl Pairs {
    fn count(&mut self, bytes: u64, is_honest: bool, now: Time) {
        if now - self.second >= SECOND {
            let is_next = now - self.second < 2 * SECOND;
            self.bytes_before = if is_next { self.bytes } else { Bytes::default() };
            (self.second, self.bytes) = (now, Bytes::default());
        }
        self.bytes.all += bytes;
        self.bytes.of_honest += if is_honest { bytes } else { 0 };
    }

    /// Whether so much comes that who sends no more than its share may lose something. One flooder leaves the others a
    /// quarter; several leave less.
    fn is_too_much(&self, global_rate: u64, has_one_flooder: bool) -> bool {
        [self.bytes, self.bytes_before].into_iter().any(|bytes| {
            let counted = if has_one_flooder { bytes.of_honest } else { bytes.all };
            counted > global_rate / 4
        })
    }

    /// Limits begin anew.
    pub(super) fn note_reload(&mut self, now: Time) {
        self.reloaded = Some(now);
        self.total = Meter::default();
        self.all
            .iter_mut()
            .flat_map(|pair| &mut pair.sides)
            .for_each(|side| side.rate = Meter::default());
    }

    fn at(&self, port: u16) -> Option<usize> {
        let index = *self.by_port.get(usize::from(port))?;
        (index > 0).then(|| index as usize - 1)
    }
}

impl Side {
    fn new(player: usize, peer: u16, port: u16) -> Self {
        let (from_since, first, last, steady_since, second, bytes) = (0, 0, 0, 0, 0, 0);
        Self {
            player,
            peer,
            port,
            from: None,
            from_since,
            first,
            last,
            alive: last,
            unheard_at: None,
            sent_unheard: 0,
            steady_since,
            second,
            bytes,
            rate: Meter::default(),
        }
    }

    fn arrived(&mut self, datagram: &Datagram, now: Time) {
        if self.from.is_none() {
            (self.first, self.steady_since) = (now, now);
        }
        if self.from != Some(datagram.from) {
            (self.from, self.from_since) = (Some(datagram.from), now);
        }
        if now - self.last > ALIVE {
            self.steady_since = now;
        }
        (self.last, self.alive) = (now, now);
        let is_there = self.unheard_at.is_some_and(|address| address.ip == datagram.from.ip);
        if is_there || now - self.from_since > SECOND {
            self.unheard_at = None;
        }
        if now - self.second >= SECOND {
            (self.second, self.bytes) = (now, 0);
        }
        self.bytes += u64::from(datagram.length) + 28;
    }

    /// Whether it has been heard without a gap for so long that nobody can take its place.
    fn is_settled(&self, now: Time) -> bool {
        self.from.is_some()
            && now - self.steady_since > SETTLED
            && now - self.from_since > SETTLED
            && now - self.last <= ALIVE
    }
}

impl Judge {
    /// Two players were told the ports at which they reach each other, first who asked.
    pub(super) fn paired(&mut self, players: [usize; 2], told: [u16; 2], now: Time) {
        let [host_port, asker_port] = told;
        if host_port == asker_port || told.iter().any(|port| !self.ports[usize::from(*port)]) {
            let what = format!("{host_port} and {asker_port}");
            return self.accuse("a pair has two of the configured ports", now, what);
        }
        let [asker, host] = players;
        let key = (asker.min(host), asker.max(host));
        if let Some(known) = self.pairs.by_players.get(&key).copied() {
            let pair = &self.pairs.all[known];
            let port_of =
                |player| pair.sides.iter().find(|side| side.player == player).map(|s| s.port);
            let is_same = port_of(host) == Some(host_port) && port_of(asker) == Some(asker_port);
            let may_be_over = now - pair.forwarded + 2 * SECOND >= self.promises.idle.min(UNHEARD);
            if is_same && !pair.is_closed {
                // Asked again, or closed and opened anew, with fresh limits.
                let is_live = self.is_surely_live(pair, now);
                let pair = &mut self.pairs.all[known];
                pair.sides.iter_mut().for_each(|side| side.rate = Meter::default());
                if !is_live {
                    (pair.told, pair.carried_since) = (now, 0);
                }
                if may_be_over {
                    self.allow_more(players);
                }
                return;
            }
            if !is_same && self.is_surely_live(pair, now) {
                return self.accuse("a live pair keeps its ports", now, format!("{told:?}"));
            }
            self.pairs.all[known].is_closed = true;
        }
        for port in told {
            if let Some(other) = self.pairs.at(port) {
                if self.is_surely_live(&self.pairs.all[other], now) {
                    self.accuse("a port belongs to one pair", now, format!("port {port}"));
                }
                self.pairs.all[other].is_closed = true;
            }
        }
        self.open(players, [asker_port, host_port], now);
    }

    fn open(&mut self, players: [usize; 2], ports: [u16; 2], now: Time) {
        self.pairs.by_port.resize(1 << 16, 0);
        let peers = players.map(|player| self.ids.players[player].peer);
        let sides = [0, 1].map(|side| Side::new(players[side], peers[side], ports[side]));
        self.pairs.all.push(Pair {
            sides,
            opened: now,
            forwarded: now,
            carried: 0,
            told: now,
            carried_since: 0,
            is_closed: false,
        });
        let number = self.pairs.all.len();
        for port in ports {
            self.pairs.by_port[usize::from(port)] = number as u32;
        }
        let key = (players[0].min(players[1]), players[0].max(players[1]));
        self.pairs.by_players.insert(key, number - 1);
        self.coverage.count("world", "pairs");
        for player in players {
            for address in self.ids.players[player].addresses.clone() {
                self.allow_to(address);
            }
        }
    }

    /// A player's PrivateID came: it is there.
    pub(super) fn note_alive(&mut self, player: usize, now: Time) {
        for side in self.pairs.all.iter_mut().flat_map(|pair| &mut pair.sides) {
            if side.player == player {
                side.alive = now;
            }
        }
    }

    /// A player has registered another address: its relays follow.
    pub(super) fn pairs_follow(&mut self, player: usize, address: Addr, now: Time) {
        let mut allowances = 0;
        for pair in self.pairs.all.iter_mut().filter(|pair| !pair.is_closed) {
            for side in pair.sides.iter_mut().filter(|side| side.player == player) {
                (side.from_since, side.steady_since) = (now, now);
                (side.unheard_at, side.sent_unheard) = (Some(address), 0);
                allowances += 1;
            }
        }
        (0..allowances).for_each(|_| self.allow_to(address));
    }

    /// Whether a pair has that port, as far as players were told.
    pub(super) fn has_pair(&self, port: u16) -> bool {
        self.pairs.at(port).is_some_and(|index| !self.pairs.all[index].is_closed)
    }

    /// A datagram comes to the server.
    pub fn arrived(&mut self, datagram: &Datagram, now: Time) {
        self.pairs.current = None;
        self.came_from(datagram, now);
        let Some(index) = self.pairs.at(datagram.to.port) else { return };
        let is_honest = self.peer(datagram.sender).is_honest;
        self.pairs.count(u64::from(datagram.length) + 28, is_honest, now);
        let pair = &mut self.pairs.all[index];
        let owner = usize::from(pair.sides[1].port == datagram.to.port);
        let sender = 1 - owner;
        let side = &mut pair.sides[sender];
        let registered = self.ids.players[side.player].address;
        if [side.from, registered].iter().flatten().any(|known| known.ip == datagram.from.ip) {
            // A neighbour may have taken its place.
            side.alive = now;
        }
        let has_registered_ip = registered.is_some_and(|known| known.ip == datagram.from.ip);
        let is_its_own = side.peer == datagram.sender && has_registered_ip;
        if !is_its_own || datagram.is_forged {
            self.pairs.current =
                Some(Current { pair: index, sender, must_pass: false, is_forwarded: false });
            return;
        }
        let before = pair.sides[sender].last;
        pair.sides[sender].arrived(datagram, now);
        let must_pass = datagram.kind == Kind::Game
            && now - before <= ALIVE
            && self.must_pass(&self.pairs.all[index], sender, now);
        self.pairs.current = Some(Current { pair: index, sender, must_pass, is_forwarded: false });
    }

    /// A datagram was sent on. Returns where it goes, if that is an address of this world.
    pub fn forwarded(
        &mut self,
        datagram: &Datagram,
        via: u16,
        to: Option<Addr>,
        now: Time,
    ) -> Option<Addr> {
        let Some(to) = to else {
            self.accuse("datagrams go to the partner", now, "to an unknown address".to_owned());
            return None;
        };
        self.sent_to(to, datagram.length.into(), true, now);
        let Some(mut current) = self.pairs.current else {
            self.accuse("only pairs have relays", now, format!("port {}", datagram.to.port));
            return Some(to);
        };
        current.is_forwarded = true;
        self.pairs.current = Some(current);
        let bytes = u64::from(datagram.length) + 28;
        let pair = &mut self.pairs.all[current.pair];
        pair.forwarded = now;
        pair.carried += bytes;
        pair.carried_since += bytes;
        let receiver = &mut pair.sides[1 - current.sender];
        receiver.sent_unheard += if receiver.unheard_at.is_some() { bytes } else { 0 };
        let Promises { pair_rate, global_rate, burst, .. } = self.promises;
        let of_pair = pair.sides[current.sender].rate.count(bytes, pair_rate, now);
        if of_pair.max(self.pairs.total.count(bytes, global_rate, now)) > burst + SLACK / 10 {
            let what = format!("at port {}", datagram.to.port);
            self.accuse("pairs carry no more than their rates", now, what);
        }
        let pair = &self.pairs.all[current.pair];
        let is_sent_too_much = pair.sides[1 - current.sender].sent_unheard > ALLOWANCE + DATAGRAM;
        if is_sent_too_much && self.peer(pair.sides[1 - current.sender].peer).is_honest {
            let what = shown(&self.ips, to);
            self.accuse("an address that is not heard gets 64 KiB more than it sent", now, what);
            return Some(to);
        }
        if self.has_outlived(pair, now) {
            let what = format!("at port {}", datagram.to.port);
            self.accuse("a pair carries nothing after its lifetime", now, what);
            return Some(to);
        }
        let (sender, receiver) = (&pair.sides[current.sender], &pair.sides[1 - current.sender]);
        if via != sender.port {
            let what = format!("from {via} instead of {}", sender.port);
            self.accuse("datagrams come from the announced port", now, what);
            return Some(to);
        }
        let is_own = datagram.sender == sender.peer;
        if !is_own && !self.may_take_place(sender, datagram.from, now) {
            let what =
                format!("at port {}, from {}", datagram.to.port, shown(&self.ips, datagram.from));
            self.accuse("only the partner gets datagrams through", now, what);
        } else if !self.may_be_sent(receiver, to, now) {
            let expected = receiver.from.map(|from| shown(&self.ips, from));
            let what = format!("to {} instead of {expected:?}", shown(&self.ips, to));
            self.accuse("datagrams go to the partner", now, what);
        } else if self.has_fallen_silent(receiver, now) {
            let what = format!("{} gets something", shown(&self.ips, to));
            self.accuse("who fell silent is sent nothing after the idle time", now, what);
        }
        Some(to)
    }

    /// A datagram was handled. If it had to pass, it did.
    pub fn was_handled(&mut self, datagram: &Datagram, now: Time) {
        let Some(current) = self.pairs.current.take() else { return };
        if !current.is_forwarded {
            // Whoever is refused is not in its place yet.
            let side = &mut self.pairs.all[current.pair].sides[current.sender];
            if side.from == Some(datagram.from) {
                side.steady_since = now;
            }
        }
        if current.is_forwarded || !current.must_pass {
            return;
        }
        if self.pairs.reloaded.is_some_and(|at| now - at < SECOND) {
            return;
        }
        if self.pairs.is_too_much(self.promises.global_rate, self.has_only_one_flooder()) {
            return;
        }
        let what = format!(
            "of {} at port {} from {}",
            datagram.sender,
            datagram.to.port,
            shown(&self.ips, datagram.from)
        );
        self.accuse("a settled game loses no datagram", now, what);
    }

    /// Something comes to a peer from the server.
    pub fn delivered(&mut self, peer: u16, datagram: &Datagram, now: Time) {
        let Some(index) = self.pairs.at(datagram.from.port) else { return };
        let pair = &self.pairs.all[index];
        if pair.is_closed || now - pair.opened < 2 * SECOND {
            return;
        }
        let sender = usize::from(pair.sides[1].port == datagram.from.port);
        let [from, to] = [&pair.sides[sender], &pair.sides[1 - sender]];
        let sites = [peer, to.peer].map(|peer| self.peer(peer).site);
        let are_honest = [from.peer, to.peer].iter().all(|peer| self.peer(*peer).is_honest);
        // A neighbour may take the place of who has gone.
        let is_disturbed = self.is_disturbed(&[from.peer, to.peer], now, now);
        let are_honest = are_honest && !is_disturbed && !self.anybody_may_be_first();
        if peer == to.peer || !are_honest || sites[0] == sites[1] || datagram.sender != from.peer {
            return;
        }
        let what = format!("peer {peer} got what was meant for peer {}", to.peer);
        self.accuse("nobody else sees a datagram", now, what);
    }

    /// The port to which a player sends whose game is settled, for those who somehow know it.
    pub fn settled_port(&self, id: u16, now: Time) -> Option<u16> {
        let peer = self.peer_of(id)?;
        let mut live = self.pairs.all.iter().rev().filter(|pair| !pair.is_closed);
        live.find_map(|pair| {
            let side = pair.sides.iter().position(|side| side.peer == peer)?;
            let is_settled =
                pair.sides[side].is_settled(now) && now - pair.opened > SETTLED + SLACK;
            is_settled.then(|| pair.sides[1 - side].port)
        })
    }
}
