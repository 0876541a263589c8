//! Decides nothing by itself: takes what happens, asks the rules, and does what they say.
//!
//! One thread, the sole owner of players, relays and all UDP sockets. It waits only in `poll`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token, Waker};

use crate::clock;
use crate::config::Config;
use crate::connection::{SendError, SharedConnection};
use crate::events::{self, Event, EventSender};
use crate::hosts::{Hosts, Registration};
use crate::id::{ConnectionId, Random};
use crate::listener::Acceptor;
use crate::metrics::Metrics;
use crate::orchestrator::{self, Outcome, Step};
use crate::os;
use crate::protocol::{Command, Reply};
use crate::registrar::Registrar;
use crate::relay::{Action, DropReason, OwnAddresses, RelayPort, RelayTable};
use crate::sockets::{Received, Sent, SocketId, Sockets};
use crate::throttle::Throttle;
use crate::time::{RunningTime, Timestamp};

/// How many events from other threads are taken per turn: a crowd that leaves must not stall the relays.
const EVENTS_PER_TURN: usize = 64;

/// How many datagrams of one socket are taken before the next socket's turn.
const DATAGRAMS_PER_SOCKET: usize = 16;

/// How many datagrams are taken before events have their turn again: 1 to 2 ms of work.
const DATAGRAMS_PER_TURN: usize = 512;

/// The largest UDP payload is smaller by some bytes.
const LARGEST_DATAGRAM: usize = 65_536;

/// While there are relays the loop wakes this often, so that time in which it stood still can be told.
const STANDING_STILL_WATCH: Duration = Duration::from_secs(1);

/// One datagram in so many has its time taken.
const TIMED_DATAGRAMS: u64 = 1024;

const WAKER: Token = Token(usize::MAX);

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

pub(crate) struct EventLoop {
    poll: Poll,
    poll_events: Events,
    channel: Receiver<Event>,
    acceptor: Arc<Acceptor>,
    sockets: Sockets,
    /// Sockets that may have more to read: each is reported once, and here until it is found empty.
    readable: VecDeque<SocketId>,
    buffer: Vec<u8>,
    players: HashMap<ConnectionId, SharedConnection>,
    hosts: Hosts,
    registrar: Registrar,
    relays: RelayTable,
    random: os::KernelRandom,
    metrics: Arc<Metrics>,
    time: RunningTime,
    now: Timestamp,
    next_sweep: Timestamp,
    sweep_interval: Duration,
    /// Datagrams at relay ports, to take the time of some.
    arrivals: u64,
    warnings: Warnings,
}

#[derive(Default)]
struct Warnings {
    send: Throttle,
    receive: Throttle,
    slow_player: Throttle,
    wrong_ip: Throttle,
}

impl EventLoop {
    /// Takes over the sockets. The channel holds `channel_size` events.
    ///
    /// # Errors
    /// If the kernel has no epoll instance or descriptor left.
    pub(crate) fn new(
        config: &Config,
        mut sockets: Sockets,
        acceptor: Arc<Acceptor>,
        metrics: Arc<Metrics>,
        channel_size: usize,
    ) -> io::Result<(Self, EventSender)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        sockets.register(poll.registry())?;
        let (sender, channel) = events::channel(channel_size, waker);
        let mut random = os::KernelRandom::default();
        let mut ports = sockets.relay_ports().to_vec();
        random.shuffle(&mut ports);
        let own = sockets.own_addresses().unwrap_or_else(|error| {
            log::warn!(
                "the machine's addresses cannot be read, a relay may be led to its own: {error}"
            );
            OwnAddresses::default()
        });
        let now = Timestamp::START;
        let event_loop = Self {
            poll,
            poll_events: Events::with_capacity(1024),
            channel,
            acceptor,
            readable: VecDeque::new(),
            buffer: vec![0; LARGEST_DATAGRAM],
            players: HashMap::new(),
            hosts: Hosts::new(config.id_scheme()),
            registrar: Registrar::new(own.clone()),
            relays: RelayTable::new(config.limits(), own, &ports),
            sockets,
            random,
            metrics,
            time: RunningTime::new(clock::now()),
            now,
            next_sweep: now + config.sweep_interval(),
            sweep_interval: config.sweep_interval(),
            arrivals: 0,
            warnings: Warnings::default(),
        };
        Ok((event_loop, sender))
    }

    /// Turns until [`Event::Shutdown`] has closed the acceptor, then disconnects everybody.
    ///
    /// # Errors
    /// If `poll` itself fails, which leaves nothing to go on with.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while self.run_once()? == Flow::Continue {}
        for player in self.players.values() {
            player.disconnect();
        }
        Ok(())
    }

    /// One turn: 1. wait, 2. read the clock, 3. events, 4. datagrams, 5. deadlines.
    fn run_once(&mut self) -> io::Result<Flow> {
        let wait = self.next_wait();
        self.wait(wait)?;
        self.now = self.time.advance(clock::now(), wait);
        let flow = self.handle_events();
        self.handle_datagrams();
        self.handle_deadlines();
        Ok(flow)
    }

    fn next_wait(&self) -> Duration {
        if !self.readable.is_empty() || !self.channel.is_empty() {
            return Duration::ZERO;
        }
        let until_sweep = self.next_sweep.since(self.now);
        if self.relays.pairs() == 0 { until_sweep } else { until_sweep.min(STANDING_STILL_WATCH) }
    }

    fn wait(&mut self, wait: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.poll_events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for event in &self.poll_events {
            if let Some(id) = SocketId::from_token(event.token())
                && self.sockets.mark_readable(id)
            {
                self.readable.push_back(id);
            }
        }
        Ok(())
    }

    fn handle_events(&mut self) -> Flow {
        for _ in 0..EVENTS_PER_TURN {
            let Ok(event) = self.channel.try_recv() else {
                break;
            };
            if self.handle_event(event) == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    fn handle_event(&mut self, event: Event) -> Flow {
        match event {
            Event::Connected(connection) => {
                self.players.insert(connection.id, connection);
            }
            Event::Refused(player) => {
                self.tell(player, &Reply::ServerFull);
                self.depart(player);
            }
            Event::Command { player, command, received } => {
                self.handle_command(player, &command, received);
            }
            Event::LineTooLong(player) => {
                self.tell(player, &Reply::LineTooLong);
                if let Some(connection) = self.forget(player) {
                    connection.finish_sending();
                }
            }
            Event::Disconnected(player) => self.depart(player),
            Event::Ping(answer) => {
                // Who asked may have given up waiting.
                let _ = answer.try_send(());
            }
            Event::Shutdown => self.acceptor.close(),
            // Whoever connected is known by now: no thread is left that nobody could wake.
            Event::AcceptorClosed => return Flow::Stop,
        }
        Flow::Continue
    }

    fn handle_command(&mut self, player: ConnectionId, command: &Command, received: Instant) {
        if !self.players.contains_key(&player) {
            return;
        }
        let Outcome { replies, step } = orchestrator::handle_command(
            player,
            command,
            &mut self.hosts,
            &mut self.relays,
            &mut self.random,
            self.now,
        );
        self.note_step(player, command, &step);
        for (to, reply) in &replies {
            self.tell(*to, reply);
        }
        self.note_freed();
        let took = clock::now().saturating_duration_since(received);
        self.metrics.command_duration[command.kind() as usize].observe_time(took);
    }

    fn note_step(&self, player: ConnectionId, command: &Command, step: &Step) {
        let connection = &self.players[&player];
        match step {
            Step::None => {}
            Step::Registered(open_id) => {
                connection.mark_registered();
                self.metrics.active_hosts.set(self.hosts.len());
                log::info!("player {open_id}: registered from {}", connection.peer);
            }
            Step::RelayOpened { ports: [host_port, asker_port], host } => {
                self.metrics.relay_count.set(self.relays.pairs());
                let asker = self.name_of(player);
                log::info!("relay {host_port}+{asker_port}: player {asker} with player {host}");
            }
            Step::Failed(failure) => {
                let kind = command.kind();
                self.metrics.command_exception[kind as usize].add_as_only_writer(1);
                log::debug!("{} from {}: {failure}", kind.name(), connection.peer);
            }
        }
    }

    fn name_of(&self, player: ConnectionId) -> &str {
        self.hosts.by_connection(player).map_or("?", |host| host.open_id.as_str())
    }

    /// Writes to a player. One that does not read what it is sent is disconnected: nobody waits for it.
    fn tell(&mut self, player: ConnectionId, reply: &Reply) {
        let Some(connection) = self.players.get(&player) else {
            return;
        };
        match connection.send(reply) {
            Ok(()) => {}
            Err(SendError::BufferFull) => {
                if self.warnings.slow_player.is_due(clock::now()) {
                    log::info!("{} does not read its answers: disconnected", connection.peer);
                }
                self.depart(player);
            }
            Err(SendError::Broken) => self.depart(player),
        }
    }

    fn depart(&mut self, player: ConnectionId) {
        if let Some(connection) = self.forget(player) {
            connection.disconnect();
        }
    }

    /// The player is gone: its ids are forgotten at once, its relays live on until they are idle.
    fn forget(&mut self, player: ConnectionId) -> Option<SharedConnection> {
        if let Some(host) = self.hosts.remove(player) {
            self.metrics.active_hosts.set(self.hosts.len());
            log::info!("player {}: disconnected", host.open_id);
        }
        self.relays.handle_departure(player);
        self.players.remove(&player)
    }

    /// Reads the sockets that have something, each a little in turn, so that a flooded one delays nobody.
    fn handle_datagrams(&mut self) {
        let mut left = DATAGRAMS_PER_TURN;
        while left > 0 {
            let Some(id) = self.readable.pop_front() else {
                return;
            };
            let budget = DATAGRAMS_PER_SOCKET.min(left);
            let taken = match id {
                SocketId::Registrar => self.drain(id, budget, Self::handle_registration),
                SocketId::Relay(port) => self.drain(id, budget, |this, source, length| {
                    this.relay(port, source, length);
                }),
            };
            if taken == budget {
                self.readable.push_back(id);
            } else {
                self.sockets.mark_empty(id);
            }
            left -= taken.max(1);
        }
    }

    /// Reads up to `budget` datagrams of one socket into the buffer; fewer mean that it is empty.
    fn drain(
        &mut self,
        id: SocketId,
        budget: usize,
        handle: impl Fn(&mut Self, SocketAddr, usize),
    ) -> usize {
        for taken in 0..budget {
            match self.sockets.receive(id, &mut self.buffer) {
                Received::Datagram { length, source } => handle(self, source, length),
                Received::Nothing => return taken,
                Received::Failed(error) => self.note_receive_error(id, &error),
            }
        }
        budget
    }

    fn note_receive_error(&mut self, id: SocketId, error: &io::Error) {
        self.metrics.receive_errors.add_as_only_writer(1);
        if self.warnings.receive.is_due(clock::now()) {
            log::warn!("reading from {id:?} failed, the socket stays in use: {error}");
        }
    }

    fn relay(&mut self, at: RelayPort, source: SocketAddr, length: usize) {
        self.arrivals = self.arrivals.wrapping_add(1);
        let is_timed = self.arrivals.is_multiple_of(TIMED_DATAGRAMS);
        let begin = is_timed.then(clock::now);
        match self.relays.handle_datagram(at, source, length, self.now) {
            Action::Forward { via, to } => {
                let payload = &self.buffer[..length];
                match self.sockets.send(SocketId::Relay(via), payload, to) {
                    Sent::Whole => {
                        self.metrics.relay_datagrams.add_as_only_writer(1);
                        self.metrics.relay_bytes.add_as_only_writer(length as u64);
                        self.metrics.relay_size.observe(length as u64);
                    }
                    Sent::BufferFull => self.count_drop(DropReason::SendBufferFull),
                    Sent::Failed(error) => {
                        self.count_drop(DropReason::SendFailed);
                        self.note_send_error(&error);
                    }
                }
            }
            Action::Drop(reason) => {
                log::trace!("port {at}: {length} bytes from {source} dropped: {}", reason.label());
                self.count_drop(reason);
                self.tell_of_limit(at, reason);
                self.explain_wrong_ip(at, source, reason);
            }
        }
        if let Some(begin) = begin {
            let took = clock::now().saturating_duration_since(begin);
            self.metrics.relay_duration.observe_time(took);
        }
    }

    fn count_drop(&self, reason: DropReason) {
        self.metrics.relay_drops[reason as usize].add_as_only_writer(1);
    }

    #[cold]
    fn note_send_error(&mut self, error: &io::Error) {
        if self.warnings.send.is_due(clock::now()) {
            log::warn!(
                "sending to a player failed: {error}; check the machine's routes and firewall"
            );
        }
    }

    fn tell_of_limit(&mut self, at: RelayPort, reason: DropReason) {
        let Some(limit) = reason.limit() else {
            return;
        };
        for player in self.relays.poll_notices(at, limit, self.now).into_iter().flatten() {
            log::info!(
                "relay {at}: reached its {} limit, player {}",
                limit.name(),
                self.name_of(player)
            );
            self.tell(player, &Reply::RelayLimit(limit));
        }
    }

    /// A pair whose partner is awaited and comes from elsewhere is most likely a carrier with several IPs.
    fn explain_wrong_ip(&mut self, at: RelayPort, source: SocketAddr, reason: DropReason) {
        if reason != DropReason::WrongIp {
            return;
        }
        let Some(awaited) = self.relays.awaited(at) else {
            return;
        };
        if self.warnings.wrong_ip.is_due(clock::now()) {
            let (source, awaited) = (source.ip(), awaited.ip());
            log::warn!(
                "relay {at}: datagrams come from {source}, but the player registered from {awaited} and has not \
                 been heard; if its carrier uses several IPs, set NORAY_UDP_RELAY_LATCHING=any"
            );
        }
    }

    fn handle_registration(&mut self, source: SocketAddr, length: usize) {
        let payload = &self.buffer[..length];
        let outcome = self.registrar.handle_datagram(&mut self.hosts, source, payload, self.now);
        match outcome.registration {
            Registration::First(player, open_id) => {
                self.metrics.registrar_success.add_as_only_writer(1);
                self.relays.reserve(player);
                log::info!("player {open_id}: external address {source}");
            }
            Registration::Moved(player, open_id) => {
                self.metrics.registrar_success.add_as_only_writer(1);
                self.relays.handle_move(player, source);
                // Below info: a player can move as often as it can send.
                log::debug!("player {open_id}: external address moved to {source}");
            }
            Registration::Repeated => self.metrics.registrar_repeat.add_as_only_writer(1),
            Registration::Unknown => {
                self.metrics.registrar_fail.add_as_only_writer(1);
                log::trace!("registrar: {length} bytes from {source} refused");
            }
        }
        if let Some(answer) = outcome.answer
            && let Sent::Failed(error) = self.sockets.send(SocketId::Registrar, answer, source)
        {
            self.note_send_error(&error);
        }
    }

    fn handle_deadlines(&mut self) {
        if self.now < self.next_sweep {
            return;
        }
        self.next_sweep = self.now + self.sweep_interval;
        self.relays.sweep(self.now);
        self.note_freed();
        self.refresh_own_addresses();
    }

    /// Interfaces come and go under a server that is bound to all of them.
    fn refresh_own_addresses(&mut self) {
        if !self.sockets.registrar_address().ip().is_unspecified() {
            return;
        }
        match self.sockets.own_addresses() {
            Ok(own) => {
                self.registrar.set_own_addresses(own.clone());
                self.relays.set_own_addresses(own);
            }
            Err(error) => log::debug!("the machine's addresses cannot be read: {error}"),
        }
    }

    fn note_freed(&mut self) {
        while let Some(freed) = self.relays.poll_freed() {
            self.metrics.relay_expired.add_as_only_writer(1);
            self.metrics.relay_count.set(self.relays.pairs());
            let [one, other] = freed.ports;
            log::info!("relay {one}+{other}: freed after {} bytes", freed.traffic);
        }
    }
}
