//! Reads the lines of a server, which may be another program than noray.
//!
//! No bytes make these functions panic. Text that they return for people has no control characters.

use noray::core::host::Host;
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
    /// `connect IP:PORT`, or `connect NAME:PORT` if players meet through the relay only.
    Connect(Host, u16),
    /// `connect-relay PORT`
    ConnectRelay(u16),
    /// `echo DATA`
    Echo,
    /// `COMMAND-error CODE DETAIL`, or `error CODE DETAIL`.
    Refused(Refusal),
    /// `relay-limit LIMIT`, made safe to show: which limit a relay has reached.
    RelayLimit(String),
    /// An empty line.
    Nothing,
    /// What noray would not say, made safe to show.
    Foreign(String),
}

/// What a server says when it does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The code for programs.
    pub(crate) code: String,
    /// The whole line, made safe to show.
    pub(crate) text: String,
}

impl Answer {
    /// Reads one line, without its end.
    pub(crate) fn parse(line: &[u8]) -> Self {
        Self::known(line).unwrap_or_else(|| Self::Foreign(shown(line)))
    }

    fn known(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let (name, data) = text.split_once(' ').unwrap_or((text, ""));
        let data = data.trim();
        let id = Some(data).filter(|id| !id.is_empty());
        match name {
            "" => Some(Self::Nothing),
            "relay-limit" => Some(Self::RelayLimit(shown(data.as_bytes()))),
            "set-oid" => id.map(|id| Self::SetOid(OpenId::new(id))),
            "set-pid" => id.map(|id| Self::SetPid(PrivateId::new(id))),
            "connect" => {
                let (host, port) = data.rsplit_once(':')?;
                Some(Self::Connect(host.parse().ok()?, port.parse().ok()?))
            }
            "connect-relay" => data.parse().ok().filter(|port| *port != 0).map(Self::ConnectRelay),
            "echo" => Some(Self::Echo),
            _ if name == "error" || name.ends_with("-error") => {
                let code = data.split(' ').next().filter(|code| !code.is_empty())?;
                let [code, text] = [code, text.trim_end()].map(|part| shown(part.as_bytes()));
                Some(Self::Refused(Refusal { code, text }))
            }
            _ => None,
        }
    }
}

/// Makes a stranger's bytes safe to show: printable, on one line, at most [`MAX_SHOWN`] characters.
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

/// Whether it is neither a control character nor one that changes the direction of writing. Both would garble the line.
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
    use noray::limits::connection_policy::DisconnectReason;

    #[test]
    fn lines_of_both_servers() {
        let foreign = |text: &str| Answer::Foreign(text.to_owned());
        let refused = |code: &str, text: &str| {
            let [code, text] = [code, text].map(str::to_owned);
            Answer::Refused(Refusal { code, text })
        };
        let cases = [
            ("set-oid abc", Answer::SetOid(OpenId::new("abc"))),
            ("set-pid xyz", Answer::SetPid(PrivateId::new("xyz"))),
            ("set-pid", foreign("set-pid")),
            ("connect 1.2.3.4:5", Answer::Connect("1.2.3.4".parse().unwrap(), 5)),
            ("connect [2001:db8::1]:5", Answer::Connect("2001:db8::1".parse().unwrap(), 5)),
            ("connect relay.example:5", Answer::Connect("relay.example".parse().unwrap(), 5)),
            ("connect undefined", foreign("connect undefined")),
            ("connect-relay 50000", Answer::ConnectRelay(50_000)),
            ("connect-relay 0", foreign("connect-relay 0")),
            ("connect-relay", foreign("connect-relay")),
            ("echo  a ", Answer::Echo),
            ("error server-full try", refused("server-full", "error server-full try")),
            ("connect-error self", refused("self", "connect-error self")),
            ("error", foreign("error")),
            ("relay-limit bandwidth", Answer::RelayLimit("bandwidth".to_owned())),
            ("", Answer::Nothing),
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
        let ends = DisconnectReason::ALL.iter().map(|why| Reply::Disconnect(*why));
        for reply in replies.into_iter().chain(failures).chain(ends) {
            for line in reply.encode().lines() {
                let answer = Answer::parse(line.as_bytes());
                assert!(!matches!(answer, Answer::Foreign(_)), "{line}");
            }
        }
    }

    #[test]
    fn a_private_id_is_not_shown() {
        assert!(!format!("{:?}", Answer::parse(b"set-pid secret")).contains("secret"));
    }
}
