//! Who is introduced to whom, and through which ports they meet.

use std::net::{IpAddr, SocketAddr};

use crate::core::id::PlayerId;
use crate::core::relay::RelayPort;
use crate::limits::network::Network;

/// One player of an introduction, with its registered external address.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Its id.
    pub player: PlayerId,
    /// Its address as the registrar saw it.
    pub address: SocketAddr,
    /// The IP that its connection comes from. It cannot be forged.
    pub connected_from: IpAddr,
}

impl Party {
    /// Whether its registered address has the IP of its connection, and so is not forged.
    pub fn is_confirmed(&self) -> bool {
        self.connected_from == self.address.ip()
    }

    /// The network of its connection.
    pub fn network(&self) -> Network {
        self.connected_from.into()
    }
}

/// The ports of a pair, as the asker sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairPorts {
    /// The asker's port, to which the host sends.
    pub asker: RelayPort,
    /// The host's port, to which the asker sends.
    pub host: RelayPort,
    /// Whether the pair is new. If not, the two players had it already.
    pub is_new: bool,
}
