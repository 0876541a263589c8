//! The changes of a reload: the differences between the configuration in force and the one that was read again.

use std::fmt;

use crate::config::{Config, KEYS, Key, TakesEffect};
use crate::label::counted;

/// What a reload changes.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigChanges {
    /// The configuration in force from now on: new values, but old values for keys that take effect at the next start.
    pub config: Config,
    /// What takes effect now.
    pub changed: Vec<Change>,
    /// What takes effect by a handover.
    pub needs_handover: Vec<Change>,
    /// What takes effect at the next start.
    pub awaits_restart: Vec<Change>,
}

/// A new value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's name.
    pub key: &'static str,
    /// The value in force.
    pub from: String,
    /// The new value.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)
    }
}

impl ConfigChanges {
    /// Compares the configuration that was `read` with the one that is `in_force`.
    pub fn new(in_force: &Config, read: Config) -> Self {
        let mut changes = Self {
            config: read,
            changed: Vec::new(),
            needs_handover: Vec::new(),
            awaits_restart: Vec::new(),
        };
        for key in KEYS {
            let (from, to) = ((key.show)(in_force), (key.show)(&changes.config));
            if from != to {
                changes.note(key, Change { key: key.name, from, to });
            }
        }
        changes.note_blocked_words(in_force);
        changes
    }

    /// The same file may have other words.
    fn note_blocked_words(&mut self, in_force: &Config) {
        let [before, after] = [in_force, &self.config].map(|config| &config.oid_blocked);
        if before.path == after.path && before.words != after.words {
            let [from, to] = [before, after].map(|list| counted(list.words.len(), "word"));
            self.changed.push(Change { key: "NORAY_OID_BLOCKED", from, to });
        }
    }

    fn note(&mut self, key: &Key, change: Change) {
        match key.takes_effect {
            TakesEffect::AtOnce => self.changed.push(change),
            TakesEffect::AtHandover => self.needs_handover.push(change),
            TakesEffect::AtRestart => {
                (key.set)(&mut self.config, &change.from).expect("the value in force is valid");
                self.awaits_restart.push(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::ByteSize;

    #[test]
    fn the_udp_host_waits_for_a_restart_and_ports_for_a_handover() {
        let in_force = Config::default();
        let rate = ByteSize(1 << 20);
        let read = Config {
            socket_port: 9000,
            udp_host: "192.0.2.1".parse().unwrap(),
            relay_max_individual_traffic: rate,
            oid_prefix: "eu-".to_owned(),
            ..in_force.clone()
        };
        let changes = ConfigChanges::new(&in_force, read);
        let expected = Config {
            socket_port: 9000,
            relay_max_individual_traffic: rate,
            oid_prefix: "eu-".to_owned(),
            ..in_force.clone()
        };
        assert_eq!(changes.config, expected);
        let show = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            show(&changes.changed),
            ["NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC: 128kb -> 1mb", "NORAY_OID_PREFIX:  -> eu-"]
        );
        assert_eq!(show(&changes.needs_handover), ["NORAY_SOCKET_PORT: 8890 -> 9000"]);
        assert_eq!(show(&changes.awaits_restart), ["NORAY_UDP_HOST: 0.0.0.0 -> 192.0.2.1"]);
    }
}
