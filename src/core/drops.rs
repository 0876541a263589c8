//! What a dropped datagram tells: players that their relay reached a limit, the operator that players cannot be heard.

use std::net::{IpAddr, SocketAddr};

use crate::core::Core;
use crate::core::effect::{Effect, Effects};
use crate::core::protocol::Reply;
use crate::core::relay::{DropReason, RegisteredPartner, RelayPort};
use crate::time::Timestamp;

impl Core {
    /// Adds the effects of a dropped datagram: players hear that their relay reached a limit, and the operator hears
    /// that players cannot be heard, if several cannot.
    #[cold]
    pub(super) fn explain_drop(
        &mut self,
        at: RelayPort,
        source: SocketAddr,
        reason: DropReason,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Some(limit) = reason.limit() {
            let due = self.relays.take_due_notices(at, limit, now).into_iter().flatten();
            for player in due.filter_map(|player| self.players.by_id(player)) {
                if let Some(connection) = player.connection() {
                    effects.push_back(Effect::Tell(connection, Reply::RelayLimit(limit)));
                }
                let open_id = player.open_id().clone();
                effects.push_back(Effect::RelayLimitReached { at, limit, open_id });
            }
        }
        if matches!(reason, DropReason::WrongIp | DropReason::Unconfirmed)
            && let Some(partner) = self.relays.partner(at)
        {
            self.record_unheard(at, partner, source.ip(), reason, now, effects);
        }
    }

    /// Records that a datagram from `source` was dropped in the place of `partner`.
    fn record_unheard(
        &mut self,
        at: RelayPort,
        partner: RegisteredPartner,
        source: IpAddr,
        reason: DropReason,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let registered = partner.registered;
        if reason == DropReason::Unconfirmed {
            // Its datagrams come and are dropped.
            let partner = RegisteredPartner { is_heard: false, ..partner };
            if self.unconfirmed.record(partner, source, now) {
                effects.push_back(Effect::PlayersUnconfirmed { at });
            }
        } else if self.elsewhere.record(partner, source, now) {
            effects.push_back(Effect::PartnerElsewhere { at, source, registered });
        }
    }
}
