//! The deeds of strangers, a step at a time.

use super::{MANY, Stranger};
use crate::world::net::{Addr, Kind, SECOND, Time};
use crate::world::network::Network;
use crate::world::plan::Deed;

impl Stranger {
    pub(super) fn scan(&mut self, net: &mut Network) {
        let count = u64::from(self.ports.1 - self.ports.0) + 1;
        let to = net.server_at(self.me, self.ports.0 + (self.step % count) as u16);
        net.send(self.me, 0, to, Kind::Junk, 60, 0);
    }

    pub(super) fn send_to_known_port(&mut self, net: &mut Network) {
        let Some(port) =
            self.plan.victim.and_then(|victim| net.judge.settled_port(victim, net.now))
        else {
            return;
        };
        let to = net.server_at(self.me, port);
        net.send(self.me, 0, to, Kind::Junk, 60, 0);
    }

    pub(super) fn forge_source(&mut self, net: &mut Network) {
        let from = match self.random.below(20) {
            0 => Addr { ip: net.server_ips[0], port: self.some_port() },
            1 => Addr { port: 0, ..self.some_address(net) },
            _ => self.some_address(net),
        };
        let port = self.some_port();
        let to = net.server_at(self.me, port);
        net.send_forged(self.me, from, to, Kind::Junk, 200);
    }

    /// The player 1 is registered at the bystander's address, and player 0 sends to it.
    pub(super) fn forge_address(&mut self, net: &mut Network, keeps_alive: bool) {
        let (Some(_), Some((code, pid))) = (self.registered(net, 0), self.ids(net, 1)) else {
            return;
        };
        let registrar = net.registrar(self.me);
        if self.step.is_multiple_of(16) {
            net.send_forged_bytes(self.me, self.bystander, registrar, pid.as_bytes());
        }
        if self.step.is_multiple_of(50) {
            self.say(net, 0, &format!("connect-relay {code}\n"));
        }
        if let Some(port) = self.holds[0].ports.last().copied() {
            let to = net.server_at(self.me, port);
            net.send(self.me, 0, to, Kind::Junk, 1000, 0);
        }
        let half = Time::from(self.plan.for_s) * SECOND / 2;
        let is_early = net.now < self.start() + half;
        if keeps_alive
            && is_early
            && let Some(port) = self.holds[1].ports.last().copied()
        {
            let to = net.server_at(self.me, port);
            net.send_forged(self.me, self.bystander, to, Kind::Junk, 30);
        }
    }

    pub(super) fn register_impossible(&mut self, net: &mut Network) {
        let Some((_, pid)) = self.ids(net, 0) else { return };
        let to = net.registrar(self.me);
        let from = Addr { port: 53, ..self.bystander };
        net.send_forged_bytes(self.me, from, to, pid.as_bytes());
    }

    pub(super) fn move_about(&mut self, net: &mut Network) {
        let Some((_, pid)) = self.ids(net, 0) else { return };
        let to = net.registrar(self.me);
        net.send_bytes_from(self.me, (self.step % 200) as u8, to, pid.as_bytes());
    }

    pub(super) fn guess(&mut self, net: &mut Network) {
        if self.registered(net, 0).is_some() {
            let guess = self.random.next();
            self.say(net, 0, &format!("connect-relay {guess:x}\n"));
        }
    }

    pub(super) fn ask_for_host(&mut self, net: &mut Network) {
        if self.registered(net, 0).is_none() {
            return;
        }
        let code = self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned());
        if let Some(code) = code {
            let command = *self.random.pick(&["connect", "connect", "connect-relay"]);
            self.say(net, 0, &format!("{command} {code}\n"));
        }
    }

    pub(super) fn hoard_connections(&mut self, net: &mut Network, registers: bool) {
        let number = (self.step as usize - 1) % MANY;
        if registers {
            self.ids(net, number);
        } else {
            self.hold(net, number);
        }
        if self.step.is_multiple_of(7)
            && let Some(connection) = self.holds[number].connection.take()
        {
            // It comes and goes.
            net.close(connection);
            self.holds[number].is_over = true;
        }
    }

    pub(super) fn hoard_relays(&mut self, net: &mut Network) {
        const OWN: u64 = 16;
        let asker = (self.step % OWN) as usize;
        let host = ((self.step / OWN) % OWN) as usize;
        let number = (self.step / 8 % OWN) as usize;
        self.registered(net, number);
        if asker != host
            && let Some((code, _)) = self.holds.get(host).and_then(|hold| hold.ids.clone())
            && self.holds.get(asker).is_some_and(|hold| hold.ids.is_some())
        {
            self.say(net, asker, &format!("connect-relay {code}\n"));
        }
    }

    pub(super) fn flood(&mut self, net: &mut Network) {
        let (Some(_), Some((code, _))) = (self.registered(net, 0), self.registered(net, 1)) else {
            return;
        };
        if self.step.is_multiple_of(if self.plan.deed == Deed::Drift { 8 } else { 64 }) {
            self.say(net, 0, &format!("connect-relay {code}\n"));
        }
        for number in [0, 1] {
            if let Some(port) = self.holds[number].ports.last().copied() {
                let to = net.server_at(self.me, port);
                let is_host = number == 1;
                if !is_host || self.step.is_multiple_of(16) {
                    net.send(self.me, number as u8, to, Kind::Junk, 1200, 0);
                }
            }
        }
    }

    pub(super) fn is_young(&self, net: &Network) -> bool {
        net.now < self.start() + 6 * SECOND
    }

    /// Player 0 is the host of all the others.
    pub(super) fn crowd(&mut self, net: &mut Network) {
        const CLIENTS: u64 = 24;
        let number = 1 + (self.step % CLIENTS) as usize;
        let host = self.registered_now(net, 0);
        let client = self.registered_now(net, number);
        let (Some((code, _)), Some(_)) = (host, client) else { return };
        if self.holds[number].ports.is_empty() && self.step.is_multiple_of(5) {
            self.say(net, number, &format!("connect-relay {code}\n"));
        }
        for from in [number, 0] {
            let ports = &self.holds[from].ports;
            let Some(port) = ports.get(self.step as usize % ports.len().max(1)).copied() else {
                continue;
            };
            let to = net.server_at(self.me, port);
            net.send(self.me, from as u8, to, Kind::Junk, if from == 0 { 10 } else { 1200 }, 0);
        }
    }

    pub(super) fn registered_now(
        &mut self,
        net: &mut Network,
        number: usize,
    ) -> Option<(String, String)> {
        let ids = self.ids(net, number)?;
        if self.holds[number].ports.is_empty() {
            let to = net.registrar(self.me);
            net.send_bytes_from(self.me, number as u8, to, ids.1.as_bytes());
        }
        Some(ids)
    }

    /// A partner of an honest host, who sends it too much.
    pub(super) fn flood_host(&mut self, net: &mut Network, length: u16) {
        if self.registered(net, 0).is_none() {
            return;
        }
        let code = self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned());
        if let Some(code) = code
            && self.step.is_multiple_of(64)
        {
            self.say(net, 0, &format!("connect-relay {code}\n"));
        }
        if let Some(port) = self.holds[0].ports.last().copied()
            && length > 0
        {
            let to = net.server_at(self.me, port);
            net.send(self.me, 0, to, Kind::Junk, length, 0);
        }
    }

    pub(super) fn read_slowly(&mut self, net: &mut Network) {
        if self.ids(net, 0).is_some() {
            self.say(net, 0, &format!("echo {}\n", "y".repeat(4000)));
        }
    }

    pub(super) fn fumble(&mut self, net: &mut Network) {
        let own = self.ids(net, 0);
        let code = self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned());
        let code = code.unwrap_or_else(|| "nobody".to_owned());
        let line = match self.step % 12 {
            1 => "connect\n".to_owned(),
            2 => format!("connect {code}\n"),
            3 => "hello there\n".to_owned(),
            4 => "\n\r\n".to_owned(),
            5 => format!("connect-relay {}\n", own.as_ref().map_or("", |(oid, _)| oid)),
            6 => "echo\n".to_owned(),
            7 => "echo a  b\r\n".to_owned(),
            8 => format!("register-host {}\n", own.as_ref().map_or("", |(_, pid)| pid)),
            9 => "register-host nonsense\n".to_owned(),
            10 => {
                // A connection without a registration.
                self.say(net, 1, &format!("connect {code}\n"));
                return;
            }
            _ => {
                if let Some(connection) = self.hold(net, 0) {
                    net.write(connection, b"echo \xff\n");
                }
                return;
            }
        };
        self.say(net, 0, &line);
        if self.step.is_multiple_of(5)
            && let Some((_, pid)) = own
        {
            let to = net.registrar(self.me);
            net.send_bytes(self.me, to, format!("{pid} \r\n").as_bytes());
            // Another connection takes the player over.
            self.say(net, 2, &format!("register-host {pid}\n"));
        }
    }

    /// Its datagrams come from an address that is not at the IP of its connection.
    pub(super) fn be_unconfirmed(&mut self, net: &mut Network, both: bool) {
        let to = net.registrar(self.me);
        let router = usize::from(net.route[usize::from(self.me)]);
        let second = net.routers[router].ips.last().copied().unwrap_or(self.bystander.ip);
        let players = 1 + usize::from(both);
        for number in 0..players {
            let Some((_, pid)) = self.ids(net, number) else { return };
            let from = Addr { ip: second, port: 5000 + number as u16 };
            net.send_forged_bytes(self.me, from, to, pid.as_bytes());
            if let Some(port) = self.holds[number].ports.last().copied() {
                let to = net.server_at(self.me, port);
                net.send_forged(self.me, from, to, Kind::Junk, 100);
            }
        }
        let code = if both {
            self.holds[1].ids.clone().map(|(oid, _)| oid)
        } else {
            self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned())
        };
        if let Some(code) = code {
            let command = *self.random.pick(&["connect", "connect-relay"]);
            self.say(net, 0, &format!("{command} {code}\n"));
        }
    }
}
