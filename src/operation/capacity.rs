//! How many players and relay ports the machine has room for, by open files, memory and mappings of memory.

use crate::config::Config;
use crate::config::units::ByteSize;
use crate::operation::{machine, os};

/// Descriptors for everything but players and relay ports: 18 of the server (measured, with systemd's socket), 16 refused
/// connections, and 17 requests with a file that each reads.
const SPARE_FILES: u64 = 64;

/// Bytes of memory for everything but players: 8 MiB at start, then relays, waiting log lines and a crowd that leaves.
const SPARE_MEMORY: u64 = 16 << 20;

/// Bytes of memory that a player takes at most: 10 KiB of the process, 25 KiB of the kernel for its thread and socket (measured), a
/// line of 4 KiB, and socket buffers.
const MEMORY_OF_PLAYER: u64 = 64 << 10;

/// Mappings of memory for everything but players.
const SPARE_MAPPINGS: u64 = 1024;

/// A player's thread has a stack, a second stack for signals, and a guard page below each. If it gets the first stack but
/// not the others, the whole process ends.
const MAPPINGS_OF_PLAYER: u64 = 4;

/// The server admits at least this many players, even if memory or mappings may not suffice for them.
const MIN_PLAYERS: u64 = 64;

/// Makes room in the kernel for all files that a server with this configuration opens. Call this while the process has one
/// thread.
pub fn make_room_for_files(config: &Config) {
    let wanted = config.relay_ports.as_slice().len() + config.max_connections;
    let allowed = usize::try_from(os::raise_open_file_limit()).unwrap_or(usize::MAX);
    os::grow_file_table(allowed.min(wanted + SPARE_FILES as usize));
}

/// How many relay ports may be bound. `max_connections` descriptors are left for players, or a quarter of all if that is
/// less.
pub(crate) fn max_relay_ports(open_files: u64, max_connections: usize) -> usize {
    let for_players = (max_connections as u64).min(open_files / 4);
    usize::try_from(open_files.saturating_sub(for_players + SPARE_FILES)).unwrap_or(usize::MAX)
}

/// How many players the machine has room for, by each resource that a player needs.
#[derive(Clone)]
pub(crate) struct Capacity(Vec<Supply>);

/// How many players one resource suffices for.
#[derive(Clone)]
struct Supply {
    players: usize,
    /// How much there is, and how to get more.
    why: String,
}

impl Capacity {
    /// The room on this machine beside `relay_ports` bound ports, if `open_files` may be open.
    pub(crate) fn of_machine(open_files: u64, relay_ports: usize) -> Self {
        Self::new(open_files, relay_ports, machine::memory_limit(), machine::max_mappings())
    }

    /// `memory` is in bytes. If the machine does not report memory or mappings, no limit is assumed.
    fn new(
        open_files: u64,
        relay_ports: usize,
        memory: Option<u64>,
        mappings: Option<u64>,
    ) -> Self {
        let supply =
            |players, why| Supply { players: usize::try_from(players).unwrap_or(usize::MAX), why };
        let files = supply(
            open_files.saturating_sub(relay_ports as u64 + SPARE_FILES),
            format!("{open_files} files may be open; raise LimitNOFILE= (systemd) or `ulimit -Hn`"),
        );
        let memory = memory.map(|bytes| {
            let players = bytes.saturating_sub(SPARE_MEMORY) / MEMORY_OF_PLAYER;
            let bytes = ByteSize(bytes);
            let why = format!(
                "there are {bytes} of memory; raise MemoryMax= (systemd) or take a larger machine"
            );
            supply(players.max(MIN_PLAYERS), why)
        });
        let mappings = mappings.map(|mappings| {
            let players = mappings.saturating_sub(SPARE_MAPPINGS) / MAPPINGS_OF_PLAYER;
            let why = format!(
                "the kernel allows {mappings} mappings of memory; raise `sysctl vm.max_map_count`"
            );
            supply(players.max(MIN_PLAYERS), why)
        });
        Self([Some(files), memory, mappings].into_iter().flatten().collect())
    }

    /// How many players can connect at once, at most `wanted`. A player beyond the descriptors would wait in the backlog
    /// and never hear that the server is full; one beyond the memory or the mappings would end the process.
    pub(crate) fn players(&self, wanted: usize) -> usize {
        self.0.iter().map(|supply| supply.players).fold(wanted, usize::min)
    }

    /// Warns of each resource that does not suffice for `wanted` players.
    pub(crate) fn warn_if_below(&self, wanted: usize) {
        for Supply { players, why } in self.0.iter().filter(|supply| supply.players < wanted) {
            log::warn!(
                "only {players} of NORAY_MAX_CONNECTIONS={wanted} players can connect: {why}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_ports_leave_descriptors_for_players() {
        assert_eq!(max_relay_ports(1_000_000, 4096), 1_000_000 - 4096 - 64);
        assert_eq!(max_relay_ports(1024, 4096), 1024 - 256 - 64);
        assert_eq!(max_relay_ports(10, 4096), 0);
    }

    #[test]
    fn the_scarcest_resource_limits_the_players() {
        let possible = |memory, mappings| Capacity::new(1024, 100, memory, mappings).players(4096);
        assert_eq!(possible(Some(1 << 40), Some(65_530)), 1024 - 100 - 64);
        assert_eq!(Capacity::new(1024, 100, None, None).players(100), 100);
        assert_eq!(possible(Some(48 << 20), None), 512);
        assert_eq!(possible(Some(1 << 20), None), 64);
        assert_eq!(possible(None, Some(2024)), 250);
    }
}
