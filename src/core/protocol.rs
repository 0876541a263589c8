//! The players' TCP protocol in both directions: bytes to [`Command`]s, [`Reply`]s to text.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::core::id::{OpenId, PrivateId};
use crate::core::relay::{RelayLimit, RelayPort};
use crate::label::{Label, labels};
use crate::limits::connection_policy::DisconnectReason;

/// The longest line that a player may send, in bytes without its `\n` or `\r\n`.
pub const MAX_LINE: usize = 4096;

/// How many characters of an unknown command's name go back to the player.
pub const MAX_ECHOED_NAME: usize = 64;

/// A line went on for more than [`MAX_LINE`] bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Cuts a stream of bytes into lines, whatever segments they come in.
///
/// Holds memory only while a line is incomplete, and never more than [`MAX_LINE`] and a few bytes.
#[derive(Debug, Default)]
pub struct LineReader {
    partial: Vec<u8>,
}

impl LineReader {
    /// Whether a line has begun and not ended.
    pub fn is_incomplete(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The next line of what is left from before and of `chunk`, which is moved past what was taken.
    ///
    /// The line comes without its end; `None` means that `chunk` is used up.
    ///
    /// # Errors
    /// [`LineTooLong`] as soon as a line exceeds [`MAX_LINE`]; the stream cannot be read on after it.
    pub fn next_line<'a>(
        &mut self,
        chunk: &mut &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, LineTooLong> {
        let Some(end) = chunk.iter().position(|byte| *byte == b'\n') else {
            // One byte more than a line's: it may be the `\r` of a line of exactly MAX_LINE bytes.
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

/// What a player asks for: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `register-host`: ids, please.
    RegisterHost,
    /// `connect OID`: punch through to that host. `None` if the OpenID is missing.
    Connect(Option<OpenId>),
    /// `connect-relay OID`: play with that host through a relay. `None` if the OpenID is missing.
    ConnectRelay(Option<OpenId>),
    /// `echo DATA`.
    Echo(String),
    /// Any other command, with its name as it may go back: printable and short.
    Unknown(String),
    /// The line was not UTF-8.
    NotUtf8,
}

impl Command {
    /// Reads one line, without its end; `None` for an empty one.
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line.is_empty() {
            return None;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return Some(Self::NotUtf8);
        };
        let (name, data) = text.split_once(' ').unwrap_or((text, ""));
        let open_id = || Some(data.trim()).filter(|text| !text.is_empty()).map(OpenId::new);
        Some(match name {
            "register-host" => Self::RegisterHost,
            "connect" => Self::Connect(open_id()),
            "connect-relay" => Self::ConnectRelay(open_id()),
            "echo" => Self::Echo(data.to_owned()),
            _ => Self::Unknown(
                name.chars().filter(|c| !c.is_control()).take(MAX_ECHOED_NAME).collect(),
            ),
        })
    }

    /// Which command it is, for metrics and error answers.
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::RegisterHost => CommandKind::RegisterHost,
            Self::Connect(_) => CommandKind::Connect,
            Self::ConnectRelay(_) => CommandKind::ConnectRelay,
            Self::Echo(_) => CommandKind::Echo,
            Self::Unknown(_) | Self::NotUtf8 => CommandKind::Other,
        }
    }
}

labels! {
    /// The names of commands: a closed set, fit for a metric's label.
    pub enum CommandKind {
        /// `register-host`
        RegisterHost = "register-host",
        /// `connect`
        Connect = "connect",
        /// `connect-relay`
        ConnectRelay = "connect-relay",
        /// `echo`
        Echo = "echo",
        /// Everything that is not a command.
        Other = "other",
    }
}

labels! {
    /// Why a command failed: a token for programs and a sentence for people.
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
        /// The server is about to end and begins nothing new.
        Draining = "draining",
        /// Too many commands of this player, too many wrong OpenIDs of its network, or too many introductions.
        RateLimited = "rate-limited",
        /// Neither player's UDP comes from where its connection does, so both addresses may be forged.
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
    /// `connect IP:PORT`: send there, and expect datagrams from there.
    Connect(SocketAddr),
    /// `connect-relay PORT`: the partner is reached at this port of the server.
    ConnectRelay(RelayPort),
    /// `echo DATA`.
    Echo(String),
    /// `COMMAND-error CODE DETAIL`, or `error CODE DETAIL` for what is no command. Never a command's own name: stock
    /// clients would take it for an answer.
    Failed(CommandKind, ErrorCode),
    /// `error unknown-command NAME`.
    UnknownCommand(String),
    /// `error not-utf8 DETAIL`.
    NotUtf8,
    /// `error CODE DETAIL`, after which the connection ends.
    Disconnect(DisconnectReason),
    /// `error server-full`, after which the connection ends.
    ServerFull,
    /// `relay-limit LIMIT`: a relay of this player's has reached it.
    RelayLimit(RelayLimit),
}

impl Reply {
    /// The wire's text, each line with its end. Not `Display`: it may hold a secret, and must not reach a log.
    pub fn encode(&self) -> String {
        match self {
            Self::SetIds(oid, pid) => format!("set-oid {oid}\nset-pid {}\n", pid.reveal()),
            // The number of a link-local address's scope means something only on this machine.
            Self::Connect(to) => format!("connect {}\n", SocketAddr::new(to.ip(), to.port())),
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

    /// All lines of `chunks`, and whether the stream ended in a line too long.
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
    fn lines_come_out_the_same_however_they_are_cut() {
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
        assert!(read(&[&[b'x'; 5000]]).1, "no need to see its end");
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
            ("register-host", Some(Command::RegisterHost)),
            ("register-host now", Some(Command::RegisterHost)),
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
    fn errors_name_the_command_if_it_is_one() {
        let start = |kind| Reply::Failed(kind, ErrorCode::RateLimited).encode();
        assert!(start(CommandKind::Connect).starts_with("connect-error rate-limited "));
        assert!(start(CommandKind::Other).starts_with("error rate-limited "));
    }
}
