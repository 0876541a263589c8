//! A reload, and the handover to another process: what it knows has been text in between.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use noray::core::protocol::LineReader;
use noray::core::relay::RelayPort;
use noray::core::snapshot::Snapshot;
use noray::core::{Core, Input};
use noray::limits::admission::{Admission, AdmissionSnapshot};
use noray::limits::connection_policy::ConnectionPolicy;
use noray::time::{RunningTime, Timestamp};
use serde::{Deserialize, Serialize};

use super::connections::Connection;
use super::{LONGEST_WAIT, Server, caps, open_ports, own_addresses, read_config};
use crate::world::net::Time;

/// A connection in a handover. The shell's own is private to it; this one has the same content.
#[derive(Serialize, Deserialize)]
struct PassedConnection {
    id: u64,
    ip: IpAddr,
    is_registered: bool,
    now: Timestamp,
    policy: ConnectionPolicy,
    incomplete: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Passed {
    core: Snapshot,
    admission: AdmissionSnapshot,
    connections: Vec<PassedConnection>,
}

impl Server {
    /// Puts another configuration in force. What cannot change within the process takes a handover.
    pub fn reload(&mut self, lines: &[String], now: Time) {
        let config = read_config(lines);
        self.begin_turn(now);
        self.trace.show(|| "reload".to_owned());
        let needs_handover = config.relay_ports != self.config.relay_ports;
        self.config = config;
        self.admission.set_caps(caps(&self.config));
        self.handle(Input::Reload(Box::new(self.config.settings())));
        if needs_handover {
            self.hand_over(now);
        }
    }

    /// Another process goes on: what it knows has been text in between.
    pub fn hand_over(&mut self, now: Time) {
        self.begin_turn(now);
        if self.core.is_draining() {
            return;
        }
        self.coverage.handovers += 1;
        let reading = self.start + Duration::from_nanos(now);
        let mut connections = Vec::new();
        for (id, connection) in &mut self.connections {
            connections.push(PassedConnection {
                id: *id,
                ip: connection.ip,
                is_registered: connection.permit.is_registered(),
                now: connection.advance(reading, LONGEST_WAIT),
                policy: connection.policy.clone(),
                incomplete: connection.lines.incomplete().to_vec(),
            });
        }
        let accepted = self.accepting.advance(reading, Duration::MAX);
        let admission = self.admission.snapshot(accepted);
        let passed = Passed { core: self.core.snapshot(self.now), admission, connections };
        let text = serde_json::to_vec(&passed).expect("it can be written");
        let read: Passed = serde_json::from_slice(&text).expect("it can be read");
        assert_eq!(read.core, passed.core, "the snapshot is read as it was written");
        self.take_over(read, reading);
    }

    fn take_over(&mut self, passed: Passed, reading: Instant) {
        let ports: Vec<RelayPort> =
            self.config.relay_ports.as_slice().iter().copied().map(RelayPort).collect();
        let of_pairs = passed.core.ports_of_pairs().map(|port| port.0);
        self.open_ports = open_ports(ports.iter().map(|port| port.0).chain(of_pairs));
        let bound = (0..=u16::MAX).filter(|port| self.open_ports[usize::from(*port)]);
        let own = own_addresses(&self.ips, bound);
        self.now = passed.core.taken;
        self.time = RunningTime::go_on(reading, self.now);
        self.core = Core::restore(passed.core, self.config.settings(), own, &ports)
            .expect("the snapshot fits");
        self.core.check_invariants();
        self.admission = Admission::new(caps(&self.config));
        self.accepting = RunningTime::go_on(reading, passed.admission.now);
        self.admission.restore(passed.admission);
        let unread: BTreeMap<u64, usize> =
            self.connections.iter().map(|(id, connection)| (*id, connection.unread)).collect();
        self.connections.clear();
        for passed in passed.connections {
            let PassedConnection { id, ip, is_registered, now, policy, incomplete } = passed;
            let permit = self.admission.adopt(ip.into());
            if is_registered {
                permit.mark_registered();
            }
            let time = RunningTime::go_on(reading, now);
            let lines = LineReader::with_incomplete(incomplete);
            let unread = unread[&id];
            let connection =
                Connection { ip, permit, time, now, policy, lines, is_deaf: false, unread };
            self.connections.insert(id, connection);
        }
    }
}
