//! A stream of bytes in segments of any size: lines, commands, and what the rules answer to three players.

use noray::config::Config;
use noray::core::commands::{Asker, Intake, Outcome, handle_command};
use noray::core::id::ConnectionId;
use noray::core::players::Hosts;
use noray::core::protocol::{Command, LineReader, LineTooLong, MAX_ECHOED_NAME, MAX_LINE, Reply};
use noray::core::relay::{OwnAddresses, RelayPort, RelayTable};
use noray::label::Label;
use noray::time::Timestamp;

use crate::random::Repeatable;

pub(crate) fn check(data: &[u8]) {
    let [size, intake, stream @ ..] = data else { return };
    let lines = lines_of(stream, usize::from(*size).max(1));
    let mut server = Server::new(if intake % 8 == 0 { Intake::Draining } else { Intake::Open });
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
    hosts: Hosts,
    relays: RelayTable,
    random: Repeatable,
    intake: Intake,
    now: Timestamp,
    asker: u64,
}

impl Server {
    fn new(intake: Intake) -> Self {
        let config = Config::default();
        let ports: Vec<RelayPort> = (1..=6).map(RelayPort).collect();
        let mut this = Self {
            hosts: Hosts::new(config.id_scheme()),
            relays: RelayTable::new(config.limits(), OwnAddresses::default(), &ports),
            random: Repeatable::new(),
            intake: Intake::Open,
            now: Timestamp::START,
            asker: 0,
        };
        // Two players that can be found as `{1}` and `{2}`; the third has to register by itself.
        for player in [1, 2] {
            this.handle(player, &Command::RegisterHost);
            let pid = this.private_id(player).expect("it has registered");
            let address = format!("192.0.2.{player}:4000").parse().expect("an address");
            this.hosts.register_address(&pid, address, Timestamp::START);
            this.relays.reserve(ConnectionId(player));
        }
        this.intake = intake;
        this
    }

    fn private_id(&self, player: u64) -> Option<String> {
        Some(self.hosts.by_connection(ConnectionId(player))?.private_id.reveal().to_owned())
    }

    fn handle(&mut self, player: u64, command: &Command) -> Outcome {
        let player = ConnectionId(player);
        let connected_from = std::net::IpAddr::from([192, 0, 2, 1]);
        let Self { hosts, relays, random, .. } = self;
        let asker = Asker { player, connected_from };
        handle_command(asker, command, self.intake, hosts, relays, random, self.now)
    }

    /// The three players take turns.
    fn take(&mut self, line: &[u8], command: &Command) {
        self.asker = self.asker % 3 + 1;
        self.now = self.now + std::time::Duration::from_millis(50);
        let outcome = self.handle(self.asker, command);
        self.check(line, command, &outcome);
        let named = self.named(command);
        if let Some(command) = named {
            let outcome = self.handle(self.asker, &command);
            self.check(line, &command, &outcome);
        }
        self.relays.check_invariants();
    }

    /// The same command with an OpenID in place of `{1}` or `{2}`.
    fn named(&self, command: &Command) -> Option<Command> {
        let of = |id: &noray::core::id::OpenId| {
            let player = id.as_str().strip_prefix('{')?.strip_suffix('}')?.parse().ok()?;
            Some(self.hosts.by_connection(ConnectionId(player))?.open_id.clone())
        };
        match command {
            Command::Connect(Some(id)) => Some(Command::Connect(Some(of(id)?))),
            Command::ConnectRelay(Some(id)) => Some(Command::ConnectRelay(Some(of(id)?))),
            Command::Connect(None)
            | Command::ConnectRelay(None)
            | Command::RegisterHost
            | Command::Echo(_)
            | Command::Unknown(_)
            | Command::NotUtf8 => None,
        }
    }

    fn check(&self, line: &[u8], command: &Command, outcome: &Outcome) {
        assert!((1..=2).contains(&outcome.replies.len()), "the asker hears, and at most the host");
        for (to, reply) in &outcome.replies {
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
                let is_owner = *to == ConnectionId(player) && *command == Command::RegisterHost;
                let pid = self.private_id(player).filter(|_| !is_owner);
                assert!(pid.is_none_or(|pid| !text.contains(&pid)), "another's PrivateID");
            }
        }
    }
}
