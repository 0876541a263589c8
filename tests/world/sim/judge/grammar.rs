//! The grammar of the wire: each line that a player gets is one that docs/protocol.md names.

use super::Judge;
use crate::world::net::Time;

const PAGE: &str = include_str!("../../../../docs/protocol.md");

/// Names that stand in the first cells of the page's table below that heading.
fn names(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(heading).expect("the section");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).expect("a name")).collect()
}

pub(super) struct Grammar {
    codes: Vec<&'static str>,
    ends: Vec<&'static str>,
    answers: Vec<&'static str>,
}

impl Grammar {
    pub(super) fn read() -> Self {
        Self {
            codes: names("where CODE is for programs"),
            answers: names("A line that is no command is answered"),
            ends: names("After one of these the server closes"),
        }
    }

    /// Whether the page names such a line.
    fn allows(&self, line: &str) -> bool {
        let (command, data) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "set-oid" | "set-pid" => !data.is_empty() && !data.contains(char::is_whitespace),
            "connect" => is_address(data),
            "connect-relay" => data.parse::<u16>().is_ok_and(|port| port > 0),
            "echo" => true,
            "relay-limit" => ["bandwidth", "lifetime", "traffic"].contains(&data),
            "error" => {
                let code = data.split(' ').next().unwrap_or("");
                self.answers
                    .iter()
                    .chain(&self.ends)
                    .any(|form| form.split(' ').nth(1) == Some(code))
            }
            _ => {
                let commands =
                    ["register-host-error", "connect-error", "connect-relay-error", "echo-error"];
                let (code, detail) = data.split_once(' ').unwrap_or((data, ""));
                commands.contains(&command) && self.codes.contains(&code) && !detail.is_empty()
            }
        }
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    let is_host = if is_v6 {
        host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty() && !host.contains(':')
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

thread_local! {
    static GRAMMAR: Grammar = Grammar::read();
}

impl Judge {
    pub fn check_grammar(&mut self, text: &str, now: Time) {
        if !text.ends_with('\n') {
            self.accuse("lines end", now, format!("{text:?}"));
        }
        for line in text.lines() {
            if !GRAMMAR.with(|grammar| grammar.allows(line)) {
                self.accuse("the protocol's page names every line", now, format!("{line:?}"));
            }
        }
    }
}
