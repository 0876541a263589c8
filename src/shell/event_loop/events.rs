//! Handles the events that other threads post.

use std::time::{Duration, Instant};

use super::{EVENTS_PER_TURN, EventLoop, Flow};
use crate::core::Input;
use crate::core::id::ConnectionId;
use crate::core::protocol::{Command, CommandKind};
use crate::operation::clock;
use crate::shell::connection::SharedConnection;
use crate::shell::event_channel::Event;

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

    pub(super) fn handle_event(&mut self, event: Event) -> Flow {
        match event {
            Event::Connected(connection) => self.handle_connection(connection),
            Event::NoThread(connection) => self.handle(Input::NoThread(connection)),
            Event::Command { player, command, received } => {
                self.handle_command(player, &command, received);
            }
            Event::RateLimitedCommand { player, kind, received } => {
                self.handle(Input::RateLimitedCommand(player, kind));
                self.record_duration(kind, received);
            }
            Event::Disconnect(player, reason) => {
                self.handle(Input::Disconnect(player, reason));
            }
            Event::Disconnected(player) => self.handle(Input::Disconnected(player)),
            Event::Ping(answer) => {
                // The thread that asked may no longer wait.
                let _ = answer.try_send(());
            }
            Event::Reload(config, done) => {
                // Pairs are granted anew under the new limits, after the firewall has let both players through again.
                self.withdraw_from_kernel();
                self.handle(Input::Reload(Box::new(config.settings())));
                let _ = done.try_send(());
            }
            Event::Snapshot(answer) => {
                let _ = answer.try_send(Box::new(self.core.snapshot(self.now)));
            }
            Event::HandOver(departure, refused) => self.begin_handover(departure, refused),
            Event::Halted(halted) => self.hand_over(*halted),
            Event::OwnIps(ips) => {
                self.set_kernel_addresses(&ips);
                self.handle(Input::OwnIps(ips));
            }
            Event::Interfaces(interfaces) => self.handle_machine_change(interfaces),
            Event::KernelPath(kernel, done) => {
                self.set_kernel_path(kernel);
                let _ = done.try_send(());
            }
            Event::Drain => self.handle(Input::Drain),
            Event::Shutdown => {
                self.departure = None;
                self.supervisor.stopping(Duration::ZERO, "ending");
                self.acceptor.end();
            }
            // By now `connections` has every connection that was accepted, so `run` wakes every player's thread.
            Event::AcceptorClosed => return Flow::Stop,
        }
        Flow::Continue
    }

    fn handle_connection(&mut self, connection: SharedConnection) {
        let input = Input::Connected(connection.id, connection.peer.ip());
        self.next_connection = connection.id.0 + 1;
        self.connections.insert(connection.id, connection);
        self.handle(input);
    }

    fn handle_command(&mut self, from: ConnectionId, command: &Command, received: Instant) {
        if self.connections.contains_key(&from) {
            self.refresh_from_kernel();
            self.handle(Input::Command(from, command));
            self.record_duration(command.kind(), received);
        }
    }

    fn record_duration(&self, kind: CommandKind, received: Instant) {
        let took = clock::now().saturating_duration_since(received);
        self.metrics.command_duration.of(kind).observe_time(took);
    }
}
