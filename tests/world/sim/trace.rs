//! The trace: a running hash of all that goes into the server and comes out, and on demand all of it as text.

use noray::core::effect::Effect;

use super::random::mix;

#[derive(Default)]
pub struct Trace {
    pub hash: u64,
    /// How many entries it has.
    pub length: u64,
    /// What is to be read by a person, if anybody wants to.
    pub text: Option<Vec<String>>,
    pub now: u64,
}

/// How much text is kept at most.
const MAX_TEXT: usize = 200_000;

impl Trace {
    pub fn note(&mut self, what: &'static str, numbers: &[u64]) {
        self.length += 1;
        self.hash = numbers.iter().fold(mix(self.hash, what.len() as u64), |h, n| mix(h, *n));
        self.show(|| format!("{what} {numbers:?}"));
    }

    /// On the hot path.
    pub fn datagram(&mut self, port: u16, other: u16, length: usize, number: u64) {
        self.length += 1;
        let ports = u64::from(port) << 48 | u64::from(other) << 32 | length as u64;
        self.hash = mix(mix(self.hash, ports), number);
        if number == 1 {
            self.show(|| format!("  -> sent from {port} to port {other}"));
        } else {
            self.show(|| format!("{length} bytes at {port} from port {other}"));
        }
    }

    pub fn text(&mut self, what: &'static str, number: u64, bytes: &[u8]) {
        let hash = bytes.iter().fold(number, |hash, byte| mix(hash, (*byte).into()));
        self.length += 1;
        self.hash = mix(self.hash, hash);
        self.show(|| {
            format!("{what} of {number}: {}", bytes[..bytes.len().min(100)].escape_ascii())
        });
    }

    pub fn effect(&mut self, effect: &Effect) {
        let text = format!("{effect:?}");
        self.length += 1;
        self.hash = text.bytes().fold(self.hash, |hash, byte| mix(hash, byte.into()));
        self.show(|| format!("  => {text}"));
    }

    /// Adds a line for people that is not part of the hash.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let now = self.now as f64 / 1e9;
        if let Some(text) = &mut self.text
            && text.len() < MAX_TEXT
        {
            text.push(format!("{now:11.6} {}", line()));
        }
    }
}
