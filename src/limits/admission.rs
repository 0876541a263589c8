//! The admission of connections: it counts connections in all and by network, and holds them to the caps.
//!
//! Each admitted connection gets a [`Permit`], which shares atomic counts with the table. So a thread that drops a
//! permit takes no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::bounds::Bound;
use crate::limits::network::Network;
use crate::limits::pruning::Pruning;
use crate::limits::share::{
    HardCap, Prefix, RateShares, RateSharesSnapshot, is_below_thresholds, prefixes, smallest_prefix,
};
use crate::limits::token_bucket::RateLimit;
use crate::time::Timestamp;

/// What part of all connections may be unregistered. Players register within 150 ms of their connection, so a quarter
/// of 4,096 is enough for 6,800 players a second.
const UNREGISTERED_PART: usize = 4;

/// On a small server so many may be unregistered.
const FEW: usize = 16;

/// In this time one network may open about as many connections as it may hold alone: so all its players can come back at
/// once after a restart. There is no such bound on all networks together: many short visits fill no place, and a bound
/// that all share would let a few hundred IPs keep everybody else out.
const RENEWAL_TIME: Duration = Duration::from_secs(20);

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// In all.
    pub connections: usize,
    /// Of one network.
    pub per_ip: HardCap,
}

/// The counts of connections, in all and by network, and their caps.
#[derive(Debug)]
pub struct Admission {
    caps: Caps,
    all: Arc<Counts>,
    /// A network without a connection stays until [`Self::forget_networks`].
    by_prefix: HashMap<Prefix, Arc<Counts>>,
    pruning: Pruning,
    new: RateShares,
}

/// What another process needs to go on with an [`Admission`], beside the connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct AdmissionSnapshot {
    /// When it was taken.
    pub now: Timestamp,
    new: RateSharesSnapshot,
}

/// Connections of one network, or of all.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    unregistered: AtomicUsize,
}

impl Admission {
    /// A table without connections.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            all: Arc::default(),
            by_prefix: HashMap::new(),
            pruning: Pruning::default(),
            new: RateShares::new(renewal(caps.connections)),
        }
    }

    /// What another process needs to go on at the time `now`, beside the connections.
    pub fn snapshot(&self, now: Timestamp) -> AdmissionSnapshot {
        AdmissionSnapshot { now, new: self.new.snapshot() }
    }

    /// Goes on with a snapshot. Its time goes on too.
    pub fn restore(&mut self, snapshot: AdmissionSnapshot) {
        self.new.restore(snapshot.new);
    }

    /// Counts a connection that another process has admitted.
    pub fn adopt(&mut self, network: Network) -> Permit {
        let of_prefixes = prefixes(network)
            .map(|(prefix, _)| Arc::clone(self.by_prefix.entry(prefix).or_default()));
        Permit::new([Arc::clone(&self.all)].into_iter().chain(of_prefixes).collect())
    }

    /// Replaces the caps. No connection is closed.
    pub fn set_caps(&mut self, caps: Caps) {
        if caps.connections != self.caps.connections {
            self.new = RateShares::new(renewal(caps.connections));
        }
        self.caps = caps;
    }

    /// Admits one more connection.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn admit(&mut self, network: Network, now: Timestamp) -> Result<Permit, Bound> {
        self.check_counts(network)?;
        let is_shared = !self.caps.per_ip.is_share_of_all(self.caps.connections);
        if is_shared && !self.new.has_room_alone(network, now) {
            return Err(Bound::NewConnections);
        }
        self.new.charge(network, 1.0, now);
        if self.pruning.is_due(self.by_prefix.len()) {
            self.forget_networks();
            self.pruning.note(self.by_prefix.len(), usize::MAX);
        }
        Ok(self.adopt(network))
    }

    fn check_counts(&self, network: Network) -> Result<(), Bound> {
        let Caps { connections: capacity, per_ip } = self.caps;
        let connections = self.connections();
        if connections >= capacity {
            return Err(Bound::Connections);
        }
        if per_ip.is_share_of_all(capacity) {
            return Ok(());
        }
        let free = capacity - connections;
        let for_unregistered = (capacity / UNREGISTERED_PART).max(FEW);
        let free_unregistered =
            for_unregistered.saturating_sub(self.all.unregistered.load(Relaxed));
        let held = |count: fn(&Counts) -> &AtomicUsize| {
            move |prefix| {
                self.by_prefix.get(&prefix).map_or(0, |counts| count(counts).load(Relaxed))
            }
        };
        let connections_of = held(|counts| &counts.connections);
        if !per_ip.allows(connections_of(smallest_prefix(network)))
            || !is_below_thresholds(network, free, capacity, connections_of)
        {
            return Err(Bound::ConnectionsPerIp);
        }
        let unregistered_of = held(|counts| &counts.unregistered);
        if !is_below_thresholds(network, free_unregistered, for_unregistered, unregistered_of) {
            return Err(Bound::UnregisteredPerIp);
        }
        Ok(())
    }

    /// Removes the networks without a connection. Looks at each network.
    pub fn forget_networks(&mut self) {
        self.by_prefix.retain(|_, counts| counts.connections.load(Relaxed) > 0);
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.all.connections.load(Relaxed)
    }

    /// How many networks the table holds, with the larger ones around them.
    pub fn networks(&self) -> usize {
        self.by_prefix.len()
    }
}

/// How often a network may open connections, if it were given all: it gets the share that it would have alone.
fn renewal(connections: usize) -> RateLimit {
    let per_second = (connections as u64).div_ceil(RENEWAL_TIME.as_secs()).max(1);
    RateLimit { per_second, burst: RENEWAL_TIME }
}

/// One admitted connection. It counts until the permit is dropped.
#[derive(Debug)]
pub struct Permit {
    /// Of all, and of each network that it belongs to.
    counts: Box<[Arc<Counts>]>,
    is_registered: AtomicBool,
}

impl Permit {
    fn new(counts: Box<[Arc<Counts>]>) -> Self {
        for counts in &counts {
            counts.connections.fetch_add(1, Relaxed);
            counts.unregistered.fetch_add(1, Relaxed);
        }
        Self { counts, is_registered: AtomicBool::new(false) }
    }

    /// Whether [`Self::mark_registered`] was called.
    pub fn is_registered(&self) -> bool {
        self.is_registered.load(Relaxed)
    }

    /// Records that the player has registered: the connection does not count as unregistered any more.
    pub fn mark_registered(&self) {
        if !self.is_registered.swap(true, Relaxed) {
            for counts in &self.counts {
                counts.unregistered.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.mark_registered();
        for counts in &self.counts {
            counts.connections.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(number: u32) -> Network {
        IpAddr::from(number.to_be_bytes()).into()
    }

    fn admission(connections: usize, per_ip: Option<usize>) -> Admission {
        Admission::new(Caps { connections, per_ip: HardCap(per_ip) })
    }

    const NOW: Timestamp = Timestamp::START;

    /// Opens registered connections from a network, 20 a second, until one is refused.
    struct Opening {
        admission: Admission,
        permits: Vec<Permit>,
        now: Timestamp,
    }

    impl Opening {
        fn new(admission: Admission) -> Self {
            Self { admission, permits: Vec::new(), now: NOW }
        }

        fn open(&mut self, number: u32) -> Result<(), Bound> {
            self.now = self.now + Duration::from_millis(50);
            let permit = self.admission.admit(network(number), self.now)?;
            permit.mark_registered();
            self.permits.push(permit);
            Ok(())
        }

        fn open_all(&mut self, number: u32) -> usize {
            (0..10_000).take_while(|_| self.open(number).is_ok()).count()
        }
    }

    #[test]
    fn caps_hold_in_all_and_per_ip_and_a_dropped_permit_frees_a_place() {
        let mut admission = admission(3, Some(2));
        let first = admission.admit(network(1), NOW).unwrap();
        let _second = admission.admit(network(1), NOW).unwrap();
        assert_eq!(admission.admit(network(1), NOW).err(), Some(Bound::ConnectionsPerIp));
        let _third = admission.admit(network(2), NOW).unwrap();
        assert_eq!(admission.admit(network(2), NOW).err(), Some(Bound::Connections));
        drop(first);
        let _again = admission.admit(network(1), NOW).unwrap();
        assert_eq!(admission.connections(), 3);
    }

    #[test]
    fn a_carrier_gets_in_beside_greedy_networks_and_so_do_newcomers() {
        let mut opening = Opening::new(admission(4096, None));
        for number in 1..=3 {
            (0..1024).for_each(|_| assert_eq!(opening.open(number), Ok(())));
        }
        assert_eq!((0..448).filter(|_| opening.open(100).is_ok()).count(), 448);
        let mut opening = Opening::new(admission(4096, None));
        let taken: Vec<usize> = (1..=11).map(|number| opening.open_all(number)).collect();
        for newcomer in 100..120 {
            assert_eq!(opening.open(newcomer), Ok(()), "{taken:?}");
        }
    }

    #[test]
    fn unregistered_connections_are_shared_too() {
        let mut admission = admission(4096, None);
        let waiting: Vec<_> =
            (0..4096).map_while(|_| admission.admit(network(1), NOW).ok()).collect();
        assert_eq!(waiting.len(), 744);
        assert_eq!(admission.admit(network(1), NOW).err(), Some(Bound::UnregisteredPerIp));
        assert!(admission.admit(network(2), NOW).is_ok());
        waiting[0].mark_registered();
        waiting[0].mark_registered();
        let _one_more = admission.admit(network(1), NOW).unwrap();
        assert!(admission.admit(network(1), NOW).is_err());
        drop(waiting);
        let unregistered = &admission.by_prefix[&(network(1), 64)].unregistered;
        assert_eq!(unregistered.load(Relaxed), 1);
    }

    #[test]
    fn a_bridge_brings_all_players_at_once() {
        let mut admission = admission(12_000, Some(12_000));
        let permits: Vec<_> =
            (0..12_000).map_while(|_| admission.admit(network(1), NOW).ok()).collect();
        assert_eq!(permits.len(), 12_000);
    }

    #[test]
    fn new_connections_of_one_ip_leave_room_for_others() {
        let mut admission = admission(4096, None);
        let mut count = |number: u32, millis| {
            let now = NOW + Duration::from_millis(millis);
            (0..5000).filter(|_| admission.admit(network(number), now).is_ok()).count()
        };
        assert!((3070..=3080).contains(&count(1, 0)), "most of them at once");
        assert!((140..160).contains(&count(1, 1000)), "and then of the rate");
        assert!(count(2, 1000) > 500);
    }

    #[test]
    fn visitors_of_many_networks_keep_nobody_out() {
        let mut admission = admission(4096, None);
        for visit in 0..60_000 {
            let now = NOW + Duration::from_millis(u64::from(visit));
            assert!(admission.admit(network(visit % 300), now).is_ok(), "visit {visit}");
        }
        assert!(admission.admit(network(1000), NOW + Duration::from_mins(1)).is_ok());
    }

    #[test]
    fn networks_without_connections_are_forgotten() {
        let mut admission = admission(4096, None);
        let staying: Vec<_> =
            (0..100).map(|number| admission.admit(network(number), NOW).unwrap()).collect();
        for number in 100..100_000 {
            let now = NOW + Duration::from_millis(10 * u64::from(number));
            admission.admit(network(number), now).unwrap();
            assert!(admission.networks() <= 2 * 100 + 1);
        }
        drop(staying);
        admission.forget_networks();
        assert_eq!((admission.connections(), admission.networks()), (0, 0));
    }
}
