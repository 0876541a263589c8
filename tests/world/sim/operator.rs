//! The operator, the machine, and what happens to routers.

use super::net::{self, Addr, MS, SECOND, Time};
use super::network::Event;
use super::plan::What;
use super::server::{REGISTRAR, Server, read_config};
use super::{Someone, World};

impl World {
    pub(super) fn act(&mut self, number: u16) {
        let what = self.plan.acts[usize::from(number)].what.clone();
        let now = self.net.now;
        if let Some(until) = self.net.stands_still_until()
            && !matches!(what, What::Forget { .. } | What::Move { .. })
        {
            // Whoever does something at the server waits for the machine.
            return self.net.plan(until, Event::Act(number));
        }
        match what {
            What::Forget { site } => self.forget(site),
            What::Move { player, site } => self.move_player(player, site),
            What::StandStill { ms, loses } => {
                let until = now + Time::from(ms) * MS;
                self.net.judge.stalls(now, until);
                self.net.stands_still = Some((until, loses));
            }
            What::Restart { after_ms } => {
                self.net.restart_after = Time::from(after_ms) * MS;
                self.with_server(|server, now| server.drain(now));
            }
            What::HandOver => self.with_server(|server, now| server.hand_over(now)),
            What::Reload(lines) => {
                self.config = lines;
                self.net.judge.reloaded(&read_config(&self.config), now);
                let lines = self.config.clone();
                self.with_server(|server, now| server.reload(&lines, now));
            }
            What::NoThreads { ms } => {
                self.net.plan(now + Time::from(ms) * MS, Event::Threads);
                self.net.judge.outage(now, now + Time::from(ms) * MS);
                self.with_server(|server, _| server.set_threads(false));
            }
            What::FromItself => {
                let at = self.net.server_ips[0];
                let relay = self.net.server.as_ref().and_then(Server::first_port);
                for port in relay.into_iter().chain([REGISTRAR]) {
                    let (from, to) = (Addr { ip: at, port }, Addr { ip: at, port: REGISTRAR });
                    let (kind, sender, length, number) = (net::Kind::Junk, u16::MAX, 100, 0);
                    let is_forged = true;
                    let datagram =
                        net::Datagram { from, to, sender, is_forged, kind, length, number };
                    self.net.arrive_at_server(datagram);
                }
            }
        }
    }

    /// The operator does something.
    pub(super) fn with_server(&mut self, action: impl FnOnce(&mut Server, Time)) {
        let now = self.net.now;
        if let Some(server) = &mut self.net.server {
            server.trace.now = now;
            action(server, now);
            self.net.carry_out(None);
        }
    }

    pub(super) fn forget(&mut self, site: u16) {
        let Some(router) = self.sites.get(&site) else { return };
        self.net.routers[usize::from(*router)].forget();
        let now = self.net.now;
        for peer in 0..self.peers.len() as u16 {
            if self.net.route[usize::from(peer)] == *router {
                self.net.judge.mapping_lost(peer, now);
            }
        }
    }

    pub(super) fn move_player(&mut self, player: u16, site: u16) {
        let Some(router) = self.sites.get(&site).copied() else { return };
        let Some(peer) = self.net.judge.peer_of(player) else { return };
        let kind = self.plan.site(site).kind;
        let now = self.net.now;
        self.net.judge.disturb(peer, now, now + 10 * SECOND);
        self.net.judge.moved(peer, router, kind);
        self.net.route[usize::from(peer)] = router;
        if let Someone::Player(player) = &mut self.peers[usize::from(peer)] {
            player.moved(&mut self.net);
        }
    }
}
