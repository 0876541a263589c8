//! The rules for players' commands: what each command does and which errors it can have.

use crate::core::Core;
use crate::core::effect::{CloseMode, Effect, Effects};
use crate::core::host::Host;
use crate::core::id::{ConnectionId, OpenId, PrivateId, Random};
use crate::core::players::{ConnectionInfo, IdsExhausted, NotFound, Player, Resumption};
use crate::core::protocol::{Command, CommandKind, ErrorCode, Reply};
use crate::core::relay::{NoRelay, PairPorts, Party};
use crate::label::Label;
use crate::limits::bounds::Bound;
use crate::limits::connection_policy::DisconnectReason;
use crate::time::Timestamp;

/// Why a command failed, and which bound it reached, if any.
pub(super) struct CommandFailure {
    error: ErrorCode,
    bound: Option<Bound>,
}

impl From<ErrorCode> for CommandFailure {
    fn from(error: ErrorCode) -> Self {
        Self { error, bound: None }
    }
}

impl CommandFailure {
    /// The command failed because of `bound`.
    pub(super) fn at(bound: Bound, error: ErrorCode) -> Self {
        Self { error, bound: Some(bound) }
    }
}

/// Answers a command with an error.
pub(super) fn tell_failure(
    connection: ConnectionId,
    kind: CommandKind,
    failure: CommandFailure,
    effects: &mut Effects,
) {
    let CommandFailure { error, bound } = failure;
    effects.extend(bound.map(Effect::BoundReached));
    tell_error(connection, kind, error.label(), Reply::Failed(kind, error), effects);
}

fn tell_error(
    connection: ConnectionId,
    kind: CommandKind,
    code: &'static str,
    reply: Reply,
    effects: &mut Effects,
) {
    effects.push_back(Effect::CommandFailed { connection, kind, code });
    effects.push_back(Effect::Tell(connection, reply));
}

/// What the players of a pair are told.
#[derive(Clone, Copy)]
enum Told {
    /// `connect-relay PORT`.
    Port,
    /// `connect SERVER:PORT`, which every client takes for its partner's own address.
    ServerAndPort,
}

/// The two players of an introduction, with what is needed to tell them and to log it. In pairs, the asker is first.
struct Introduction {
    asker: Party,
    host: Party,
    connections: [ConnectionId; 2],
    open_ids: [OpenId; 2],
}

impl Core {
    /// Carries out a command. Does nothing if its connection has ended.
    pub(super) fn handle_command(
        &mut self,
        from: ConnectionId,
        command: &Command,
        random: &mut impl Random,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(connection) = self.players.connection(from) else {
            return;
        };
        let kind = command.kind();
        let result = match command {
            Command::RegisterHost(private_id) => {
                self.register(from, connection, private_id.as_ref(), random, effects)
            }
            Command::Connect(host) => match self.settings.introductions.relay_only {
                true => self.relay(from, host.as_ref(), Told::ServerAndPort, now, effects),
                false => self.connect(from, host.as_ref(), now, effects),
            },
            Command::ConnectRelay(host) => {
                self.relay(from, host.as_ref(), Told::Port, now, effects)
            }
            Command::Echo(data) => {
                effects.push_back(Effect::Tell(from, Reply::Echo(data.clone())));
                Ok(())
            }
            Command::Unknown(name) => {
                let reply = Reply::UnknownCommand(name.clone());
                tell_error(from, kind, "unknown-command", reply, effects);
                Ok(())
            }
            Command::NotUtf8 => {
                tell_error(from, kind, "not-utf8", Reply::NotUtf8, effects);
                Ok(())
            }
        };
        if let Err(failure) = result {
            tell_failure(from, kind, failure, effects);
        }
    }

    /// Gives a player new ids, or lets it go on as the player with that PrivateID. With an unknown PrivateID, it gets new
    /// ones.
    fn register(
        &mut self,
        from: ConnectionId,
        connection: ConnectionInfo,
        private_id: Option<&PrivateId>,
        random: &mut impl Random,
        effects: &mut Effects,
    ) -> Result<(), CommandFailure> {
        if let Some(private_id) = private_id
            && self.resume(from, connection, private_id, effects)
        {
            return Ok(());
        }
        let is_known = connection.player.is_some();
        if self.is_draining() && !is_known {
            return Err(ErrorCode::Draining.into());
        }
        let player = self
            .players
            .register(from, random)
            .map_err(|IdsExhausted| CommandFailure::from(ErrorCode::IdsExhausted))?;
        let ids = player.ids().clone();
        if !is_known {
            effects.push_back(Effect::PlayerRegistered(from, ids.open_id.clone()));
        }
        effects.push_back(Effect::Tell(from, Reply::SetIds(ids.open_id, ids.private_id)));
        Ok(())
    }

    /// Lets the player with that PrivateID go on on the connection `from`; whether there is one. If it was on another
    /// connection, that one is closed. If another player was on this one, that player is gone.
    fn resume(
        &mut self,
        from: ConnectionId,
        connection: ConnectionInfo,
        private_id: &PrivateId,
        effects: &mut Effects,
    ) -> bool {
        let private_id = private_id.reveal();
        let Some(player) = self.players.by_private_id(private_id).map(|player| player.id) else {
            return false;
        };
        if connection.player != Some(player)
            && let Some(departure) = self.players.give_up(from)
        {
            self.handle_departure(departure, effects);
        }
        let resumption = self.players.resume(from, private_id).expect("the player was found");
        let Resumption { ids, replaced, .. } = resumption;
        if let Some(replaced) = replaced {
            let reason = DisconnectReason::Replaced;
            effects.push_back(Effect::Disconnect(replaced, reason));
            effects.push_back(Effect::Tell(replaced, Reply::Disconnect(reason)));
            effects.push_back(Effect::Close(replaced, CloseMode::AfterReplies));
        }
        if connection.player != Some(player) {
            self.relays.handle_resumption(player, connection.from);
            if self.players.by_id(player).is_some_and(|player| player.address.is_some()) {
                self.relays.reserve(player);
            }
            effects.push_back(Effect::PlayerResumed(from, ids.open_id.clone()));
        }
        effects.push_back(Effect::Tell(from, Reply::SetIds(ids.open_id, ids.private_id)));
        true
    }

    fn connect(
        &mut self,
        from: ConnectionId,
        host: Option<&OpenId>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), CommandFailure> {
        let Introduction { asker, host, connections: [to_asker, to_host], .. } =
            self.introduction(from, host, now)?;
        if asker.address.is_ipv4() != host.address.is_ipv4() {
            return Err(ErrorCode::NoCommonFamily.into());
        }
        let rate_limited = |bound| CommandFailure::at(bound, ErrorCode::RateLimited);
        let network = asker.network();
        self.players.check_introduction(host.player, network, now).map_err(rate_limited)?;
        if self.relays.must_be_confirmed() && !asker.is_confirmed() {
            self.players.count_unconfirmed_connect(network, now).map_err(rate_limited)?;
        }
        self.players.record_introduction(host.player, network, now);
        effects.push_back(Effect::Tell(to_asker, Reply::Connect(host.address)));
        effects.push_back(Effect::Tell(to_host, Reply::Connect(asker.address)));
        Ok(())
    }

    /// Opens a pair, or finds it, and tells both players how they reach each other.
    fn relay(
        &mut self,
        from: ConnectionId,
        host: Option<&OpenId>,
        told: Told,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), CommandFailure> {
        let Introduction { asker, host, connections: [to_asker, to_host], open_ids } =
            self.introduction(from, host, now)?;
        let servers = match told {
            Told::Port => None,
            Told::ServerAndPort => Some([
                self.server_for(&asker).ok_or(ErrorCode::NoAddress)?,
                self.server_for(&host).ok_or(ErrorCode::HostNoAddress)?,
            ]),
        };
        self.players
            .check_introduction(host.player, asker.network(), now)
            .map_err(|bound| CommandFailure::at(bound, ErrorCode::RateLimited))?;
        let result = self.relays.introduce(asker, host, now, &mut self.closed);
        self.tell_closed_pairs(effects);
        let PairPorts { asker: asker_port, host: host_port, is_new } =
            result.map_err(|no_relay| match no_relay {
                NoRelay::Exhausted => CommandFailure::at(Bound::Relays, ErrorCode::RelaysExhausted),
                NoRelay::NetworkHasItsShare => {
                    CommandFailure::at(Bound::RelaysPerIp, ErrorCode::RelaysExhausted)
                }
                NoRelay::Unconfirmed => ErrorCode::Unconfirmed.into(),
            })?;
        self.players.record_introduction(host.player, asker.network(), now);
        if is_new {
            let ports = [asker_port, host_port];
            effects.push_back(Effect::PairOpened { ports, players: open_ids });
        }
        let [for_asker, for_host] = match servers {
            None => [Reply::ConnectRelay(host_port), Reply::ConnectRelay(asker_port)],
            Some([of_asker, of_host]) => [
                Reply::ConnectServer(of_asker, host_port),
                Reply::ConnectServer(of_host, asker_port),
            ],
        };
        effects.push_back(Effect::Tell(to_asker, for_asker));
        effects.push_back(Effect::Tell(to_host, for_host));
        Ok(())
    }

    /// How a player reaches the server by UDP: by the configured name, by the configured address if that is of the player's
    /// family, or where its PrivateID arrived. `None` if the system did not tell that.
    fn server_for(&self, party: &Party) -> Option<Host> {
        let is_ipv4 = party.address.is_ipv4();
        match &self.settings.introductions.public_host {
            Some(Host::Ip(ip)) if ip.is_ipv4() != is_ipv4 => {}
            Some(host) => return Some(host.clone()),
            None => {}
        }
        self.players.by_id(party.player)?.server_ip.map(Host::Ip)
    }

    /// Finds the asker, who is on the connection `from`, and the host that it names. Both must have a registered
    /// address.
    fn introduction(
        &mut self,
        from: ConnectionId,
        host: Option<&OpenId>,
        now: Timestamp,
    ) -> Result<Introduction, CommandFailure> {
        if self.is_draining() {
            return Err(ErrorCode::Draining.into());
        }
        let host = host.ok_or(ErrorCode::MissingOid)?;
        let asker = self.players.by_connection(from).ok_or(ErrorCode::NotRegistered)?;
        let (asker_id, asker_party, asker_open_id) =
            (asker.id, asker.as_party(), asker.open_id().clone());
        let network = asker.connected_from.into();
        let host: &Player = self.players.find(host, network, now).map_err(|error| match error {
            NotFound::Unknown => ErrorCode::UnknownOid.into(),
            NotFound::TooManyGuesses => {
                CommandFailure::at(Bound::WrongOpenIds, ErrorCode::RateLimited)
            }
        })?;
        if host.id == asker_id {
            return Err(ErrorCode::OwnOid.into());
        }
        let to_host = host.connection().ok_or(ErrorCode::HostAway)?;
        Ok(Introduction {
            asker: asker_party.ok_or(ErrorCode::NoAddress)?,
            host: host.as_party().ok_or(ErrorCode::HostNoAddress)?,
            connections: [from, to_host],
            open_ids: [asker_open_id, host.open_id().clone()],
        })
    }
}
