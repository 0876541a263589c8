//! The event loop's part of a handover: it has players' threads end, and then executes the program anew.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::EventLoop;
use crate::operation::clock;
use crate::shell::connection::SharedConnection;
use crate::shell::event_channel::Halted;
use crate::shell::handover::{Departure, Manifest, Passed, SocketRole, depart};
use crate::shell::refused::RefusedConnections;
use crate::shell::sockets::SocketId;

/// How long players' threads may take to end. The relays go on meanwhile. It is less than the
/// [patience](crate::shell::server_handle::RELOAD_PATIENCE) of who waits for the outcome.
const HALT_PATIENCE: Duration = Duration::from_secs(3);

/// How long the log may take to write what waits.
const LOG_PATIENCE: Duration = Duration::from_millis(50);

/// A handover that waits until players' threads have ended.
pub(super) struct PendingDeparture {
    departure: Box<Departure>,
    refused: Sender<String>,
    deadline: Instant,
}

impl EventLoop {
    /// Has players' threads end. [`Self::hand_over`] is next.
    pub(super) fn begin_handover(&mut self, departure: Box<Departure>, refused: Sender<String>) {
        let deadline = clock::now() + HALT_PATIENCE;
        self.departure = Some(PendingDeparture { departure, refused, deadline });
        self.halt.call();
        self.acceptor.wake();
    }

    /// Executes the program anew, now that all that players sent is either in the kernel or handled. If that fails,
    /// everything goes on as before.
    pub(super) fn hand_over(&mut self, halted: Halted) {
        let Halted { refused, resume } = halted;
        let mut connections: Vec<SharedConnection> = self.connections.values().cloned().collect();
        connections.sort_unstable_by_key(|connection| connection.id);
        if let Some(pending) = self.departure.take() {
            let why = self.try_to_hand_over(&pending, &connections, &refused);
            let _ = pending.refused.try_send(why);
        }
        self.halt.end();
        // If the accept loop does not wait any more, the server ends.
        let _ = resume.send((connections, refused));
    }

    /// It returns only if it fails, with the reason.
    fn try_to_hand_over(
        &mut self,
        pending: &PendingDeparture,
        connections: &[SharedConnection],
        refused: &RefusedConnections,
    ) -> String {
        if self.core.is_draining() {
            return "the server drains, and ends when its games are over".to_owned();
        }
        if clock::now() > pending.deadline {
            return "players' threads have not ended in time".to_owned();
        }
        let departure = &pending.departure;
        departure.log.finish_within(LOG_PATIENCE);
        self.now = self.time.advance(clock::now(), HALT_PATIENCE);
        // What comes from now on waits at the sockets, and the snapshot has all that the kernel forwarded.
        self.begin_kernel_turn();
        self.withdraw_from_kernel();
        self.depart(departure, connections, refused)
    }

    fn depart(
        &self,
        departure: &Departure,
        connections: &[SharedConnection],
        refused: &RefusedConnections,
    ) -> String {
        let Departure { program, file, openings, table, http, log, started } = departure;
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
            sockets.push((SocketRole::Player(place, connection.peer), connection.stream().as_fd()));
        }
        for stream in refused.streams() {
            sockets.push((SocketRole::Refused, stream.as_fd()));
        }
        let program_file = File::open("/proc/self/exe").ok();
        let mut remains = vec![self.poll.registry().as_fd()];
        remains.extend(program_file.as_ref().map(|file| file.as_fd()));
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file: file.clone(),
            core: self.core.snapshot(self.now),
            metrics: self.metrics.values(),
            warnings: log.warnings().list(clock::now()),
            uptime: clock::now().saturating_duration_since(*started),
            admission: table.snapshot(),
            players: connections.iter().map(|connection| connection.describe()).collect(),
            next_connection: self.next_connection,
            remains: remains.iter().map(AsRawFd::as_raw_fd).collect(),
        };
        depart(program, manifest, &sockets, &remains)
    }
}
