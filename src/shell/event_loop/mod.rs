//! The event loop: it passes each input to the core and carries out the effects.
//!
//! One thread, the sole owner of the core, of all UDP sockets, and of what is written to players. It waits only in
//! `poll`. This page has its turn and its deadlines; `datagrams` is what comes by UDP, `events` what comes from other
//! threads, `effects` what is done, counted and logged.

mod datagrams;
mod effects;
mod events;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token, Waker};

use crate::config::Config;
use crate::core::deadlines::Deadlines;
use crate::core::effect::Effects;
use crate::core::id::ConnectionId;
use crate::core::relay::OwnAddresses;
use crate::core::{Core, Input};
use crate::operation::clock;
use crate::operation::metrics::Metrics;
use crate::operation::os::KernelRandom;
use crate::operation::supervisor::Supervisor;
use crate::shell::acceptor::Acceptor;
use crate::shell::alarm::Alarm;
use crate::shell::connection::SharedConnection;
use crate::shell::events::{Event, EventSender, channel};
use crate::shell::sockets::{SocketId, Sockets};
use crate::time::{RunningTime, Timestamp};

use effects::Warnings;

/// How many events from other threads are taken per turn: a crowd that leaves must not stall the relays.
const EVENTS_PER_TURN: usize = 64;

/// Tokens that are no socket's.
const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// How many sockets are read per turn.
const SOCKETS_PER_TURN: usize = 64;

/// The largest UDP payload is smaller by some bytes.
const LARGEST_DATAGRAM: usize = 65_536;

/// While there are pairs the loop wakes this often, so that time in which it stood still can be told.
const STANDING_STILL_WATCH: Duration = Duration::from_secs(1);

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// What the loop itself does by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Waking, see [`STANDING_STILL_WATCH`].
    Wake,
    /// Telling the supervisor that the loop turns. The loop does it itself: one that is stuck is restarted.
    Beat,
}

pub(crate) struct EventLoop {
    poll: Poll,
    alarm: Alarm,
    /// What the last `poll` reported.
    reported: Events,
    channel: Receiver<Event>,
    acceptor: Arc<Acceptor>,
    sockets: Sockets,
    buffer: Vec<u8>,
    connections: HashMap<ConnectionId, SharedConnection>,
    core: Core,
    /// Empty between inputs.
    effects: Effects,
    random: KernelRandom,
    metrics: Arc<Metrics>,
    time: RunningTime,
    now: Timestamp,
    deadlines: Deadlines<Task, 2>,
    supervisor: Supervisor,
    /// Datagrams at relay ports, to take the time of some.
    arrivals: u64,
    warnings: Warnings,
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
        sockets.register(poll.registry())?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, channel) = channel(channel_size, waker);
        let own = sockets.own_addresses().unwrap_or_else(|error| {
            log::warn!(
                "the machine's addresses cannot be read, a relay may be led to its own: {error}"
            );
            OwnAddresses::default()
        });
        let (mut random, now) = (KernelRandom::default(), Timestamp::START);
        let ports = sockets.relay_ports().to_vec();
        let core = Core::new(config.settings(), own, ports, &mut random, now);
        let event_loop = Self {
            poll,
            alarm,
            reported: Events::with_capacity(SOCKETS_PER_TURN),
            channel,
            acceptor,
            sockets,
            buffer: vec![0; LARGEST_DATAGRAM],
            connections: HashMap::new(),
            core,
            effects: Effects::new(),
            random,
            metrics,
            time: RunningTime::new(clock::now()),
            now,
            deadlines: Deadlines::default(),
            supervisor: Supervisor::default(),
            arrivals: 0,
            warnings: Warnings::default(),
        };
        event_loop.record_levels();
        Ok((event_loop, sender))
    }

    /// Tells `supervisor` how the server does.
    pub(crate) fn set_supervisor(&mut self, supervisor: Supervisor) {
        if supervisor.beat_interval().is_some() {
            self.deadlines.set(Task::Beat, self.now);
        }
        self.supervisor = supervisor;
    }

    /// Turns until [`Event::Shutdown`] or the end of a drain has closed the acceptor, then disconnects everybody.
    ///
    /// # Errors
    /// If `poll` itself fails, which leaves nothing to go on with.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while self.run_once()? == Flow::Continue {}
        for connection in self.connections.values() {
            connection.disconnect();
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
        self.record_turn();
        Ok(flow)
    }

    /// Waits until a socket or an event has something to do, or a deadline comes; how long that was to last at most.
    /// It does not wait while anything is left of earlier turns, which nobody reports again.
    fn wait(&mut self) -> io::Result<Duration> {
        let deadline = self.next_deadline();
        let is_busy = !self.channel.is_empty() || self.sockets.ready() > 0;
        let wait = if is_busy { Duration::ZERO } else { deadline.since(self.now) };
        let limit = if wait.is_zero() {
            Some(wait)
        } else {
            self.alarm.set(deadline, wait)?;
            None
        };
        match self.poll.poll(&mut self.reported, limit) {
            // A signal came, and no report.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &self.reported {
            match event.token() {
                // What it woke for is in the channel.
                WAKER => {}
                ALARM => self.alarm.handle_ring(),
                token => self.sockets.queue(SocketId::from_token(token)),
            }
        }
        Ok(wait)
    }

    fn next_deadline(&self) -> Timestamp {
        let of_core = self.core.next_deadline();
        self.deadlines.next().map_or(of_core, |own| own.min(of_core))
    }

    fn handle_deadlines(&mut self) {
        if self.now >= self.core.next_deadline() {
            self.handle(Input::Deadline);
        }
        while let Some(task) = self.deadlines.take_due(self.now) {
            match task {
                Task::Wake => self.watch_for_standing_still(),
                Task::Beat => self.beat(),
            }
        }
    }

    /// Passes an input to the core and carries out what comes of it.
    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(input, &mut self.random, self.now, &mut self.effects);
        self.carry_out_effects();
        self.watch_for_standing_still();
        self.record_levels();
    }

    fn watch_for_standing_still(&mut self) {
        if self.core.levels().pairs > 0 {
            self.deadlines.set_earlier(Task::Wake, self.now + STANDING_STILL_WATCH);
        }
    }

    fn beat(&mut self) {
        if let Some(interval) = self.supervisor.beat_interval() {
            self.deadlines.set(Task::Beat, self.now + interval);
            let levels = self.core.levels();
            self.supervisor.beat(levels.players, levels.pairs);
        }
    }

    fn record_turn(&mut self) {
        let took = clock::now().saturating_duration_since(self.time.last_reading());
        self.metrics.turn_duration.observe_time(took);
    }
}
