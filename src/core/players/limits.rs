//! How often a host is introduced, and how often a network may ask.

use super::Players;
use crate::core::id::PlayerId;
use crate::limits::bounds::Bound;
use crate::limits::network::Network;
use crate::time::Timestamp;

impl Players {
    /// Checks that a player of `network` may be introduced to the host.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn check_introduction(
        &self,
        host: PlayerId,
        network: Network,
        now: Timestamp,
    ) -> Result<(), Bound> {
        let has_room = self.players[&host].introductions.has_room(network, now);
        if has_room { Ok(()) } else { Err(Bound::Introductions) }
    }

    /// Counts that a player of `network` was introduced to the host.
    pub fn record_introduction(&mut self, host: PlayerId, network: Network, now: Timestamp) {
        if let Some(host) = self.players.get_mut(&host) {
            host.introductions.charge(network, 1.0, now);
        }
    }

    /// Counts a `connect` of a player of `network` whose address may be forged.
    ///
    /// # Errors
    /// The bound that is reached. Then nothing is counted.
    pub fn count_unconfirmed_connect(
        &mut self,
        network: Network,
        now: Timestamp,
    ) -> Result<(), Bound> {
        let is_allowed = self.unconfirmed_connects.try_acquire(network, now);
        if is_allowed { Ok(()) } else { Err(Bound::UnconfirmedConnects) }
    }

    /// Forgets the networks that have all their tokens back. Looks at each network.
    pub fn forget_networks(&mut self, now: Timestamp) {
        self.wrong_open_ids.forget_idle(now);
        self.unconfirmed_connects.forget_idle(now);
    }
}
