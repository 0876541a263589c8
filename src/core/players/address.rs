//! How a player registers its external address.

use std::net::{IpAddr, SocketAddr};

use crate::core::id::{OpenId, PlayerId};
use crate::core::players::Players;
use crate::limits::rates::{ADDRESS_CHANGES, REPETITION_INTERVAL};
use crate::time::Timestamp;

/// Between which addresses a datagram came to the registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The sender's address.
    pub source: SocketAddr,
    /// The server's address that it was sent to, if the system tells.
    pub arrived_at: Option<IpAddr>,
}

/// What a datagram at the registrar changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressRegistration {
    /// The player registered its first address.
    First(PlayerId, OpenId),
    /// The player registered another address than before.
    Changed(PlayerId, OpenId),
    /// The player registered the same address again. Its id, unless its relays heard of that less than
    /// [`REPETITION_INTERVAL`] ago.
    Repeated(Option<PlayerId>),
    /// The player has changed its address too often lately. The old address stays.
    TooManyChanges,
    /// The player, whose connection comes from that IP, cannot have this address. Most likely it is forged.
    Implausible(OpenId, IpAddr),
    /// No player has that PrivateID, or no player can have that address.
    Unknown,
}

impl Players {
    /// Sets the source of a datagram as the external address of the player with that PrivateID, if it can be there.
    pub fn register_address(
        &mut self,
        private_id: &str,
        way: Way,
        now: Timestamp,
    ) -> AddressRegistration {
        let Way { source, arrived_at } = way;
        let Some(id) = self.by_private_id.get(private_id) else {
            return AddressRegistration::Unknown;
        };
        let player = self.players.get_mut(id).expect("the maps name the same players");
        if !player.can_be_at(source) {
            return AddressRegistration::Implausible(
                player.open_id().clone(),
                player.connected_from,
            );
        }
        player.server_ip = arrived_at.or(player.server_ip);
        let is_first = player.address.is_none();
        if player.address == Some(source) {
            let last = player.last_repetition;
            if last.is_some_and(|last| now.since(last) < REPETITION_INTERVAL) {
                return AddressRegistration::Repeated(None);
            }
            player.last_repetition = Some(now);
            return AddressRegistration::Repeated(Some(*id));
        }
        if !is_first && !player.address_changes.try_acquire(ADDRESS_CHANGES, now) {
            return AddressRegistration::TooManyChanges;
        }
        player.address = Some(source);
        let open_id = player.open_id().clone();
        if is_first {
            AddressRegistration::First(*id, open_id)
        } else {
            AddressRegistration::Changed(*id, open_id)
        }
    }
}
