//! What the core offers to the kernel's path: a pair that may be forwarded without it, within exact bounds.
//!
//! The core stays the judge. It hears from the shell what was forwarded before it judges anything about the pair
//! ([`KernelTraffic`]). If a pair must not be offered any more, the shell withdraws it at once.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::relay::{Latching, RelayPort, RelayTable};
use crate::limits::relay::{HOST_SILENCE, charged_bytes};
use crate::time::Timestamp;

use super::pair::{Pair, Role};

/// A pair that the kernel may forward, until something of it changes.
///
/// The two players have the same order everywhere: the asker is first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Each player's own port, where the other one sends.
    pub ports: [RelayPort; 2],
    /// Where each player was last heard. Only from there it may send, and there it is sent to.
    pub players: [SocketAddr; 2],
    /// When each player was last heard.
    pub heard: [Timestamp; 2],
    /// For how long each player may be silent and is still sent to.
    pub patience: [Duration; 2],
    /// When the bucket of what each player sends will be full.
    pub full_at: [Timestamp; 2],
    /// Charged bytes a second that each player may send.
    pub rate: u64,
    /// In which time an empty bucket fills.
    pub burst: Duration,
    /// When the pair's life ends.
    pub until: Timestamp,
    /// Charged bytes that the pair may still carry.
    pub left: u64,
}

impl Offer {
    /// Whether the two offers say the same but for what datagrams alone change: buckets, and who was heard when.
    pub fn is_same_way(&self, other: &Self) -> bool {
        let way = |offer: &Self| (offer.ports, offer.players, offer.patience, offer.until);
        way(self) == way(other) && (self.rate, self.burst) == (other.rate, other.burst)
    }
}

/// What the kernel forwarded from one player to the other since the core last heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTraffic {
    /// Where it came to: the receiver's port.
    pub at: RelayPort,
    /// Where it came from.
    pub source: SocketAddr,
    /// How many datagrams.
    pub datagrams: u64,
    /// Their payload in bytes.
    pub payload: u64,
    /// When the last one came.
    pub heard: Timestamp,
    /// When the sender's bucket will be full.
    pub full_at: Timestamp,
}

impl KernelTraffic {
    /// The charged bytes of all these datagrams.
    pub fn cost(&self) -> u64 {
        self.payload + charged_bytes(0) * self.datagrams
    }
}

/// Who judges what the kernel may forward: the core, or in a simulation its relays alone.
pub trait Judge {
    /// What may be forwarded of the pair that has this port, if it may.
    fn offer(&self, at: RelayPort, now: Timestamp) -> Option<Offer>;

    /// Handles what the kernel forwarded, as if each datagram had come here at its time.
    fn handle_kernel_traffic(&mut self, traffic: &KernelTraffic, now: Timestamp);

    /// Handles that all was told that the kernel forwarded until now.
    fn handle_kernel_reading(&mut self, now: Timestamp);
}

impl Judge for RelayTable {
    /// Both players were heard and are of one family, and at least one is confirmed. Nothing that several pairs share
    /// is scarce: a pair of a crowded host is not offered, nor one whose host is silent, nor any while the server
    /// carries more than half of what it may.
    fn offer(&self, at: RelayPort, now: Timestamp) -> Option<Offer> {
        let (pair, _) = self.pairs.at(at)?;
        let may_be = self.total_traffic.is_plentiful(&self.settings.limits, now)
            && (pair.is_confirmed() || self.settings.latching == Latching::Any);
        if !may_be {
            return None;
        }
        pair.offer(&self.settings.limits, now)
    }

    fn handle_kernel_traffic(&mut self, traffic: &KernelTraffic, now: Timestamp) {
        self.total_traffic.note_kernel_traffic(traffic.cost());
        let Some((pair, owner)) = self.pairs.at_mut(traffic.at) else { return };
        // Forwarded while the core was giving the place to somebody else: it came after that.
        if traffic.heard >= now && !pair.is_current(owner, traffic.source) {
            let latching = self.settings.latching;
            let _ = pair.hear_other(
                owner,
                traffic.source,
                latching,
                &self.own,
                &mut self.sprayers,
                now,
            );
        }
        pair.handle_kernel_traffic(owner, traffic, now);
    }

    fn handle_kernel_reading(&mut self, now: Timestamp) {
        self.total_traffic.handle_kernel_reading(&self.settings.limits, now);
    }
}

impl RelayTable {
    /// Takes the asker's ports of the pairs whose offers may have changed for another reason than a datagram.
    pub fn take_changed(&mut self) -> impl Iterator<Item = RelayPort> {
        self.changed.drain(..)
    }
}

impl Pair {
    fn offer(&self, limits: &crate::limits::relay::RelayLimits, now: Timestamp) -> Option<Offer> {
        let [asker, host] = self.sides.each_ref().map(|side| side.latch.address());
        let heard = self.sides.each_ref().map(|side| side.latch.heard());
        let [Some(asker_heard), Some(host_heard)] = heard else { return None };
        let patience = [limits.idle_timeout, limits.idle_timeout.min(HOST_SILENCE)];
        let silence = [asker_heard, host_heard].map(|heard| now.since(heard));
        let is_silent = silence[0] >= patience[0] || silence[1] >= patience[1];
        let is_settled = self.life.is_settled() && self.life.refusal(limits, now).is_none();
        if is_silent || !is_settled || self.is_in_crowd || asker.is_ipv4() != host.is_ipv4() {
            return None;
        }
        Some(Offer {
            ports: self.ports(),
            players: [asker, host],
            heard: [asker_heard, host_heard],
            patience,
            full_at: self.sides.each_ref().map(|side| side.bucket.full_at()),
            rate: limits.pair_rate,
            burst: limits.burst,
            until: self.life.created + limits.lifetime,
            left: limits.lifetime_traffic.saturating_sub(self.life.traffic),
        })
    }

    fn handle_kernel_traffic(&mut self, owner: Role, traffic: &KernelTraffic, now: Timestamp) {
        let sender = &mut self.sides[owner.other() as usize];
        let heard = traffic.heard.min(now);
        sender.latch.hear_earlier(traffic.source, heard);
        sender.bucket.raise(traffic.full_at);
        self.life.forwarded = self.life.forwarded.max(heard);
        self.life.traffic += traffic.cost();
    }
}
