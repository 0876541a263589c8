//! Reads no socket and trusts nothing: what a server's bytes say, or what somebody sends who is no noray.
//!
//! No bytes make these functions panic, and nothing that they return for people holds a control character.

use std::net::SocketAddr;

use noray::core::id::{OpenId, PrivateId};

/// How many characters of a stranger's text are shown.
pub(crate) const MAX_SHOWN: usize = 60;

/// One line of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `set-oid OPENID`
    SetOid(OpenId),
    /// `set-pid PRIVATEID`
    SetPid(PrivateId),
    /// `connect IP:PORT`
    Connect(SocketAddr),
    /// `connect-relay PORT`
    ConnectRelay(u16),
    /// `echo DATA`
    Echo(String),
    /// `COMMAND-error CODE DETAIL`, or `error CODE DETAIL`.
    Failed(Failure),
    /// `relay-limit LIMIT`, and empty lines: news that answer nothing.
    News,
    /// What noray would not say, as it may be shown.
    Foreign(String),
}

/// What a server says when it cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was asked; empty for `error`.
    pub(crate) command: String,
    /// For programs.
    pub(crate) code: String,
    /// For people; may be empty.
    pub(crate) detail: String,
}

impl Failure {
    /// As the server said it.
    pub(crate) fn shown(&self) -> String {
        let name = if self.command.is_empty() { "error" } else { "-error" };
        shown(format!("{}{name} {} {}", self.command, self.code, self.detail).trim_end().as_bytes())
    }
}

impl Answer {
    /// Reads one line, without its end.
    pub(crate) fn parse(line: &[u8]) -> Self {
        let foreign = || Self::Foreign(shown(line));
        let Ok(text) = std::str::from_utf8(line) else {
            return foreign();
        };
        let (name, data) = text.split_once(' ').unwrap_or((text, ""));
        let id = Some(data.trim()).filter(|id| !id.is_empty());
        let known = match name {
            "" | "relay-limit" => Some(Self::News),
            "set-oid" => id.map(|id| Self::SetOid(OpenId::new(id))),
            "set-pid" => id.map(|id| Self::SetPid(PrivateId::new(id))),
            "connect" => data.trim().parse().ok().map(Self::Connect),
            "connect-relay" => {
                data.trim().parse().ok().filter(|port| *port != 0).map(Self::ConnectRelay)
            }
            "echo" => Some(Self::Echo(data.to_owned())),
            _ => failure(name, data).map(Self::Failed),
        };
        known.unwrap_or_else(foreign)
    }

    /// The partner's external address, if that is the answer.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        if let Self::Connect(address) = self { Some(*address) } else { None }
    }

    /// The relay port, if that is the answer.
    pub(crate) fn relay_port(&self) -> Option<u16> {
        if let Self::ConnectRelay(port) = self { Some(*port) } else { None }
    }

    /// What failed, if that is the answer.
    pub(crate) fn failure(self) -> Option<Failure> {
        if let Self::Failed(failure) = self { Some(failure) } else { None }
    }
}

fn failure(name: &str, data: &str) -> Option<Failure> {
    let command = if name == "error" { "" } else { name.strip_suffix("-error")? };
    let (code, detail) = data.split_once(' ').unwrap_or((data, ""));
    let [command, code, detail] = [command, code, detail].map(|part| shown(part.as_bytes()));
    (!code.is_empty()).then_some(Failure { command, code, detail })
}

/// One datagram from the registrar's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistrarAnswer {
    /// The address is registered.
    Ok,
    /// No player has that PrivateID.
    UnknownPid,
    /// What no registrar would say, as it may be shown.
    Foreign(String),
}

impl RegistrarAnswer {
    /// Reads a datagram's whole content.
    pub(crate) fn parse(payload: &[u8]) -> Self {
        match payload {
            b"OK" => Self::Ok,
            b"Unknown host pid!" => Self::UnknownPid,
            other => Self::Foreign(shown(other)),
        }
    }
}

/// A stranger's bytes as they may be shown: printable, on one line, at most [`MAX_SHOWN`] characters.
pub(crate) fn shown(bytes: &[u8]) -> String {
    // A character has at most four bytes.
    let head = &bytes[..bytes.len().min(4 * (MAX_SHOWN + 1))];
    let text = String::from_utf8_lossy(head);
    let mut printable = text.chars().map(|c| if is_printable(c) { c } else { '?' });
    let mut short: String = printable.by_ref().take(MAX_SHOWN).collect();
    if printable.next().is_some() {
        short.push_str("..");
    }
    short
}

/// Neither a control character nor one that turns the direction of writing, which would garble the line.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use noray::core::protocol::{CommandKind, ErrorCode, Reply};
    use noray::core::relay::{RelayLimit, RelayPort};
    use noray::label::Label;
    use noray::limits::conduct::Misconduct;

    fn failed(command: &str, code: &str, detail: &str) -> Answer {
        let [command, code, detail] = [command, code, detail].map(str::to_owned);
        Answer::Failed(Failure { command, code, detail })
    }

    #[test]
    fn lines_of_both_servers() {
        let foreign = |text: &str| Answer::Foreign(text.to_owned());
        let cases = [
            ("set-oid abc", Answer::SetOid(OpenId::new("abc"))),
            ("set-pid xyz", Answer::SetPid(PrivateId::new("xyz"))),
            ("set-pid", foreign("set-pid")),
            ("connect 1.2.3.4:5", Answer::Connect("1.2.3.4:5".parse().unwrap())),
            ("connect [2001:db8::1]:5", Answer::Connect("[2001:db8::1]:5".parse().unwrap())),
            ("connect undefined", foreign("connect undefined")),
            ("connect-relay 50000", Answer::ConnectRelay(50_000)),
            ("connect-relay 0", foreign("connect-relay 0")),
            ("connect-relay", foreign("connect-relay")),
            ("echo  a ", Answer::Echo(" a ".to_owned())),
            ("error server-full try again", failed("", "server-full", "try again")),
            ("connect-error self", failed("connect", "self", "")),
            ("error", foreign("error")),
            ("relay-limit bandwidth", Answer::News),
            ("", Answer::News),
            ("HTTP/1.1 400 Bad Request", foreign("HTTP/1.1 400 Bad Request")),
        ];
        for (line, answer) in cases {
            assert_eq!(Answer::parse(line.as_bytes()), answer, "{line}");
        }
        assert_eq!(Answer::parse(b"\xff\x1b[2J"), foreign("\u{fffd}?[2J"));
    }

    #[test]
    fn everything_that_this_server_says_is_understood() {
        let replies = [
            Reply::SetIds(OpenId::new("a"), PrivateId::new("b")),
            Reply::Connect("[::1]:5".parse().unwrap()),
            Reply::ConnectRelay(RelayPort(5)),
            Reply::Echo("x".to_owned()),
            Reply::UnknownCommand("x".to_owned()),
            Reply::NotUtf8,
            Reply::ServerFull,
            Reply::RelayLimit(RelayLimit::Traffic),
        ];
        let failures = ErrorCode::ALL.iter().map(|code| Reply::Failed(CommandKind::Connect, *code));
        let ends = Misconduct::ALL.iter().map(|why| Reply::Misconduct(*why));
        for reply in replies.into_iter().chain(failures).chain(ends) {
            for line in reply.encode().lines() {
                let answer = Answer::parse(line.as_bytes());
                assert!(!matches!(answer, Answer::Foreign(_)), "{line}");
            }
        }
    }

    #[test]
    fn datagrams_of_a_registrar() {
        assert_eq!(RegistrarAnswer::parse(b"OK"), RegistrarAnswer::Ok);
        assert_eq!(RegistrarAnswer::parse(b"Unknown host pid!"), RegistrarAnswer::UnknownPid);
        assert_eq!(RegistrarAnswer::parse(b"\0\n"), RegistrarAnswer::Foreign("??".to_owned()));
    }

    #[test]
    fn any_bytes_are_read_and_what_is_shown_is_printable_and_short() {
        let mut random = fastrand::Rng::with_seed(11);
        let words = ["set-oid", "connect", "connect-relay", "error", "x-error", "echo", "\u{202e}"];
        for _ in 0..5000 {
            let mut bytes: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
            if random.bool() {
                let word = words[random.usize(..words.len())];
                bytes.splice(..0, format!("{word} ").into_bytes());
            }
            let text = match Answer::parse(&bytes) {
                Answer::Foreign(text) => text,
                Answer::Failed(failure) => failure.shown(),
                Answer::SetOid(_)
                | Answer::SetPid(_)
                | Answer::Connect(_)
                | Answer::ConnectRelay(_)
                | Answer::Echo(_)
                | Answer::News => shown(&bytes),
            };
            assert!(text.chars().all(is_printable), "{text:?}");
            assert!(text.chars().count() <= MAX_SHOWN + 2, "{text:?}");
        }
    }

    #[test]
    fn a_private_id_is_not_shown() {
        assert!(!format!("{:?}", Answer::parse(b"set-pid secret")).contains("secret"));
    }
}
