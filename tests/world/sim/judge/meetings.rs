//! That honest players meet, in time, and stay together.

use super::{Judge, Peer};
use crate::world::net::{SECOND, Time};
use crate::world::plan::Deed;
use crate::world::router::RouterKind;

/// How long a client may take from its first question to its game, by punch or relay: a handshake of 1 s, a try of 3 s,
/// the same by relay, and what a line loses. The add-on's example waits 8 s for its handshake.
const TIME_TO_MEET: Time = 12 * SECOND;
const TIME_OF_THE_ADD_ON: Time = 26 * SECOND;

#[derive(Default)]
pub(super) struct Meetings {
    met: u64,
}

impl Judge {
    /// A client has met its host.
    pub fn met(&mut self, client: u16, host: u16, by_relay: bool, wanted: Time, now: Time) {
        self.meetings.met += 1;
        self.coverage.count("met", if by_relay { "by relay" } else { "by punch" });
        let Some(host) = self.peer_of(host) else { return };
        let is_late = now - wanted > TIME_OF_THE_ADD_ON;
        if is_late && self.expects(client, host, wanted, now) && self.can_relay(client, host) {
            let what = format!("{client} met {host} after {} s", (now - wanted) / SECOND);
            self.accuse("honest players meet in time", now, what);
        }
    }

    /// A client has given up a way to meet its host.
    pub fn did_not_meet(&mut self, client: u16, host: u16, by_relay: bool, now: Time) {
        let Some(host) = self.peer_of(host) else { return };
        let since = now.saturating_sub(if by_relay { TIME_TO_MEET } else { TIME_OF_THE_ADD_ON });
        if !self.expects(client, host, since, now) {
            return;
        }
        if by_relay {
            if self.can_relay(client, host) {
                self.accuse("honest players meet by relay", now, format!("{client} and {host}"));
            }
        } else if self.can_punch(client, host) {
            self.accuse(
                "players meet by punch where RFC 4787 says so",
                now,
                format!("{client} and {host}"),
            );
        }
    }

    fn expects(&self, client: u16, host: u16, since: Time, now: Time) -> bool {
        let are_here = !self.is_gone(host, now) && !self.is_gone(client, now);
        are_here && !self.is_excused(&[client, host], since, now)
    }

    fn can_punch(&self, client: u16, host: u16) -> bool {
        let [client, host] = [client, host].map(|peer| self.peer(peer));
        // The add-on's example hears nothing behind a router that maps by destination.
        client.site != host.site
            && client.is_ipv6 == host.is_ipv6
            && !client.kind.maps_by_destination()
            && !host.kind.maps_by_destination()
            && client.kind.can_punch(host.kind)
            && !self.promises.relay_only
            && client.stale.is_none()
            && host.stale.is_none()
    }

    fn can_relay(&self, client: u16, host: u16) -> bool {
        let [client, host] = [client, host].map(|peer| self.peer(peer));
        let has_one_ip = |kind| kind != RouterKind::SeveralIps;
        let is_fixed = |peer: &Peer| !peer.kind.maps_by_destination() && peer.stale.is_none();
        // Behind such a router a neighbour that sends to all ports is another source at each. It may be first at one, and
        // keep the place if it comes by often enough.
        let is_crowded = |peer: &Peer| {
            peer.kind.maps_by_destination() && self.has_deed_at(&[Deed::Scan], peer.site)
        };
        let is_enough = |peer: &Peer| {
            let can_be_heard = !self.promises.has_no_latching || is_fixed(peer);
            has_one_ip(peer.kind) && can_be_heard && !is_crowded(peer)
        };
        let is_open_to_all = self.anybody_may_be_first();
        is_enough(client)
            && is_enough(host)
            && !is_open_to_all
            && !(client.is_split && host.is_split)
    }

    /// A client has waited for a while, and its host is there.
    pub fn check_waiting(&mut self, client: u16, host: u16, wanted: Time, now: Time) {
        let Some(host) = self.peer_of(host) else { return };
        let is_late = now - wanted > TIME_OF_THE_ADD_ON;
        if is_late && self.expects(client, host, wanted, now) && self.can_relay(client, host) {
            self.accuse("honest players meet in time", now, format!("{client} waits for {host}"));
        }
    }

    pub fn not_answered(&mut self, client: u16, host: u16, since: Time, now: Time) {
        let Some(host) = self.peer_of(host) else { return };
        if self.expects(client, host, since, now) {
            self.accuse("every command is answered", now, format!("that of {client}"));
        }
    }

    /// A client was told an error.
    pub fn refused(&mut self, client: u16, host: u16, code: &str, now: Time) {
        let Some(host) = self.peer_of(host) else { return };
        if !self.expects(client, host, now.saturating_sub(5 * SECOND), now) {
            return;
        }
        let sites = [client, host].map(|peer| self.peer(peer).site);
        let is_allowed = match code {
            "no-common-family" => self.peer(client).is_ipv6 != self.peer(host).is_ipv6,
            // Wrong codes of a neighbour block the whole IP, and strangers at that IP use its share of introductions.
            "rate-limited" => self.has_deed_at(
                &[
                    Deed::Guess,
                    Deed::Fumble,
                    Deed::AskForHost,
                    Deed::Unconfirmed,
                    Deed::BothUnconfirmed,
                ],
                sites[0],
            ),
            "unconfirmed" => [client, host].iter().all(|peer| self.is_unconfirmed(*peer)),
            // Networks that take all they may, one after the other, leave a 32nd.
            "relays-exhausted" => {
                let hoards = |(deed, at): &&(Deed, u16)| *deed == Deed::Relays && *at != sites[0];
                self.has_deed_at(&[Deed::Relays], sites[0])
                    || self.deeds.iter().filter(hoards).count() > 1
            }
            _ => false,
        };
        if !is_allowed {
            let what = format!("{client} was told {code}");
            self.accuse("honest players are refused nothing", now, what);
        }
    }

    fn is_unconfirmed(&self, peer: u16) -> bool {
        let peer = self.peer(peer);
        peer.is_split || peer.kind == RouterKind::SeveralIps
    }

    /// A client has heard nothing of its host for too long.
    pub fn client_lost(&mut self, client: u16, host: u16, now: Time) {
        let Some(host) = self.peer_of(host) else { return };
        self.lost([client, host], now);
    }

    /// A host has heard nothing of a client for too long.
    pub fn host_lost(&mut self, _host: u16, _at: super::Addr, _now: Time) {
        self.coverage.count("world", "hosts that lost a client");
    }

    fn lost(&mut self, peers: [u16; 2], now: Time) {
        let since = now.saturating_sub(16 * SECOND);
        let are_here = peers.iter().all(|peer| !self.is_gone(*peer, now));
        let is_fixed = !self.promises.has_no_latching;
        let is_excused =
            self.is_draining || self.was_away(&peers, since, now) || self.stood_too_long(now);
        if are_here && is_fixed && !is_excused && !self.is_worn_out() {
            self.accuse("games go on", now, format!("{} and {}", peers[0], peers[1]));
        }
    }

    /// A stall of some seconds ends no game, as none of it counts as silence. Games themselves give up after 8 s.
    fn stood_too_long(&self, now: Time) -> bool {
        let since = now.saturating_sub(20 * SECOND);
        self.stalls
            .iter()
            .map(|(from, until)| (*until).min(now).saturating_sub((*from).max(since)))
            .sum::<Time>()
            > 6 * SECOND + SECOND / 2
    }

    /// Pairs may end by their age or by what they have carried.
    fn is_worn_out(&self) -> bool {
        self.promises.lifetime < 600 * SECOND || self.promises.lifetime_traffic < 100_000_000
    }

    pub fn line_broke(&mut self, peer: u16, now: Time) {
        // That the server stood still is no reason, unless others take all places while it catches up.
        let is_taken = self.has_deed(&[Deed::Connections, Deed::Silent])
            && self.is_disturbed(&[peer], now.saturating_sub(SECOND), now);
        let is_excused =
            self.is_draining || is_taken || self.was_away(&[peer], now.saturating_sub(SECOND), now);
        if self.peer(peer).is_honest && !is_excused {
            let is_crowded = self.has_deed(&[Deed::Connections, Deed::Silent]);
            let is_neighbour = is_crowded && {
                let site = self.peer(peer).site;
                self.has_deed_at(&[Deed::Connections, Deed::Silent], site)
            };
            if !is_neighbour {
                self.accuse("the server keeps honest connections", now, format!("that of {peer}"));
            }
        }
        self.disturb(peer, now, now + 8 * SECOND);
    }

    /// A player is at another site from now on.
    pub fn moved(&mut self, peer: u16, site: u16, kind: RouterKind) {
        let peer = &mut self.peers[usize::from(peer)];
        (peer.site, peer.kind) = (site, kind);
    }

    /// A player has registered, perhaps again.
    pub fn recovered(&mut self, peer: u16, now: Time) {
        // What was on its way when the router forgot came from the old mapping.
        self.peers[usize::from(peer)].stale.take_if(|at| now - *at > 2 * SECOND);
        self.coverage.count("world", "registered");
    }
}
