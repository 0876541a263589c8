//! Connections by TCP between players and the server.

use noray::core::effect::CloseMode;

use super::{Connection, Down, Event, Network, Up};
use crate::world::net::{MS, SECOND, Time};

impl Network {
    /// The process has ended: its connections break.
    pub(super) fn server_ends(&mut self) {
        self.judge.server_ended(self.now);
        self.is_listening = false;
        let server = self.server.take().expect("it ends");
        self.judge.coverage.add(&server.coverage);
        self.judge.note_trace(&server.trace);
        for connection in 0..self.connections.len() {
            // One that is under way comes to the next process.
            if self.connections[connection].has_arrived && !self.connections[connection].is_over {
                self.pass_to_peer(connection as u32, Down::Closed);
                self.connections[connection].is_over = true;
            }
        }
        self.deadline = None;
        self.plan(self.now + self.restart_after, Event::Start);
    }

    /// A peer connects.
    pub fn connect(&mut self, peer: u16) -> u32 {
        let router = usize::from(self.route[usize::from(peer)]);
        let ip = match self.connects_from[usize::from(peer)] {
            u16::MAX => self.ipv6[&peer],
            place => self.routers[router].ips[usize::from(place)],
        };
        let (site, up, down) = (router as u16, self.now, self.now);
        let (has_vanished, has_arrived, is_over, is_watched) = (false, false, false, false);
        self.connections.push(Connection {
            peer,
            ip,
            site,
            up,
            down,
            has_vanished,
            has_arrived,
            is_over,
            is_watched,
        });
        let connection = self.connections.len() as u32 - 1;
        self.pass_to_server(connection, Up::Connect);
        connection
    }

    pub fn write(&mut self, connection: u32, bytes: &[u8]) {
        self.pass_to_server(connection, Up::Bytes(bytes.into()));
    }

    /// A peer ends its connection.
    pub fn close(&mut self, connection: u32) {
        self.pass_to_server(connection, Up::End);
    }

    /// A peer is gone without a word. The server's kernel notices after a while.
    pub fn vanish(&mut self, connection: u32) {
        if !std::mem::replace(&mut self.connections[connection as usize].has_vanished, true) {
            let what = Up::Vanished;
            self.plan(self.now + 90 * SECOND, Event::ToServer { connection, what });
        }
    }

    /// What TCP carries comes in order; what is lost on the line comes later.
    pub(super) fn pass_to_server(&mut self, connection: u32, what: Up) {
        let of = &self.connections[connection as usize];
        if of.has_vanished || of.is_over {
            return;
        }
        let at = self.now + self.tcp_time(of.site);
        let of = &mut self.connections[connection as usize];
        of.up = of.up.max(at);
        let at = of.up;
        self.plan(at, Event::ToServer { connection, what });
    }

    pub(super) fn pass_to_peer(&mut self, connection: u32, what: Down) {
        let site = self.connections[connection as usize].site;
        let at = self.now + self.tcp_time(site);
        let of = &mut self.connections[connection as usize];
        of.down = of.down.max(at);
        let at = of.down;
        self.plan(at, Event::ToPeer { connection, what });
    }

    pub(super) fn tcp_time(&mut self, site: u16) -> Time {
        let site = usize::from(site);
        let (line, random) = (self.lines[site], &mut self.random[site]);
        let mut time = line.time(random);
        while random.is_hit(line.loss) {
            time += 200 * MS;
        }
        time
    }

    pub(super) fn tell(&mut self, to: u64, text: &str) {
        // Nobody reads what the page does not name.
        if !self.connections[to as usize].has_vanished {
            self.judge.check_grammar(text, self.now);
        }
        self.judge.told(to, text, self.now);
        self.pass_to_peer(to as u32, Down::Text(text.into()));
    }

    pub(super) fn close_by_server(&mut self, connection: u64, mode: CloseMode) {
        self.judge.closed(connection, self.now);
        let of = &mut self.connections[connection as usize];
        of.is_over = true;
        if mode == CloseMode::AtOnce || !of.has_vanished {
            self.pass_to_peer(connection as u32, Down::Closed);
        }
    }

    /// Something comes to the server by TCP.
    pub fn tcp_at_server(&mut self, connection: u32, what: Up) {
        let id = u64::from(connection);
        let Some(server) = &mut self.server else {
            if matches!(what, Up::Connect) {
                self.connections[connection as usize].is_over = true;
                self.pass_to_peer(connection, Down::Refused);
            }
            return;
        };
        server.trace.now = self.now;
        match what {
            Up::Connect => return self.connect_at_server(connection),
            Up::Bytes(bytes) => server.read(id, &bytes, self.now),
            Up::End => server.end(id, false, self.now),
            Up::Vanished => server.end(id, true, self.now),
        }
        self.carry_out(None);
        self.plan_reader(connection);
    }

    pub(super) fn connect_at_server(&mut self, connection: u32) {
        let of = &self.connections[connection as usize];
        let (id, peer, ip) = (u64::from(connection), of.peer, self.ips.ip(of.ip));
        let server = self.server.as_mut().expect("it runs");
        if !self.is_listening {
            self.connections[connection as usize].is_over = true;
            if self.drained_at == Some(self.now) {
                server.refuse_late(id);
            } else {
                return self.pass_to_peer(connection, Down::Refused);
            }
        } else {
            self.judge.connected(id, peer, of.ip);
            self.connections[connection as usize].has_arrived = true;
            self.pass_to_peer(connection, Down::Connected);
            let server = self.server.as_mut().expect("it runs");
            server.accept(id, ip, self.now);
        }
        self.carry_out(None);
        self.plan_reader(connection);
    }

    /// A reader's wait is over.
    pub fn check_reader(&mut self, connection: u32) {
        self.connections[connection as usize].is_watched = false;
        let Some(server) = &mut self.server else { return };
        server.trace.now = self.now;
        server.check_reader(connection.into(), self.now);
        self.carry_out(None);
        self.plan_reader(connection);
    }

    pub(super) fn plan_reader(&mut self, connection: u32) {
        let next = self.server.as_ref().and_then(|server| server.next_check(connection.into()));
        let is_watched = &mut self.connections[connection as usize].is_watched;
        if let Some(next) = next
            && !std::mem::replace(is_watched, true)
        {
            self.plan(self.now + next.max(MS), Event::Reader { connection });
        }
    }

    /// A peer has read what came.
    pub fn record_read(&mut self, connection: u32, length: usize) {
        if let Some(server) = &mut self.server {
            server.record_read(connection.into(), length);
        }
    }
}
