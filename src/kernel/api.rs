//! What the grants need of the kernel. Simulations have a model in its place.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::relay::RelayPort;

use super::interfaces::Interface;
use super::layout::{PairState, Route, SIZE_CLASSES};

/// With an older heartbeat the program passes everything up: `HEARTBEAT` in `forward.bpf.c`.
pub const HEARTBEAT_LIFE: Duration = Duration::from_secs(2);

/// How a datagram to a player leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The address of this machine that it leaves from.
    pub via: IpAddr,
    /// The number of the interface.
    pub interface: u32,
    /// The largest IP packet that fits.
    pub mtu: u32,
    /// The time to live that a socket would give it.
    pub ttl: u8,
}

/// The kernel's part: the program's maps and the machine's routes.
pub trait Kernel: Send {
    /// The clock that the program reads, in nanoseconds.
    fn clock(&self) -> u64;

    /// The program may forward for [`HEARTBEAT_LIFE`] from now.
    ///
    /// # Errors
    /// If the map does not take it.
    fn beat(&mut self, now: u64) -> io::Result<()>;

    /// Sets the state of a pair that has no route.
    ///
    /// # Errors
    /// If the map does not take it.
    fn set_pair(&mut self, slot: u32, state: &PairState) -> io::Result<()>;

    /// The state of a pair.
    ///
    /// # Errors
    /// If the map cannot be read.
    fn pair(&self, slot: u32) -> io::Result<PairState>;

    /// From now on the program forwards what comes to `port` along the route.
    ///
    /// # Errors
    /// If the map does not take it.
    fn set_route(&mut self, port: RelayPort, route: &Route) -> io::Result<()>;

    /// The program forwards nothing more of what comes to `port`.
    ///
    /// # Errors
    /// If the map does not do it.
    fn remove_route(&mut self, port: RelayPort) -> io::Result<()>;

    /// How many datagrams of each class of sizes were forwarded since the program was loaded.
    ///
    /// # Errors
    /// If the map cannot be read.
    fn sizes(&self) -> io::Result<[u64; SIZE_CLASSES]>;

    /// The machine's interfaces are these.
    fn set_interfaces(&mut self, interfaces: Vec<Interface>);

    /// The machine's addresses are these. What goes to others is not forwarded.
    ///
    /// # Errors
    /// If the map does not take them.
    fn set_addresses(&mut self, ips: &BTreeSet<IpAddr>) -> io::Result<()>;

    /// How a datagram to a player leaves the machine; `None` if there is no way that the program can take.
    fn egress(&self, to: SocketAddr) -> Option<Egress>;
}
