//! Writes to nobody: what one command of a player leads to, as replies to players.

use crate::label::Label;
use std::net::IpAddr;

use crate::core::id::{ConnectionId, OpenId, Random};
use crate::core::players::{Hosts, IdsExhausted, NotFound};
use crate::core::protocol::{Command, CommandKind, ErrorCode, Reply};
use crate::core::relay::{Introduction, NoRelay, Party, RelayPort, RelayTable};
use crate::limits::bounds::Bound;
use crate::time::Timestamp;

/// Whether the server begins anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It does.
    Open,
    /// It is about to end: no registration, no introduction.
    Draining,
}

/// Who sent a command.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The player.
    pub player: ConnectionId,
    /// Where its connection comes from, which cannot be forged.
    pub connected_from: IpAddr,
}

/// What a command led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// To be written to these players, in this order.
    pub replies: Vec<(ConnectionId, Reply)>,
    /// What is worth a line in the log.
    pub step: Step,
}

/// A step in the life of a player or a relay.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that was not there before.
    None,
    /// The player has ids now.
    Registered(OpenId),
    /// Two players have a relay now.
    RelayOpened {
        /// The host's and the asker's.
        ports: [RelayPort; 2],
        /// Who was asked for.
        host: OpenId,
    },
    /// The command failed.
    Failed {
        /// The error's token.
        code: &'static str,
        /// The bound that was reached, if it was that.
        bound: Option<Bound>,
    },
}

/// Carries out `command` of the player `asker`.
pub fn handle_command(
    asker: Asker,
    command: &Command,
    intake: Intake,
    hosts: &mut Hosts,
    relays: &mut RelayTable,
    random: &mut impl Random,
    now: Timestamp,
) -> Outcome {
    let player = asker.player;
    if intake == Intake::Draining && begins_something(player, command, hosts) {
        return failed(player, command.kind(), ErrorCode::Draining.into());
    }
    let result = match command {
        Command::RegisterHost => register(asker, hosts, random),
        Command::Connect(host) => connect(asker, host.as_ref(), hosts, relays, now),
        Command::ConnectRelay(host) => connect_relay(asker, host.as_ref(), hosts, relays, now),
        Command::Echo(data) => {
            Ok(Outcome { replies: vec![(player, Reply::Echo(data.clone()))], step: Step::None })
        }
        Command::Unknown(name) => {
            let reply = Reply::UnknownCommand(name.clone());
            Ok(without_bound(player, reply, "unknown-command"))
        }
        Command::NotUtf8 => Ok(without_bound(player, Reply::NotUtf8, "not-utf8")),
    };
    result.unwrap_or_else(|error| failed(player, command.kind(), error))
}

fn begins_something(asker: ConnectionId, command: &Command, hosts: &Hosts) -> bool {
    match command {
        Command::RegisterHost => hosts.by_connection(asker).is_none(),
        Command::Connect(_) | Command::ConnectRelay(_) => true,
        Command::Echo(_) | Command::Unknown(_) | Command::NotUtf8 => false,
    }
}

/// Why a command failed, and which bound it met.
struct Failure {
    error: ErrorCode,
    bound: Option<Bound>,
}

impl From<ErrorCode> for Failure {
    fn from(error: ErrorCode) -> Self {
        Self { error, bound: None }
    }
}

impl Failure {
    fn at(bound: Bound, error: ErrorCode) -> Self {
        Self { error, bound: Some(bound) }
    }
}

fn failed(asker: ConnectionId, kind: CommandKind, failure: Failure) -> Outcome {
    let Failure { error, bound } = failure;
    let replies = vec![(asker, Reply::Failed(kind, error))];
    Outcome { replies, step: Step::Failed { code: error.label(), bound } }
}

fn without_bound(asker: ConnectionId, reply: Reply, code: &'static str) -> Outcome {
    Outcome { replies: vec![(asker, reply)], step: Step::Failed { code, bound: None } }
}

fn register(asker: Asker, hosts: &mut Hosts, random: &mut impl Random) -> Result<Outcome, Failure> {
    let Asker { player, connected_from } = asker;
    let is_known = hosts.by_connection(player).is_some();
    let host = match hosts.register(player, connected_from, random) {
        Ok(host) => host,
        Err(IdsExhausted) => return Err(ErrorCode::IdsExhausted.into()),
    };
    let ids = Reply::SetIds(host.open_id.clone(), host.private_id.clone());
    let step = if is_known { Step::None } else { Step::Registered(host.open_id.clone()) };
    Ok(Outcome { replies: vec![(player, ids)], step })
}

fn connect(
    asker: Asker,
    open_id: Option<&OpenId>,
    hosts: &mut Hosts,
    relays: &RelayTable,
    now: Timestamp,
) -> Result<Outcome, Failure> {
    let [asker, host] = both_ends(asker, open_id, hosts, now)?;
    if asker.address.is_ipv4() != host.address.is_ipv4() {
        return Err(ErrorCode::NoCommonFamily.into());
    }
    let rate_limited = |bound| Failure::at(bound, ErrorCode::RateLimited);
    hosts.may_introduce(host.player, asker.network(), now).map_err(rate_limited)?;
    if relays.must_be_confirmed() && !asker.is_confirmed() {
        hosts.connect_unconfirmed(asker.network(), now).map_err(rate_limited)?;
    }
    hosts.note_introduction(host.player, asker.network(), now);
    let replies = vec![
        (asker.player, Reply::Connect(host.address)),
        (host.player, Reply::Connect(asker.address)),
    ];
    Ok(Outcome { replies, step: Step::None })
}

fn connect_relay(
    asker: Asker,
    open_id: Option<&OpenId>,
    hosts: &mut Hosts,
    relays: &mut RelayTable,
    now: Timestamp,
) -> Result<Outcome, Failure> {
    let [asker, host] = both_ends(asker, open_id, hosts, now)?;
    hosts
        .may_introduce(host.player, asker.network(), now)
        .map_err(|bound| Failure::at(bound, ErrorCode::RateLimited))?;
    let ports = match relays.introduce(asker, host, now) {
        Ok(ports) => ports,
        Err(NoRelay::Exhausted) => {
            return Err(Failure::at(Bound::Relays, ErrorCode::RelaysExhausted));
        }
        Err(NoRelay::NetworkHasItsShare) => {
            return Err(Failure::at(Bound::RelaysPerIp, ErrorCode::RelaysExhausted));
        }
        Err(NoRelay::Unconfirmed) => return Err(ErrorCode::Unconfirmed.into()),
    };
    hosts.note_introduction(host.player, asker.network(), now);
    let Introduction { asker: asker_port, host: host_port, is_new } = ports;
    let replies = vec![
        (asker.player, Reply::ConnectRelay(host_port)),
        (host.player, Reply::ConnectRelay(asker_port)),
    ];
    let step = match open_id {
        Some(host) if is_new => {
            Step::RelayOpened { ports: [host_port, asker_port], host: host.clone() }
        }
        Some(_) | None => Step::None,
    };
    Ok(Outcome { replies, step })
}

/// The asker and the host it names, each with its registered address.
fn both_ends(
    asker: Asker,
    open_id: Option<&OpenId>,
    hosts: &mut Hosts,
    now: Timestamp,
) -> Result<[Party; 2], Failure> {
    let open_id = open_id.ok_or(ErrorCode::MissingOid)?;
    let Asker { player, connected_from } = asker;
    let own_address = hosts.by_connection(player).ok_or(ErrorCode::NotRegistered)?.address;
    let (host_player, host) =
        hosts.find(open_id, connected_from.into(), now).map_err(|error| match error {
            NotFound::Unknown => ErrorCode::UnknownOid.into(),
            NotFound::TooManyGuesses => Failure::at(Bound::WrongOpenIds, ErrorCode::RateLimited),
        })?;
    if host_player == player {
        return Err(ErrorCode::OwnOid.into());
    }
    let address = own_address.ok_or(ErrorCode::NoAddress)?;
    let host_address = host.address.ok_or(ErrorCode::HostNoAddress)?;
    let host =
        Party { player: host_player, address: host_address, connected_from: host.connected_from };
    Ok([Party { player, address, connected_from }, host])
}
