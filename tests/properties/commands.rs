//! A stream of bytes in segments of any size: lines, commands, and what the rules answer to three players.

use std::net::IpAddr;
use std::time::Duration;

use noray::config::Config;
use noray::core::effect::{Effect, Effects};
use noray::core::id::{ConnectionId, OpenId, PrivateId};
use noray::core::players::Way;
use noray::core::protocol::{Command, LineReader, LineTooLong, MAX_ECHOED_NAME, MAX_LINE, Reply};
use noray::core::relay::{OwnAddresses, RelayPort};
use noray::core::{Core, Input};
use noray::label::Label;
use noray::time::Timestamp;

use crate::random::Repeatable;

pub(crate) fn check(data: &[u8]) {
    let [size, intake, stream @ ..] = data else { return };
    let lines = lines_of(stream, usize::from(*size).max(1));
    let mut server = Server::new();
    if intake % 8 == 0 {
        server.handle(Input::Drain);
    }
    for line in &lines {
        assert!(line.len() <= MAX_LINE && !line.contains(&b'\n'));
        if let Some(command) = Command::parse(line) {
            server.take(line, &command);
        } else {
            assert!(line.is_empty());
        }
    }
}

/// The lines of a stream that comes in segments of that size, held against cutting it as a whole.
fn lines_of(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut whole = Vec::new();
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE {
            break;
        }
        whole.push(line.to_vec());
    }
    let (mut reader, mut lines) = (LineReader::default(), Vec::new());
    'stream: for (number, mut segment) in (1..).zip(stream.chunks(size)) {
        let read = &stream[..stream.len().min(number * size)];
        let incomplete = read.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
        loop {
            match reader.next_line(&mut segment) {
                Ok(Some(line)) => lines.push(line.into_owned()),
                Ok(None) => {
                    assert!(incomplete <= MAX_LINE + 1, "{incomplete} bytes are held");
                    break;
                }
                Err(LineTooLong) => break 'stream,
            }
        }
    }
    assert_eq!(lines, whole);
    lines
}

struct Server {
    core: Core,
    random: Repeatable,
    now: Timestamp,
    asker: u64,
}

const PORTS: [RelayPort; 6] =
    [RelayPort(1), RelayPort(2), RelayPort(3), RelayPort(4), RelayPort(5), RelayPort(6)];

impl Server {
    /// Two players that can be found as `{1}` and `{2}`; the third has to register by itself.
    fn new() -> Self {
        let (config, mut random, now) = (Config::default(), Repeatable::new(), Timestamp::START);
        let own = OwnAddresses::default();
        let core = Core::new(config.settings(), own, PORTS.to_vec(), &mut random, now);
        let mut this = Self { core, random, now, asker: 0 };
        let from = IpAddr::from([192, 0, 2, 1]);
        for player in 1..=3 {
            this.handle(Input::Connected(ConnectionId(player), from));
        }
        for player in [1, 2] {
            this.handle(Input::Command(ConnectionId(player), &Command::RegisterHost(None)));
            let pid = this.private_id(player).expect("it has registered");
            let source = format!("192.0.2.{player}:4000").parse().expect("an address");
            let way = Way { source, arrived_at: None };
            this.handle(Input::RegistrarDatagram { way, payload: pid.as_bytes() });
        }
        this
    }

    fn private_id(&self, player: u64) -> Option<String> {
        let player = self.core.players().by_connection(ConnectionId(player))?;
        Some(player.ids().private_id.reveal().to_owned())
    }

    fn handle(&mut self, input: Input<'_>) -> Effects {
        let mut effects = Effects::new();
        self.core.handle(input, &mut self.random, self.now, &mut effects);
        self.core.check_invariants();
        effects
    }

    /// The three players take turns.
    fn take(&mut self, line: &[u8], command: &Command) {
        self.asker = self.asker % 3 + 1;
        self.now = self.now + Duration::from_millis(50);
        // Another player may have taken its place.
        if self.core.players().connection(ConnectionId(self.asker)).is_none() {
            let from = IpAddr::from([192, 0, 2, 1]);
            self.handle(Input::Connected(ConnectionId(self.asker), from));
        }
        for command in [Some(command.clone()), self.named(command)].into_iter().flatten() {
            let effects = self.handle(Input::Command(ConnectionId(self.asker), &command));
            self.check(line, &command, &effects);
        }
    }

    /// The same command with that player's id in place of `{1}` or `{2}`.
    fn named(&self, command: &Command) -> Option<Command> {
        let player = |text: &str| text.strip_prefix('{')?.strip_suffix('}')?.parse().ok();
        let of = |id: &OpenId| {
            let player = player(id.as_str())?;
            Some(self.core.players().by_connection(ConnectionId(player))?.open_id().clone())
        };
        match command {
            Command::Connect(Some(id)) => Some(Command::Connect(Some(of(id)?))),
            Command::ConnectRelay(Some(id)) => Some(Command::ConnectRelay(Some(of(id)?))),
            Command::RegisterHost(Some(id)) => {
                let id = self.private_id(player(id.reveal())?)?;
                Some(Command::RegisterHost(Some(PrivateId::new(&id))))
            }
            Command::Connect(None)
            | Command::ConnectRelay(None)
            | Command::RegisterHost(None)
            | Command::Echo(_)
            | Command::Unknown(_)
            | Command::NotUtf8 => None,
        }
    }

    fn check(&self, line: &[u8], command: &Command, effects: &Effects) {
        let replies: Vec<(ConnectionId, &Reply)> = effects
            .iter()
            .filter_map(|effect| {
                let Effect::Tell(to, reply) = effect else { return None };
                Some((*to, reply))
            })
            .collect();
        assert!((1..=2).contains(&replies.len()), "the asker hears, and at most the host");
        for (to, reply) in replies {
            let text = reply.encode();
            let lines = if matches!(reply, Reply::SetIds(..)) { 2 } else { 1 };
            assert!(text.ends_with('\n'));
            assert_eq!(text.matches('\n').count(), lines, "whole lines, and no more: {text:?}");
            let is_short = text.len() <= line.len() + 256 + 4 * MAX_ECHOED_NAME;
            assert!(is_short, "{} bytes for {}", text.len(), line.len());
            if let Reply::Failed(kind, _) = reply {
                assert!(text.starts_with(&format!("{}-error ", kind.label())));
            }
            for player in 1..=3 {
                let is_owner =
                    to == ConnectionId(player) && matches!(command, Command::RegisterHost(_));
                let pid = self.private_id(player).filter(|_| !is_owner);
                assert!(pid.is_none_or(|pid| !text.contains(&pid)), "another's PrivateID");
            }
        }
    }
}
