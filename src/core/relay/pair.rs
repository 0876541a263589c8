//! One pair of players: where each is, what it has carried, and whether it may carry more.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::core::relay::{
    DropReason, Introduction, Latch, Latching, OwnAddresses, Party, RelayLimit, RelayPort,
    RelaySettings,
};
use crate::label::Label;
use crate::limits::network::Network;
use crate::limits::relay::{RelayLimits, UNHEARD_ALLOWANCE};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// How often a player is told of the same limit of the same pair.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// Who is who in a pair: the indices of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Asker,
    Host,
}

impl Role {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Asker => Self::Host,
            Self::Host => Self::Asker,
        }
    }
}

/// Two players who may send to each other. All that a datagram needs lies in three cache lines: among thousands of
/// pairs, fetching them is the cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(align(64))]
pub(super) struct Pair {
    /// The asker's and the host's.
    pub(super) sides: [Side; 2],
    pub(super) life: Life,
    /// Whether one of the players is confirmed: see [`Pair::refusal`].
    is_confirmed: bool,
    /// Who they are, in the same order.
    pub(super) people: Box<[Person; 2]>,
}

const _: () = assert!(size_of::<Pair>() <= 3 * 64);

/// How long a pair has been there, and what it has carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) created: Timestamp,
    /// When a datagram was last forwarded; at first, when the two were introduced.
    pub(super) forwarded: Timestamp,
    /// Charged bytes, both directions together.
    pub(super) traffic: u64,
}

/// One player's end of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Side {
    /// Where the player is, as seen at the partner's port.
    pub(super) latch: Latch,
    /// What the player sends.
    pub(super) bucket: TokenBucket,
    /// Charged bytes sent to the player while it was not heard, at any of its addresses: at most
    /// [`UNHEARD_ALLOWANCE`] in the pair's life.
    pub(super) sent_unheard: u32,
    /// The player's own port: its partner sends here.
    pub(super) port: RelayPort,
}

/// One player of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Person {
    pub(super) player: PlayerId,
    /// Where its connection comes from.
    connected_from: IpAddr,
    /// Whether its registered address is there too.
    is_confirmed: bool,
    /// When it was last told of each limit.
    told: [Option<Timestamp>; 3],
}

impl Pair {
    /// A pair of the asker and the host, at these ports of theirs.
    pub(super) fn new(parties: [Party; 2], ports: [RelayPort; 2], now: Timestamp) -> Self {
        let [asker, host] = parties;
        let mut pair = Self {
            sides: [
                Side::new(asker.address, ports[0], now),
                Side::new(host.address, ports[1], now),
            ],
            life: Life { created: now, forwarded: now, traffic: 0 },
            is_confirmed: false,
            people: Box::new(parties.map(Person::new)),
        };
        pair.update_confirmation();
        pair
    }

    /// The asker and the host.
    pub(super) fn players(&self) -> [PlayerId; 2] {
        self.people.each_ref().map(|person| person.player)
    }

    /// The asker's and the host's.
    pub(super) fn ports(&self) -> [RelayPort; 2] {
        self.sides.each_ref().map(|side| side.port)
    }

    /// The network that the pair counts against.
    pub(super) fn network(&self) -> Network {
        self.people[Role::Asker as usize].connected_from.into()
    }

    /// The player has registered another address.
    pub(super) fn handle_address_change(&mut self, player: PlayerId, address: SocketAddr) {
        for (side, person) in self.sides.iter_mut().zip(&mut *self.people) {
            if person.player == player {
                side.latch.reset(address);
                person.is_confirmed = person.connected_from == address.ip();
            }
        }
        self.update_confirmation();
    }

    fn update_confirmation(&mut self) {
        self.is_confirmed = self.people.iter().any(|person| person.is_confirmed);
    }

    /// Learns from a datagram at the port of `owner`: its source is the partner, perhaps at a new address.
    ///
    /// # Errors
    /// The reason to drop a datagram from anybody else.
    pub(super) fn learn(
        &mut self,
        owner: Role,
        source: SocketAddr,
        latching: Latching,
        own: &OwnAddresses,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        self.sides[owner.other() as usize].latch.accept(source, latching, own, now)
    }

    /// Why a datagram of `cost` may not pass to `owner`, if so.
    pub(super) fn refusal(
        &self,
        owner: Role,
        cost: u64,
        settings: &RelaySettings,
        now: Timestamp,
    ) -> Option<DropReason> {
        let limits = &settings.limits;
        let [receiver, sender] = [owner, owner.other()].map(|role| &self.sides[role as usize]);
        self.refusal_of_unconfirmed(settings.latching)
            .or_else(|| self.life.refusal(limits, now))
            .or_else(|| receiver.refusal_to_receive(cost, limits, now))
            .or_else(|| sender.refusal_to_send(limits, now))
    }

    /// Two players may be relayed if the UDP of one comes from where its connection does.
    ///
    /// A registration's source can be forged, a connection's cannot. If both players' addresses were another relay's,
    /// the two relays would send one datagram to each other for ever. Nobody has a connection from there.
    fn refusal_of_unconfirmed(&self, latching: Latching) -> Option<DropReason> {
        let is_refused = !self.is_confirmed && latching != Latching::Any;
        is_refused.then_some(DropReason::Unconfirmed)
    }

    /// Charges a datagram of `cost` that passes to `owner`; where it goes, and from which port.
    pub(super) fn charge(
        &mut self,
        owner: Role,
        cost: u64,
        limits: &RelayLimits,
        now: Timestamp,
    ) -> (RelayPort, SocketAddr) {
        let (receiver, sender) = receiver_and_sender(&mut self.sides, owner);
        sender.bucket.charge(cost, limits.pair_rate, now);
        if receiver.latch.heard().is_none() {
            receiver.sent_unheard += u32::try_from(cost).expect("it was within the allowance");
        }
        self.life.forwarded = now;
        self.life.traffic += cost;
        (sender.port, receiver.latch.address())
    }

    /// The pair's ports, as the player who asks now sees them: either may have asked first.
    pub(super) fn introduction(&self, asker: PlayerId) -> Introduction {
        let [first, second] = &self.sides;
        let is_reversed = self.people[Role::Asker as usize].player != asker;
        let (asker, host) = if is_reversed { (second, first) } else { (first, second) };
        Introduction { asker: asker.port, host: host.port, is_new: false }
    }
}

impl Life {
    fn refusal(&self, limits: &RelayLimits, now: Timestamp) -> Option<DropReason> {
        if now.since(self.created) >= limits.lifetime {
            return Some(DropReason::LifetimeDuration);
        }
        (self.traffic >= limits.lifetime_traffic).then_some(DropReason::LifetimeTraffic)
    }

    pub(super) fn is_over(&self, limits: &RelayLimits, now: Timestamp) -> bool {
        now.since(self.forwarded) >= limits.idle_timeout || self.refusal(limits, now).is_some()
    }
}

/// A datagram at the port of `owner` goes to it, and comes from the other.
fn receiver_and_sender(sides: &mut [Side; 2], owner: Role) -> (&mut Side, &mut Side) {
    let [asker, host] = sides;
    match owner {
        Role::Asker => (asker, host),
        Role::Host => (host, asker),
    }
}

impl Side {
    fn new(address: SocketAddr, port: RelayPort, now: Timestamp) -> Self {
        Self {
            latch: Latch::new(address, now),
            bucket: TokenBucket::default(),
            sent_unheard: 0,
            port,
        }
    }

    /// Why the player may not be sent `cost` more bytes at the address where it was last seen.
    fn refusal_to_receive(
        &self,
        cost: u64,
        limits: &RelayLimits,
        now: Timestamp,
    ) -> Option<DropReason> {
        match self.latch.heard() {
            None => (u64::from(self.sent_unheard) + cost > UNHEARD_ALLOWANCE)
                .then_some(DropReason::ReceiverUnheard),
            Some(heard) => {
                (now.since(heard) >= limits.idle_timeout).then_some(DropReason::ReceiverSilent)
            }
        }
    }

    /// Why the player may not send just now.
    fn refusal_to_send(&self, limits: &RelayLimits, now: Timestamp) -> Option<DropReason> {
        (!self.bucket.has_tokens(limits.burst, now)).then_some(DropReason::PairBandwidth)
    }
}

impl Person {
    fn new(party: Party) -> Self {
        let Party { player, connected_from, .. } = party;
        Self { player, connected_from, is_confirmed: party.is_confirmed(), told: [None; 3] }
    }

    /// The player, unless it was told of that limit of this pair within [`NOTICE_INTERVAL`].
    pub(super) fn due_notice(&mut self, limit: RelayLimit, now: Timestamp) -> Option<PlayerId> {
        let told = &mut self.told[limit.index()];
        if told.is_some_and(|at| now.since(at) < NOTICE_INTERVAL) {
            return None;
        }
        *told = Some(now);
        Some(self.player)
    }
}
