//! The admission of connections: it counts connections in all and by network, and holds them to the caps.
//!
//! Each admitted connection gets a [`Permit`], which shares atomic counts with the table. So a thread that drops a
//! permit takes no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::limits::bounds::Bound;
use crate::limits::network::Network;
use crate::limits::network_rate::NetworkRateLimiter;
use crate::limits::rates::NEW_CONNECTIONS;
use crate::time::Timestamp;

/// The least value of a cap that is computed for one network.
const FEW: usize = 16;

/// How many networks the table holds at least before it removes those without a connection.
const PRUNE_FROM: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// In all.
    pub connections: usize,
    /// Of one network.
    pub per_ip: usize,
    /// Of one network when three quarters of all are in use. So a few networks cannot take all.
    pub per_ip_if_scarce: usize,
    /// Of one network that have not registered. Players register as soon as they are connected.
    pub unregistered_per_ip: usize,
}

impl Caps {
    /// `connections` is what the machine has room for. `wanted` and `per_ip` are configured.
    ///
    /// When connections are scarce, a network may have 1/32 of all, so at least eight networks share the last quarter.
    /// This does not hold if one network may have all that are `wanted`. A quarter of a network's connections may be
    /// unregistered: 256 by default. That is enough when a carrier's players come back after a restart: 1,500 players
    /// a second, each of which needs 150 ms to register.
    pub fn new(connections: usize, wanted: usize, per_ip: usize) -> Self {
        let per_ip_if_scarce =
            if per_ip >= wanted { per_ip } else { per_ip.min((connections / 32).max(FEW)) };
        Self { connections, per_ip, per_ip_if_scarce, unregistered_per_ip: (per_ip / 4).max(FEW) }
    }
}

/// The counts of connections, in all and by network, and their caps.
#[derive(Debug)]
pub struct Admission {
    caps: Caps,
    connections: Arc<AtomicUsize>,
    /// A network without a connection stays until [`Self::forget_networks`].
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
    /// A table without connections.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            connections: Arc::default(),
            by_network: HashMap::new(),
            prune_at: PRUNE_FROM,
            new: NetworkRateLimiter::new(NEW_CONNECTIONS),
        }
    }

    /// Replaces the caps. No connection is closed.
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

    /// Removes the networks without a connection. Looks at each network.
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

/// One admitted connection. It counts until the permit is dropped.
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

    /// Records that the player has registered: the connection does not count as unregistered any more.
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
    fn caps_hold_in_all_and_per_ip_and_a_dropped_permit_frees_a_place() {
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
    fn unregistered_connections_of_one_ip_are_capped() {
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
    fn when_connections_are_scarce_one_ip_has_few() {
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
    fn new_connections_of_one_ip_have_a_rate_limit() {
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
    fn a_cap_per_ip_as_high_as_the_total_holds_when_connections_are_scarce() {
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
