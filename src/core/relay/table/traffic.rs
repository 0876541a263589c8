//! The rates that pairs share: of all relays together, and of all that goes to one host.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::core::relay::pair::HostRate;
use crate::limits::network::Network;
use crate::limits::rates::SILENT_HOST;
use crate::limits::relay::RelayLimits;
use crate::limits::share::{RateShares, RateSharesSnapshot};
use crate::limits::token_bucket::{RateLimit, TokenBucket};
use crate::time::Timestamp;

/// The rate of all relays together. While more than half of its burst is left, it is nobody's share.
#[derive(Debug)]
pub(in crate::core::relay) struct TotalTraffic {
    bucket: TokenBucket,
    /// What each network sent while no more than half of the burst was left.
    shares: RateShares,
    kernel: KernelShare,
}

/// What the kernel carries of the rate of all relays together. It asks nobody, so it may carry no more than half.
#[derive(Debug, Default)]
struct KernelShare {
    /// Charged bytes since the last reading.
    bytes: u64,
    read: Timestamp,
    /// Bytes a second, between the last two readings.
    rate: u64,
    /// Until then nothing is offered to the kernel.
    paused_until: Timestamp,
}

/// For how long nothing is offered to the kernel after it carried more than half of what the server may carry.
const PAUSE: Duration = Duration::from_secs(10);

/// The least time between two readings that tell a rate.
const READING: Duration = Duration::from_millis(100);

/// For how long a reading tells what the kernel carries. While it carries something, there are two a second.
const READING_LASTS: Duration = Duration::from_secs(2);

impl KernelShare {
    /// Bytes a second that the kernel carries now. So much less is left for the sockets.
    fn rate(&self, now: Timestamp) -> u64 {
        if self.rate > 0 && now.since(self.read) < READING_LASTS { self.rate } else { 0 }
    }
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
        Self { bucket: TokenBucket::default(), shares, kernel: KernelShare::default() }
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
        // A reload may have lowered the rate since the kernel's was read.
        let rate = limits.global_rate.saturating_sub(self.kernel.rate(now)).max(1);
        self.bucket.charge(cost, rate, now);
        true
    }

    /// Whether there is so much left that pairs need not be judged together.
    pub(in crate::core::relay) fn is_plentiful(
        &self,
        limits: &RelayLimits,
        now: Timestamp,
    ) -> bool {
        self.bucket.has_tokens(limits.burst / 2, now) && now >= self.kernel.paused_until
    }

    /// The kernel forwarded datagrams that cost so much.
    pub(in crate::core::relay) fn note_kernel_traffic(&mut self, cost: u64) {
        self.kernel.bytes += cost;
    }

    /// All that the kernel forwarded until now is noted.
    pub(in crate::core::relay) fn handle_kernel_reading(
        &mut self,
        limits: &RelayLimits,
        now: Timestamp,
    ) {
        let kernel = &mut self.kernel;
        let passed = now.since(kernel.read);
        if passed < READING {
            return;
        }
        kernel.rate = (kernel.bytes as f64 / passed.as_secs_f64()) as u64;
        if kernel.rate > limits.global_rate / 2 {
            kernel.paused_until = now + PAUSE;
        }
        (kernel.bytes, kernel.read) = (0, now);
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

/// What was sent to each host, as far as all its pairs share a rate.
#[derive(Debug)]
pub(super) struct HostTraffic {
    limits: [RateLimit; 2],
    /// By [`HostRate`].
    hosts: BTreeMap<PlayerId, [RateShares; 2]>,
}

/// What another process needs to go on with [`HostTraffic`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostTrafficSnapshot(Vec<(PlayerId, [RateSharesSnapshot; 2])>);

impl HostTraffic {
    /// Nobody has been sent anything.
    pub(super) fn new(limits: &RelayLimits) -> Self {
        Self { limits: [SILENT_HOST, limits.crowd_limit()], hosts: BTreeMap::new() }
    }

    /// Whether a datagram from `network` to that host may pass.
    pub(super) fn has_room(
        &self,
        (host, rate): (PlayerId, HostRate),
        network: Network,
        now: Timestamp,
    ) -> bool {
        self.hosts.get(&host).is_none_or(|rates| rates[rate as usize].has_room(network, now))
    }

    /// Charges `cost` bytes of a datagram from `network` to that host.
    pub(super) fn charge(
        &mut self,
        (host, rate): (PlayerId, HostRate),
        network: Network,
        cost: u64,
        now: Timestamp,
    ) {
        self.of(host)[rate as usize].charge(network, cost as f64, now);
    }

    fn of(&mut self, host: PlayerId) -> &mut [RateShares; 2] {
        self.hosts.entry(host).or_insert_with(|| self.limits.map(RateShares::new))
    }

    /// Forgets what was sent too long ago to matter. Looks at each host.
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        self.hosts.retain(|_, rates| {
            rates.iter_mut().for_each(|shares| shares.forget_idle(now));
            rates.iter().any(|shares| shares.entries() > 0)
        });
    }

    /// What another process needs to go on.
    pub(super) fn snapshot(&self) -> HostTrafficSnapshot {
        let of_host = |rates: &[RateShares; 2]| rates.each_ref().map(RateShares::snapshot);
        HostTrafficSnapshot(self.hosts.iter().map(|(id, rates)| (*id, of_host(rates))).collect())
    }

    /// Goes on with a snapshot.
    pub(super) fn restore(&mut self, snapshot: HostTrafficSnapshot) {
        for (host, used) in snapshot.0 {
            for (shares, used) in self.of(host).iter_mut().zip(used) {
                shares.restore(used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn after(seconds: u64) -> Timestamp {
        Timestamp::START + Duration::from_secs(seconds)
    }

    /// In what time the bucket is full again after a charge of 600 bytes, once the kernel has carried 400 in a second.
    fn refilled_in(global_rate: u64, waited: Duration) -> Duration {
        let limits = Config::default().settings().relay.limits;
        let mut traffic = TotalTraffic::new(&limits);
        traffic.note_kernel_traffic(400);
        traffic.handle_kernel_reading(&limits, after(1));
        let (now, limits) = (after(1) + waited, RelayLimits { global_rate, ..limits });
        assert!(traffic.try_charge(|| unreachable!("there is plenty"), 600, &limits, now));
        traffic.bucket.full_at().since(now)
    }

    #[test]
    fn what_the_kernel_carries_is_not_there_for_the_sockets() {
        assert_eq!(refilled_in(1000, Duration::ZERO), Duration::from_secs(1));
    }

    #[test]
    fn a_kernel_that_tells_nothing_more_carries_nothing() {
        assert_eq!(refilled_in(1000, READING_LASTS), Duration::from_millis(600));
    }

    #[test]
    fn a_reload_may_allow_less_than_the_kernel_carries() {
        assert_eq!(refilled_in(300, Duration::ZERO), Duration::from_secs(600));
    }
}
