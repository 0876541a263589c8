//! All rules of the server as one value, the [`Core`]: who is registered, which pairs exist, what each may do.
//!
//! It knows no socket, no thread, no clock and no environment. The shell turns system calls into [`Input`]s and the
//! [`Effect`]s that come of them into system calls, counters and log lines:
//!
//! ```text
//!                   handle(Input, random, now, effects)        everything but datagrams at relays
//! shell ---------->                                     Core
//!                   handle_datagram(port, source, ..)          the hot path: Forward { via, to } or Drop(reason)
//!       <----------
//!                   Effect, Effect, ..
//! ```
//!
//! - Invariant: the same inputs with the same random bytes and times lead to the same effects, in the same order. No order
//!   of a hash map decides anything.
//! - Invariant: [`Core::restore`] of [`Core::snapshot`] goes on as the original would.
//!
//! | module | question it answers |
//! |---|---|
//! | [`effect`] | what the shell is told to do |
//! | [`commands`] | what a line of a player leads to |
//! | [`players`] | who is connected and registered, by connection, OpenID or PrivateID |
//! | [`registrar`] | what a datagram at the registrar does |
//! | [`relay`] | who has which ports, and what becomes of a datagram at one of them |
//! | [`protocol`] | lines to commands, replies to lines |
//! | [`id`] | what ids look like, and how random bytes become one |
//! | [`deadlines`], [`drain`] | what is due when; when a server that is to end may do so |
//! | [`snapshot`] | all of it, for another process to go on with |

pub mod commands;
pub mod deadlines;
pub mod drain;
pub mod effect;
pub mod id;
pub mod players;
pub mod protocol;
pub mod registrar;
pub mod relay;
pub mod snapshot;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::limits::bounds::Bound;
use crate::limits::connection_policy::DisconnectReason;
use crate::time::Timestamp;
use deadlines::Deadlines;
use drain::Drain;
use effect::{Closing, Effect, Effects};
use id::{ConnectionId, IdScheme, Random};
use players::{AddressRegistration, Players};
use protocol::{Command, CommandKind, ErrorCode, Reply};
use registrar::{Registrar, Response};
use relay::{Action, ClosedPair, DropReason, OwnAddresses, RelayPort, RelaySettings, RelayTable};

/// What can be set. All of it can change while the server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the ids of new players look.
    pub id_scheme: IdScheme,
    /// What relays may carry, and who may send there.
    pub relay: RelaySettings,
    /// How often pairs that are over are looked for.
    pub sweep_interval: Duration,
    /// How long live pairs may go on once the server is to end.
    pub drain_timeout: Duration,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A player's connection was accepted; it comes from that IP.
    Connected(ConnectionId, IpAddr),
    /// No thread could be had for a connection that was accepted.
    NoThread(ConnectionId),
    /// A player sent a line.
    Command(ConnectionId, &'a Command),
    /// A player sent a command that its rate limit does not allow.
    CommandTooSoon(ConnectionId, CommandKind),
    /// A connection is to be closed for that reason.
    Disconnect(ConnectionId, DisconnectReason),
    /// A connection has ended.
    Disconnected(ConnectionId),
    /// A datagram arrived at the registrar.
    Registration {
        /// Where it came from.
        source: SocketAddr,
        /// What it says.
        payload: &'a [u8],
    },
    /// The server's own addresses are these now.
    OwnAddresses(OwnAddresses),
    /// Other settings are in force.
    Reload(Settings),
    /// The server is to end once its relays are quiet.
    Drain,
    /// The time of [`Core::next_deadline`] has come.
    Deadline,
}

/// What the core does by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Closing pairs that are over.
    Sweep,
    /// Finding out whether a drain is over.
    EndOfDrain,
}

/// How full the core's tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Connections.
    pub connections: usize,
    /// Registered players.
    pub players: usize,
    /// Players by OpenID.
    pub open_ids: usize,
    /// Players by PrivateID.
    pub private_ids: usize,
    /// Networks that named wrong OpenIDs or have unconfirmed players.
    pub limited_networks: usize,
    /// Relayed pairs.
    pub pairs: usize,
    /// Entries by which a pair is found by its players: two for each pair.
    pub partners: usize,
    /// Networks that asked for pairs.
    pub relay_networks: usize,
    /// Relay ports that are free.
    pub free_ports: usize,
    /// Relay ports that are reserved.
    pub reserved_ports: usize,
}

/// The server's rules and all that they have to remember.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    players: Players,
    registrar: Registrar,
    relays: RelayTable,
    deadlines: Deadlines<Task, 2>,
    drain: Option<Drain>,
    /// Empty between calls.
    closed: Vec<ClosedPair>,
}

impl Core {
    /// Nobody is there, and all `ports` are free. They are used in random order.
    pub fn new(
        settings: Settings,
        own: OwnAddresses,
        mut ports: Vec<RelayPort>,
        random: &mut impl Random,
        now: Timestamp,
    ) -> Self {
        random.shuffle(&mut ports);
        let relays = RelayTable::new(settings.relay, own.clone(), &ports);
        let players = Players::new(settings.id_scheme.clone());
        Self::from_parts(settings, players, Registrar::new(own), relays, now)
    }

    fn from_parts(
        settings: Settings,
        players: Players,
        registrar: Registrar,
        relays: RelayTable,
        now: Timestamp,
    ) -> Self {
        let mut deadlines = Deadlines::default();
        deadlines.set(Task::Sweep, now + settings.sweep_interval);
        Self { settings, players, registrar, relays, deadlines, drain: None, closed: Vec::new() }
    }

    /// Takes anything that happened but a datagram at a relay. What is to be done goes to the end of `effects`.
    pub fn handle(
        &mut self,
        input: Input<'_>,
        random: &mut impl Random,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match input {
            Input::Connected(connection, from) => self.players.connect(connection, from),
            Input::NoThread(connection) => {
                effects.push_back(Effect::BoundReached(Bound::Threads));
                effects.push_back(Effect::Tell(connection, Reply::ServerFull));
                self.disconnect(connection, Closing::AfterReplies, effects);
            }
            Input::Command(connection, command) => {
                self.handle_command(connection, command, random, now, effects);
            }
            Input::CommandTooSoon(connection, kind) => {
                let failure = commands::Failure::at(Bound::Commands, ErrorCode::RateLimited);
                commands::tell_failure(connection, kind, failure, effects);
            }
            Input::Disconnect(connection, reason) => {
                self.handle_disconnect(connection, reason, effects);
            }
            Input::Disconnected(connection) => {
                self.disconnect(connection, Closing::AtOnce, effects);
            }
            Input::Registration { source, payload } => {
                self.handle_registration(source, payload, now, effects);
            }
            Input::OwnAddresses(own) => {
                self.registrar.set_own_addresses(own.clone());
                self.relays.set_own_addresses(own);
            }
            Input::Reload(settings) => self.reload(settings, now),
            Input::Drain => self.start_to_drain(now, effects),
            Input::Deadline => self.handle_deadlines(now, effects),
        }
    }

    /// Decides about a datagram with a payload of `length` bytes that arrived at the relay port `at`. Only a datagram that is
    /// dropped has effects.
    pub fn handle_datagram(
        &mut self,
        at: RelayPort,
        source: SocketAddr,
        length: usize,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Action {
        let action = self.relays.handle_datagram(at, source, length, now);
        if let Action::Drop(reason) = action {
            self.explain_drop(at, source, reason, now, effects);
        }
        action
    }

    /// When [`Input::Deadline`] is due.
    pub fn next_deadline(&self) -> Timestamp {
        self.deadlines.next().expect("there is always a next sweep")
    }

    /// How full the tables are.
    pub fn levels(&self) -> Levels {
        Levels {
            connections: self.players.connections(),
            players: self.players.len(),
            open_ids: self.players.open_ids(),
            private_ids: self.players.private_ids(),
            limited_networks: self.players.networks(),
            pairs: self.relays.pairs(),
            partners: self.relays.partners(),
            relay_networks: self.relays.networks(),
            free_ports: self.relays.ports().free(),
            reserved_ports: self.relays.ports().reserved(),
        }
    }

    /// Whether the server is about to end.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// The players.
    pub fn players(&self) -> &Players {
        &self.players
    }

    /// Checks what must always hold, for tests and simulations.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        self.players.check_invariants();
        self.relays.check_invariants();
        assert!(self.closed.is_empty(), "whatever was closed has been told");
    }

    fn handle_disconnect(
        &mut self,
        connection: ConnectionId,
        reason: DisconnectReason,
        effects: &mut Effects,
    ) {
        if self.players.connection(connection).is_none() {
            return;
        }
        effects.push_back(Effect::Disconnect(connection, reason));
        // There is no room in its buffer for words.
        let closing = if reason == DisconnectReason::SlowReader {
            Closing::AtOnce
        } else {
            effects.push_back(Effect::Tell(connection, Reply::Disconnect(reason)));
            Closing::AfterReplies
        };
        self.disconnect(connection, closing, effects);
    }

    /// The player is gone: its ids are forgotten at once, its pairs live on until they are idle.
    fn disconnect(&mut self, connection: ConnectionId, closing: Closing, effects: &mut Effects) {
        if self.players.connection(connection).is_none() {
            return;
        }
        if let Some(player) = self.players.disconnect(connection) {
            self.relays.handle_departure(player.id);
            effects.push_back(Effect::PlayerLeft(player.open_id));
        }
        effects.push_back(Effect::Close(connection, closing));
    }

    fn handle_registration(
        &mut self,
        source: SocketAddr,
        payload: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let response = self.registrar.handle_datagram(&mut self.players, source, payload, now);
        let Response { registration, answer, bound } = response;
        match &registration {
            AddressRegistration::First(player, _) => self.relays.reserve(*player),
            AddressRegistration::Changed(player, _) => {
                self.relays.handle_address_change(*player, source);
            }
            AddressRegistration::Repeated
            | AddressRegistration::TooManyChanges
            | AddressRegistration::Implausible(..)
            | AddressRegistration::Unknown => {}
        }
        effects.push_back(Effect::AddressRegistration { source, registration });
        effects.extend(bound.map(Effect::BoundReached));
        effects.extend(answer.map(|answer| Effect::Answer { to: source, answer }));
    }

    /// Live pairs go on under the new limits.
    fn reload(&mut self, settings: Settings, now: Timestamp) {
        self.relays.set_settings(settings.relay);
        self.players.set_scheme(settings.id_scheme.clone());
        self.deadlines.set_earlier(Task::Sweep, now + settings.sweep_interval);
        self.settings = settings;
    }

    fn start_to_drain(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.is_draining() {
            return;
        }
        let timeout = self.settings.drain_timeout;
        let drain = Drain::new(timeout, now);
        self.deadlines.set(Task::EndOfDrain, drain.next_check(self.relays.last_forwarded()));
        self.drain = Some(drain);
        effects.push_back(Effect::DrainStarted { pairs: self.relays.pairs(), timeout });
    }

    fn handle_deadlines(&mut self, now: Timestamp, effects: &mut Effects) {
        while let Some(task) = self.deadlines.take_due(now) {
            match task {
                Task::Sweep => {
                    self.deadlines.set(Task::Sweep, now + self.settings.sweep_interval);
                    self.relays.sweep(now, &mut self.closed);
                    self.players.forget_networks(now);
                    self.tell_closed_pairs(effects);
                }
                Task::EndOfDrain => self.check_drain(now, effects),
            }
        }
    }

    fn check_drain(&mut self, now: Timestamp, effects: &mut Effects) {
        let Some(drain) = &self.drain else { return };
        let next_check = drain.next_check(self.relays.last_forwarded());
        if next_check > now {
            self.deadlines.set(Task::EndOfDrain, next_check);
        } else {
            effects.push_back(Effect::DrainEnded);
        }
    }

    fn tell_closed_pairs(&mut self, effects: &mut Effects) {
        effects.extend(self.closed.drain(..).map(Effect::PairClosed));
    }

    /// Tells the players of a pair that is over a limit, and that a partner who is awaited comes from elsewhere.
    #[cold]
    fn explain_drop(
        &mut self,
        at: RelayPort,
        source: SocketAddr,
        reason: DropReason,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Some(limit) = reason.limit() {
            let due = self.relays.due_notices(at, limit, now).into_iter().flatten();
            for player in due.filter_map(|player| self.players.by_id(player)) {
                effects.push_back(Effect::Tell(player.connection, Reply::RelayLimit(limit)));
                let open_id = player.open_id.clone();
                effects.push_back(Effect::RelayLimitReached { at, limit, open_id });
            }
        }
        if reason == DropReason::WrongIp
            && let Some(awaited) = self.relays.awaited(at)
        {
            let (source, awaited) = (source.ip(), awaited.ip());
            effects.push_back(Effect::PartnerElsewhere { at, source, awaited });
        }
    }
}

#[cfg(test)]
mod tests;
