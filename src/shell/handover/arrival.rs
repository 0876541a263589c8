//! The new process's side: it takes over the sockets and goes on.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, RawFd};

use listenfd::ListenFd;
use nix::libc::{AF_INET, SOCK_STREAM};

use super::{Manifest, ManifestReader, SocketRole};
use crate::config::Config;
use crate::core::Core;
use crate::core::relay::{OwnAddresses, RelayPort};
use crate::label::counted;
use crate::operation::warnings::Warnings;
use crate::operation::{clock, os, threads};
use crate::shell::sockets::canonical;

/// The variable by which one process asks the next for something.
pub(super) const REQUEST: &str = "NORAY_HANDOVER";
pub(super) const CHECK: &str = "check";
pub(super) const TAKE_OVER: &str = "take-over";

/// The number of the first descriptor that may be passed (sd_listen_fds(3)).
pub(super) const FIRST: i32 = 3;

/// What a program says that can take over.
pub(super) const CAN_TAKE_OVER: &str = "noray can take over";

/// What the process that executed this program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Whether this program could take over.
    Check,
    /// To take over.
    TakeOver,
}

/// What is asked for; `None` if this is a usual start.
pub fn requested() -> Option<Requested> {
    let request = os::variable(REQUEST)?;
    if request == CHECK {
        return Some(Requested::Check);
    }
    // A variable that was inherited from a handover long ago means nothing to another process.
    let is_for_us = os::variable("LISTEN_PID")? == std::process::id().to_string();
    match request.as_str() {
        TAKE_OVER if is_for_us => Some(Requested::TakeOver),
        _ => None,
    }
}

/// Whether this program, with the configuration that `read` makes of the file in the manifest, could take over. Returns
/// what to say.
///
/// # Errors
/// Why not.
pub fn check(
    read: impl FnOnce(Option<(String, String)>) -> Result<Config, String>,
) -> Result<&'static str, String> {
    let mut reader = manifest_reader()?;
    reader.sockets().map_err(unreadable)?;
    let manifest = reader.manifest().map_err(unreadable)?;
    let config = read(manifest.file)?;
    let ports: Vec<RelayPort> =
        config.relay_ports.as_slice().iter().copied().map(RelayPort).collect();
    Core::restore(manifest.core, config.settings(), OwnAddresses::default(), &ports)?;
    Ok(CAN_TAKE_OVER)
}

/// The manifest at the standard input, which is closed for it: it holds secrets.
fn manifest_reader() -> Result<ManifestReader, String> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let reader = stdin.and_then(|stdin| ManifestReader::new(File::from(stdin)));
    close_manifest().map_err(|error| format!("the snapshot cannot be closed: {error}"))?;
    reader.map_err(unreadable)
}

fn unreadable(error: io::Error) -> String {
    format!("the snapshot cannot be read: {error}")
}

/// Puts nothing in the manifest's place.
pub(super) fn close_manifest() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(File::open("/dev/null")?)?)
}

/// What another process has handed over: the manifest and its sockets.
pub struct Arrival {
    pub(crate) manifest: Manifest,
    pub(crate) players: TcpListener,
    pub(crate) http: Option<TcpListener>,
    pub(crate) registrar: UdpSocket,
    pub(crate) relays: Vec<(RelayPort, UdpSocket)>,
    /// In the order of [`Manifest::players`]; `None` for those that did not arrive.
    pub(crate) connections: Vec<Option<TcpStream>>,
    /// Connections that are closed once their players have read why.
    pub(crate) refused: Vec<TcpStream>,
    pub(crate) remains: Remains,
    /// What is wrong with other sockets, for the log, which does not run yet.
    warnings: Vec<String>,
}

impl Arrival {
    /// Takes what was handed over. Descriptors that are not what the manifest says are closed, with a warning. Call this
    /// before the process opens anything else, which could get the number of a descriptor that is missing.
    ///
    /// # Errors
    /// What is missing, without which nobody could be served. Then everything else is closed.
    pub fn receive() -> Result<Self, String> {
        let mut fds = Descriptors { fds: ListenFd::from_env(), warnings: Vec::new() };
        let received = Self::take(&mut fds);
        fds.close_unclaimed();
        received.map(|arrival| Self { warnings: fds.warnings, ..arrival })
    }

    /// The manifest is read on another thread meanwhile: with thousands of players each takes 30 ms.
    fn take(fds: &mut Descriptors) -> Result<Self, String> {
        let mut reader = manifest_reader()?;
        let sockets = reader.sockets().map_err(unreadable)?;
        let (manifest, mut claimed) =
            threads::side_by_side(|| reader.manifest(), || Claimed::claim(fds, &sockets));
        let manifest = manifest.map_err(unreadable)?;
        claimed.remains = fds.remains(&manifest.remains);
        claimed.complete(manifest)
    }

    /// The configuration file as it was checked.
    pub fn file(&self) -> Option<(String, String)> {
        self.manifest.file.clone()
    }

    /// Keeps the warnings that the status showed, before this process has any.
    pub fn restore_warnings(&self, kept: &Warnings) {
        kept.restore(&self.manifest.warnings, clock::now());
    }

    /// What is wrong with sockets that can be missed.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What was handed over, in words.
    pub fn summary(&self) -> String {
        let connections = self.connections.iter().flatten().count();
        format!(
            "noray {} has handed over {} and {}",
            self.manifest.version,
            counted(connections, "connection"),
            counted(self.relays.len(), "relay port")
        )
    }
}

/// The sockets among the descriptors.
#[derive(Default)]
struct Claimed {
    players: Option<TcpListener>,
    http: Option<TcpListener>,
    registrar: Option<UdpSocket>,
    relays: Vec<(RelayPort, UdpSocket)>,
    /// With their places in [`Manifest::players`].
    connections: Vec<(usize, TcpStream)>,
    refused: Vec<TcpStream>,
    remains: Remains,
}

/// [What is left](Manifest::remains) of the old process. It is closed with this.
#[derive(Default)]
pub(crate) struct Remains(Vec<RawFd>);

impl Drop for Remains {
    fn drop(&mut self) {
        for fd in self.0.drain(..) {
            // It is open, and cannot fail.
            let _ = nix::unistd::close(fd);
        }
    }
}

impl Claimed {
    fn claim(fds: &mut Descriptors, sockets: &[(SocketRole, i32)]) -> Self {
        let mut claimed = Self::default();
        for (role, fd) in sockets {
            let Ok(index) = usize::try_from(fd - FIRST) else { continue };
            match role {
                SocketRole::Players(at) => claimed.players = fds.listener(index, *at),
                SocketRole::Http(at) => claimed.http = fds.listener(index, *at),
                SocketRole::Registrar(at) => claimed.registrar = fds.udp(index, *at),
                SocketRole::Relay(at) => {
                    let socket = fds.relay(index, *at);
                    claimed.relays.extend(socket.map(|socket| (RelayPort(at.port()), socket)));
                }
                SocketRole::Player(place, peer) => {
                    let stream = fds.connection(index, *peer);
                    claimed.connections.extend(stream.map(|stream| (*place, stream)));
                }
                SocketRole::Refused => claimed.refused.extend(fds.stream(index)),
            }
        }
        claimed
    }

    fn complete(self, manifest: Manifest) -> Result<Arrival, String> {
        let mut connections: Vec<Option<TcpStream>> =
            manifest.players.iter().map(|_| None).collect();
        for (place, stream) in self.connections {
            if let Some(empty) = connections.get_mut(place) {
                *empty = Some(stream);
            }
        }
        Ok(Arrival {
            manifest,
            players: self.players.ok_or("the port for players was not handed over")?,
            http: self.http,
            registrar: self.registrar.ok_or("the registrar's socket was not handed over")?,
            relays: self.relays,
            connections,
            refused: self.refused,
            remains: self.remains,
            warnings: Vec::new(),
        })
    }
}

/// The descriptors that were passed.
struct Descriptors {
    fds: ListenFd,
    warnings: Vec<String>,
}

impl Descriptors {
    fn listener(&mut self, index: usize, at: SocketAddr) -> Option<TcpListener> {
        let taken = self.fds.take_tcp_listener(index);
        self.claim(taken, at, TcpListener::local_addr)
    }

    fn udp(&mut self, index: usize, at: SocketAddr) -> Option<UdpSocket> {
        let taken = self.fds.take_udp_socket(index);
        self.claim(taken, at, UdpSocket::local_addr)
    }

    /// There may be thousands, so it is only looked whether it is a UDP socket.
    fn relay(&mut self, index: usize, at: SocketAddr) -> Option<UdpSocket> {
        let taken = self.fds.take_udp_socket(index);
        self.claim(taken, at, |_| Ok(at))
    }

    fn connection(&mut self, index: usize, peer: SocketAddr) -> Option<TcpStream> {
        let taken = Ok(self.stream(index));
        self.claim(taken, peer, |stream: &TcpStream| stream.peer_addr().map(canonical))
    }

    fn stream(&mut self, index: usize) -> Option<TcpStream> {
        // This takes IPv6 sockets too.
        let taken = self.fds.take_custom(index, AF_INET, SOCK_STREAM, "connection");
        taken.ok().flatten()
    }

    /// The socket, if it is where it must be. Else it is closed.
    fn claim<T>(
        &mut self,
        taken: io::Result<Option<T>>,
        expected: SocketAddr,
        address: impl Fn(&T) -> io::Result<SocketAddr>,
    ) -> Option<T> {
        let why = match taken {
            Ok(Some(socket)) => match address(&socket) {
                Ok(found) if found == expected => return Some(socket),
                // Its player has left meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return None,
                Ok(found) => format!("it is at {found}"),
                Err(error) => error.to_string(),
            },
            Ok(None) => "it is missing".to_owned(),
            Err(error) => error.to_string(),
        };
        self.warnings.push(format!("the socket for {expected} was not handed over: {why}"));
        None
    }

    /// Those with these numbers, as far as they are open.
    fn remains(&mut self, numbers: &[RawFd]) -> Remains {
        let index = |fd: &RawFd| usize::try_from(fd - FIRST).ok();
        let taken = numbers.iter().filter_map(index).filter_map(|index| {
            let fd = self.fds.take_raw_fd(index).ok().flatten()?;
            fs::read_link(format!("/proc/self/fd/{fd}")).is_ok().then_some(fd)
        });
        Remains(taken.collect())
    }

    /// Closes what is open and not in the manifest.
    fn close_unclaimed(&mut self) {
        for index in 0..self.fds.len() {
            if let Ok(Some(fd)) = self.fds.take_raw_fd(index)
                && nix::unistd::close(fd).is_ok()
            {
                self.warnings
                    .push(format!("descriptor {fd} was handed over for nothing; it is closed"));
            }
        }
    }
}
