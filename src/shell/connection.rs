//! The half of a player's connection that the event loop holds: it writes without ever waiting, and ends the connection.
//!
//! The other half is the player's thread, which reads (see [`player_thread`](crate::shell::player_thread)).

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::MSG_DONTWAIT;
use socket2::SockRef;

use crate::core::id::ConnectionId;
use crate::core::protocol::Reply;
use crate::limits::admission::Permit;

/// How long a connection stays open after its player was told why it is closed: a round trip, and the repetition of a lost
/// packet.
pub(crate) const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Why a reply did not reach a player.
pub(crate) enum SendError {
    /// The player does not read.
    BufferFull,
    /// The connection is broken; its thread will notice.
    Broken,
}

/// A connection that two threads hold: the player's and the event loop. It is closed when both have dropped it.
pub(crate) type SharedConnection = Arc<Connection>;

/// One player's connection. Its thread reads; only the event loop writes.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    stream: TcpStream,
    /// Dropped after the stream, so that there are never more descriptors than permits.
    permit: Permit,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Permit,
    ) -> Self {
        Self { id, peer, stream, permit }
    }

    /// What the player's thread reads from.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes a reply without waiting. A reply of which the kernel takes only a part counts as not taken.
    pub(crate) fn send(&self, reply: &Reply) -> Result<(), SendError> {
        let text = reply.encode();
        match SockRef::from(&self.stream).send_with_flags(text.as_bytes(), MSG_DONTWAIT) {
            Ok(sent) if sent == text.len() => Ok(()),
            Ok(_) => Err(SendError::BufferFull),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(SendError::BufferFull),
            Err(_) => Err(SendError::Broken),
        }
    }

    /// Ends the connection in both directions, which also wakes its thread.
    pub(crate) fn disconnect(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Ends the direction to the player, after what was sent.
    pub(crate) fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.permit.is_registered()
    }

    /// The player has registered, and no longer counts as one that has not.
    pub(crate) fn mark_registered(&self) {
        self.permit.mark_registered();
    }
}
