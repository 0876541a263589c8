//! The players' TCP protocol: it turns bytes into [`Command`]s and [`Reply`]s into text.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::core::host::Host;
use crate::core::id::{OpenId, PrivateId};
use crate::core::relay::{RelayLimit, RelayPort};
use crate::label::{Label, labels};
use crate::limits::connection_policy::DisconnectReason;

/// The longest line that a player may send, in bytes without its `\n` or `\r\n`.
pub const MAX_LINE: usize = 4096;

/// How many characters of an unknown command's name go back to the player.
pub const MAX_ECHOED_NAME: usize = 64;

/// A line has more than [`MAX_LINE`] bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Cuts a stream of bytes into lines. It does not matter how the stream is split into chunks.
///
/// It holds memory only while a line is incomplete, and never much more than [`MAX_LINE`] bytes.
#[derive(Debug, Default)]
pub struct LineReader {
    partial: Vec<u8>,
}

impl LineReader {
    /// A reader that has read the beginning of a line.
    pub fn with_incomplete(line: Vec<u8>) -> Self {
        Self { partial: line }
    }

    /// The beginning of a line that has not ended.
    pub fn incomplete(&self) -> &[u8] {
        &self.partial
    }

    /// Whether a line has begun and not ended.
    pub fn is_incomplete(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes the next line from `chunk`, and from what is left of earlier chunks. `chunk` then starts after that line.
    ///
    /// The line comes without its end. `None` means that `chunk` is used up.
    ///
    /// # Errors
    /// [`LineTooLong`] as soon as a line has more than [`MAX_LINE`] bytes. After it, the reader cannot be used.
    pub fn next_line<'a>(
        &mut self,
        chunk: &mut &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, LineTooLong> {
        let Some(end) = chunk.iter().position(|byte| *byte == b'\n') else {
            // One byte more is allowed: it may be the `\r` after a line of exactly MAX_LINE bytes.
            if self.partial.len() + chunk.len() > MAX_LINE + 1 {
                return Err(LineTooLong);
            }
            self.partial.extend_from_slice(chunk);
            *chunk = &[];
            return Ok(None);
        };
        let (head, rest) = (&chunk[..end], &chunk[end + 1..]);
        *chunk = rest;
        let mut line = if self.partial.is_empty() {
            Cow::Borrowed(head)
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(head);
            Cow::Owned(whole)
        };
        if line.last() == Some(&b'\r') {
            match &mut line {
                Cow::Borrowed(bytes) => *bytes = &bytes[..bytes.len() - 1],
                Cow::Owned(bytes) => bytes.truncate(bytes.len() - 1),
            }
        }
        if line.len() > MAX_LINE { Err(LineTooLong) } else { Ok(Some(line)) }
    }
}

/// A player's command: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `register-host`: asks for ids. `register-host PID`: goes on as the player with that PrivateID.
    RegisterHost(Option<PrivateId>),
    /// `connect OID`: asks for that host's address, for punchthrough. `None` if the OpenID is missing.
    Connect(Option<OpenId>),
    /// `connect-relay OID`: asks for a relay to that host. `None` if the OpenID is missing.
    ConnectRelay(Option<OpenId>),
    /// `echo DATA`.
    Echo(String),
    /// Any other command, with its name as it goes back to the player: without control characters, and short.
    Unknown(String),
    /// The line was not UTF-8.
    NotUtf8,
}

impl Command {
    /// Parses a line without its end; `None` if it is empty.
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line.is_empty() {
            return None;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return Some(Self::NotUtf8);
        };
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let data = || Some(rest.trim()).filter(|text| !text.is_empty());
        let open_id = || data().map(OpenId::new);
        Some(match name {
            "register-host" => Self::RegisterHost(data().map(PrivateId::new)),
            "connect" => Self::Connect(open_id()),
            "connect-relay" => Self::ConnectRelay(open_id()),
            "echo" => Self::Echo(rest.to_owned()),
            _ => Self::Unknown(
                name.chars().filter(|c| !c.is_control()).take(MAX_ECHOED_NAME).collect(),
            ),
        })
    }

    /// Which command it is, for metrics and error answers.
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::RegisterHost(_) => CommandKind::RegisterHost,
            Self::Connect(_) => CommandKind::Connect,
            Self::ConnectRelay(_) => CommandKind::ConnectRelay,
            Self::Echo(_) => CommandKind::Echo,
            Self::Unknown(_) | Self::NotUtf8 => CommandKind::Other,
        }
    }
}

labels! {
    /// The names of the commands, for metric labels and error replies.
    pub enum CommandKind {
        /// `register-host`
        RegisterHost = "register-host",
        /// `connect`
        Connect = "connect",
        /// `connect-relay`
        ConnectRelay = "connect-relay",
        /// `echo`
        Echo = "echo",
        /// Anything that is no known command.
        Other = "other",
    }
}

labels! {
    /// Why a command failed. The label is for programs, [`ErrorCode::detail`] for people.
    pub enum ErrorCode {
        /// No connected host has that OpenID.
        UnknownOid = "unknown-oid",
        /// The asker has not sent `register-host`.
        NotRegistered = "not-registered",
        /// The asker has not registered its UDP address yet.
        NoAddress = "no-address",
        /// The host has not registered its UDP address yet.
        HostNoAddress = "host-no-address",
        /// The OpenID is the asker's own.
        OwnOid = "self",
        /// No relay port is free, and none can be reclaimed.
        RelaysExhausted = "relays-exhausted",
        /// No OpenID was given.
        MissingOid = "missing-oid",
        /// One side is known by IPv4, the other by IPv6.
        NoCommonFamily = "no-common-family",
        /// No unused OpenID was found.
        IdsExhausted = "ids-exhausted",
        /// The host's connection broke a moment ago, and it may come back.
        HostAway = "host-away",
        /// The server is draining and starts nothing new.
        Draining = "draining",
        /// A rate limit was reached: of commands, wrong OpenIDs, introductions, or `connect` of unconfirmed players.
        RateLimited = "rate-limited",
        /// Neither player's UDP comes from the IP of its connection, so both addresses may be forged.
        Unconfirmed = "unconfirmed",
    }
}

impl ErrorCode {
    /// What went wrong and what helps, for people.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::UnknownOid => "no connected host has this OpenID",
            Self::NotRegistered => "send register-host first",
            Self::NoAddress => {
                "send your PrivateID to the UDP registrar until it answers OK, then ask again"
            }
            Self::HostNoAddress => {
                "the host has not registered its UDP address yet, ask again in a moment"
            }
            Self::HostAway => {
                "the host has lost its connection and may come back, ask again in a moment"
            }
            Self::OwnOid => "this OpenID is your own",
            Self::RelaysExhausted => "too many relays are in use, try again later",
            Self::MissingOid => "name the host: COMMAND OPENID",
            Self::NoCommonFamily => "one side has IPv4 and the other IPv6, use connect-relay",
            Self::IdsExhausted => "no unused OpenID was found, the server's OpenIDs are too short",
            Self::Draining => "the server is about to restart, connect again in a minute",
            Self::RateLimited => "too many at once, try again in a few seconds",
            Self::Unconfirmed => {
                "both players' UDP comes from other addresses than their connections, which noray does not relay"
            }
        }
    }
}

/// What the server tells a player: one line, or the two of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `set-oid OID` and `set-pid PID`.
    SetIds(OpenId, PrivateId),
    /// `connect IP:PORT`: the partner's external address.
    Connect(SocketAddr),
    /// `connect SERVER:PORT`: the server's port at which the partner is reached, where players do not learn each other's
    /// IP.
    ConnectServer(Host, RelayPort),
    /// `connect-relay PORT`: the server's port at which the partner is reached.
    ConnectRelay(RelayPort),
    /// `echo DATA`.
    Echo(String),
    /// `COMMAND-error CODE DETAIL`, or `error CODE DETAIL` if the line was no command. It is never the command's own
    /// name, because stock clients would read that as a success.
    Failed(CommandKind, ErrorCode),
    /// `error unknown-command NAME`.
    UnknownCommand(String),
    /// `error not-utf8 DETAIL`.
    NotUtf8,
    /// `error CODE DETAIL`. Then the server closes the connection.
    Disconnect(DisconnectReason),
    /// `error server-full`. Then the server closes the connection.
    ServerFull,
    /// `relay-limit LIMIT`: one of the player's relays has reached that limit.
    RelayLimit(RelayLimit),
}

impl Reply {
    /// The text on the wire, each line with its end. There is no `Display`, because the text may hold a secret and
    /// must not reach a log.
    pub fn encode(&self) -> String {
        match self {
            Self::SetIds(oid, pid) => format!("set-oid {oid}\nset-pid {}\n", pid.reveal()),
            // A link-local address has a scope number, which has a meaning only on this machine.
            Self::Connect(to) => format!("connect {}\n", SocketAddr::new(to.ip(), to.port())),
            Self::ConnectServer(server, port) => format!("connect {server}:{port}\n"),
            Self::ConnectRelay(port) => format!("connect-relay {port}\n"),
            Self::Echo(data) if data.is_empty() => "echo\n".to_owned(),
            Self::Echo(data) => format!("echo {data}\n"),
            Self::Failed(kind, error) => {
                let (code, detail) = (error.label(), error.detail());
                if *kind == CommandKind::Other {
                    format!("error {code} {detail}\n")
                } else {
                    format!("{}-error {code} {detail}\n", kind.label())
                }
            }
            Self::UnknownCommand(name) => format!("error unknown-command {name}\n"),
            Self::NotUtf8 => "error not-utf8 the line was ignored\n".to_owned(),
            Self::Disconnect(reason) => {
                format!("error {} {}\n", reason.label(), reason.detail())
            }
            Self::ServerFull => "error server-full try again later\n".to_owned(),
            Self::RelayLimit(limit) => format!("relay-limit {}\n", limit.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `chunks`, and whether the last one was too long.
    fn read(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            loop {
                match reader.next_line(&mut rest) {
                    Ok(Some(line)) => lines.push(line.into_owned()),
                    Ok(None) => break,
                    Err(LineTooLong) => return (lines, true),
                }
            }
        }
        (lines, false)
    }

    #[test]
    fn lines_are_the_same_in_whatever_chunks_they_arrive() {
        let text = b"echo a\r\n\nconnect x\necho \r b\r\nrest";
        let whole = read(&[text]);
        assert_eq!(whole.0, [&b"echo a"[..], b"", b"connect x", b"echo \r b"]);
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn a_line_may_have_4096_bytes_and_no_more() {
        for (length, end, too_long) in
            [(4096, "\n", false), (4096, "\r\n", false), (4097, "\n", true), (4097, "\r\n", true)]
        {
            let text = "x".repeat(length) + end;
            assert_eq!(read(&[text.as_bytes()]).1, too_long, "{length} whole");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
            assert_eq!(read(&bytes).1, too_long, "{length} in pieces");
        }
        assert!(read(&[&[b'x'; 5000]]).1, "refused before its end");
    }

    #[test]
    fn an_idle_reader_holds_no_memory() {
        let mut reader = LineReader::default();
        reader.next_line(&mut &b"ec"[..]).unwrap();
        reader.next_line(&mut &b"ho\n"[..]).unwrap();
        assert_eq!(reader.partial.capacity(), 0);
    }

    #[test]
    fn commands() {
        let oid = |text| Some(OpenId::new(text));
        let cases = [
            ("register-host", Some(Command::RegisterHost(None))),
            ("register-host ", Some(Command::RegisterHost(None))),
            ("register-host  secret ", Some(Command::RegisterHost(Some(PrivateId::new("secret"))))),
            ("connect abc", Some(Command::Connect(oid("abc")))),
            ("connect  abc ", Some(Command::Connect(oid("abc")))),
            ("connect", Some(Command::Connect(None))),
            ("connect ", Some(Command::Connect(None))),
            ("connect-relay a b", Some(Command::ConnectRelay(oid("a b")))),
            ("echo", Some(Command::Echo(String::new()))),
            ("echo  a  b ", Some(Command::Echo(" a  b ".to_owned()))),
            ("ECHO a", Some(Command::Unknown("ECHO".to_owned()))),
            (" echo", Some(Command::Unknown(String::new()))),
            ("a\u{1b}[2J\tb c", Some(Command::Unknown("a[2Jb".to_owned()))),
            ("", None),
        ];
        for (line, command) in cases {
            assert_eq!(Command::parse(line.as_bytes()), command, "{line:?}");
        }
        assert_eq!(Command::parse(b"echo \xff"), Some(Command::NotUtf8));
        let long = "é".repeat(100);
        assert_eq!(Command::parse(long.as_bytes()), Some(Command::Unknown("é".repeat(64))));
    }

    #[test]
    fn an_error_names_the_command_if_it_is_known() {
        let start = |kind| Reply::Failed(kind, ErrorCode::RateLimited).encode();
        assert!(start(CommandKind::Connect).starts_with("connect-error rate-limited "));
        assert!(start(CommandKind::Other).starts_with("error rate-limited "));
    }
}
