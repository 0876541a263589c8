//! The event loop: it passes each input to the core and carries out the effects.
//!
//! It runs on the main thread. It alone changes the core, uses the UDP sockets and writes to players. This module has its
//! turn and its deadlines; `datagrams` handles what comes by UDP, `events` handles what other threads post, and `effects`
//! carries out, counts and logs what the core wants.

mod datagrams;
mod effects;
mod events;
mod handover;
mod kernel_path;

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
use crate::core::snapshot::Snapshot;
use crate::core::{Core, Input};
use crate::kernel::Grants;
use crate::label::counted;
use crate::operation::metrics::Metrics;
use crate::operation::os::KernelRandom;
use crate::operation::supervisor::Supervisor;
use crate::operation::{clock, threads};
use crate::shell::acceptor::AcceptorControl;
use crate::shell::alarm::Alarm;
use crate::shell::connection::SharedConnection;
use crate::shell::event_channel::{Event, EventSender, channel};
use crate::shell::halt::Halt;
use crate::shell::sockets::{SocketId, Sockets};
use crate::time::{RunningTime, Timestamp};

use effects::Warnings;
use handover::PendingDeparture;

/// How many events from other threads are handled per turn: a crowd that leaves must not stall the relays.
const EVENTS_PER_TURN: usize = 64;

/// The tokens that no socket has.
const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// How many sockets are read per turn.
const SOCKETS_PER_TURN: usize = 64;

/// Bytes of the buffer for one datagram. The largest UDP payload is a little smaller.
const LARGEST_DATAGRAM: usize = 65_536;

/// While there are pairs, the loop wakes at least this often, so that it notices when the process stood still.
const STANDING_STILL_WATCH: Duration = Duration::from_secs(1);

/// How often the supervisor is told how long a drain may still take.
const COUNTDOWN: Duration = Duration::from_secs(1);

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// What the loop does at deadlines of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoopTask {
    /// Waking, see [`STANDING_STILL_WATCH`].
    Wake,
    /// A tick of the kernel's path.
    KernelPath,
    /// Telling the supervisor that the loop turns. If the loop is stuck, this stops, and systemd restarts the server.
    Beat,
}

/// The loop and all that it owns.
pub(crate) struct EventLoop {
    poll: Poll,
    alarm: Alarm,
    /// What the last `poll` reported.
    reported: Events,
    channel: Receiver<Event>,
    acceptor: AcceptorControl,
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
    deadlines: Deadlines<LoopTask, 3>,
    supervisor: Supervisor,
    /// How many datagrams came to relay ports. Some of them are timed.
    arrivals: u64,
    warnings: Warnings,
    /// Larger than the id of every connection.
    next_connection: u64,
    halt: Halt,
    /// The handover that waits until players' threads have ended.
    departure: Option<PendingDeparture>,
    /// What the kernel forwards, while its path is used.
    grants: Option<Grants>,
}

/// What another process has handed over to the loop.
pub(crate) struct Resumed {
    pub(crate) core: Snapshot,
    pub(crate) connections: Vec<SharedConnection>,
    pub(crate) next_connection: u64,
}

impl EventLoop {
    /// Takes over the sockets. The channel holds `channel_size` events.
    ///
    /// # Errors
    /// If the kernel has no epoll instance or descriptor left.
    pub(crate) fn new(
        config: &Config,
        mut sockets: Sockets,
        acceptor: AcceptorControl,
        metrics: Arc<Metrics>,
        channel_size: usize,
        halt: Halt,
        resumed: Option<Resumed>,
    ) -> io::Result<(Self, EventSender)> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, channel) = channel(channel_size, waker);
        let own = sockets.own_addresses();
        let mut random = KernelRandom::default();
        let settings = config.settings();
        let mut ports = sockets.relay_ports().to_vec();
        ports.retain(|port| config.relay_ports.contains(port.0));
        let (mut connections, mut next_connection) = (HashMap::new(), 0);
        let (core, now) = match resumed {
            None => {
                sockets.register(poll.registry())?;
                let now = Timestamp::START;
                (Core::new(settings, own, ports, &mut random, now), now)
            }
            Some(resumed) => {
                let now = resumed.core.taken;
                next_connection = resumed.next_connection;
                let all = resumed.connections.into_iter();
                connections = all.map(|connection| (connection.id, connection)).collect();
                // Games wait. With thousands of players and ports each of these takes 10 ms.
                let (core, registered) = threads::side_by_side(
                    || Core::restore(resumed.core, settings, own, &ports),
                    || sockets.register(poll.registry()),
                );
                registered?;
                (core.map_err(io::Error::other)?, now)
            }
        };
        let event_loop = Self {
            poll,
            alarm,
            reported: Events::with_capacity(SOCKETS_PER_TURN),
            channel,
            acceptor,
            sockets,
            buffer: vec![0; LARGEST_DATAGRAM],
            connections,
            core,
            effects: Effects::new(),
            random,
            metrics,
            time: RunningTime::go_on(clock::now(), now),
            now,
            deadlines: Deadlines::default(),
            supervisor: Supervisor::default(),
            arrivals: 0,
            warnings: Warnings::default(),
            next_connection,
            halt,
            departure: None,
            grants: None,
        };
        event_loop.record_levels();
        Ok((event_loop, sender))
    }

    /// Sets the supervisor that hears about the server's state.
    pub(crate) fn set_supervisor(&mut self, supervisor: Supervisor) {
        if supervisor.beat_interval().is_some() {
            self.deadlines.set(LoopTask::Beat, self.now);
        }
        self.supervisor = supervisor;
    }

    /// Turns until the accept loop has ended, after [`Event::Shutdown`] or a drain. Then disconnects everybody.
    ///
    /// # Errors
    /// If `poll` fails: the loop cannot go on without it.
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
        self.begin_kernel_turn();
        let flow = self.handle_events();
        self.handle_datagrams();
        self.handle_deadlines();
        self.record_turn();
        Ok(flow)
    }

    /// Waits for a socket, an event or a deadline. Returns the longest time that this could take. It does not wait while
    /// sockets or events are left from earlier turns: mio does not report them again.
    fn wait(&mut self) -> io::Result<Duration> {
        let deadline = self.next_deadline();
        let is_busy = !self.channel.is_empty() || self.sockets.ready_count() > 0;
        let wait = if is_busy { Duration::ZERO } else { deadline.since(self.now) };
        let limit = if wait.is_zero() {
            Some(wait)
        } else {
            self.alarm.set(deadline, wait)?;
            None
        };
        match self.poll.poll(&mut self.reported, limit) {
            // A signal interrupted the wait.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &self.reported {
            match event.token() {
                // The event that it woke for is in the channel.
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
            self.refresh_from_kernel();
            self.handle(Input::Deadline);
        }
        while let Some(task) = self.deadlines.take_due(self.now) {
            match task {
                LoopTask::Wake => self.watch_for_standing_still(),
                LoopTask::KernelPath => self.tick_kernel_path(),
                LoopTask::Beat => self.beat(),
            }
        }
    }

    /// Passes an input to the core and carries out the effects.
    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(input, &mut self.random, self.now, &mut self.effects);
        self.carry_out_effects();
        self.watch_for_standing_still();
        self.record_levels();
    }

    fn watch_for_standing_still(&mut self) {
        if self.core.table_sizes().pairs > 0 {
            self.deadlines.set_earlier(LoopTask::Wake, self.now + STANDING_STILL_WATCH);
            self.watch_kernel_path();
        }
    }

    fn beat(&mut self) {
        if let Some(mut interval) = self.supervisor.beat_interval() {
            if self.core.is_draining() {
                interval = interval.min(COUNTDOWN);
            }
            self.deadlines.set(LoopTask::Beat, self.now + interval);
            self.supervisor.beat(&self.status());
        }
    }

    /// What the server does, in the words of `systemctl status`.
    fn status(&self) -> String {
        let sizes = self.core.table_sizes();
        let relays = counted(sizes.pairs, "relay");
        let does = match self.core.drain_deadline() {
            Some(deadline) => {
                let seconds = deadline.since(self.now).as_millis().div_ceil(1000);
                format!("draining, {relays}, at most {seconds} s")
            }
            None => format!("{}, {relays}", counted(sizes.players, "player")),
        };
        format!("noray {}, {does}", env!("CARGO_PKG_VERSION"))
    }

    fn record_turn(&mut self) {
        let took = clock::now().saturating_duration_since(self.time.last_reading());
        self.metrics.turn_duration.observe_time(took);
    }
}
