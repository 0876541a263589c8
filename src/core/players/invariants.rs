//! What must always hold of the players, for tests and simulations.

use super::{ConnectionInfo, MAX_IDS, Players};

impl Players {
    /// Checks what must always hold, for tests and simulations.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        self.codes.check_invariants();
        let (mut ids, mut further) = (0, 0);
        for (id, player) in &self.players {
            assert!(*id == player.id && *id < self.next_id);
            assert!((1..=MAX_IDS).contains(&player.ids.len()));
            for ids in &player.ids {
                assert_eq!(self.codes.find(&ids.open_id), Some(*id));
                assert_eq!(self.by_private_id.get(&ids.private_id), Some(id));
            }
            ids += player.ids.len();
            further += player.further_ids();
            if let Some(connection) = player.connection() {
                let ConnectionInfo { from, player: on } = self.connections[&connection];
                assert_eq!((from, on), (player.connected_from, Some(*id)));
            }
        }
        assert_eq!((self.codes.len(), self.by_private_id.len()), (ids, ids));
        assert_eq!(self.further_ids.held(), further);
        let on_connections = self.connections.values().filter(|c| c.player.is_some()).count();
        assert_eq!(on_connections, self.connected(), "a connection for each player");
        self.absences.check_invariants(&self.players);
    }
}
