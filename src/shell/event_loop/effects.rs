//! Carries out the effects that the core wants, counts them and logs them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use super::{COUNTDOWN, EventLoop, LoopTask};
use crate::config::units::TimeSpan;
use crate::core::effect::{CloseMode, Effect};
use crate::core::id::{ConnectionId, OpenId};
use crate::core::players::{AddressRegistration, Departure};
use crate::core::protocol::Reply;
use crate::core::relay::{ClosedPair, DropReason, RelayPort};
use crate::core::{Input, drain};
use crate::label::{Label, counted};
use crate::limits::connection_policy::DisconnectReason;
use crate::operation::clock;
use crate::operation::logging::STEP;
use crate::operation::metrics::{PortState, Table};
use crate::operation::warning_limiter::WarningLimiter;
use crate::shell::connection::SendError;
use crate::shell::sockets::{Sent, SocketId};

/// Each drop reason that means "over a limit", with the key that sets the limit.
pub(super) const LIMIT_KEYS: [(DropReason, &str); 4] = [
    (DropReason::PairBandwidth, "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC"),
    (DropReason::GlobalBandwidth, "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC"),
    (DropReason::LifetimeDuration, "NORAY_UDP_RELAY_MAX_LIFETIME_DURATION"),
    (DropReason::LifetimeTraffic, "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC"),
];

/// When each kind of warning was last written.
#[derive(Default)]
pub(super) struct Warnings {
    send: WarningLimiter,
    pub(super) receive: WarningLimiter,
    partner_elsewhere: WarningLimiter,
    unconfirmed: WarningLimiter,
    implausible: WarningLimiter,
    limits: [WarningLimiter; LIMIT_KEYS.len()],
}

impl EventLoop {
    /// Carries out all effects, and those that this causes.
    pub(super) fn carry_out_effects(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Tell(connection, reply) => self.tell(connection, &reply),
            Effect::Close(connection, mode) => self.close(connection, mode),
            Effect::Answer { to, answer } => self.answer(to, answer),
            Effect::PlayerRegistered(connection, open_id) => {
                self.mark_registered(connection, &open_id, "registered");
            }
            Effect::PlayerResumed(connection, open_id) => {
                self.mark_registered(connection, &open_id, "goes on");
            }
            Effect::PlayerLeft(Departure { open_id, .. }) => {
                log::info!(target: STEP, "player {open_id}: disconnected");
            }
            Effect::PlayerForgotten(open_id) => {
                log::debug!("player {open_id}: did not come back, its ids are free");
            }
            Effect::AddressRegistration { source, registration } => {
                self.record_registration(source, &registration);
            }
            Effect::PairOpened { ports: [one, other], players: [asker, host] } => {
                log::info!(target: STEP, "relay {other}+{one}: player {asker} with player {host}");
            }
            Effect::PairClosed(ClosedPair { ports: [one, other], traffic, retired }) => {
                self.close_grant([one, other]);
                retired.into_iter().for_each(|port| self.sockets.close(port));
                self.metrics.relay_expired.add_as_only_writer(1);
                log::info!(target: STEP, "relay {one}+{other}: freed after {traffic} bytes");
            }
            Effect::PairChanged(port) => self.check_grant(port),
            Effect::CommandFailed { connection, kind, code } => {
                self.metrics.command_exception.of(kind).add_as_only_writer(1);
                log::debug!("{} from {}: {code}", kind.label(), self.peer(connection));
            }
            Effect::BoundReached(bound) => {
                self.metrics.bounds_reached.of(bound).add_as_only_writer(1);
            }
            Effect::Disconnect(connection, reason) => {
                self.metrics.connections_closed.of(reason).add_as_only_writer(1);
                log::debug!("{}: {}, closed", self.peer(connection), reason.label());
            }
            Effect::RelayLimitReached { at, limit, open_id } => {
                log::debug!("relay {at}: {} limit, player {open_id}", limit.label());
            }
            Effect::PartnerElsewhere { at, source, registered } => {
                self.warn_of_partner_elsewhere(at, source, registered);
            }
            Effect::PlayersUnconfirmed { at } => self.warn_of_unconfirmed_players(at),
            Effect::DrainStarted { pairs, timeout } => self.announce_drain(pairs, timeout),
            Effect::DrainEnded => self.acceptor.end(),
        }
    }

    /// Writes to a player. A player that does not read is disconnected; the loop does not wait for it.
    fn tell(&mut self, connection: ConnectionId, reply: &Reply) {
        let Some(player) = self.connections.get(&connection) else {
            return;
        };
        let input = match player.send(reply) {
            Ok(()) => return,
            Err(SendError::BufferFull) => {
                player.reset_on_close();
                Input::Disconnect(connection, DisconnectReason::SlowReader)
            }
            Err(SendError::Broken) => Input::Disconnected(connection),
        };
        self.core.handle(input, &mut self.random, self.now, &mut self.effects);
    }

    fn close(&mut self, connection: ConnectionId, mode: CloseMode) {
        let Some(connection) = self.connections.remove(&connection) else {
            return;
        };
        match mode {
            CloseMode::AtOnce => connection.disconnect(),
            CloseMode::AfterReplies => connection.finish_sending(),
        }
    }

    fn answer(&mut self, to: SocketAddr, answer: &[u8]) {
        if let Sent::Failed(error) = self.sockets.send(SocketId::Registrar, answer, to) {
            self.warn_of_failed_send(&error);
        }
    }

    fn mark_registered(&self, connection: ConnectionId, open_id: &OpenId, what: &str) {
        if let Some(connection) = self.connections.get(&connection) {
            connection.mark_registered();
            let from = self.shown(connection.peer);
            log::info!(target: STEP, "player {open_id}: {what} from {from}");
        }
    }

    fn record_registration(&mut self, source: SocketAddr, registration: &AddressRegistration) {
        let counter = match registration {
            AddressRegistration::First(_, open_id) => {
                let address = self.shown(source);
                log::info!(target: STEP, "player {open_id}: external address {address}");
                &self.metrics.registrar_success
            }
            AddressRegistration::Changed(_, open_id) => {
                // At debug, because one player can change its address many times.
                log::debug!("player {open_id}: external address moved to {source}");
                &self.metrics.registrar_success
            }
            AddressRegistration::Repeated(_) => &self.metrics.registrar_repeat,
            AddressRegistration::Implausible(open_id, connected_from) => {
                if self.warnings.implausible.try_acquire(clock::now()) {
                    let [connected_from, source] =
                        [*connected_from, source.ip()].map(|ip| self.shown(ip));
                    log::warn!(
                        "player {open_id} is connected from {connected_from} and cannot register from {source}: that source \
                         is probably forged; honest players must use one address of this server for TCP and UDP, \
                         not a public and a private one"
                    );
                }
                &self.metrics.registrar_fail
            }
            AddressRegistration::TooManyChanges | AddressRegistration::Unknown => {
                log::trace!("registrar: a datagram from {source} was refused");
                &self.metrics.registrar_fail
            }
        };
        counter.add_as_only_writer(1);
    }

    fn announce_drain(&mut self, pairs: usize, timeout: Duration) {
        self.supervisor.stopping(timeout, &self.status());
        if self.supervisor.beat_interval().is_some() {
            self.deadlines.set_earlier(LoopTask::Beat, self.now + COUNTDOWN);
        }
        self.metrics.is_draining.set(1);
        self.acceptor.refuse();
        if pairs == 0 {
            log::info!("draining: there is no relay to wait for");
            return;
        }
        log::info!(
            "draining: waiting for {} to go idle ({} without a datagram), at most {}; a second signal ends the server at once",
            counted(pairs, "relay"),
            TimeSpan(drain::QUIET_TIME),
            TimeSpan(timeout)
        );
    }

    /// A player's address for the log, at the levels that most operators read. If players must not learn each other's IP,
    /// those who show their log must not tell it either.
    fn shown(&self, address: impl fmt::Display) -> String {
        if self.core.hides_players() { "(hidden)".to_owned() } else { address.to_string() }
    }

    fn peer(&self, connection: ConnectionId) -> String {
        self.connections.get(&connection).map_or("?".to_owned(), |c| c.peer.to_string())
    }

    /// Writes the current levels to the metrics.
    pub(super) fn record_levels(&self) {
        let sizes = self.core.table_sizes();
        self.metrics.active_hosts.set(sizes.players);
        self.metrics.relay_count.set(sizes.pairs);
        self.metrics.relay_ports.of(PortState::InUse).set(2 * sizes.pairs);
        self.metrics.relay_ports.of(PortState::Free).set(sizes.free_ports);
        self.metrics.relay_ports.of(PortState::Reserved).set(sizes.reserved_ports);
        for (table, entries) in [
            (Table::Players, sizes.connections),
            (Table::AwayPlayers, sizes.absent),
            (Table::OpenIds, sizes.open_ids),
            (Table::PrivateIds, sizes.private_ids),
            (Table::GuessingNetworks, sizes.limited_networks),
            (Table::Partners, sizes.partners),
            (Table::RelayNetworks, sizes.relay_networks),
        ] {
            self.metrics.table_entries.of(table).set(entries);
        }
    }

    #[cold]
    pub(super) fn warn_of_failed_send(&mut self, error: &io::Error) {
        if self.warnings.send.try_acquire(clock::now()) {
            log::warn!(
                "sending to a player failed: {error}; check the machine's routes and firewall"
            );
        }
    }

    /// Warns of dropped datagrams if a setting could help.
    pub(super) fn warn_of_drop(&mut self, at: RelayPort, reason: DropReason) {
        let limit = LIMIT_KEYS.iter().zip(&mut self.warnings.limits);
        if let Some(((_, key), limiter)) = limit.into_iter().find(|((over, _), _)| *over == reason)
            && limiter.try_acquire(clock::now())
        {
            log::warn!(
                "relay {at}: datagrams over {key} are dropped; noray_relay_drop_count{{reason=\"{}\"}} counts them",
                reason.label()
            );
        }
    }

    /// Warns of partners that are heard only from another IP. Most likely their carriers have several IPs.
    fn warn_of_partner_elsewhere(&mut self, at: RelayPort, source: IpAddr, registered: IpAddr) {
        if self.warnings.partner_elsewhere.try_acquire(clock::now()) {
            let [source, registered] = [source, registered].map(|ip| self.shown(ip));
            log::warn!(
                "relay {at}: datagrams come from {source}, but the player registered from {registered} and has not \
                 been heard; the same happened to other players lately; if their carriers use several IPs, set \
                 NORAY_UDP_RELAY_LATCHING=any (its cost: docs/security.md)"
            );
        }
    }

    fn warn_of_unconfirmed_players(&mut self, at: RelayPort) {
        if self.warnings.unconfirmed.try_acquire(clock::now()) {
            log::warn!(
                "relay {at}: datagrams are dropped, and so are those of others lately: both players registered from \
                 another IP than that of their connection, as an attacker with forged addresses does; if their \
                 carriers use several IPs, set NORAY_UDP_RELAY_LATCHING=any (its cost: docs/security.md)"
            );
        }
    }
}
