//! Decides nothing: a datagram's way through the process. The page where its cost is.

use crate::label::Label;
use std::io;
use std::net::SocketAddr;

use super::{EventLoop, TIMED_DATAGRAMS};
use crate::core::players::Registration;
use crate::core::protocol::Reply;
use crate::core::relay::{Action, DropReason, RelayPort};
use crate::limits::bounds::Bound;
use crate::operation::clock;
use crate::operation::logging::STEP;
use crate::shell::sockets::{Received, Sent, SocketId};

/// Which key sets the limit that a datagram was over.
pub(super) const LIMIT_KEYS: [(DropReason, &str); 4] = [
    (DropReason::PairBandwidth, "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC"),
    (DropReason::GlobalBandwidth, "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC"),
    (DropReason::LifetimeDuration, "NORAY_UDP_RELAY_MAX_LIFETIME_DURATION"),
    (DropReason::LifetimeTraffic, "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC"),
];

impl EventLoop {
    /// Reads the sockets that have something, each a little, so that a flooded one delays nobody: at most
    /// [`MAX_READY`](crate::shell::poller::MAX_READY) sockets of 8 datagrams, 2 to 4 ms of work, before events have their turn.
    pub(super) fn handle_datagrams(&mut self) {
        for index in 0..self.readable.len() {
            let id = self.readable[index];
            let budget = self.sockets.budget(id, self.turn);
            match id {
                SocketId::Registrar => self.drain(id, budget, Self::handle_registration),
                SocketId::Relay(port) => self.drain(id, budget, |this, source, length| {
                    this.relay(port, source, length);
                }),
            }
        }
    }

    /// Reads up to `budget` datagrams of one socket into the buffer.
    fn drain(
        &mut self,
        id: SocketId,
        budget: usize,
        handle: impl Fn(&mut Self, SocketAddr, usize),
    ) {
        for _ in 0..budget {
            match self.sockets.receive(id, &mut self.buffer) {
                Received::Datagram { length, source } => handle(self, source, length),
                Received::Nothing => return,
                Received::Failed(error) => self.note_receive_error(id, &error),
            }
        }
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
                self.explain_unconfirmed(at, reason);
            }
        }
        if let Some(begin) = begin {
            let took = clock::now().saturating_duration_since(begin);
            self.metrics.relay_duration.observe_time(took);
        }
    }

    fn count_drop(&self, reason: DropReason) {
        self.metrics.relay_drops.of(reason).add_as_only_writer(1);
    }

    #[cold]
    fn note_send_error(&mut self, error: &io::Error) {
        if self.warnings.send.is_due(clock::now()) {
            log::warn!(
                "sending to a player failed: {error}; check the machine's routes and firewall"
            );
        }
    }

    /// Tells the players of a pair that is over a limit, and the operator which key sets it, each once a minute.
    fn tell_of_limit(&mut self, at: RelayPort, reason: DropReason) {
        if let Some(limit) = reason.limit() {
            for player in self.relays.poll_notices(at, limit, self.now).into_iter().flatten() {
                log::debug!("relay {at}: {} limit, player {}", limit.label(), self.name_of(player));
                self.tell(player, &Reply::RelayLimit(limit));
            }
        }
        let Some(index) = LIMIT_KEYS.iter().position(|(over, _)| *over == reason) else {
            return;
        };
        if self.warnings.limits[index].is_due(clock::now()) {
            log::warn!(
                "relay {at}: datagrams are dropped, over {}; noray_relay_drop_count{{reason=\"{}\"}} says how many",
                LIMIT_KEYS[index].1,
                reason.label()
            );
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
                 been heard; if many players are so, their carriers use several IPs: set \
                 NORAY_UDP_RELAY_LATCHING=any (the README's Security says what it costs)"
            );
        }
    }

    fn explain_unconfirmed(&mut self, at: RelayPort, reason: DropReason) {
        if reason == DropReason::Unconfirmed && self.warnings.unconfirmed.is_due(clock::now()) {
            log::warn!(
                "relay {at}: datagrams are dropped, because both players registered from other IPs than their \
                 connections come from, as somebody does who forges addresses; if many players are so, their \
                 carriers use several IPs: set NORAY_UDP_RELAY_LATCHING=any (the README's Security says what it \
                 costs)"
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
                self.note_levels();
                log::info!(target: STEP, "player {open_id}: external address {source}");
            }
            Registration::Moved(player, open_id) => {
                self.metrics.registrar_success.add_as_only_writer(1);
                self.relays.handle_move(player, source);
                // Below info: a player can move as often as it can send.
                log::debug!("player {open_id}: external address moved to {source}");
            }
            Registration::Repeated => self.metrics.registrar_repeat.add_as_only_writer(1),
            Registration::Implausible(open_id, connected_from) => {
                self.metrics.registrar_fail.add_as_only_writer(1);
                if self.warnings.implausible.is_due(clock::now()) {
                    log::warn!(
                        "player {open_id}, whose connection comes from {connected_from}, cannot register from {source}: \
                         most likely that is forged; a player that is honest uses one address of this server for \
                         both, not a public and a private one"
                    );
                }
            }
            Registration::TooManyMoves => {
                self.metrics.registrar_fail.add_as_only_writer(1);
                self.metrics.bounds_reached.of(Bound::Moves).add_as_only_writer(1);
            }
            Registration::Unknown => {
                self.metrics.registrar_fail.add_as_only_writer(1);
                log::trace!("registrar: {length} bytes from {source} refused");
            }
        }
        if outcome.is_limited {
            self.metrics.bounds_reached.of(Bound::UnknownAnswers).add_as_only_writer(1);
        }
        if let Some(answer) = outcome.answer
            && let Sent::Failed(error) = self.sockets.send(SocketId::Registrar, answer, source)
        {
            self.note_send_error(&error);
        }
    }
}
