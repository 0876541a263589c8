//! The whole core as data, for another process to go on with.
//!
//! Times are the server's running time, which no wall clock moves: the process that restores a snapshot goes on counting
//! from [`Snapshot::taken`]. Settings and the server's own addresses are not part of it, as that process reads them itself.

use serde::{Deserialize, Serialize};

use crate::core::drain::Drain;
use crate::core::players::{Players, PlayersSnapshot};
use crate::core::registrar::Registrar;
use crate::core::relay::{OwnAddresses, RelayPort, RelaySnapshot, RelayTable};
use crate::core::{Core, Settings, Task};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// The version of the format that this program writes.
pub const VERSION: u32 = 1;

/// All that a core has to remember. It holds PrivateIDs: it must not reach a log or a disk.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// When it was taken.
    pub taken: Timestamp,
    players: PlayersSnapshot,
    relays: RelaySnapshot,
    unknown_answers: TokenBucket,
    drain: Option<Drain>,
    next_sweep: Timestamp,
}

impl Core {
    /// All that another process needs to go on as this core would.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        Snapshot {
            version: VERSION,
            taken: now,
            players: self.players.snapshot(),
            relays: self.relays.snapshot(),
            unknown_answers: self.registrar.unknown_answers(),
            drain: self.drain,
            next_sweep: self.deadlines.of(Task::Sweep).expect("there is always a next sweep"),
        }
    }

    /// Goes on where a snapshot was taken, with `ports` for relays.
    ///
    /// # Errors
    /// What is wrong with the snapshot: a version that is not known, or parts that contradict each other.
    pub fn restore(
        snapshot: Snapshot,
        settings: Settings,
        own: OwnAddresses,
        ports: &[RelayPort],
    ) -> Result<Self, String> {
        if snapshot.version != VERSION {
            return Err(format!("version {} is not {VERSION}", snapshot.version));
        }
        let players = Players::restore(snapshot.players, settings.id_scheme.clone())?;
        let relays = RelayTable::restore(snapshot.relays, settings.relay, own.clone(), ports)?;
        let mut registrar = Registrar::new(own);
        registrar.restore(snapshot.unknown_answers);
        let mut core = Self::from_parts(settings, players, registrar, relays, snapshot.taken);
        core.deadlines.set_earlier(Task::Sweep, snapshot.next_sweep);
        if let Some(drain) = snapshot.drain {
            core.deadlines.set(Task::EndOfDrain, drain.next_check(core.relays.last_forwarded()));
        }
        core.drain = snapshot.drain;
        Ok(core)
    }
}
