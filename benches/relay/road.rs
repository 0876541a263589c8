//! The machines of the kernel's bench: clients, hosts and the server, each in a network namespace of its own.
//!
//! ```text
//!     clients 10.77.1.10 -- 10.77.1.1 server 10.77.2.1 -- 10.77.2.10 hosts
//!             10.77.3.10 -------------- direct ---------- 10.77.3.20
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use crate::namespace::Namespace;

/// One IP may not open all connections at once, so each has so many players.
const PLAYERS_PER_IP: usize = 500;

pub(crate) struct Road {
    clients: Namespace,
    hosts: Namespace,
    server: Namespace,
}

/// On which side of the server a player is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Host,
}

impl Road {
    /// The server's interfaces are served by the processor with this number.
    pub(crate) fn new(server_processor: usize) -> Result<Self, String> {
        let new = || Namespace::new().map_err(|error| error.to_string());
        let road = Self { clients: new()?, hosts: new()?, server: new()? };
        let ends = [(&road.clients, "to-clients", 1), (&road.hosts, "to-hosts", 2)];
        for (end, name, network) in ends {
            let addresses: String = (10..20)
                .map(|last| format!("addr add 10.77.{network}.{last}/24 dev out\n"))
                .collect();
            road.server.ip(&format!(
                "link set lo up\nlink add {name} type veth peer name out netns {}\n\
                 addr add 10.77.{network}.1/24 dev {name}\nlink set {name} up\n",
                end.path()
            ))?;
            end.ip(&format!("link set lo up\nlink set out up\n{addresses}"))?;
            road.steer(name, server_processor);
        }
        road.clients.ip(&format!(
            "link add direct type veth peer name direct netns {}\n\
             addr add 10.77.3.10/24 dev direct\nlink set direct up\n",
            road.hosts.path()
        ))?;
        road.hosts.ip("addr add 10.77.3.20/24 dev direct\nlink set direct up\n")?;
        Ok(road)
    }

    /// As the interrupts of a network card: what comes in is handled on that processor, whoever sends it.
    fn steer(&self, interface: &str, processor: usize) {
        let script = format!(
            "mount -t sysfs sysfs /sys && echo {:x} >/sys/class/net/{interface}/queues/rx-0/rps_cpus",
            1 << processor
        );
        let status = self
            .server
            .enter(|| Command::new("unshare").args(["--mount", "sh", "-c", &script]).status());
        assert!(status.expect("unshare runs").success(), "what comes in cannot be steered");
    }

    /// Does something on the server.
    pub(crate) fn at_server<T>(&self, action: impl FnOnce() -> T) -> T {
        self.server.enter(action)
    }

    /// Does something where a player of that side is.
    pub(crate) fn at<T>(&self, side: Side, action: impl FnOnce() -> T) -> T {
        match side {
            Side::Client => self.clients.enter(action),
            Side::Host => self.hosts.enter(action),
        }
    }
}

impl Side {
    /// In pairs, hosts have even numbers.
    pub(crate) fn of(player: usize) -> Self {
        if player.is_multiple_of(2) { Self::Host } else { Self::Client }
    }

    fn network(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Host => 2,
        }
    }

    /// The address of the player with this number.
    pub(crate) fn player(self, player: usize) -> IpAddr {
        let last = 10 + u8::try_from(player / PLAYERS_PER_IP).expect("some thousand players");
        Ipv4Addr::new(10, 77, self.network(), last).into()
    }

    /// The server's address on that side.
    pub(crate) fn server(self) -> IpAddr {
        Ipv4Addr::new(10, 77, self.network(), 1).into()
    }

    /// The address on the direct way.
    pub(crate) fn direct(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 3, 10 * self.network()).into()
    }
}
