//! The server of the world: the real rules, and in place of the shell what follows here. Only sockets, threads and the
//! clock are imitated.

mod connections;

mod handover;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use noray::config::{Config, Effective, Sources};
use noray::core::effect::{CloseMode, Effect, Effects};
use noray::core::id::ConnectionId;
use noray::core::players::Way;
use noray::core::protocol::Reply;
use noray::core::relay::{Action, OwnAddresses, RelayPort};
use noray::core::{Core, Input};
use noray::limits::admission::{Admission, Caps};
use noray::limits::connection_policy::DisconnectReason;
use noray::time::{RunningTime, Timestamp};

use connections::Connection;

use super::coverage::Coverage;
use super::net::Time;
use super::random::Rng;
use super::trace::Trace;

/// The port of the registrar, and the one for players.
pub const REGISTRAR: u16 = 8809;

/// What a socket to a player takes that the player does not read: twice the size that the shell sets.
const SEND_BUFFER: usize = 32 * 1024;

/// How the shell bounds its waits: a reader's with a deadline, and the loop's while there are pairs.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What happens outside because of the server, in this order.
#[derive(Debug)]
pub enum Output {
    /// A player's line was read. What follows is because of it.
    Read { line: Vec<u8>, from: u64 },
    /// A line or two for a player.
    Told { to: u64, text: String },
    /// The connection is closed, after what was told or at once.
    Closed { connection: u64, mode: CloseMode },
    /// A datagram is sent on unchanged, from that port.
    Forwarded { via: u16, to: SocketAddr },
    /// The registrar answers.
    Answered { to: SocketAddr, answer: &'static [u8] },
    /// The port for players is closed.
    Draining,
    /// The process ends.
    Ended,
}

pub struct Server {
    core: Core,
    effects: Effects,
    random: Rng,
    config: Config,
    ips: Vec<IpAddr>,
    admission: Admission,
    accepting: RunningTime,
    connections: BTreeMap<u64, Connection>,
    open_ports: Vec<bool>,
    has_threads: bool,
    start: Instant,
    time: RunningTime,
    now: Timestamp,
    /// The longest wait that the loop has announced.
    announced: Duration,
    wake: Option<Timestamp>,
    /// The system tells at which address a datagram came to the registrar.
    tells_arrival: bool,
    pub output: Vec<Output>,
    pub coverage: Coverage,
    pub trace: Trace,
}

/// The configuration that these lines make.
pub fn read_config(lines: &[String]) -> Config {
    let file = Some(("world".to_owned(), lines.join("\n").into_bytes()));
    let read = Effective::read(&Sources { file, ..Sources::default() });
    read.unwrap_or_else(|mistakes| panic!("{mistakes:?}")).config
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing else makes an Instant; only differences are used"
)]
fn any_instant() -> Instant {
    Instant::now()
}

fn caps(config: &Config) -> Caps {
    Caps { connections: config.max_connections, per_ip: config.max_connections_per_ip }
}

impl Server {
    pub fn new(lines: &[String], ips: Vec<IpAddr>, mut random: Rng, now: Time) -> Self {
        let config = read_config(lines);
        let start = any_instant();
        let ports: Vec<RelayPort> =
            config.relay_ports.as_slice().iter().copied().map(RelayPort).collect();
        let own = own_addresses(&ips, config.relay_ports.as_slice().iter().copied());
        let core = Core::new(config.settings(), own, ports, &mut random, Timestamp::START);
        let reading = start + Duration::from_nanos(now);
        Self {
            core,
            effects: Effects::new(),
            random,
            admission: Admission::new(caps(&config)),
            accepting: RunningTime::new(reading),
            connections: BTreeMap::new(),
            open_ports: open_ports(config.relay_ports.as_slice().iter().copied()),
            has_threads: true,
            start,
            time: RunningTime::new(reading),
            now: Timestamp::START,
            announced: Duration::ZERO,
            wake: None,
            tells_arrival: true,
            output: Vec::new(),
            coverage: Coverage::default(),
            trace: Trace::default(),
            config,
            ips,
        }
    }

    /// A turn of the loop begins.
    fn begin_turn(&mut self, now: Time) {
        let reading = self.start + Duration::from_nanos(now);
        self.now = self.time.advance(reading, self.announced);
    }

    /// A turn ends. Returns how long the loop waits at most.
    pub fn end_turn(&mut self) -> Time {
        self.announced = self.next_deadline().since(self.now);
        self.announced.as_nanos() as Time
    }

    fn next_deadline(&self) -> Timestamp {
        let of_core = self.core.next_deadline();
        self.wake.map_or(of_core, |wake| wake.min(of_core))
    }

    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(input, &mut self.random, self.now, &mut self.effects);
        self.carry_out_effects();
        self.watch_for_standing_still();
    }

    fn watch_for_standing_still(&mut self) {
        if self.core.table_sizes().pairs > 0 {
            let next = self.now + LONGEST_WAIT;
            self.wake = Some(self.wake.map_or(next, |wake| wake.min(next)));
        }
    }

    /// A deadline has come.
    pub fn handle_deadlines(&mut self, now: Time) {
        self.begin_turn(now);
        if self.now >= self.core.next_deadline() {
            self.handle(Input::Deadline);
        }
        if self.wake.is_some_and(|wake| wake <= self.now) {
            self.wake = None;
            self.watch_for_standing_still();
        }
    }

    /// A datagram came to that port. Whether there is such a socket.
    pub fn receive(
        &mut self,
        port: u16,
        source: SocketAddr,
        payload: Payload<'_>,
        now: Time,
    ) -> bool {
        if port == REGISTRAR {
            self.begin_turn(now);
            let v6 = usize::from(source.is_ipv6());
            let arrived_at = self.ips.get(v6).copied().filter(|_| self.tells_arrival);
            let way = Way { source, arrived_at };
            let junk;
            let payload = match payload {
                Payload::Bytes(bytes) => bytes,
                Payload::Length(length) => {
                    junk = vec![b'$'; length];
                    &junk
                }
            };
            self.trace.note("registrar", &[payload.len() as u64, source.port().into()]);
            self.handle(Input::RegistrarDatagram { way, payload });
            return true;
        }
        if !self.open_ports[usize::from(port)] {
            return false;
        }
        self.begin_turn(now);
        let length = match payload {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Length(length) => length,
        };
        self.trace.datagram(port, source.port(), length, self.now.as_nanos());
        let at = RelayPort(port);
        match self.core.handle_datagram(at, source, length, self.now, &mut self.effects) {
            Action::Forward { via, to } => {
                self.coverage.forwarded += 1;
                self.trace.datagram(via.0, to.port(), length, 1);
                self.output.push(Output::Forwarded { via: via.0, to });
            }
            Action::Drop(reason) => {
                self.coverage.drop(reason);
                self.trace.note("drop", &[reason as u64]);
                self.carry_out_effects();
            }
        }
        true
    }

    pub fn drain(&mut self, now: Time) {
        self.begin_turn(now);
        self.trace.note("drain", &[]);
        self.handle(Input::Drain);
    }

    fn carry_out_effects(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            self.coverage.effect(&effect);
            self.trace.effect(&effect);
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Tell(connection, reply) => self.tell(connection, &reply),
            Effect::Close(ConnectionId(connection), mode) => {
                if self.connections.remove(&connection).is_some() {
                    self.output.push(Output::Closed { connection, mode });
                }
            }
            Effect::Answer { to, answer } => self.output.push(Output::Answered { to, answer }),
            Effect::PlayerRegistered(connection, _) | Effect::PlayerResumed(connection, _) => {
                if let Some(connection) = self.connections.get(&connection.0) {
                    connection.permit.mark_registered();
                }
            }
            Effect::PairClosed(closed) => {
                for port in closed.retired {
                    self.open_ports[usize::from(port.0)] = false;
                }
            }
            Effect::BoundReached(bound) => self.coverage.bound(bound),
            Effect::DrainStarted { .. } => self.output.push(Output::Draining),
            Effect::DrainEnded => self.output.push(Output::Ended),
            Effect::PlayerLeft(_)
            | Effect::PlayerForgotten(_)
            | Effect::AddressRegistration { .. }
            | Effect::PairOpened { .. }
            | Effect::PairChanged(_)
            | Effect::CommandFailed { .. }
            | Effect::Disconnect(..)
            | Effect::RelayLimitReached { .. }
            | Effect::PartnerElsewhere { .. }
            | Effect::PlayersUnconfirmed { .. } => {}
        }
    }

    fn tell(&mut self, to: ConnectionId, reply: &Reply) {
        let Some(connection) = self.connections.get_mut(&to.0) else { return };
        let text = reply.encode();
        if connection.unread + text.len() > SEND_BUFFER {
            connection.is_deaf = true;
            let input = Input::Disconnect(to, DisconnectReason::SlowReader);
            self.core.handle(input, &mut self.random, self.now, &mut self.effects);
            return;
        }
        connection.unread += text.len();
        self.coverage.reply(reply);
        self.output.push(Output::Told { to: to.0, text });
    }

    /// Whether datagrams to that port come to this server, and to no other program of its machine.
    pub fn has_socket(&self, port: u16) -> bool {
        port == REGISTRAR || self.open_ports[usize::from(port)]
    }

    /// One of its ports for relays.
    pub fn first_port(&self) -> Option<u16> {
        self.open_ports.iter().position(|is_open| *is_open).map(|port| port as u16)
    }

    /// Checks what the core promises of its own tables.
    pub fn check_invariants(&self) {
        self.core.check_invariants();
    }

    /// What is left in any table, in words.
    pub fn leftovers(&self) -> Vec<String> {
        let sizes = self.core.table_sizes();
        let ports = self.config.relay_ports.as_slice().iter().count();
        let tables = [
            ("connections", sizes.connections, 0),
            ("players", sizes.players, 0),
            ("absent players", sizes.absent, 0),
            ("OpenIDs", sizes.open_ids, 0),
            ("PrivateIDs", sizes.private_ids, 0),
            ("limited networks", sizes.limited_networks, 0),
            ("pairs", sizes.pairs, 0),
            ("partners", sizes.partners, 0),
            ("networks with relays", sizes.relay_networks, 0),
            ("reserved ports", sizes.reserved_ports, 0),
            ("free ports", sizes.free_ports, ports),
            ("admitted connections", self.admission.connections(), 0),
        ];
        let left = tables.iter().filter(|(_, is, should_be)| is != should_be);
        left.map(|(name, is, should_be)| format!("{is} {name} instead of {should_be}")).collect()
    }
}

/// A datagram's content as far as the server sees it.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    Bytes(&'a [u8]),
    Length(usize),
}

fn open_ports(ports: impl Iterator<Item = u16>) -> Vec<bool> {
    let mut open = vec![false; 1 << 16];
    ports.for_each(|port| open[usize::from(port)] = true);
    open
}

fn own_addresses(ips: &[IpAddr], relay_ports: impl Iterator<Item = u16>) -> OwnAddresses {
    OwnAddresses::new(ips.iter().copied(), relay_ports.chain([REGISTRAR]))
}
