//! Decides nothing: what players and other threads tell the loop, and what it tells players.

use crate::label::Label;
use std::time::{Duration, Instant};

use super::{EVENTS_PER_TURN, EventLoop, Flow};
use crate::config::Config;
use crate::config::units::TimeSpan;
use crate::core::commands::{self, Asker, Intake, Outcome, Step};
use crate::core::drain::{self, Drain};
use crate::core::id::ConnectionId;
use crate::core::protocol::{Command, CommandKind, ErrorCode, Reply};
use crate::limits::bounds::Bound;
use crate::limits::conduct::Misconduct;
use crate::operation::clock;
use crate::operation::logging::STEP;
use crate::shell::connection::{SendError, SharedConnection};
use crate::shell::events::Event;

impl EventLoop {
    pub(super) fn handle_events(&mut self) -> Flow {
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
                self.metrics.bounds_reached.of(Bound::Threads).add_as_only_writer(1);
                self.tell(player, &Reply::ServerFull);
                self.depart(player);
            }
            Event::Command { player, command, received } => {
                self.handle_command(player, &command, received);
            }
            Event::TooFast { player, kind, received } => {
                self.metrics.command_exception.of(kind).add_as_only_writer(1);
                self.metrics.bounds_reached.of(Bound::Commands).add_as_only_writer(1);
                self.tell(player, &Reply::Failed(kind, ErrorCode::RateLimited));
                self.note_duration(kind, received);
            }
            Event::Misconduct(player, misconduct) => {
                self.note_misconduct(player, misconduct);
                self.tell(player, &Reply::Misconduct(misconduct));
                if let Some(connection) = self.forget(player) {
                    connection.finish_sending();
                }
            }
            Event::Disconnected(player) => self.depart(player),
            Event::Ping(answer) => {
                // Who asked may have given up waiting.
                let _ = answer.try_send(());
            }
            Event::Reload(config, done) => {
                self.reload(&config);
                let _ = done.try_send(());
            }
            Event::Drain => self.start_to_drain(),
            Event::Shutdown => {
                self.supervisor.stopping(Duration::ZERO);
                self.acceptor.close();
            }
            // Whoever connected is known by now: no thread is left that nobody could wake.
            Event::AcceptorClosed => return Flow::Stop,
        }
        Flow::Continue
    }

    fn handle_command(&mut self, player: ConnectionId, command: &Command, received: Instant) {
        let Some(connection) = self.players.get(&player) else {
            return;
        };
        let asker = Asker { player, connected_from: connection.peer.ip() };
        let intake = if self.drain.is_some() { Intake::Draining } else { Intake::Open };
        let Outcome { replies, step } = commands::handle_command(
            asker,
            command,
            intake,
            &mut self.hosts,
            &mut self.relays,
            &mut self.random,
            self.now,
        );
        self.note_freed();
        self.note_step(player, command, &step);
        for (to, reply) in &replies {
            self.tell(*to, reply);
        }
        self.note_duration(command.kind(), received);
    }

    fn note_duration(&self, kind: CommandKind, received: Instant) {
        let took = clock::now().saturating_duration_since(received);
        self.metrics.command_duration.of(kind).observe_time(took);
    }

    fn note_step(&self, player: ConnectionId, command: &Command, step: &Step) {
        let connection = &self.players[&player];
        match step {
            Step::None => {}
            Step::Registered(open_id) => {
                connection.mark_registered();
                log::info!(target: STEP, "player {open_id}: registered from {}", connection.peer);
            }
            Step::RelayOpened { ports: [host_port, asker_port], host } => {
                let asker = self.name_of(player);
                log::info!(
                    target: STEP,
                    "relay {host_port}+{asker_port}: player {asker} with player {host}"
                );
            }
            Step::Failed { code, bound } => {
                let kind = command.kind();
                self.metrics.command_exception.of(kind).add_as_only_writer(1);
                if let Some(bound) = bound {
                    self.metrics.bounds_reached.of(*bound).add_as_only_writer(1);
                }
                log::debug!("{} from {}: {code}", kind.label(), connection.peer);
            }
        }
    }

    pub(super) fn name_of(&self, player: ConnectionId) -> &str {
        self.hosts.by_connection(player).map_or("?", |host| host.open_id.as_str())
    }

    /// Writes to a player. One that does not read what it is sent is disconnected: nobody waits for it.
    pub(super) fn tell(&mut self, player: ConnectionId, reply: &Reply) {
        let Some(connection) = self.players.get(&player) else {
            return;
        };
        match connection.send(reply) {
            Ok(()) => {}
            Err(SendError::BufferFull) => {
                self.note_misconduct(player, Misconduct::SlowReader);
                self.depart(player);
            }
            Err(SendError::Broken) => self.depart(player),
        }
    }

    fn note_misconduct(&self, player: ConnectionId, misconduct: Misconduct) {
        self.metrics.connections_closed.of(misconduct).add_as_only_writer(1);
        if let Some(connection) = self.players.get(&player) {
            log::debug!("{}: {}, closed", connection.peer, misconduct.label());
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
            log::info!(target: STEP, "player {}: disconnected", host.open_id);
        }
        self.relays.handle_departure(player);
        let connection = self.players.remove(&player);
        self.note_levels();
        connection
    }

    /// Everything but addresses and ports takes effect at once; live relays go on under the new limits.
    fn reload(&mut self, config: &Config) {
        self.relays.set_limits(config.limits());
        self.hosts.set_scheme(config.id_scheme());
        self.drain_timeout = config.drain_timeout.0;
        self.sweep_interval = config.sweep_interval();
        self.next_sweep = self.next_sweep.min(self.now + self.sweep_interval);
    }

    /// Begins to end: nobody new, live relays go on for a while.
    fn start_to_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        let drain = Drain::new(self.drain_timeout, self.relays.last_forwarded(), self.now);
        self.supervisor.stopping(self.drain_timeout);
        self.metrics.is_draining.set(1);
        log::info!(
            "draining: {} relays go on until they were quiet for {}, at most {}; a second signal ends at once",
            self.relays.pairs(),
            TimeSpan(drain::QUIET),
            TimeSpan(self.drain_timeout)
        );
        self.drain = Some(drain);
    }
}
