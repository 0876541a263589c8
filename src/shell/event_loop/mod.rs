//! Decides nothing by itself: takes what happens, asks the rules, and does what they say.
//!
//! One thread, the sole owner of players, relays and all UDP sockets. It waits only in `poll`. This page has its
//! turn and its deadlines, `datagrams` what comes by UDP, `players` what comes by TCP and from other threads.

mod datagrams;
mod players;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::config::Config;
use crate::core::drain::Drain;
use crate::core::id::{ConnectionId, Random};
use crate::core::players::Hosts;
use crate::core::registrar::Registrar;
use crate::core::relay::{OwnAddresses, RelayTable};
use crate::limits::throttle::Throttle;
use crate::operation::clock;
use crate::operation::logging::STEP;
use crate::operation::metrics::{Metrics, PortState, Table};
use crate::operation::os;
use crate::operation::supervisor::Supervisor;
use crate::shell::connection::SharedConnection;
use crate::shell::events::{self, Event, EventSender};
use crate::shell::listener::Acceptor;
use crate::shell::poller::{MAX_READY, Poller};
use crate::shell::sockets::{SocketId, Sockets};
use crate::time::{RunningTime, Timestamp};

/// How many events from other threads are taken per turn: a crowd that leaves must not stall the relays.
const EVENTS_PER_TURN: usize = 64;

/// The largest UDP payload is smaller by some bytes.
const LARGEST_DATAGRAM: usize = 65_536;

/// While there are relays the loop wakes this often, so that time in which it stood still can be told.
const STANDING_STILL_WATCH: Duration = Duration::from_secs(1);

/// One datagram in so many has its time taken.
const TIMED_DATAGRAMS: u64 = 1024;

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

pub(crate) struct EventLoop {
    poller: Poller,
    channel: Receiver<Event>,
    acceptor: Arc<Acceptor>,
    sockets: Sockets,
    /// Sockets that have something to read in this turn.
    readable: Vec<SocketId>,
    turn: u64,
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
    /// See [`STANDING_STILL_WATCH`].
    next_watch: Timestamp,
    drain_timeout: Duration,
    /// Once the server is to end.
    drain: Option<Drain>,
    supervisor: Supervisor,
    /// When the supervisor is told next that the loop turns. The loop tells it itself: one that is stuck is
    /// restarted.
    next_beat: Timestamp,
    /// Datagrams at relay ports, to take the time of some.
    arrivals: u64,
    warnings: Warnings,
}

#[derive(Default)]
struct Warnings {
    send: Throttle,
    receive: Throttle,
    wrong_ip: Throttle,
    unconfirmed: Throttle,
    implausible: Throttle,
    limits: [Throttle; datagrams::LIMIT_KEYS.len()],
}

impl EventLoop {
    /// Takes over the sockets. The channel holds `channel_size` events.
    ///
    /// # Errors
    /// If the kernel has no epoll instance or descriptor left.
    pub(crate) fn new(
        config: &Config,
        sockets: Sockets,
        acceptor: Arc<Acceptor>,
        metrics: Arc<Metrics>,
        channel_size: usize,
    ) -> io::Result<(Self, EventSender)> {
        let poller = Poller::new()?;
        sockets.register(&poller)?;
        let (sender, channel) = events::channel(channel_size, poller.waker());
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
            poller,
            channel,
            acceptor,
            readable: Vec::with_capacity(MAX_READY),
            turn: 0,
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
            next_watch: now,
            drain_timeout: config.drain_timeout.0,
            drain: None,
            supervisor: Supervisor::default(),
            next_beat: now,
            arrivals: 0,
            warnings: Warnings::default(),
        };
        event_loop.note_levels();
        Ok((event_loop, sender))
    }

    /// Tells `supervisor` how the server does.
    pub(crate) fn set_supervisor(&mut self, supervisor: Supervisor) {
        self.supervisor = supervisor;
    }

    /// Turns until [`Event::Shutdown`] or the end of a drain has closed the acceptor, then disconnects everybody.
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
        let wait = self.wait()?;
        self.now = self.time.advance(clock::now(), wait);
        let flow = self.handle_events();
        self.handle_datagrams();
        self.handle_deadlines();
        self.note_turn();
        Ok(flow)
    }

    /// Waits for something to do; how long that was to last at most.
    fn wait(&mut self) -> io::Result<Duration> {
        let deadline = self.next_deadline();
        let wait = if self.channel.is_empty() {
            self.poller.wait(deadline, self.now)?;
            deadline.since(self.now)
        } else {
            self.poller.look()?;
            Duration::ZERO
        };
        self.turn = self.turn.wrapping_add(1);
        self.readable.clear();
        self.readable.extend(self.poller.ready().map(SocketId::from_token));
        Ok(wait)
    }

    fn next_deadline(&self) -> Timestamp {
        let mut next = self.next_sweep;
        if self.relays.pairs() > 0 {
            next = next.min(self.next_watch);
        }
        if self.supervisor.beat_interval().is_some() {
            next = next.min(self.next_beat);
        }
        if let Some(drain) = &self.drain {
            next = next.min(drain.next_look());
        }
        next
    }

    fn handle_deadlines(&mut self) {
        if self.now >= self.next_watch {
            self.next_watch = self.now + STANDING_STILL_WATCH;
        }
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + self.sweep_interval;
            self.relays.sweep(self.now);
            self.hosts.forget_networks(self.now);
            self.note_freed();
            self.refresh_own_addresses();
        }
        if let Some(interval) = self.supervisor.beat_interval()
            && self.now >= self.next_beat
        {
            self.next_beat = self.now + interval;
            self.supervisor.beat(self.hosts.len(), self.relays.pairs());
        }
        if let Some(drain) = &mut self.drain
            && self.now >= drain.next_look()
            && drain.is_over(self.relays.last_forwarded(), self.now)
        {
            self.acceptor.close();
        }
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
            let [one, other] = freed.ports;
            log::info!(target: STEP, "relay {one}+{other}: freed after {} bytes", freed.traffic);
        }
        self.note_levels();
    }

    /// Brings the levels among the metrics up to date; for wherever a player or a relay came or went.
    fn note_levels(&self) {
        let (pairs, ports) = (self.relays.pairs(), self.relays.ports());
        self.metrics.active_hosts.set(self.hosts.len());
        self.metrics.relay_count.set(pairs);
        self.metrics.relay_ports.of(PortState::InUse).set(2 * pairs);
        self.metrics.relay_ports.of(PortState::Free).set(ports.free());
        self.metrics.relay_ports.of(PortState::Reserved).set(ports.reserved());
        let [open_ids, private_ids, guessing] = self.hosts.entries();
        let [partners, networks] = self.relays.entries();
        for (table, entries) in [
            (Table::Players, self.players.len()),
            (Table::OpenIds, open_ids),
            (Table::PrivateIds, private_ids),
            (Table::GuessingNetworks, guessing),
            (Table::Partners, partners),
            (Table::RelayNetworks, networks),
        ] {
            self.metrics.table_entries.of(table).set(entries);
        }
    }

    fn note_turn(&mut self) {
        let took = clock::now().saturating_duration_since(self.time.last_reading());
        self.metrics.turn_duration.observe_time(took);
    }
}
