//! What the threads of players do in the shell: they admit, read lines and wait.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use noray::core::Input;
use noray::core::effect::CloseMode;
use noray::core::id::ConnectionId;
use noray::core::protocol::{Command, CommandKind, ErrorCode, LineReader, LineTooLong, Reply};
use noray::limits::admission::Permit;
use noray::limits::connection_policy::{CommandRate, ConnectionPolicy, DisconnectReason};
use noray::time::{RunningTime, Timestamp};

use super::{LONGEST_WAIT, Output, Server};
use crate::world::net::Time;

/// What the server knows of a connection beside the core.
pub(super) struct Connection {
    pub(super) ip: IpAddr,
    pub(super) permit: Permit,
    pub(super) time: RunningTime,
    pub(super) now: Timestamp,
    pub(super) policy: ConnectionPolicy,
    pub(super) lines: LineReader,
    /// Nothing more is read.
    pub(super) is_deaf: bool,
    /// What the player has not read.
    pub(super) unread: usize,
}

impl Connection {
    pub(super) fn advance(&mut self, reading: Instant, wait: Duration) -> Timestamp {
        self.now = self.time.advance(reading, wait);
        self.now
    }

    pub(super) fn longest_wait(&self) -> Option<Duration> {
        let (deadline, _) = self.policy.deadline(self.permit.is_registered())?;
        Some(deadline.since(self.now).min(LONGEST_WAIT))
    }

    pub(super) fn overdue(&self) -> Option<DisconnectReason> {
        let (deadline, reason) = self.policy.deadline(self.permit.is_registered())?;
        (deadline <= self.now).then_some(reason)
    }
}

impl Server {
    /// Somebody connects. Whether it is admitted.
    pub fn accept(&mut self, id: u64, ip: IpAddr, now: Time) -> bool {
        self.begin_turn(now);
        let reading = self.start + Duration::from_nanos(now);
        let accepted = self.accepting.advance(reading, Duration::MAX);
        self.trace.note("connects", &[id]);
        let permit = match self.admission.admit(ip.into(), accepted) {
            Ok(permit) => permit,
            Err(bound) => {
                self.coverage.bound(bound);
                self.refuse(id, &Reply::ServerFull);
                return false;
            }
        };
        let connection = Connection {
            ip,
            permit,
            time: RunningTime::new(reading),
            now: Timestamp::START,
            policy: ConnectionPolicy::new(Timestamp::START),
            lines: LineReader::default(),
            is_deaf: !self.has_threads,
            unread: 0,
        };
        self.connections.insert(id, connection);
        self.handle(Input::Connected(ConnectionId(id), ip));
        if !self.has_threads {
            self.handle(Input::NoThread(ConnectionId(id)));
        }
        self.has_threads
    }

    /// Somebody connects while the port is being closed.
    pub fn refuse_late(&mut self, id: u64) {
        self.refuse(id, &Reply::Failed(CommandKind::Other, ErrorCode::Draining));
    }

    pub(super) fn refuse(&mut self, id: u64, why: &Reply) {
        self.coverage.reply(why);
        self.output.push(Output::Told { to: id, text: why.encode() });
        self.output.push(Output::Closed { connection: id, mode: CloseMode::AfterReplies });
    }

    /// Bytes came from a player, as its thread reads them: a kibibyte at once.
    pub fn read(&mut self, id: u64, bytes: &[u8], now: Time) {
        self.begin_turn(now);
        for mut piece in bytes.chunks(1024) {
            let Some(connection) = self.listening(id) else { return };
            let wait = connection.longest_wait();
            let reading = self.start + Duration::from_nanos(now);
            let connection = self.connections.get_mut(&id).expect("it listens");
            connection.advance(reading, wait.unwrap_or(Duration::MAX));
            loop {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                match connection.lines.next_line(&mut piece) {
                    Ok(Some(line)) => {
                        let line = line.into_owned();
                        connection.policy.record_line_end();
                        if !self.handle_line(id, line, now) {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(LineTooLong) => return self.close(id, DisconnectReason::LineTooLong),
                }
            }
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let at = connection.advance(reading, Duration::ZERO);
            connection.policy.record_bytes(connection.lines.is_incomplete(), at);
        }
    }

    pub(super) fn listening(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id).filter(|connection| !connection.is_deaf)
    }

    /// Whether the connection goes on.
    pub(super) fn handle_line(&mut self, id: u64, line: Vec<u8>, now: Time) -> bool {
        let reading = self.start + Duration::from_nanos(now);
        let connection = self.connections.get_mut(&id).expect("its line was read");
        let at = connection.advance(reading, Duration::ZERO);
        let rate = connection.policy.count_command(at);
        if rate == CommandRate::FarOver {
            self.close(id, DisconnectReason::TooManyCommands);
            return false;
        }
        let Some(command) = Command::parse(&line) else { return true };
        self.trace.text("line", id, &line);
        self.output.push(Output::Read { line, from: id });
        let player = ConnectionId(id);
        if rate == CommandRate::Within {
            self.handle(Input::Command(player, &command));
        } else {
            self.handle(Input::RateLimitedCommand(player, command.kind()));
        }
        self.listening(id).is_some()
    }

    pub(super) fn close(&mut self, id: u64, reason: DisconnectReason) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_deaf = true;
            self.handle(Input::Disconnect(ConnectionId(id), reason));
        }
    }

    /// A reader's wait is over.
    pub fn check_reader(&mut self, id: u64, now: Time) {
        self.begin_turn(now);
        let reading = self.start + Duration::from_nanos(now);
        let Some(wait) = self.listening(id).and_then(Connection::longest_wait) else { return };
        let connection = self.connections.get_mut(&id).expect("it listens");
        connection.advance(reading, wait);
        if let Some(reason) = connection.overdue() {
            self.close(id, reason);
        }
    }

    /// How long the reader waits, if there is a limit.
    pub fn next_check(&self, id: u64) -> Option<Time> {
        self.listening(id)?.longest_wait().map(|wait| wait.as_nanos() as Time)
    }

    /// A player has read what it was told.
    pub fn record_read(&mut self, id: u64, length: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread = connection.unread.saturating_sub(length);
        }
    }

    /// A player has ended its connection, or the kernel has given it up.
    pub fn end(&mut self, id: u64, has_vanished: bool, now: Time) {
        self.begin_turn(now);
        self.trace.note("end", &[id]);
        if has_vanished {
            return self.close(id, DisconnectReason::Vanished);
        }
        self.handle(Input::Disconnected(ConnectionId(id)));
    }

    pub fn set_threads(&mut self, has_threads: bool) {
        self.has_threads = has_threads;
    }
}
