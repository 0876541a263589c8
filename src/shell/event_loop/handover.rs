//! The event loop's part of a handover: it stops the readers, handles what came, and executes the program anew.

use std::os::fd::AsFd;
use std::time::Duration;

use super::{EventLoop, Flow};
use crate::operation::clock;
use crate::shell::connection::SharedConnection;
use crate::shell::handover::{Departure, Manifest, Passed, SocketRole, depart};
use crate::shell::sockets::SocketId;

/// How long players' threads may take to stop reading. A thread holds the gate for as long as it takes to read once and to
/// post what it read.
const GATE_PATIENCE: Duration = Duration::from_secs(2);

/// How long one attempt to close the gate takes. In between, the loop empties the channel: a thread that waits for room
/// there holds the gate.
const GATE_ATTEMPT: Duration = Duration::from_millis(1);

/// How long the log may take to write what waits.
const LOG_PATIENCE: Duration = Duration::from_millis(50);

impl EventLoop {
    /// Executes the program anew. It returns only if that fails, with the reason. Then everything goes on as before.
    pub(super) fn hand_over(&mut self, departure: &Departure) -> String {
        if self.core.is_draining() {
            return "the server drains, and ends when its games are over".to_owned();
        }
        let deadline = clock::now() + GATE_PATIENCE;
        let _closed = loop {
            if let Some(closed) = departure.gate.close_within(GATE_ATTEMPT) {
                break closed;
            }
            if self.handle_what_waits() == Flow::Stop {
                return "the server ends".to_owned();
            }
            if clock::now() > deadline {
                return "players' threads have not stopped reading".to_owned();
            }
        };
        if self.handle_what_waits() == Flow::Stop {
            return "the server ends".to_owned();
        }
        self.now = self.time.advance(clock::now(), GATE_PATIENCE);
        let mut connections: Vec<SharedConnection> = self.connections.values().cloned().collect();
        connections.sort_unstable_by_key(|connection| connection.id);
        departure.log.finish_within(LOG_PATIENCE);
        self.depart(departure, &connections)
    }

    /// Handles all events that were posted.
    fn handle_what_waits(&mut self) -> Flow {
        while let Ok(event) = self.channel.try_recv() {
            if self.handle_event(event) == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    fn depart(&self, departure: &Departure, connections: &[SharedConnection]) -> String {
        let Departure { program, file, openings, table, http, .. } = departure;
        let old_players = self.acceptor.listener();
        let old_http = http.as_ref().and_then(|control| control.listener());
        let mut sockets: Vec<Passed<'_>> = Vec::new();
        if let Some(listener) = openings.players.as_ref().or(old_players.as_deref())
            && let Ok(at) = listener.local_addr()
        {
            sockets.push((SocketRole::Players(at), listener.as_fd()));
        }
        if let Some(listener) = openings.http.as_ref().or(old_http.as_deref())
            && let Ok(at) = listener.local_addr()
        {
            sockets.push((SocketRole::Http(at), listener.as_fd()));
        }
        let new_relays = openings.relays.iter().map(|(_, socket)| socket);
        for socket in new_relays {
            if let Ok(at) = socket.local_addr() {
                sockets.push((SocketRole::Relay(at), socket.as_fd()));
            }
        }
        if let Some(socket) = &openings.registrar
            && let Ok(at) = socket.local_addr()
        {
            sockets.push((SocketRole::Registrar(at), socket.as_fd()));
        }
        for (id, at, fd) in self.sockets.all() {
            match id {
                SocketId::Registrar if openings.registrar.is_some() => {}
                SocketId::Registrar => sockets.push((SocketRole::Registrar(at), fd)),
                SocketId::Relay(_) => sockets.push((SocketRole::Relay(at), fd)),
            }
        }
        for (place, connection) in connections.iter().enumerate() {
            sockets.push((SocketRole::Player(place), connection.stream().as_fd()));
        }
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file: file.clone(),
            core: self.core.snapshot(self.now),
            metrics: self.metrics.values(),
            admission: table.snapshot(),
            sockets: sockets.iter().map(|(role, _)| *role).collect(),
            players: connections.iter().map(|connection| connection.describe()).collect(),
            next_connection: self.next_connection,
        };
        depart(program, manifest, &sockets)
    }
}
