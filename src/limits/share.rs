//! How what is scarce is shared among networks: dynamic thresholds.
//!
//! A network may hold at most `max(minimum, a x (free - reserve))`, where `free` is what nobody holds: the less there is
//! left, the less each may have (A. K. Choudhury, E. L. Hahne: Dynamic Queue Length Thresholds for Shared-Memory Packet
//! Switches, IEEE/ACM Transactions on Networking 6, 1998). So a network alone can have most of it, and there is always a
//! rest for the next one.
//!
//! The reserve is 1/32 of all, and the minimum 1/16 of that: whatever greedy networks hold, the reserve is
//! for those that hold next to nothing. The paper needs none, because a switch's queues drain. What is held here need not:
//! networks that take all they may one after the other, and give nothing back, would leave `1/(1 + a)` to the power of
//! their number.
//!
//! N greedy networks that take in turns hold `31/32 x a/(1 + aN)` each; with `a` = 3:
//!
//! | greedy networks | each holds | left free |
//! |---|---|---|
//! | 1 | 73 % | 27 % |
//! | 2 | 42 % | 17 % |
//! | 5 | 18 % | 9.2 % |
//! | 11 | 8.6 % | 6.0 % |
//! | 20 | 4.8 % | 4.7 % |
//!
//! An IPv4 address is one network. An IPv6 address counts three times: its /64 with `a` = 3, its /56 with 4 and its /48
//! with 5, because whoever has a /48 has 65,536 /64s (RFC 6177).
//!
//! [`HeldShares`] shares things that are held for a while, [`RateShares`] things that happen at a rate.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::network::Network;
use crate::limits::pruning::Pruning;
use crate::limits::token_bucket::RateLimit;
use crate::time::Timestamp;

/// An IPv6 network's prefixes that have a share of their own: the length in bits, and `a`. The first is [`Network`]'s.
const LEVELS: [(u32, u32); 3] = [(64, 3), (56, 4), (48, 5)];

/// A network, or a larger one around it, that has a share.
pub type Prefix = (Network, u32);

/// The prefixes that a network counts for, each with its `a`. The first is the network itself.
pub fn prefixes(network: Network) -> impl Iterator<Item = (Prefix, u32)> {
    let levels = if network.is_ipv6() { &LEVELS[..] } else { &LEVELS[..1] };
    levels.iter().map(move |(bits, a)| ((network.within(*bits), *bits), *a))
}

/// How many things a network may hold at most, beside its share. `None` is no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardCap(pub Option<usize>);

impl fmt::Display for HardCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(cap) => cap.fmt(f),
        }
    }
}

impl HardCap {
    /// Whether a network that holds `held` may hold one more, as far as the cap says so.
    pub fn allows(self, held: usize) -> bool {
        self.0.is_none_or(|cap| held < cap)
    }

    /// Whether there are no shares: one network may have all of `capacity`, as behind a bridge.
    pub fn is_share_of_all(self, capacity: usize) -> bool {
        self.0.is_some_and(|cap| cap >= capacity)
    }
}

/// What part of all is the reserve.
const RESERVE_PART: usize = 32;

/// What part of the reserve a network may hold in any case.
const MINIMUM_PART: usize = 16;

/// The network itself, as the prefix that it counts for.
pub fn smallest_prefix(network: Network) -> Prefix {
    (network, LEVELS[0].0)
}

/// Whether a network and each larger one around it hold less than their share. `held` is what a prefix holds of the
/// `capacity` things, of which `free` are held by nobody.
pub fn is_below_thresholds(
    network: Network,
    free: usize,
    capacity: usize,
    held: impl Fn(Prefix) -> usize,
) -> bool {
    prefixes(network).all(|(prefix, a)| held(prefix) < threshold(a, free, capacity))
}

/// How many of `capacity` things a network may hold while `free` of them are held by nobody.
fn threshold(a: u32, free: usize, capacity: usize) -> usize {
    let reserve = capacity / RESERVE_PART;
    let share = (a as usize).saturating_mul(free.saturating_sub(reserve));
    share.max(reserve / MINIMUM_PART).max(1)
}

/// Shares of a number of things that networks hold for a while.
#[derive(Clone, Debug)]
pub struct HeldShares {
    capacity: usize,
    held: usize,
    by_prefix: HashMap<Prefix, usize>,
}

impl HeldShares {
    /// Nobody holds any of the `capacity` things.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, held: 0, by_prefix: HashMap::new() }
    }

    /// Changes how many things there are. What is held stays.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Whether there is one more, and the network may hold it.
    pub fn has_room(&self, network: Network, cap: HardCap) -> bool {
        let Some(free) = self.capacity.checked_sub(self.held).filter(|free| *free > 0) else {
            return false;
        };
        let held = |prefix| self.by_prefix.get(&prefix).copied().unwrap_or(0);
        cap.is_share_of_all(self.capacity)
            || (cap.allows(held(smallest_prefix(network)))
                && is_below_thresholds(network, free, self.capacity, held))
    }

    /// The network holds one more.
    pub fn take(&mut self, network: Network) {
        self.held += 1;
        for (prefix, _) in prefixes(network) {
            *self.by_prefix.entry(prefix).or_default() += 1;
        }
    }

    /// The network holds one less.
    ///
    /// # Panics
    /// If it held none.
    pub fn give_back(&mut self, network: Network) {
        self.held -= 1;
        for (prefix, _) in prefixes(network) {
            let held = self.by_prefix.get_mut(&prefix).expect("it was taken");
            *held -= 1;
            if *held == 0 {
                self.by_prefix.remove(&prefix);
            }
        }
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many networks hold some, with the larger ones around them.
    pub fn entries(&self) -> usize {
        self.by_prefix.len()
    }
}

/// Shares of something that happens at a rate.
///
/// What a network used lately decays exponentially with the time constant of the rate's burst, so that steady use at the
/// whole rate amounts to the burst. What is free is the burst less what all used lately. There is no reserve: what was
/// used is given back in time.
#[derive(Clone, Debug)]
pub struct RateShares {
    limit: RateLimit,
    used: Usage,
    by_prefix: HashMap<Prefix, Usage>,
    pruning: Pruning,
    /// How many networks are remembered. What others use counts for all, and for none of them.
    max_entries: usize,
}

/// Less than this was used too long ago to matter.
const FORGOTTEN: f64 = 0.01;

/// What was used lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Usage {
    /// A whole number, so that a snapshot reads back exactly.
    millionths: u64,
    at: Timestamp,
}

/// All that was used lately, ordered by network.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateSharesSnapshot {
    all: Usage,
    networks: Vec<(Prefix, Usage)>,
    pruning: Pruning,
}

impl RateShares {
    /// Nobody has used anything.
    pub fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            used: Usage::default(),
            by_prefix: HashMap::new(),
            pruning: Pruning::default(),
            max_entries: usize::MAX,
        }
    }

    /// Remembers at most so many networks: for sources that can be forged.
    pub fn with_max_entries(self, max_entries: usize) -> Self {
        Self { max_entries, ..self }
    }

    /// Whether the network may use more.
    pub fn has_room(&self, network: Network, now: Timestamp) -> bool {
        let free = self.burst() - self.used.now(self.limit.burst, now);
        free >= 1.0 && self.is_below(network, now, |_| free)
    }

    /// Whether the network may use more of what is not scarce: as if it were alone, whatever others use.
    pub fn has_room_alone(&self, network: Network, now: Timestamp) -> bool {
        self.is_below(network, now, |used| self.burst() - used)
    }

    /// Whether each prefix of the network is below its threshold. `free` gets what the prefix used.
    fn is_below(&self, network: Network, now: Timestamp, free: impl Fn(f64) -> f64) -> bool {
        prefixes(network).all(|(prefix, a)| {
            let used = self.by_prefix.get(&prefix).map_or(0.0, |u| u.now(self.limit.burst, now));
            used < (f64::from(a) * free(used)).max(1.0)
        })
    }

    /// The network uses `amount`.
    pub fn charge(&mut self, network: Network, amount: f64, now: Timestamp) {
        if self.pruning.is_due(self.by_prefix.len()) {
            self.forget_idle(now);
            self.pruning.note(self.by_prefix.len(), self.max_entries);
        }
        self.used.add(amount, self.limit.burst, now);
        for (prefix, _) in prefixes(network) {
            if self.by_prefix.len() < self.max_entries || self.by_prefix.contains_key(&prefix) {
                self.by_prefix.entry(prefix).or_default().add(amount, self.limit.burst, now);
            }
        }
    }

    /// Uses `amount`, if the network may use more; whether it did.
    pub fn try_acquire(&mut self, network: Network, amount: f64, now: Timestamp) -> bool {
        let is_allowed = self.has_room(network, now);
        if is_allowed {
            self.charge(network, amount, now);
        }
        is_allowed
    }

    /// Forgets the networks whose use has decayed. Looks at each.
    pub fn forget_idle(&mut self, now: Timestamp) {
        let time_constant = self.limit.burst;
        self.by_prefix.retain(|_, used| used.now(time_constant, now) > FORGOTTEN);
    }

    /// How many networks are remembered, with the larger ones around them.
    pub fn entries(&self) -> usize {
        self.by_prefix.len()
    }

    /// What another process needs to go on with these shares.
    pub fn snapshot(&self) -> RateSharesSnapshot {
        let mut networks: Vec<_> = self.by_prefix.iter().map(|(p, used)| (*p, *used)).collect();
        networks.sort_unstable_by_key(|(prefix, _)| *prefix);
        RateSharesSnapshot { all: self.used, networks, pruning: self.pruning }
    }

    /// Goes on with a snapshot.
    pub fn restore(&mut self, snapshot: RateSharesSnapshot) {
        self.used = snapshot.all;
        self.by_prefix = snapshot.networks.into_iter().collect();
        self.pruning = snapshot.pruning;
    }

    fn burst(&self) -> f64 {
        self.limit.per_second as f64 * self.limit.burst.as_secs_f64()
    }
}

impl Usage {
    fn now(self, time_constant: Duration, now: Timestamp) -> f64 {
        let decay = now.since(self.at).as_secs_f64() / time_constant.as_secs_f64();
        self.millionths as f64 / 1e6 * (-decay).exp()
    }

    fn add(&mut self, amount: f64, time_constant: Duration, now: Timestamp) {
        let millionths = (1e6 * (self.now(time_constant, now) + amount)).round() as u64;
        *self = Self { millionths, at: now };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;

    fn ipv4(number: u32) -> Network {
        IpAddr::from(number.to_be_bytes()).into()
    }

    /// The /64 with this number in the /56 and /48 with those.
    fn ipv6(in_48: u16, in_56: u8, in_64: u8) -> Network {
        let [high, low] = [u16::from(in_56) << 8, u16::from(in_64)];
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, in_48, high | low, 0, 0, 0, 1)).into()
    }

    /// All take in turns until none may have more; what each holds, and what is left free.
    fn greedy(capacity: usize, networks: &[Network]) -> (Vec<usize>, usize) {
        let mut shares = HeldShares::new(capacity);
        let mut held = vec![0; networks.len()];
        loop {
            let before = shares.held();
            for (network, held) in networks.iter().zip(&mut held) {
                let is_left = capacity > shares.held();
                if is_left && shares.has_room(*network, HardCap::default()) {
                    shares.take(*network);
                    *held += 1;
                }
            }
            if shares.held() == before {
                return (held, capacity - before);
            }
        }
    }

    #[test]
    fn greedy_networks_leave_what_the_table_says() {
        for (networks, each, free) in
            [(1, 7266, 2734), (2, 4152, 1696), (5, 1817, 917), (11, 855, 596), (20, 477, 470)]
        {
            let all: Vec<Network> = (0..networks).map(ipv4).collect();
            let (held, left) = greedy(10_000, &all);
            for held in held {
                assert!(held.abs_diff(each) <= 2, "{networks} networks: {held} each");
            }
            assert!(left.abs_diff(free) <= 25, "{networks} networks: {left} left");
        }
    }

    #[test]
    fn whoever_has_many_ipv6_networks_shares_as_one() {
        let of_56: Vec<Network> = (0..50).map(|n| ipv6(1, 1, n)).collect();
        let (_, left) = greedy(10_000, &of_56);
        assert!(left >= 2000, "{left}");
        let of_48: Vec<Network> = (0..50).map(|n| ipv6(1, n, n)).collect();
        let (_, left) = greedy(10_000, &of_48);
        assert!(left >= 1666, "{left}");
    }

    #[test]
    fn networks_that_fill_up_one_after_the_other_leave_the_reserve() {
        let mut shares = HeldShares::new(4096);
        for number in 0..11 {
            while shares.has_room(ipv4(number), HardCap::default()) {
                shares.take(ipv4(number));
            }
        }
        for newcomer in 100..120 {
            assert!(shares.held() < 4096 && shares.has_room(ipv4(newcomer), HardCap::default()));
            shares.take(ipv4(newcomer));
        }
    }

    #[test]
    fn a_full_table_has_room_again_when_its_networks_are_idle() {
        let limit = RateLimit { per_second: 100, burst: Duration::from_secs(1) };
        let mut shares = RateShares::new(limit).with_max_entries(1024);
        for number in 0..2000 {
            let now = Timestamp::START + Duration::from_millis(number);
            shares.charge(ipv4(u32::try_from(number).unwrap()), 1.0, now);
        }
        assert_eq!(shares.entries(), 1024);
        let mut restored = RateShares::new(limit).with_max_entries(1024);
        restored.restore(shares.snapshot());
        for mut shares in [shares, restored] {
            let later = Timestamp::START + Duration::from_secs(20);
            let used = (0..200).filter(|_| shares.try_acquire(ipv4(1_000_000), 1.0, later)).count();
            assert!((74..=76).contains(&used), "{used}: its share, not all");
        }
    }

    #[test]
    fn what_is_given_back_is_free_again() {
        let mut shares = HeldShares::new(4);
        for _ in 0..3 {
            assert!(shares.has_room(ipv4(1), HardCap::default()));
            shares.take(ipv4(1));
        }
        assert!(!shares.has_room(ipv4(1), HardCap::default()));
        assert!(shares.has_room(ipv4(2), HardCap::default()));
        assert!(shares.has_room(ipv4(1), HardCap(Some(4))), "a cap as high as all there is");
        assert!(!shares.has_room(ipv4(1), HardCap(Some(3))));
        (0..3).for_each(|_| shares.give_back(ipv4(1)));
        assert_eq!((shares.held(), shares.entries()), (0, 0));
    }

    const LIMIT: RateLimit = RateLimit { per_second: 8, burst: Duration::from_secs(16) };

    #[test]
    fn steady_greed_leaves_room_for_whoever_asks_now_and_then() {
        let mut shares = RateShares::new(LIMIT);
        let (mut greedy, mut modest) = (0, 0);
        for tenth in 0..3000 {
            let now = Timestamp::START + Duration::from_millis(100 * tenth);
            for network in 0..8 {
                greedy += (0..10).filter(|_| shares.try_acquire(ipv4(network), 1.0, now)).count();
            }
            if tenth % 10 == 9 && (1000..1200).contains(&tenth) {
                modest += usize::from(shares.try_acquire(ipv4(100), 1.0, now));
            }
        }
        assert_eq!(modest, 20, "all that it asked for");
        assert!(greedy <= 8 * 300 + 128, "{greedy}: the rate holds");
    }

    #[test]
    fn what_was_used_long_ago_is_forgotten() {
        let mut shares = RateShares::new(LIMIT);
        for number in 0..100 {
            shares.charge(ipv4(number), 1.0, Timestamp::START);
        }
        shares.forget_idle(Timestamp::START + Duration::from_secs(160));
        assert_eq!(shares.entries(), 0);
        let mut again = RateShares::new(LIMIT);
        again.restore(shares.snapshot());
        assert_eq!(again.snapshot(), shares.snapshot());
    }
}
