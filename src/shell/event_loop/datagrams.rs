//! Handles the datagrams that come to the registrar and to relay ports. This is the hot path.

use std::io;
use std::net::SocketAddr;

use super::{EventLoop, SOCKETS_PER_TURN};
use crate::core::Input;
use crate::core::players::Way;
use crate::core::relay::{Action, DropReason, RelayPort};
use crate::label::Label;
use crate::operation::clock;
use crate::shell::packet_info::Datagram;
use crate::shell::sockets::{Received, Sent, SocketId};

/// How many datagrams of one socket are read per turn.
const DATAGRAMS_PER_SOCKET: usize = 8;

/// One of so many datagrams is timed.
const TIMED_DATAGRAMS: u64 = 1024;

impl EventLoop {
    /// Reads at most [`SOCKETS_PER_TURN`] of the sockets that are ready, and at most [`DATAGRAMS_PER_SOCKET`] datagrams of
    /// each. That is 2 to 4 ms of work before the next events.
    pub(super) fn handle_datagrams(&mut self) {
        for _ in 0..self.sockets.ready_count().min(SOCKETS_PER_TURN) {
            let Some(id) = self.sockets.next_ready() else { return };
            match id {
                SocketId::Registrar => self.read_socket(id, Self::handle_registration),
                SocketId::Relay(port) => self.read_socket(id, |this, datagram| {
                    this.handle_relay_datagram(port, datagram.source, datagram.length);
                }),
            }
        }
    }

    /// Reads and handles datagrams of one socket until there is none. If there are more than one turn allows, the socket
    /// goes to the end of the queue.
    fn read_socket(&mut self, id: SocketId, handle: impl Fn(&mut Self, &Datagram)) {
        for _ in 0..DATAGRAMS_PER_SOCKET {
            match self.sockets.receive(id, &mut self.buffer) {
                Received::Datagram(datagram) => handle(self, &datagram),
                Received::Nothing => return,
                Received::Failed(error) => self.record_receive_error(id, &error),
            }
        }
        self.sockets.queue(id);
    }

    fn record_receive_error(&mut self, id: SocketId, error: &io::Error) {
        self.metrics.receive_errors.add_as_only_writer(1);
        if self.warnings.receive.try_acquire(clock::now()) {
            log::warn!("reading from {id:?} failed: {error}; the socket stays in use");
        }
    }

    fn handle_registration(&mut self, datagram: &Datagram) {
        let Datagram { source, length, arrived_at } = *datagram;
        let way = Way { source, arrived_at };
        self.refresh_from_kernel();
        let input = Input::RegistrarDatagram { way, payload: &self.buffer[..length] };
        self.core.handle(input, &mut self.random, self.now, &mut self.effects);
        self.carry_out_effects();
        self.record_levels();
    }

    fn handle_relay_datagram(&mut self, at: RelayPort, source: SocketAddr, length: usize) {
        self.arrivals = self.arrivals.wrapping_add(1);
        let is_timed = self.arrivals.is_multiple_of(TIMED_DATAGRAMS);
        let begin = is_timed.then(clock::now);
        if let Some(grants) = &mut self.grants {
            grants.prepare(at, &mut self.core, self.now);
        }
        let action = self.core.handle_datagram(at, source, length, self.now, &mut self.effects);
        if let Some(grants) = &mut self.grants {
            let is_forwarded = matches!(action, Action::Forward { .. });
            grants.conclude(at, is_forwarded, &mut self.core, self.now);
        }
        match action {
            Action::Forward { via, to } => {
                if self.forward(via, to, length)
                    && let Some(grants) = &mut self.grants
                {
                    grants.note_relayed(at, self.now);
                }
            }
            Action::Drop(reason) => {
                log::trace!("port {at}: {length} bytes from {source} dropped: {}", reason.label());
                self.record_drop(reason);
                self.warn_of_drop(at, reason);
                self.carry_out_effects();
            }
        }
        if let Some(begin) = begin {
            let took = clock::now().saturating_duration_since(begin);
            self.metrics.relay_duration.observe_time(took);
        }
    }

    /// Whether it was sent.
    fn forward(&mut self, via: RelayPort, to: SocketAddr, length: usize) -> bool {
        match self.sockets.send(SocketId::Relay(via), &self.buffer[..length], to) {
            Sent::Whole => {
                self.metrics.relay_datagrams.add_as_only_writer(1);
                self.metrics.relay_bytes.add_as_only_writer(length as u64);
                self.metrics.relay_size.observe(length as u64);
                return true;
            }
            Sent::BufferFull => self.record_drop(DropReason::SendBufferFull),
            Sent::TooLarge => self.record_drop(DropReason::TooLarge),
            Sent::Failed(error) => {
                self.record_drop(DropReason::SendFailed);
                self.warn_of_failed_send(&error);
            }
        }
        false
    }

    fn record_drop(&self, reason: DropReason) {
        self.metrics.relay_drops.of(reason).add_as_only_writer(1);
    }
}
