//! What the end of a connection leads to, whoever ended it.

use crate::core::effect::{CloseMode, Effect, Effects};
use crate::core::id::ConnectionId;
use crate::core::players::Departure;
use crate::core::protocol::Reply;
use crate::core::{Core, CoreTask};
use crate::limits::connection_policy::DisconnectReason;
use crate::time::Timestamp;

impl Core {
    /// Ends a connection that has broken a rule. Its player is told why, if it can be.
    pub(super) fn handle_disconnect(
        &mut self,
        connection: ConnectionId,
        reason: DisconnectReason,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.players.connection(connection).is_none() {
            return;
        }
        effects.push_back(Effect::Disconnect(connection, reason));
        // Its send buffer is full, so there is no room for a reason.
        let mode = if reason == DisconnectReason::SlowReader {
            CloseMode::AtOnce
        } else {
            effects.push_back(Effect::Tell(connection, Reply::Disconnect(reason)));
            CloseMode::AfterReplies
        };
        self.disconnect(connection, mode, now, effects);
    }

    /// Ends a connection. Its player's ids are kept for it for a while; its pairs go on until they are idle.
    pub(super) fn disconnect(
        &mut self,
        connection: ConnectionId,
        mode: CloseMode,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.players.connection(connection).is_none() {
            return;
        }
        if let Some(departure) = self.players.remove_connection(connection, now) {
            self.handle_departure(departure, effects);
            self.set_end_of_absence();
        }
        effects.push_back(Effect::Close(connection, mode));
    }

    /// A player has left its connection.
    pub(super) fn handle_departure(&mut self, departure: Departure, effects: &mut Effects) {
        self.relays.cancel_reservation(departure.player);
        effects.push_back(Effect::PlayerLeft(departure));
    }

    /// Has the core look when the next player that is away is to be forgotten.
    pub(super) fn set_end_of_absence(&mut self) {
        if let Some(end) = self.players.next_end_of_absence() {
            self.deadlines.set(CoreTask::EndOfAbsence, end);
        }
    }
}
