//! The rules of the server as one value, the [`Core`]: who is registered, which pairs exist, what each player may do.
//!
//! It uses no socket, no thread, no clock and no environment. The shell turns what happens into [`Input`]s. The core
//! answers with [`Effect`]s, and the shell turns those into system calls, counters and log lines:
//!
//! ```text
//!                   handle(Input, random, now, effects)        everything except datagrams at relay ports
//! shell ---------->                                     Core
//!                   handle_datagram(port, source, ..)          the hot path: Forward { via, to } or Drop(reason)
//!       <----------
//!                   Effect, Effect, ..
//! ```
//!
//! - Invariant: the same inputs with the same random bytes and times lead to the same effects, in the same order. No
//!   order of a hash map decides anything.
//! - Invariant: [`Core::restore`] of [`Core::snapshot`] goes on as the original would.
//!
//! | module | question it answers |
//! |---|---|
//! | [`input`] | what the shell tells the core |
//! | [`effect`] | what the core tells the shell to do |
//! | [`commands`] | what a player's command leads to |
//! | [`players`] | who is connected and registered |
//! | [`registrar`] | what a datagram at the registrar does |
//! | [`relay`] | which ports a pair has, and what happens to a datagram at one of them |
//! | [`protocol`] | how lines become commands, and replies become lines |
//! | [`id`] | what ids look like, and how random bytes become one |
//! | [`blocked_words`] | which words no join code contains |
//! | [`host`] | how the server itself is named to players |
//! | `disconnection` | what the end of a connection leads to |
//! | [`deadlines`] | which task is due when |
//! | [`drain`] | when a draining server may end |
//! | `drops` | who hears of a dropped datagram |
//! | [`unheard`] | when so many players cannot be heard that the operator should know |
//! | `table_sizes` | how many entries the tables have |
//! | [`snapshot`] | the whole core as data, so that another process can go on |

pub mod blocked_words;
pub mod commands;
pub mod deadlines;
mod disconnection;
pub mod drain;
mod drops;
pub mod effect;
pub mod host;
pub mod id;
pub mod input;
pub mod players;
pub mod protocol;
pub mod registrar;
pub mod relay;
pub mod snapshot;
mod table_sizes;
pub mod unheard;

use std::net::{IpAddr, SocketAddr};

use crate::limits::bounds::Bound;
use crate::time::Timestamp;
use deadlines::Deadlines;
use drain::Drain;
use effect::{CloseMode, Effect, Effects};
use id::Random;
use players::{AddressRegistration, Players, Way};
use protocol::{ErrorCode, Reply};
use registrar::{Registrar, Response};
use relay::{Action, ClosedPair, Judge, KernelTraffic, Offer, OwnAddresses, RelayPort, RelayTable};
use unheard::UnheardPlayers;

pub use input::{Input, IntroductionSettings, Settings};
pub use table_sizes::TableSizes;

/// What the core does at a set time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CoreTask {
    /// Close the pairs that are over.
    Sweep,
    /// Check whether the drain is over.
    EndOfDrain,
    /// Forget the players that did not come back.
    EndOfAbsence,
}

/// The rules of the server and everything that they must remember.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    players: Players,
    registrar: Registrar,
    relays: RelayTable,
    /// Players that are heard only from another IP than the registered one.
    elsewhere: UnheardPlayers,
    /// Players whose relays carry nothing because neither player is confirmed.
    unconfirmed: UnheardPlayers,
    deadlines: Deadlines<CoreTask, 3>,
    drain: Option<Drain>,
    /// Empty between calls.
    closed: Vec<ClosedPair>,
}

impl Core {
    /// A core without players. All `ports` are free and will be used in random order.
    pub fn new(
        settings: Settings,
        own: OwnAddresses,
        mut ports: Vec<RelayPort>,
        random: &mut impl Random,
        now: Timestamp,
    ) -> Self {
        random.shuffle(&mut ports);
        let relays = RelayTable::new(settings.relay, own, &ports);
        let players = Players::new(settings.players.clone());
        Self::from_parts(settings, players, Registrar::default(), relays, now)
    }

    fn from_parts(
        settings: Settings,
        players: Players,
        registrar: Registrar,
        relays: RelayTable,
        now: Timestamp,
    ) -> Self {
        let mut deadlines = Deadlines::default();
        deadlines.set(CoreTask::Sweep, now + settings.sweep_interval);
        Self {
            settings,
            players,
            registrar,
            relays,
            elsewhere: UnheardPlayers::default(),
            unconfirmed: UnheardPlayers::default(),
            deadlines,
            drain: None,
            closed: Vec::new(),
        }
    }

    /// Handles any input. A datagram at a relay port is no input: see [`Self::handle_datagram`].
    ///
    /// The effects are added at the end of `effects`.
    pub fn handle(
        &mut self,
        input: Input<'_>,
        random: &mut impl Random,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match input {
            Input::Connected(connection, from) => self.players.add_connection(connection, from),
            Input::NoThread(connection) => {
                effects.push_back(Effect::BoundReached(Bound::Threads));
                effects.push_back(Effect::Tell(connection, Reply::ServerFull));
                self.disconnect(connection, CloseMode::AfterReplies, now, effects);
            }
            Input::Command(connection, command) => {
                self.handle_command(connection, command, random, now, effects);
            }
            Input::RateLimitedCommand(connection, kind) => {
                let failure = commands::CommandFailure::at(Bound::Commands, ErrorCode::RateLimited);
                commands::tell_failure(connection, kind, failure, effects);
            }
            Input::Disconnect(connection, reason) => {
                self.handle_disconnect(connection, reason, now, effects);
            }
            Input::Disconnected(connection) => {
                self.disconnect(connection, CloseMode::AtOnce, now, effects);
            }
            Input::RegistrarDatagram { way, payload } => {
                self.handle_registrar_datagram(way, payload, now, effects);
            }
            Input::OwnIps(ips) => self.relays.set_own_ips(ips),
            Input::Reload(settings) => self.reload(*settings, now),
            Input::Drain => self.start_to_drain(now, effects),
            Input::Deadline => self.handle_deadlines(now, effects),
        }
        effects.extend(self.relays.take_changed().map(Effect::PairChanged));
    }

    /// Decides what happens to a datagram that arrived at the relay port `at` with a payload of `length` bytes. Only a
    /// dropped datagram has effects.
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

    /// When the core must get [`Input::Deadline`].
    pub fn next_deadline(&self) -> Timestamp {
        self.deadlines.next().expect("there is always a next sweep")
    }

    /// Whether players must not learn each other's IP.
    pub fn hides_players(&self) -> bool {
        self.settings.introductions.relay_only
    }

    /// Whether a drain has started.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// When the server ends at the latest, if it is about to.
    pub fn drain_deadline(&self) -> Option<Timestamp> {
        self.drain.as_ref().map(Drain::deadline)
    }

    /// The machine's IPs, as far as the server is reached there.
    pub fn own_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.relays.own_addresses().ips()
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
        assert!(self.closed.is_empty(), "each closed pair became an effect");
    }

    fn handle_registrar_datagram(
        &mut self,
        way: Way,
        payload: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let source = way.source;
        let own = self.relays.own_addresses();
        let response = self.registrar.handle_datagram(&mut self.players, own, way, payload, now);
        let Response { registration, answer, bound } = response;
        match &registration {
            AddressRegistration::First(player, _) => {
                let player = self.players.by_id(*player);
                if let Some(player) = player.filter(|player| player.connection().is_some()) {
                    self.relays.reserve(player.id);
                }
            }
            AddressRegistration::Changed(player, _) => {
                self.relays.handle_address_change(*player, source);
            }
            AddressRegistration::Repeated(Some(player)) => {
                self.relays.handle_repetition(*player, now);
            }
            AddressRegistration::Repeated(None)
            | AddressRegistration::TooManyChanges
            | AddressRegistration::Implausible(..)
            | AddressRegistration::Unknown => {}
        }
        effects.push_back(Effect::AddressRegistration { source, registration });
        effects.extend(bound.map(Effect::BoundReached));
        effects.extend(answer.map(|answer| Effect::Answer { to: source, answer }));
    }

    /// Applies new settings. Live pairs go on under the new limits.
    fn reload(&mut self, settings: Settings, now: Timestamp) {
        self.relays.set_settings(settings.relay);
        self.players.set_settings(settings.players.clone());
        self.set_end_of_absence();
        self.deadlines.set_earlier(CoreTask::Sweep, now + settings.sweep_interval);
        self.settings = settings;
    }

    fn handle_deadlines(&mut self, now: Timestamp, effects: &mut Effects) {
        while let Some(task) = self.deadlines.take_due(now) {
            match task {
                CoreTask::Sweep => {
                    self.deadlines.set(CoreTask::Sweep, now + self.settings.sweep_interval);
                    self.relays.sweep(now, &mut self.closed);
                    self.players.forget_networks(now);
                    self.registrar.forget_networks(now);
                    self.tell_closed_pairs(effects);
                }
                CoreTask::EndOfDrain => self.check_drain(now, effects),
                CoreTask::EndOfAbsence => {
                    let forgotten = self.players.forget_absent(now);
                    effects.extend(forgotten.into_iter().map(Effect::PlayerForgotten));
                    self.set_end_of_absence();
                }
            }
        }
    }

    fn tell_closed_pairs(&mut self, effects: &mut Effects) {
        effects.extend(self.closed.drain(..).map(Effect::PairClosed));
    }
}

impl Judge for Core {
    fn offer(&self, at: RelayPort, now: Timestamp) -> Option<Offer> {
        self.relays.offer(at, now)
    }

    fn handle_kernel_traffic(&mut self, traffic: &KernelTraffic, now: Timestamp) {
        self.relays.handle_kernel_traffic(traffic, now);
    }

    fn handle_kernel_reading(&mut self, now: Timestamp) {
        self.relays.handle_kernel_reading(now);
    }
}

#[cfg(test)]
mod tests;
