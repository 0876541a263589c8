//! What a player does when it hears something: from the server, or from its partners.

use super::{BLAST, Game, Link, Partner, Player};
use crate::world::net::{Addr, Datagram, Kind, MS, SECOND, Time};
use crate::world::network::{Down, Network};
use crate::world::plan::{Role, Way};

impl Player {
    pub fn receive(&mut self, datagram: &Datagram, net: &mut Network) {
        let from = datagram.from;
        if from == net.registrar(self.me) {
            if net.bytes(datagram.number) == b"OK" && matches!(self.link, Link::Registering(_)) {
                self.registered(net);
            }
            return;
        }
        if self.game == Game::Over {
            return;
        }
        match datagram.kind {
            Kind::Ask if self.is_host() => self.asked(from, net),
            Kind::Handshake { read, known } => self.shaken(from, read, known, net),
            Kind::Verify => self.verified(from, net),
            Kind::Game => {
                let now = net.now;
                let partner = self.partners.iter_mut().find(|partner| partner.at == from);
                if let Some(partner) = partner {
                    partner.heard = now;
                }
            }
            Kind::Bytes | Kind::Junk | Kind::Ask => {}
        }
    }

    pub(super) fn registered(&mut self, net: &mut Network) {
        self.link = Link::Up;
        net.judge.recovered(self.me, net.now);
        if self.is_host() {
            let (oid, _) = self.ids.clone().expect("it has ids");
            net.lobby.insert(self.plan.id, oid);
            if self.ends_at == Time::MAX {
                self.ends_at = net.now + Time::from(self.plan.play_s) * SECOND;
            }
        }
        if let Some(plan) = &self.plan.breaks
            && self.breaks_at.is_none()
            && !self.plan.hangs_up
        {
            self.breaks_at = Some(net.now + Time::from(plan.after_ms) * MS);
        }
        net.wake(self.me, net.now);
    }

    /// A client's game asks: the host's game answers where it came from.
    pub(super) fn asked(&mut self, from: Addr, net: &mut Network) {
        let (now, starts) = (net.now, !self.partners.iter().any(|partner| partner.plays));
        match self.partners.iter_mut().find(|partner| partner.at == from) {
            Some(partner) => (partner.plays, partner.heard, partner.blasts_until) = (true, now, 0),
            None => {
                let partner = Partner { at: from, blasts_until: 0, plays: true, heard: now };
                self.partners.push(partner);
            }
        }
        net.send(self.me, 0, from, Kind::Verify, 40, 0);
        if starts {
            net.wake(self.me, now + MS);
        }
    }

    pub(super) fn shaken(&mut self, from: Addr, read: bool, known: bool, net: &mut Network) {
        let Game::Shaking { to, by_relay, known: knew, .. } = self.game else { return };
        let knows = knew || read;
        if knows && known {
            net.send(self.me, 0, to, Kind::Handshake { read: true, known: true }, 4, 0);
            // The page's game goes on where it heard the host, if that is the same machine.
            let to = if self.plan.way != Way::AddOn && from.ip == to.ip { from } else { to };
            self.enter(net, to, by_relay);
        } else {
            self.game = Game::Shaking { to, by_relay, read: true, known: knows };
        }
    }

    pub(super) fn verified(&mut self, from: Addr, net: &mut Network) {
        let Game::Entering { to, by_relay } = self.game else { return };
        let Role::Client(host) = self.plan.role else { return };
        if from != to {
            return;
        }
        self.game = Game::Playing { to };
        self.partners = vec![Partner { at: to, blasts_until: 0, plays: true, heard: net.now }];
        self.has_met = true;
        net.judge.met(self.me, host, by_relay, self.wanted.unwrap_or(net.now), net.now);
        self.ends_at = net.now + Time::from(self.plan.play_s) * SECOND;
        if self.plan.hangs_up {
            if let Some(connection) = self.connection.take() {
                net.close(connection);
            }
            self.link = Link::Done;
        }
        net.wake(self.me, net.now);
    }

    pub fn hear_server(&mut self, connection: u32, what: Down, net: &mut Network) {
        if let Down::Text(text) = &what {
            net.record_read(connection, text.len());
        }
        if self.connection != Some(connection) {
            return;
        }
        match what {
            Down::Connected => {
                self.link = Link::Naming;
                let line = match &self.ids {
                    Some((_, pid)) => format!("register-host {pid}\n"),
                    None => "register-host\n".to_owned(),
                };
                self.say(net, connection, &line);
            }
            Down::Refused | Down::Closed => {
                self.connection = None;
                if self.link != Link::Done {
                    net.judge.line_broke(self.me, net.now);
                    self.link = Link::Down(net.now + 2 * SECOND + self.random.below(SECOND));
                    if matches!(self.game, Game::Asking { .. }) {
                        self.game = Game::None(net.now + SECOND);
                    }
                }
            }
            Down::Text(text) => {
                self.text.push_str(&text);
                while let Some(end) = self.text.find('\n') {
                    let line: String = self.text.drain(..=end).collect();
                    self.hear_line(line.trim_end(), net);
                }
            }
        }
        if self.game != Game::Over {
            net.wake(self.me, net.now);
        }
    }

    pub(super) fn hear_line(&mut self, line: &str, net: &mut Network) {
        let (command, data) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "set-oid" => self.ids = Some((data.to_owned(), String::new())),
            "set-pid" => {
                if let Some((_, pid)) = &mut self.ids {
                    *pid = data.to_owned();
                }
                self.link = Link::Registering(net.now);
            }
            "connect" | "connect-relay" => self.introduced(command, data, net),
            "connect-error" | "connect-relay-error" => {
                let code = data.split(' ').next().unwrap_or(data);
                let Role::Client(host) = self.plan.role else { return };
                net.judge.refused(self.me, host, code, net.now);
                if matches!(self.game, Game::Asking { .. }) {
                    self.game = Game::None(net.now + SECOND);
                }
            }
            _ => {}
        }
    }

    pub(super) fn introduced(&mut self, command: &str, data: &str, net: &mut Network) {
        let is_relay = command == "connect-relay";
        let to = if is_relay {
            data.parse().ok().map(|port| net.server_at(self.me, port))
        } else {
            data.parse().ok().and_then(|address| net.ips.find(address))
        };
        let Some(to) = to else { return };
        let by_relay = is_relay || net.server_ips.contains(&to.ip);
        if self.is_host() {
            let blasts_until = net.now + BLAST;
            if let Some(partner) = self.partners.iter_mut().find(|partner| partner.at == to) {
                partner.blasts_until = blasts_until;
            } else {
                let partner = Partner { at: to, blasts_until, plays: false, heard: net.now };
                self.partners.push(partner);
            }
        } else if matches!(self.game, Game::Asking { .. }) {
            self.game = Game::Shaking { to, by_relay, read: false, known: false };
            self.since = net.now;
        }
    }
}
