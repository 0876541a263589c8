//! The rates that pairs share: of all relays together, and to a silent host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::limits::network::Network;
use crate::limits::rates::SILENT_HOST;
use crate::limits::relay::RelayLimits;
use crate::limits::share::{RateShares, RateSharesSnapshot};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// The rate of all relays together. While more than half of its burst is left, it is nobody's share.
#[derive(Debug)]
pub(super) struct TotalTraffic {
    bucket: TokenBucket,
    /// What each network sent while no more than half of the burst was left.
    shares: RateShares,
}

/// What another process needs to go on with a [`TotalTraffic`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TotalTrafficSnapshot {
    bucket: TokenBucket,
    shares: RateSharesSnapshot,
}

impl TotalTraffic {
    /// Nobody has sent anything.
    pub(super) fn new(limits: &RelayLimits) -> Self {
        let shares = RateShares::new(limits.shared_limit());
        Self { bucket: TokenBucket::default(), shares }
    }

    /// Charges `cost` bytes of a datagram, if it may pass; whether it may. The sender's network is only asked for when
    /// it matters, because that takes a look at memory that is seldom used.
    pub(super) fn try_charge(
        &mut self,
        network: impl FnOnce() -> Network,
        cost: u64,
        limits: &RelayLimits,
        now: Timestamp,
    ) -> bool {
        if !self.bucket.has_tokens(limits.burst / 2, now) {
            let network = network();
            let has_share = self.shares.has_room(network, now);
            if !has_share || !self.bucket.has_tokens(limits.burst, now) {
                return false;
            }
            self.shares.charge(network, cost as f64, now);
        }
        self.bucket.charge(cost, limits.global_rate, now);
        true
    }

    /// Forgets what was sent too long ago to matter. Looks at each network.
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        self.shares.forget_idle(now);
    }

    /// What another process needs to go on.
    pub(super) fn snapshot(&self) -> TotalTrafficSnapshot {
        TotalTrafficSnapshot { bucket: self.bucket, shares: self.shares.snapshot() }
    }

    /// Goes on with a snapshot.
    pub(super) fn restore(&mut self, snapshot: TotalTrafficSnapshot) {
        self.bucket = snapshot.bucket;
        self.shares.restore(snapshot.shares);
    }
}

/// What was sent to each host that was silent, by network. All pairs of a host share one small rate.
#[derive(Debug, Default)]
pub(super) struct SilentHosts(BTreeMap<PlayerId, RateShares>);

/// What another process needs to go on with [`SilentHosts`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SilentHostsSnapshot(Vec<(PlayerId, RateSharesSnapshot)>);

impl SilentHosts {
    /// Whether a datagram from `network` to that host may pass.
    pub(super) fn has_room(&self, host: PlayerId, network: Network, now: Timestamp) -> bool {
        self.0.get(&host).is_none_or(|shares| shares.has_room(network, now))
    }

    /// Charges `cost` bytes of a datagram from `network` to that host.
    pub(super) fn charge(&mut self, host: PlayerId, network: Network, cost: u64, now: Timestamp) {
        self.of(host).charge(network, cost as f64, now);
    }

    fn of(&mut self, host: PlayerId) -> &mut RateShares {
        self.0.entry(host).or_insert_with(|| RateShares::new(SILENT_HOST))
    }

    /// Forgets what was sent too long ago to matter. Looks at each host.
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        self.0.retain(|_, shares| {
            shares.forget_idle(now);
            shares.entries() > 0
        });
    }

    /// What another process needs to go on.
    pub(super) fn snapshot(&self) -> SilentHostsSnapshot {
        SilentHostsSnapshot(self.0.iter().map(|(id, shares)| (*id, shares.snapshot())).collect())
    }

    /// Goes on with a snapshot.
    pub(super) fn restore(&mut self, snapshot: SilentHostsSnapshot) {
        for (host, used) in snapshot.0 {
            self.of(host).restore(used);
        }
    }
}
