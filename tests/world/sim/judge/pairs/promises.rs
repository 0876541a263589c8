//! What the pages promise of a pair, and what they do not.

use super::super::Judge;
use super::{ALIVE, FOLLOWED, Pair, Side, UNHEARD};
use crate::world::net::{Addr, SECOND, Time};
use crate::world::router::RouterKind;

/// The largest, in bytes. The last one that passes may go beyond a limit.
pub(super) const DATAGRAM: u64 = 65_535;

impl Judge {
    /// Whether a pair cannot be over by anything that the pages say.
    pub(super) fn is_surely_live(&self, pair: &Pair, now: Time) -> bool {
        let is_heard = |side: &Side| {
            let was_in_time = side.first < pair.opened + UNHEARD;
            let has_one_ip = self.peer(side.peer).kind != RouterKind::SeveralIps;
            // After a restart it may be taken for somebody who sends to many ports, and not be heard.
            let is_disturbed = self.was_away(&[side.peer], pair.opened, now);
            side.from.is_some()
                && was_in_time
                && has_one_ip
                && !is_disturbed
                && now - side.last < 2 * SECOND
        };
        let both = pair.sides.iter().all(is_heard) && !self.promises.has_no_latching;
        both && !pair.is_closed
            && now - pair.forwarded + 2 * SECOND < self.promises.idle
            && now - pair.opened + 2 * SECOND < self.promises.lifetime
            && pair.carried + 10_000 < self.promises.lifetime_traffic
    }

    /// Whether nothing that the pages say is a reason to drop what this side sends.
    pub(super) fn must_pass(&self, pair: &Pair, sender: usize, now: Time) -> bool {
        let (from, to) = (&pair.sides[sender], &pair.sides[1 - sender]);
        let peers = [from.peer, to.peer];
        if pair.is_closed || peers.iter().any(|peer| !self.peer(*peer).is_honest) {
            return false;
        }
        let is_followed =
            |side: &Side| now - side.from_since > FOLLOWED && now - side.first > FOLLOWED;
        let is_calm = from.is_settled(now) && is_followed(to) && now - to.last < 2 * SECOND;
        let is_small = now - pair.opened + SECOND < self.promises.lifetime
            && pair.carried + 100_000 < self.promises.lifetime_traffic
            && from.bytes < self.promises.pair_rate / 2;
        let is_disturbed = self.is_disturbed(&peers, now.saturating_sub(2 * SECOND), now)
            || self.anybody_may_be_first();
        is_calm && is_small && !is_disturbed && !self.promises.has_no_latching
    }

    /// With `NORAY_UDP_RELAY_LATCHING=any`, whoever is first at a port in its first 10 s has the place.
    pub(in crate::world::judge) fn anybody_may_be_first(&self) -> bool {
        use crate::world::plan::Deed::{ForgeSources, KnownPort, Scan};
        self.promises.has_any_latching && self.has_deed(&[ForgeSources, KnownPort, Scan])
    }

    /// Whether somebody else's datagrams may pass for those of that side: neighbours of its IP before it is settled or
    /// while it is silent, and whoever forges its very address.
    pub(super) fn may_take_place(&self, side: &Side, from: Addr, now: Time) -> bool {
        let is_certain = self.peer(side.peer).is_honest && !self.anybody_may_be_first();
        if !is_certain || side.from == Some(from) {
            return true;
        }
        let registered = self.ids.players[side.player].address;
        let is_registered = registered == Some(from);
        let same_ip = [side.from, registered].iter().flatten().any(|known| known.ip == from.ip);
        // The judge's world loses datagrams on the way to the server, and its players' routers forget.
        let is_open = !side.is_settled(now);
        is_open && (same_ip || is_registered || self.promises.has_any_latching)
    }

    /// Whether what is meant for that side may be sent there.
    pub(super) fn may_be_sent(&self, side: &Side, to: Addr, now: Time) -> bool {
        let peer = self.peer(side.peer);
        if side.from == Some(to) || !peer.is_honest || peer.kind == RouterKind::SeveralIps {
            return true;
        }
        let of = &self.ids.players[side.player];
        if side.from.is_none() && of.address == Some(to) {
            return true;
        }
        let has_any = self.promises.has_any_latching || self.promises.has_no_latching;
        let is_own = of.addresses.iter().chain(&side.from).any(|known| known.ip == to.ip);
        let is_new = now - side.from_since <= FOLLOWED || now - side.last > ALIVE;
        let is_disturbed = self.is_disturbed(&[side.peer], now, now);
        is_own && (is_new || is_disturbed || !side.is_settled(now)) || has_any
    }

    /// Whether the pair must have ended, by its age or by what it has carried.
    pub(super) fn has_outlived(&self, pair: &Pair, now: Time) -> bool {
        let longest = self.promises.current_lifetime + SECOND + self.outage_within(pair.told, now);
        now - pair.told > longest
            || pair.carried_since > self.promises.current_lifetime_traffic + DATAGRAM
    }

    /// Whether nothing has come from that side for longer than the idle time, also nothing that passes for its own.
    pub(super) fn has_fallen_silent(&self, side: &Side, now: Time) -> bool {
        let peer = self.peer(side.peer);
        let has_one_ip = peer.kind != RouterKind::SeveralIps && !self.promises.has_any_latching;
        let is_heard = side.from.is_some() && side.unheard_at.is_none();
        let is_latched = is_heard && !self.promises.has_no_latching;
        let is_sure = peer.is_honest && is_latched && has_one_ip;
        let silent = now - side.alive;
        is_sure && silent > self.promises.idle + 2 * SECOND + self.outage_within(side.alive, now)
    }

    /// Only one network sends more than its share, so the others lose nothing.
    pub(super) fn has_only_one_flooder(&self) -> bool {
        use crate::world::plan::Deed::{Flood, FloodHost, ForgeAddress, ForgeAlive};
        let floods = |deed| matches!(deed, Flood | FloodHost | ForgeAddress | ForgeAlive);
        self.deeds.iter().filter(|(deed, _)| floods(*deed)).count() == 1
    }
}
