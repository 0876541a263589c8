//! Writes to nobody: what one command of a player leads to, as replies to players.

use crate::hosts::{Host, Hosts, IdsExhausted};
use crate::id::{ConnectionId, OpenId, Random};
use crate::protocol::{Command, CommandKind, ErrorCode, Reply};
use crate::relay::{Introduction, Party, RelayPort, RelayTable, RelaysExhausted};
use crate::time::Timestamp;

/// Whether the server begins anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It does.
    Open,
    /// It is about to end: no registration, no introduction.
    Draining,
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
    /// The command failed, with the error's token.
    Failed(&'static str),
}

/// Carries out `command` of the player `asker`.
pub fn handle_command(
    asker: ConnectionId,
    command: &Command,
    intake: Intake,
    hosts: &mut Hosts,
    relays: &mut RelayTable,
    random: &mut impl Random,
    now: Timestamp,
) -> Outcome {
    if intake == Intake::Draining && begins_something(asker, command, hosts) {
        return failed(asker, command.kind(), ErrorCode::Draining);
    }
    let result = match command {
        Command::RegisterHost => register(asker, hosts, random),
        Command::Connect(host) => connect(asker, host.as_ref(), hosts),
        Command::ConnectRelay(host) => connect_relay(asker, host.as_ref(), hosts, relays, now),
        Command::Echo(data) => {
            Ok(Outcome { replies: vec![(asker, Reply::Echo(data.clone()))], step: Step::None })
        }
        Command::Unknown(name) => {
            let reply = Reply::UnknownCommand(name.clone());
            Ok(Outcome { replies: vec![(asker, reply)], step: Step::Failed("unknown-command") })
        }
        Command::NotUtf8 => {
            Ok(Outcome { replies: vec![(asker, Reply::NotUtf8)], step: Step::Failed("not-utf8") })
        }
    };
    result.unwrap_or_else(|error| failed(asker, command.kind(), error))
}

fn begins_something(asker: ConnectionId, command: &Command, hosts: &Hosts) -> bool {
    match command {
        Command::RegisterHost => hosts.by_connection(asker).is_none(),
        Command::Connect(_) | Command::ConnectRelay(_) => true,
        Command::Echo(_) | Command::Unknown(_) | Command::NotUtf8 => false,
    }
}

fn failed(asker: ConnectionId, kind: CommandKind, error: ErrorCode) -> Outcome {
    let replies = vec![(asker, Reply::Failed(kind, error))];
    Outcome { replies, step: Step::Failed(error.code()) }
}

fn register(
    player: ConnectionId,
    hosts: &mut Hosts,
    random: &mut impl Random,
) -> Result<Outcome, ErrorCode> {
    let is_known = hosts.by_connection(player).is_some();
    let host = match hosts.register(player, random) {
        Ok(host) => host,
        Err(IdsExhausted) => return Err(ErrorCode::IdsExhausted),
    };
    let ids = Reply::SetIds(host.open_id.clone(), host.private_id.clone());
    let step = if is_known { Step::None } else { Step::Registered(host.open_id.clone()) };
    Ok(Outcome { replies: vec![(player, ids)], step })
}

fn connect(
    asker: ConnectionId,
    open_id: Option<&OpenId>,
    hosts: &Hosts,
) -> Result<Outcome, ErrorCode> {
    let [asker, host] = both_ends(asker, open_id, hosts)?;
    if asker.address.is_ipv4() != host.address.is_ipv4() {
        return Err(ErrorCode::NoCommonFamily);
    }
    let replies = vec![
        (asker.player, Reply::Connect(host.address)),
        (host.player, Reply::Connect(asker.address)),
    ];
    Ok(Outcome { replies, step: Step::None })
}

fn connect_relay(
    asker: ConnectionId,
    open_id: Option<&OpenId>,
    hosts: &Hosts,
    relays: &mut RelayTable,
    now: Timestamp,
) -> Result<Outcome, ErrorCode> {
    let [asker, host] = both_ends(asker, open_id, hosts)?;
    let ports = match relays.introduce(asker, host, now) {
        Ok(ports) => ports,
        Err(RelaysExhausted) => return Err(ErrorCode::RelaysExhausted),
    };
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
    asker: ConnectionId,
    open_id: Option<&OpenId>,
    hosts: &Hosts,
) -> Result<[Party; 2], ErrorCode> {
    let open_id = open_id.ok_or(ErrorCode::MissingOid)?;
    let asking = hosts.by_connection(asker).ok_or(ErrorCode::NotRegistered)?;
    let (host_player, host) = hosts.by_open_id(open_id).ok_or(ErrorCode::UnknownOid)?;
    if host_player == asker {
        return Err(ErrorCode::OwnOid);
    }
    let party = |player, host: &Host, error| {
        host.address.map(|address| Party { player, address }).ok_or(error)
    };
    Ok([
        party(asker, asking, ErrorCode::NoAddress)?,
        party(host_player, host, ErrorCode::HostNoAddress)?,
    ])
}
