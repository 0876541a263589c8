//! What one process tells the next, beside the sockets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};

use crate::core::snapshot::Snapshot;
use crate::limits::admission::AdmissionSnapshot;
use crate::operation::status::Warning;
use crate::shell::reader_state::ReaderSnapshot;

/// Everything that the next process must know. It holds PrivateIDs, so it is never written to a disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of the program that wrote it.
    pub(crate) version: String,
    /// The configuration file's name and content. The file itself may have changed since it was checked.
    pub(crate) file: Option<(String, String)>,
    pub(crate) core: Snapshot,
    pub(crate) metrics: BTreeMap<String, u64>,
    /// What the status shows.
    pub(crate) warnings: Vec<Warning>,
    /// For how long the server has served, whatever program did.
    pub(crate) uptime: Duration,
    pub(crate) admission: AdmissionSnapshot,
    pub(crate) players: Vec<PlayerConnection>,
    /// Larger than the id of every connection.
    pub(crate) next_connection: u64,
    /// Descriptors of what is left of the old process and takes the kernel milliseconds to end: its file, which the kernel
    /// deletes if there is another in its place, and the epoll instance, from which it takes each socket.
    #[serde(default)]
    pub(crate) remains: Vec<i32>,
}

/// What a socket is for, and where it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SocketRole {
    /// Players connect there.
    Players(SocketAddr),
    /// Metrics and health.
    Http(SocketAddr),
    Registrar(SocketAddr),
    Relay(SocketAddr),
    /// The connection of the player at that place of [`Manifest::players`], with the player's address.
    Player(usize, SocketAddr),
    /// A connection that is closed once its player has read why.
    Refused,
}

impl SocketRole {
    /// With these a program can tell whether it knows all roles.
    pub(crate) fn one_of_each() -> [Self; 6] {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        [
            Self::Players(nowhere),
            Self::Http(nowhere),
            Self::Registrar(nowhere),
            Self::Relay(nowhere),
            Self::Player(0, nowhere),
            Self::Refused,
        ]
    }
}

/// A player's connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlayerConnection {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) is_registered: bool,
    pub(crate) reader: ReaderSnapshot,
}

impl Manifest {
    /// Writes it, and what each descriptor is, into a memory file that nobody can change any more.
    pub(crate) fn into_file(self, sockets: &[(SocketRole, i32)]) -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("noray-handover", flags)?);
        let mut text = BufWriter::with_capacity(64 * 1024, &file);
        serde_json::to_writer(&mut text, sockets)?;
        text.write_all(b"\n")?;
        serde_json::to_writer(&mut text, &self)?;
        text.flush()?;
        drop(text);
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        file.rewind()?;
        Ok(file)
    }
}

/// What another process has written: a line about the sockets, and then the manifest, which another thread can read.
pub(crate) struct ManifestReader(BufReader<File>);

impl ManifestReader {
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self(BufReader::new(file)))
    }

    /// Reads what each socket is for, and its descriptor. That comes first.
    pub(crate) fn sockets(&mut self) -> io::Result<Vec<(SocketRole, i32)>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Reads the rest.
    pub(crate) fn manifest(mut self) -> io::Result<Manifest> {
        let mut text = Vec::new();
        self.0.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}
