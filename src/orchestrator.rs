//! Writes to nobody: what one command of a player leads to, as replies to players.

use std::net::SocketAddr;

use crate::hosts::{Host, Hosts, IdsExhausted};
use crate::id::{ConnectionId, OpenId, Random};
use crate::protocol::{Command, ErrorCode, Reply};
use crate::relay::{Introduction, Party, RelayTable, RelaysExhausted};
use crate::time::Timestamp;

/// Carries out `command` of the player `asker`; the replies are to be written in their order.
pub fn handle_command(
    asker: ConnectionId,
    command: &Command,
    hosts: &mut Hosts,
    relays: &mut RelayTable,
    random: &mut impl Random,
    now: Timestamp,
) -> Vec<(ConnectionId, Reply)> {
    let result = match command {
        Command::RegisterHost => match hosts.register(asker, random) {
            Ok(host) => Ok(vec![(
                asker,
                Reply::SetIds(host.open_id.clone(), host.private_id.clone()),
            )]),
            Err(IdsExhausted) => Err(ErrorCode::IdsExhausted),
        },
        Command::Connect(host) => {
            both_ends(asker, host.as_ref(), hosts).and_then(|[asker, host]| connect(asker, host))
        }
        Command::ConnectRelay(host) => both_ends(asker, host.as_ref(), hosts)
            .and_then(|[asker, host]| connect_relay(asker, host, relays, now)),
        Command::Echo(data) => Ok(vec![(asker, Reply::Echo(data.clone()))]),
        Command::Unknown(name) => Ok(vec![(asker, Reply::UnknownCommand(name.clone()))]),
        Command::NotUtf8 => Ok(vec![(asker, Reply::NotUtf8)]),
    };
    result.unwrap_or_else(|code| vec![(asker, Reply::Failed(command.kind(), code))])
}

/// What went wrong, if the replies tell of a failure: the error's token.
pub fn failure(replies: &[(ConnectionId, Reply)]) -> Option<&'static str> {
    replies.iter().find_map(|(_, reply)| match reply {
        Reply::Failed(_, error) => Some(error.code()),
        Reply::UnknownCommand(_) => Some("unknown-command"),
        Reply::NotUtf8 => Some("not-utf8"),
        Reply::LineTooLong => Some("line-too-long"),
        Reply::ServerFull => Some("server-full"),
        Reply::SetIds(..)
        | Reply::Connect(_)
        | Reply::ConnectRelay(_)
        | Reply::Echo(_)
        | Reply::RelayLimit(_) => None,
    })
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
        host.address
            .map(|address| Party { player, address })
            .ok_or(error)
    };
    Ok([
        party(asker, asking, ErrorCode::NoAddress)?,
        party(host_player, host, ErrorCode::HostNoAddress)?,
    ])
}

fn connect(asker: Party, host: Party) -> Result<Vec<(ConnectionId, Reply)>, ErrorCode> {
    let family = |address: SocketAddr| address.is_ipv4();
    if family(asker.address) != family(host.address) {
        return Err(ErrorCode::NoCommonFamily);
    }
    Ok(vec![
        (asker.player, Reply::Connect(host.address)),
        (host.player, Reply::Connect(asker.address)),
    ])
}

fn connect_relay(
    asker: Party,
    host: Party,
    relays: &mut RelayTable,
    now: Timestamp,
) -> Result<Vec<(ConnectionId, Reply)>, ErrorCode> {
    match relays.introduce(asker, host, now) {
        Ok(Introduction {
            asker: asker_port,
            host: host_port,
        }) => Ok(vec![
            (asker.player, Reply::ConnectRelay(host_port)),
            (host.player, Reply::ConnectRelay(asker_port)),
        ]),
        Err(RelaysExhausted) => Err(ErrorCode::RelaysExhausted),
    }
}
