//! The server of the world: the real rules, and in place of the shell what follows here. Only sockets, threads and the
//! clock are imitated.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use noray::config::{Config, Effective, Sources};
use noray::core::effect::{CloseMode, Effect, Effects};
use noray::core::id::ConnectionId;
use noray::core::protocol::{Command, CommandKind, ErrorCode, LineReader, LineTooLong, Reply};
use noray::core::registrar::Way;
use noray::core::relay::{Action, OwnAddresses, RelayPort};
use noray::core::snapshot::Snapshot;
use noray::core::{Core, Input};
use noray::limits::admission::{Admission, AdmissionSnapshot, Caps, Permit};
use noray::limits::connection_policy::{CommandRate, ConnectionPolicy, DisconnectReason};
use noray::time::{RunningTime, Timestamp};
use serde::{Deserialize, Serialize};

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

/// What the server knows of a connection beside the core.
struct Connection {
    ip: IpAddr,
    permit: Permit,
    time: RunningTime,
    now: Timestamp,
    policy: ConnectionPolicy,
    lines: LineReader,
    /// Nothing more is read.
    is_deaf: bool,
    /// What the player has not read.
    unread: usize,
}

/// A connection in a handover. The shell's own is private to it; this one has the same content.
#[derive(Serialize, Deserialize)]
struct PassedConnection {
    id: u64,
    ip: IpAddr,
    is_registered: bool,
    now: Timestamp,
    policy: ConnectionPolicy,
    incomplete: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Passed {
    core: Snapshot,
    admission: AdmissionSnapshot,
    connections: Vec<PassedConnection>,
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

    /// Somebody connects. Whether it is admitted.
    pub fn accept(&mut self, id: u64, ip: IpAddr, now: Time) -> bool {
        self.begin_turn(now);
        let reading = self.start + Duration::from_nanos(now);
        let accepted = self.accepting.advance(reading, Duration::MAX);
        self.trace.note("connects", &[id]);
        let permit = match self.admission.admit(ip.into(), accepted) {
            Ok(permit) => permit,
            Err(bound) => {
                self.coverage.bound(bound);
                self.refuse(id, &Reply::ServerFull);
                return false;
            }
        };
        let connection = Connection {
            ip,
            permit,
            time: RunningTime::new(reading),
            now: Timestamp::START,
            policy: ConnectionPolicy::new(Timestamp::START),
            lines: LineReader::default(),
            is_deaf: !self.has_threads,
            unread: 0,
        };
        self.connections.insert(id, connection);
        self.handle(Input::Connected(ConnectionId(id), ip));
        if !self.has_threads {
            self.handle(Input::NoThread(ConnectionId(id)));
        }
        self.has_threads
    }

    /// Somebody connects while the port is being closed.
    pub fn refuse_late(&mut self, id: u64) {
        self.refuse(id, &Reply::Failed(CommandKind::Other, ErrorCode::Draining));
    }

    fn refuse(&mut self, id: u64, why: &Reply) {
        self.coverage.reply(why);
        self.output.push(Output::Told { to: id, text: why.encode() });
        self.output.push(Output::Closed { connection: id, mode: CloseMode::AfterReplies });
    }

    /// Bytes came from a player, as its thread reads them: a kibibyte at once.
    pub fn read(&mut self, id: u64, bytes: &[u8], now: Time) {
        self.begin_turn(now);
        for mut piece in bytes.chunks(1024) {
            let Some(connection) = self.listening(id) else { return };
            let wait = connection.longest_wait();
            let reading = self.start + Duration::from_nanos(now);
            let connection = self.connections.get_mut(&id).expect("it listens");
            connection.advance(reading, wait.unwrap_or(Duration::MAX));
            loop {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                match connection.lines.next_line(&mut piece) {
                    Ok(Some(line)) => {
                        let line = line.into_owned();
                        connection.policy.record_line_end();
                        if !self.handle_line(id, line, now) {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(LineTooLong) => return self.close(id, DisconnectReason::LineTooLong),
                }
            }
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let at = connection.advance(reading, Duration::ZERO);
            connection.policy.record_bytes(connection.lines.is_incomplete(), at);
        }
    }

    fn listening(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id).filter(|connection| !connection.is_deaf)
    }

    /// Whether the connection goes on.
    fn handle_line(&mut self, id: u64, line: Vec<u8>, now: Time) -> bool {
        let reading = self.start + Duration::from_nanos(now);
        let connection = self.connections.get_mut(&id).expect("its line was read");
        let at = connection.advance(reading, Duration::ZERO);
        let rate = connection.policy.count_command(at);
        if rate == CommandRate::FarOver {
            self.close(id, DisconnectReason::TooManyCommands);
            return false;
        }
        let Some(command) = Command::parse(&line) else { return true };
        self.trace.text("line", id, &line);
        self.output.push(Output::Read { line, from: id });
        let player = ConnectionId(id);
        if rate == CommandRate::Within {
            self.handle(Input::Command(player, &command));
        } else {
            self.handle(Input::RateLimitedCommand(player, command.kind()));
        }
        self.listening(id).is_some()
    }

    fn close(&mut self, id: u64, reason: DisconnectReason) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_deaf = true;
            self.handle(Input::Disconnect(ConnectionId(id), reason));
        }
    }

    /// A reader's wait is over.
    pub fn check_reader(&mut self, id: u64, now: Time) {
        self.begin_turn(now);
        let reading = self.start + Duration::from_nanos(now);
        let Some(wait) = self.listening(id).and_then(Connection::longest_wait) else { return };
        let connection = self.connections.get_mut(&id).expect("it listens");
        connection.advance(reading, wait);
        if let Some(reason) = connection.overdue() {
            self.close(id, reason);
        }
    }

    /// How long the reader waits, if there is a limit.
    pub fn next_check(&self, id: u64) -> Option<Time> {
        self.listening(id)?.longest_wait().map(|wait| wait.as_nanos() as Time)
    }

    /// A player has read what it was told.
    pub fn record_read(&mut self, id: u64, length: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread = connection.unread.saturating_sub(length);
        }
    }

    /// A player has ended its connection, or the kernel has given it up.
    pub fn end(&mut self, id: u64, has_vanished: bool, now: Time) {
        self.begin_turn(now);
        self.trace.note("end", &[id]);
        if has_vanished {
            return self.close(id, DisconnectReason::Vanished);
        }
        self.handle(Input::Disconnected(ConnectionId(id)));
    }

    pub fn set_threads(&mut self, has_threads: bool) {
        self.has_threads = has_threads;
    }

    /// Puts another configuration in force. What cannot change within the process takes a handover.
    pub fn reload(&mut self, lines: &[String], now: Time) {
        let config = read_config(lines);
        self.begin_turn(now);
        self.trace.show(|| "reload".to_owned());
        let needs_handover = config.relay_ports != self.config.relay_ports;
        self.config = config;
        self.admission.set_caps(caps(&self.config));
        self.handle(Input::Reload(Box::new(self.config.settings())));
        if needs_handover {
            self.hand_over(now);
        }
    }

    pub fn drain(&mut self, now: Time) {
        self.begin_turn(now);
        self.trace.note("drain", &[]);
        self.handle(Input::Drain);
    }

    /// Another process goes on: what it knows has been text in between.
    pub fn hand_over(&mut self, now: Time) {
        self.begin_turn(now);
        if self.core.is_draining() {
            return;
        }
        self.coverage.handovers += 1;
        let reading = self.start + Duration::from_nanos(now);
        let mut connections = Vec::new();
        for (id, connection) in &mut self.connections {
            connections.push(PassedConnection {
                id: *id,
                ip: connection.ip,
                is_registered: connection.permit.is_registered(),
                now: connection.advance(reading, LONGEST_WAIT),
                policy: connection.policy.clone(),
                incomplete: connection.lines.incomplete().to_vec(),
            });
        }
        let accepted = self.accepting.advance(reading, Duration::MAX);
        let admission = self.admission.snapshot(accepted);
        let passed = Passed { core: self.core.snapshot(self.now), admission, connections };
        let text = serde_json::to_vec(&passed).expect("it can be written");
        let read: Passed = serde_json::from_slice(&text).expect("it can be read");
        assert_eq!(read.core, passed.core, "the snapshot is read as it was written");
        self.take_over(read, reading);
    }

    fn take_over(&mut self, passed: Passed, reading: Instant) {
        let ports: Vec<RelayPort> =
            self.config.relay_ports.as_slice().iter().copied().map(RelayPort).collect();
        let of_pairs = passed.core.ports_of_pairs().map(|port| port.0);
        self.open_ports = open_ports(ports.iter().map(|port| port.0).chain(of_pairs));
        let bound = (0..).zip(&self.open_ports).filter(|(_, is_open)| **is_open);
        let own = own_addresses(&self.ips, bound.map(|(port, _)| port));
        self.now = passed.core.taken;
        self.time = RunningTime::go_on(reading, self.now);
        self.core = Core::restore(passed.core, self.config.settings(), own, &ports)
            .expect("the snapshot fits");
        self.core.check_invariants();
        self.admission = Admission::new(caps(&self.config));
        self.accepting = RunningTime::go_on(reading, passed.admission.now);
        self.admission.restore(passed.admission);
        let unread: BTreeMap<u64, usize> =
            self.connections.iter().map(|(id, connection)| (*id, connection.unread)).collect();
        self.connections.clear();
        for passed in passed.connections {
            let PassedConnection { id, ip, is_registered, now, policy, incomplete } = passed;
            let permit = self.admission.adopt(ip.into());
            if is_registered {
                permit.mark_registered();
            }
            let time = RunningTime::go_on(reading, now);
            let lines = LineReader::with_incomplete(incomplete);
            let unread = unread[&id];
            let connection =
                Connection { ip, permit, time, now, policy, lines, is_deaf: false, unread };
            self.connections.insert(id, connection);
        }
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

impl Connection {
    fn advance(&mut self, reading: Instant, wait: Duration) -> Timestamp {
        self.now = self.time.advance(reading, wait);
        self.now
    }

    fn longest_wait(&self) -> Option<Duration> {
        let (deadline, _) = self.policy.deadline(self.permit.is_registered())?;
        Some(deadline.since(self.now).min(LONGEST_WAIT))
    }

    fn overdue(&self) -> Option<DisconnectReason> {
        let (deadline, reason) = self.policy.deadline(self.permit.is_registered())?;
        (deadline <= self.now).then_some(reason)
    }
}

fn open_ports(ports: impl Iterator<Item = u16>) -> Vec<bool> {
    let mut open = vec![false; 1 << 16];
    ports.for_each(|port| open[usize::from(port)] = true);
    open
}

fn own_addresses(ips: &[IpAddr], relay_ports: impl Iterator<Item = u16>) -> OwnAddresses {
    OwnAddresses::new(ips.iter().copied(), relay_ports.chain([REGISTRAR]))
}
