//! A snapshot of the whole core as data, so that another process can go on with it.
//!
//! Its times are timestamps of the server's running time, not of a wall clock. The process that restores a snapshot
//! counts on from [`Snapshot::taken`]. Settings and the server's own addresses are not part of it; that process reads
//! them itself.
//!
//! The format is JSON. Another version of the program reads it at a handover, so it changes by these rules:
//!
//! - A reader ignores fields that it does not know.
//! - A new field has `#[serde(default)]`, so that an older snapshot is read. A field that is not needed any more may go if
//!   older programs can do without it.
//! - What breaks these rules needs another [`VERSION`]. A program that does not know the version refuses it at the check, and
//!   nothing happens.
//! - A new kind of socket (`SocketRole`) is a reason for a program to refuse: the check names one of each.
//! - A snapshot of each version is kept in `src/core/snapshots`, and a test reads it.

use serde::{Deserialize, Serialize};

use crate::core::drain::Drain;
use crate::core::players::{Players, PlayersSnapshot};
use crate::core::registrar::Registrar;
use crate::core::relay::{OwnAddresses, RelayPort, RelaySnapshot, RelayTable};
use crate::core::unheard::UnheardPlayers;
use crate::core::{Core, CoreTask, Settings};
use crate::limits::share::RateSharesSnapshot;
use crate::time::Timestamp;

/// The version of the snapshot format that this program writes and reads.
pub const VERSION: u32 = 1;

/// Everything that a core must remember. It holds PrivateIDs, so it must not reach a log or a disk.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// When it was taken.
    pub taken: Timestamp,
    players: PlayersSnapshot,
    relays: RelaySnapshot,
    unknown_answers: RateSharesSnapshot,
    elsewhere: UnheardPlayers,
    unconfirmed: UnheardPlayers,
    drain: Option<Drain>,
    next_sweep: Timestamp,
    /// When a drain is checked.
    end_of_drain: Option<Timestamp>,
}

impl Snapshot {
    /// The ports of all pairs.
    pub fn ports_of_pairs(&self) -> impl Iterator<Item = RelayPort> {
        self.relays.ports_of_pairs()
    }
}

impl Core {
    /// A snapshot of this core at the time `now`.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        Snapshot {
            version: VERSION,
            taken: now,
            players: self.players.snapshot(),
            relays: self.relays.snapshot(),
            unknown_answers: self.registrar.unknown_answers(),
            elsewhere: self.elsewhere.clone(),
            unconfirmed: self.unconfirmed.clone(),
            drain: self.drain,
            next_sweep: self.deadlines.of(CoreTask::Sweep).expect("there is always a next sweep"),
            end_of_drain: self.deadlines.of(CoreTask::EndOfDrain),
        }
    }

    /// A core that goes on where the snapshot was taken, with `ports` for relays.
    ///
    /// # Errors
    /// If the snapshot has another version, or its parts contradict each other. The text says what is wrong.
    pub fn restore(
        snapshot: Snapshot,
        settings: Settings,
        own: OwnAddresses,
        ports: &[RelayPort],
    ) -> Result<Self, String> {
        if snapshot.version != VERSION {
            return Err(format!("version {} is not {VERSION}", snapshot.version));
        }
        let players = Players::restore(snapshot.players, settings.players.clone())?;
        let relays = RelayTable::restore(snapshot.relays, settings.relay, own, ports)?;
        let mut registrar = Registrar::default();
        registrar.restore(snapshot.unknown_answers);
        let mut core = Self::from_parts(settings, players, registrar, relays, snapshot.taken);
        core.deadlines.set_earlier(CoreTask::Sweep, snapshot.next_sweep);
        if let Some(end) = snapshot.end_of_drain {
            core.deadlines.set(CoreTask::EndOfDrain, end);
        }
        core.set_end_of_absence();
        core.drain = snapshot.drain;
        core.elsewhere = snapshot.elsewhere;
        core.unconfirmed = snapshot.unconfirmed;
        Ok(core)
    }
}
