//! A relayed pair of players: the address of each, what the pair has carried, and whether it may carry more.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::core::relay::life::Life;
use crate::core::relay::sources::Sources;
use crate::core::relay::sprayers::{Expected, Sprayers};
use crate::core::relay::{
    DropReason, Latch, Latching, OwnAddresses, PairPorts, Party, RelayLimit, RelayPort,
    RelaySettings,
};
use crate::label::Label;
use crate::limits::network::Network;
use crate::limits::relay::{HOST_SILENCE, RelayLimits, UNHEARD_ALLOWANCE};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// The least time between two notices to a player of the same limit of the same pair.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// The two roles in a pair. Each is also the index of that player's [`Side`] and [`Member`].
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

/// Which rate a datagram to a host counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRate {
    /// Of a host that is silent towards its askers: [`SILENT_HOST`](crate::limits::rates::SILENT_HOST).
    Silent,
    /// Of a host with more pairs than [`RelayLimits::crowd`]: as much as so many may carry.
    Crowd,
}

impl HostRate {
    /// Why a datagram over that rate is dropped.
    pub(super) fn drop_reason(self) -> DropReason {
        match self {
            Self::Silent => DropReason::SilentHost,
            Self::Crowd => DropReason::HostBandwidth,
        }
    }
}

/// Two players who may send to each other.
///
/// Everything that a datagram needs is in three cache lines. With thousands of pairs, most of a datagram's cost in the
/// core is to fetch them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(align(64))]
pub(super) struct Pair {
    /// The asker's side and the host's side.
    pub(super) sides: [Side; 2],
    pub(super) life: Life,
    /// Whether at least one of the players is confirmed: see [`Pair::refusal_of_unconfirmed`].
    is_confirmed: bool,
    /// Whether the host has more pairs than [`RelayLimits::crowd`].
    pub(super) is_in_crowd: bool,
    /// The asker and the host.
    pub(super) members: Box<[Member; 2]>,
}

const _: () = assert!(size_of::<Pair>() <= 3 * 64);

/// What each datagram to or from a player of a pair needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Side {
    /// The player's address, as seen at the partner's port.
    pub(super) latch: Latch,
    /// The rate limit of what the player sends.
    pub(super) bucket: TokenBucket,
    /// Charged bytes that were sent to the player before it was heard, at all its addresses together. At most
    /// [`UNHEARD_ALLOWANCE`] in the pair's life.
    pub(super) sent_unheard: u32,
    /// Whether the player was heard in the pair's life, at any of its addresses.
    was_heard: bool,
    /// The player's own port, to which its partner sends.
    pub(super) port: RelayPort,
}

/// What only rare events need of a player of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) player: PlayerId,
    /// The network of its connection when the pair was opened.
    first_network: Network,
    /// The IP that its connection comes from.
    connected_from: IpAddr,
    /// Whether its registered address has that IP too.
    is_confirmed: bool,
    /// When it was last told of each [`RelayLimit`].
    told: [Option<Timestamp>; 3],
}

impl Pair {
    /// A pair of the asker and the host. The ports are in the same order.
    /// `early` are the sources that were heard at the ports before.
    pub(super) fn new(
        parties: [Party; 2],
        ports: [RelayPort; 2],
        early: [Sources; 2],
        now: Timestamp,
    ) -> Self {
        let [asker, host] = parties;
        // Each player is heard at the other's port.
        let [at_asker, at_host] = early;
        let mut pair = Self {
            sides: [
                Side::new(Latch::with_early(asker.address, at_host, now), ports[0]),
                Side::new(Latch::with_early(host.address, at_asker, now), ports[1]),
            ],
            life: Life::new(now),
            is_confirmed: false,
            is_in_crowd: false,
            members: Box::new(parties.map(Member::new)),
        };
        pair.update_confirmation();
        pair
    }

    /// The ids of the asker and the host.
    pub(super) fn players(&self) -> [PlayerId; 2] {
        self.members.each_ref().map(|member| member.player)
    }

    /// The asker's port and the host's port.
    pub(super) fn ports(&self) -> [RelayPort; 2] {
        self.sides.each_ref().map(|side| side.port)
    }

    /// The network from which the asker asked. The pair counts as one of that network's pairs, also after the asker has
    /// resumed from another one.
    pub(super) fn network(&self) -> Network {
        self.members[Role::Asker as usize].first_network
    }

    /// The network of a player's connection.
    pub(super) fn network_of(&self, role: Role) -> Network {
        self.members[role as usize].connected_from.into()
    }

    /// Handles that a player has registered another address.
    pub(super) fn handle_address_change(&mut self, player: PlayerId, address: SocketAddr) {
        for (side, member) in self.sides.iter_mut().zip(&mut *self.members) {
            if member.player == player {
                side.latch.reset(address);
                member.is_confirmed = member.connected_from == address.ip();
            }
        }
        self.update_confirmation();
    }

    /// Handles that a player goes on on another connection, which comes from that IP.
    pub(super) fn handle_resumption(&mut self, player: PlayerId, connected_from: IpAddr) {
        for (side, member) in self.sides.iter().zip(&mut *self.members) {
            if member.player == player {
                member.connected_from = connected_from;
                member.is_confirmed = connected_from == side.latch.registered().ip();
            }
        }
        self.update_confirmation();
    }

    /// Handles that a player has repeated its PrivateID from the same address.
    pub(super) fn handle_repetition(&mut self, player: PlayerId, now: Timestamp) {
        for (side, member) in self.sides.iter_mut().zip(&*self.members) {
            if member.player == player {
                side.latch.doubt(now);
            }
        }
    }

    fn update_confirmation(&mut self) {
        self.is_confirmed = self.members.iter().any(|member| member.is_confirmed);
    }

    /// Whether a datagram at the port of `owner` comes from the partner's current address. If so, it has been heard.
    pub(super) fn hear_current(&mut self, owner: Role, source: SocketAddr, now: Timestamp) -> bool {
        self.sides[owner.other() as usize].latch.hear_current(source, now)
    }

    /// Whether that is the partner's current address at the port of `owner`.
    pub(super) fn is_current(&self, owner: Role, source: SocketAddr) -> bool {
        self.sides[owner.other() as usize].latch.address() == source
    }

    /// Decides whether any other datagram at the port of `owner` comes from the partner.
    ///
    /// # Errors
    /// The reason to drop the datagram, if it comes from anybody else.
    #[cold]
    pub(super) fn hear_other(
        &mut self,
        owner: Role,
        source: SocketAddr,
        latching: Latching,
        own: &OwnAddresses,
        sprayers: &mut Sprayers,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        if !own.allows(source) {
            return Err(DropReason::InvalidSource);
        }
        let partner = owner.other() as usize;
        let expected = Expected::Player(self.members[partner].player);
        let is_sprayer = sprayers.note(source, expected, now);
        self.sides[partner].latch.hear_other(source, is_sprayer, latching, now)
    }

    /// Whoever sends to `owner` was heard. If both were before the pair ended, it does not end for that.
    pub(super) fn note_sender_heard(&mut self, owner: Role, now: Timestamp) {
        if self.life.unheard_until.is_some_and(|end| now < end) {
            self.sides[owner.other() as usize].was_heard = true;
            if self.sides.iter().all(|side| side.was_heard) {
                self.life.unheard_until = None;
            }
        }
    }

    /// The host and its rate that a datagram to `owner` counts for, if it does.
    pub(super) fn host_rate(&self, owner: Role, now: Timestamp) -> Option<(PlayerId, HostRate)> {
        if owner != Role::Host {
            return None;
        }
        let heard = self.sides[owner as usize].latch.heard();
        let is_silent = heard.is_none_or(|heard| now.since(heard) >= HOST_SILENCE);
        let rate = match (is_silent, self.is_in_crowd) {
            (true, _) => HostRate::Silent,
            (false, true) => HostRate::Crowd,
            (false, false) => return None,
        };
        Some((self.members[owner as usize].player, rate))
    }

    /// Whether at least one of the players is confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Whether that player is the host.
    pub(super) fn is_hosted_by(&self, player: PlayerId) -> bool {
        self.members[Role::Host as usize].player == player
    }

    /// The reason why a datagram of `cost` charged bytes must not pass to `owner`, if there is one.
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

    /// Two players may be relayed if at least one of them is confirmed.
    ///
    /// The source of a registration can be forged; that of a connection cannot. With forged sources, both players'
    /// addresses could be ports of another relay, and the two relays would send one datagram to each other for ever.
    /// No player has a connection from a relay's IP.
    fn refusal_of_unconfirmed(&self, latching: Latching) -> Option<DropReason> {
        let is_refused = !self.is_confirmed && latching != Latching::Any;
        is_refused.then_some(DropReason::Unconfirmed)
    }

    /// Charges a datagram of `cost` charged bytes that passes to `owner`. Returns the port to send it from and the
    /// receiver's address.
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

    /// The pair's ports, for the player who asks now. The other player may have asked first.
    pub(super) fn ports_for(&self, asker: PlayerId) -> PairPorts {
        let [first, second] = &self.sides;
        let is_reversed = self.members[Role::Asker as usize].player != asker;
        let (asker, host) = if is_reversed { (second, first) } else { (first, second) };
        PairPorts { asker: asker.port, host: host.port, is_new: false }
    }
}

/// A datagram at the port of `owner` goes to `owner` and comes from the other player.
fn receiver_and_sender(sides: &mut [Side; 2], owner: Role) -> (&mut Side, &mut Side) {
    let [asker, host] = sides;
    match owner {
        Role::Asker => (asker, host),
        Role::Host => (host, asker),
    }
}

impl Side {
    fn new(latch: Latch, port: RelayPort) -> Self {
        Self { latch, bucket: TokenBucket::default(), sent_unheard: 0, was_heard: false, port }
    }

    /// The reason why the player must not be sent `cost` more charged bytes, if there is one.
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

    /// The reason why the player must not send now, if there is one.
    fn refusal_to_send(&self, limits: &RelayLimits, now: Timestamp) -> Option<DropReason> {
        (!self.bucket.has_tokens(limits.burst, now)).then_some(DropReason::PairBandwidth)
    }
}

impl Member {
    fn new(party: Party) -> Self {
        let Party { player, connected_from, .. } = party;
        Self {
            player,
            first_network: party.network(),
            connected_from,
            is_confirmed: party.is_confirmed(),
            told: [None; 3],
        }
    }

    /// Returns the player if it must be told of that limit, and counts it as told. `None` if it was told within
    /// [`NOTICE_INTERVAL`].
    pub(super) fn take_due_notice(
        &mut self,
        limit: RelayLimit,
        now: Timestamp,
    ) -> Option<PlayerId> {
        let told = &mut self.told[limit.index()];
        if told.is_some_and(|at| now.since(at) < NOTICE_INTERVAL) {
            return None;
        }
        *told = Some(now);
        Some(self.player)
    }
}
