//! What `noray probe` makes of a server's bytes, whoever sent them.

use noray::core::id::PrivateId;

#[path = "../../src/probe/answers.rs"]
#[allow(dead_code, reason = "the probe uses all of it")]
mod answers;
#[path = "../../src/probe/payload.rs"]
#[allow(dead_code, reason = "the probe uses all of it")]
mod payload;

use answers::{Answer, MAX_SHOWN, RegistrarAnswer, shown};
use payload::Token;

pub(crate) fn check(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        match Answer::parse(line) {
            Answer::Foreign(text) => is_harmless(&text),
            Answer::Failed(failure) => {
                assert!(!failure.code.is_empty());
                is_harmless(&failure.shown());
            }
            Answer::SetPid(pid) => hides_itself(&pid),
            Answer::ConnectRelay(port) => assert_ne!(port, 0),
            Answer::SetOid(_) | Answer::Connect(_) | Answer::Echo(_) | Answer::News => {}
        }
    }
    match RegistrarAnswer::parse(data) {
        RegistrarAnswer::Ok => assert_eq!(data, b"OK"),
        RegistrarAnswer::UnknownPid => assert_eq!(data, b"Unknown host pid!"),
        RegistrarAnswer::Foreign(text) => is_harmless(&text),
    }
    is_harmless(&shown(data));
    let token = Token(data.first_chunk().copied().unwrap_or_default());
    if let Some(tag) = token.decode(data) {
        // Its last two bytes mean nothing.
        assert_eq!(token.encode(tag)[..14], data[..14]);
    }
}

fn is_harmless(text: &str) {
    assert!(text.chars().count() <= MAX_SHOWN + 2, "{text:?}");
    let is_odd = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(is_odd), "{text:?}");
}

fn hides_itself(pid: &PrivateId) {
    assert_eq!(format!("{pid:?}"), "PrivateId(hidden)");
}
