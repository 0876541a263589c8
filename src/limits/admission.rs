//! Which connections are admitted: counts of connections in all and by network, and the caps on them.
//!
//! Only admitting needs the table. A connection's [`Permit`] changes counts that it shares with the table, without a lock:
//! whoever drops it waits for nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::limits::bounds::Bound;
use crate::limits::network::Network;
use crate::limits::network_rate::NetworkRateLimiter;
use crate::limits::rates::NEW_CONNECTIONS;
use crate::time::Timestamp;

/// What a network may have of each kind of connection at the least.
const FEW: usize = 16;

/// From how many networks on those without a connection are removed.
const PRUNE_FROM: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// In all.
    pub connections: usize,
    /// Of one network.
    pub per_ip: usize,
    /// Of one network once three quarters of all are in use, so that a few networks cannot take all.
    pub per_ip_if_scarce: usize,
    /// Of one network, without a registration. Players register as soon as they are connected.
    pub unregistered_per_ip: usize,
}

impl Caps {
    /// `connections` is what the machine has room for, `wanted` and `per_ip` what is configured.
    ///
    /// The last quarter is shared by eight networks at the least, unless one network may have all that is `wanted`. A quarter
    /// of a network's connections may be unregistered: 256 by default. That suffices for a carrier's players who come back
    /// after a restart, 1,500 a second, each of whom needs 150 ms to register.
    pub fn new(connections: usize, wanted: usize, per_ip: usize) -> Self {
        let per_ip_if_scarce =
            if per_ip >= wanted { per_ip } else { per_ip.min((connections / 32).max(FEW)) };
        Self { connections, per_ip, per_ip_if_scarce, unregistered_per_ip: (per_ip / 4).max(FEW) }
    }
}

/// The table of all connections, counted by network.
#[derive(Debug)]
pub struct Admission {
    caps: Caps,
    connections: Arc<AtomicUsize>,
    /// Networks that have no connection any more stay until [`Self::forget_networks`].
    by_network: HashMap<Network, Arc<NetworkCounts>>,
    prune_at: usize,
    new: NetworkRateLimiter,
}

/// The connections of one network.
#[derive(Debug, Default)]
struct NetworkCounts {
    connections: AtomicUsize,
    unregistered: AtomicUsize,
}

impl Admission {
    /// Nobody is connected.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            connections: Arc::default(),
            by_network: HashMap::new(),
            prune_at: PRUNE_FROM,
            new: NetworkRateLimiter::new(NEW_CONNECTIONS),
        }
    }

    /// Replaces the caps. Whoever is connected stays.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// Admits one more connection.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn admit(&mut self, network: Network, now: Timestamp) -> Result<Permit, Bound> {
        self.check_caps(network)?;
        if !self.new.try_acquire(network, now) {
            return Err(Bound::NewConnections);
        }
        if self.by_network.len() >= self.prune_at {
            self.forget_networks();
            self.prune_at = PRUNE_FROM.max(2 * self.by_network.len());
        }
        let of_network = Arc::clone(self.by_network.entry(network).or_default());
        Ok(Permit::new(Arc::clone(&self.connections), of_network))
    }

    fn check_caps(&self, network: Network) -> Result<(), Bound> {
        let Caps { connections, per_ip, per_ip_if_scarce, unregistered_per_ip } = self.caps;
        let connected = self.connections();
        let (of_network, unregistered) = self.by_network.get(&network).map_or((0, 0), |counts| {
            (counts.connections.load(Relaxed), counts.unregistered.load(Relaxed))
        });
        let is_scarce = 4 * connected >= 3 * connections;
        let per_ip = if is_scarce { per_ip_if_scarce } else { per_ip };
        if connected >= connections {
            Err(Bound::Connections)
        } else if of_network >= per_ip {
            Err(Bound::ConnectionsPerIp)
        } else if unregistered >= unregistered_per_ip {
            Err(Bound::UnregisteredPerIp)
        } else {
            Ok(())
        }
    }

    /// Removes the networks that have no connection any more. Looks at each.
    pub fn forget_networks(&mut self) {
        self.by_network.retain(|_, counts| counts.connections.load(Relaxed) > 0);
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// How many networks the table holds.
    pub fn networks(&self) -> usize {
        self.by_network.len()
    }
}

/// One connection's place in the table; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    connections: Arc<AtomicUsize>,
    of_network: Arc<NetworkCounts>,
    is_registered: AtomicBool,
}

impl Permit {
    fn new(connections: Arc<AtomicUsize>, of_network: Arc<NetworkCounts>) -> Self {
        connections.fetch_add(1, Relaxed);
        of_network.connections.fetch_add(1, Relaxed);
        of_network.unregistered.fetch_add(1, Relaxed);
        Self { connections, of_network, is_registered: AtomicBool::new(false) }
    }

    /// Whether [`Self::mark_registered`] was called.
    pub fn is_registered(&self) -> bool {
        self.is_registered.load(Relaxed)
    }

    /// From now on the connection does not count as unregistered.
    pub fn mark_registered(&self) {
        if !self.is_registered.swap(true, Relaxed) {
            self.of_network.unregistered.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.mark_registered();
        self.of_network.connections.fetch_sub(1, Relaxed);
        self.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    fn network(number: u32) -> Network {
        IpAddr::from(number.to_be_bytes()).into()
    }

    fn admission(connections: usize, per_ip: usize) -> Admission {
        Admission::new(Caps::new(connections, connections, per_ip))
    }

    const NOW: Timestamp = Timestamp::START;

    #[test]
    fn caps_hold_in_all_and_per_ip_and_places_come_free() {
        let mut admission = admission(3, 2);
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
    fn only_so_many_of_one_ip_may_be_without_a_registration() {
        let mut admission = admission(4096, 1024);
        let waiting: Vec<_> = (0..256).map(|_| admission.admit(network(1), NOW).unwrap()).collect();
        assert_eq!(admission.admit(network(1), NOW).err(), Some(Bound::UnregisteredPerIp));
        assert!(admission.admit(network(2), NOW).is_ok());
        waiting[0].mark_registered();
        waiting[0].mark_registered();
        let _one_more = admission.admit(network(1), NOW).unwrap();
        assert!(admission.admit(network(1), NOW).is_err());
        drop(waiting);
        let unregistered = &admission.by_network[&network(1)].unregistered;
        assert_eq!(unregistered.load(Relaxed), 1);
    }

    #[test]
    fn when_places_run_short_one_ip_has_few() {
        let mut admission = admission(4096, 4095);
        let mut permits = Vec::new();
        let mut now = NOW;
        let mut admit = |number| {
            now = now + Duration::from_millis(20);
            let permit = admission.admit(network(number), now)?;
            permit.mark_registered();
            permits.push(permit);
            Ok(())
        };
        let greedy = (0..4096).take_while(|_| admit(1).is_ok()).count();
        assert_eq!(greedy, 3072);
        assert_eq!(admit(1), Err(Bound::ConnectionsPerIp));
        let modest = (0..4096).take_while(|_| admit(2).is_ok()).count();
        assert_eq!(modest, 128);
    }

    #[test]
    fn one_ip_may_come_back_at_once_and_then_come_and_go() {
        let mut admission = admission(4096, 1024);
        let mut count = |millis| {
            let now = NOW + Duration::from_millis(millis);
            (0..2000).filter(|_| admission.admit(network(1), now).is_ok()).count()
        };
        assert_eq!(count(0), 1050);
        assert_eq!((count(100), count(1100)), (5, 50));
        assert_eq!(admission.admit(network(1), NOW).err(), Some(Bound::NewConnections));
        assert!(admission.admit(network(2), NOW).is_ok());
    }

    #[test]
    fn who_lets_one_ip_have_all_gives_it_all() {
        for (caps, if_scarce, unregistered) in [
            (Caps::new(100, 4096, 4096), 4096, 1024),
            (Caps::new(64, 4096, 1024), 16, 256),
            (Caps::new(4096, 4096, 3), 3, 16),
        ] {
            let got = (caps.per_ip_if_scarce, caps.unregistered_per_ip);
            assert_eq!(got, (if_scarce, unregistered), "{caps:?}");
        }
    }

    #[test]
    fn networks_without_connections_are_forgotten() {
        let mut admission = admission(4096, 4);
        let staying: Vec<_> =
            (0..100).map(|number| admission.admit(network(number), NOW).unwrap()).collect();
        for number in 100..100_000 {
            admission.admit(network(number), NOW).unwrap();
            assert!(admission.networks() <= 2 * 100 + 1);
        }
        drop(staying);
        admission.forget_networks();
        assert_eq!((admission.connections(), admission.networks()), (0, 0));
    }
}
