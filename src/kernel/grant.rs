//! One grant: a pair that the kernel forwards, and what the program is told of it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::relay::{Offer, RelayPort};
use crate::time::{Timestamp, nanos};

use super::api::Egress;
use super::clock::Clocks;
use super::layout::{PairState, Route, Sent};

/// How often a datagram of each direction takes the way through the sockets, and so through the machine's firewall.
pub(super) const PROOF_INTERVAL: Duration = Duration::from_secs(30);

/// A pair that the kernel forwards.
pub(super) struct Grant {
    pub(super) offer: Offer,
    pub(super) egresses: [Egress; 2],
    pub(super) since: Timestamp,
    pub(super) looked_up: Timestamp,
    /// The state when it was last read.
    pub(super) read: PairState,
    /// Since when a proof of each player is awaited at its socket.
    pub(super) awaited: [Option<Timestamp>; 2],
}

impl Grant {
    /// A grant that begins now. The players are reached by these egresses, in the offer's order.
    pub(super) fn new(
        offer: Offer,
        egresses: [Egress; 2],
        clocks: &Clocks,
        now: Timestamp,
    ) -> Self {
        let read = state(&offer, clocks);
        Self { offer, egresses, since: now, looked_up: now, read, awaited: [None; 2] }
    }

    /// Which player sends to this port of the pair.
    pub(super) fn sender_at(&self, at: RelayPort) -> usize {
        usize::from(self.offer.ports[0] == at)
    }

    /// What `sender` may send to the other player.
    pub(super) fn route(&self, slot: u32, sender: usize, clocks: &Clocks) -> Route {
        let Self { offer, egresses, .. } = self;
        let Egress { via, interface, mtu, ttl } = egresses[1 - sender];
        Route {
            from: offer.players[sender],
            to: offer.players[1 - sender],
            via: SocketAddr::new(via, offer.ports[sender].0),
            sender: sender as u8,
            ttl,
            slot,
            interface,
            mtu,
            until: clocks.to_kernel(offer.until),
            patience: nanos(offer.patience[1 - sender]),
            rate: offer.rate,
            burst: nanos(offer.burst),
            proof_interval: nanos(PROOF_INTERVAL),
        }
    }
}

/// What the program begins with.
fn state(offer: &Offer, clocks: &Clocks) -> PairState {
    let sent = [0, 1].map(|player| Sent {
        full_at: clocks.to_kernel(offer.full_at[player]),
        heard: clocks.to_kernel(offer.heard[player]),
        proof_at: clocks.kernel(),
        ..Sent::default()
    });
    PairState { sent, left: i64::try_from(offer.left).unwrap_or(i64::MAX) }
}
