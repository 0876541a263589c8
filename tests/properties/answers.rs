//! What `noray probe` makes of a server's bytes, whoever sent them.

use noray::core::id::PrivateId;

#[path = "../../src/probe/answers.rs"]
#[allow(dead_code, reason = "the probe uses all of it")]
mod lines;

use lines::{Answer, MAX_SHOWN, shown};

pub(crate) fn check(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        match Answer::parse(line) {
            Answer::Foreign(text) | Answer::RelayLimit(text) => is_harmless(&text),
            Answer::Refused(refusal) => {
                assert!(!refusal.code.is_empty());
                is_harmless(&refusal.text);
            }
            Answer::SetPid(pid) => hides_itself(&pid),
            Answer::ConnectRelay(port) => assert_ne!(port, 0),
            Answer::SetOid(_) | Answer::Connect(..) | Answer::Echo | Answer::Nothing => {}
        }
    }
    is_harmless(&shown(data));
}

fn is_harmless(text: &str) {
    assert!(text.chars().count() <= MAX_SHOWN + 2, "{text:?}");
    let is_odd = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(is_odd), "{text:?}");
}

fn hides_itself(pid: &PrivateId) {
    assert_eq!(format!("{pid:?}"), "PrivateId(hidden)");
}
