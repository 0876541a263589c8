//! A player's TCP connection. The event loop writes to it without waiting, and ends it. The player's thread reads from it
//! (see [`player_thread`](crate::shell::player_thread)).

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::MSG_DONTWAIT;
use parking_lot::{Mutex, MutexGuard};
use socket2::SockRef;

use crate::core::id::ConnectionId;
use crate::core::protocol::Reply;
use crate::limits::admission::Permit;
use crate::shell::handover::PlayerConnection;
use crate::shell::reader_state::ReaderState;

/// How long a connection stays open after its player was told why it is closed. This is enough for a round trip and for
/// repeating a lost packet.
pub(crate) const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// How long the kernel keeps the replies of a closed connection for a player that does not acknowledge them. This is
/// enough for repeating a lost packet three times. They count for no limit: the socket is nobody's any more.
pub(crate) const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Why a reply did not reach a player.
pub(crate) enum SendError {
    /// The player does not read.
    BufferFull,
    /// The connection is broken; its thread will notice.
    Broken,
}

/// A connection that two threads hold: the player's and the event loop. It is closed when both have dropped it.
pub(crate) type SharedConnection = Arc<TcpConnection>;

/// One player's connection. Its thread reads; only the event loop writes.
pub(crate) struct TcpConnection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    stream: TcpStream,
    reader: Mutex<ReaderState>,
    /// Dropped after the stream, so that there are never more descriptors than permits.
    permit: Permit,
}

impl TcpConnection {
    pub(crate) fn new(
        id: ConnectionId,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Permit,
    ) -> Self {
        Self { id, peer, stream, reader: Mutex::new(ReaderState::new()), permit }
    }

    /// A connection that another process has handed over.
    pub(crate) fn adopt(
        id: ConnectionId,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Permit,
        reader: ReaderState,
    ) -> Self {
        Self { id, peer, stream, reader: Mutex::new(reader), permit }
    }

    /// What is known about what the player sent. Only its thread uses it, and a handover while the gate is closed.
    pub(crate) fn reader(&self) -> MutexGuard<'_, ReaderState> {
        self.reader.lock()
    }

    /// What another process needs to go on with it, beside its socket. Only while the gate is closed.
    pub(crate) fn describe(&self) -> PlayerConnection {
        PlayerConnection {
            id: self.id.0,
            peer: self.peer,
            is_registered: self.is_registered(),
            reader: self.reader().snapshot(),
        }
    }

    /// What the player's thread reads from.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes a reply without waiting. If the kernel takes only a part of it, the buffer counts as full.
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

    /// From now on, closing the connection resets it: the kernel frees at once what the player has not read.
    pub(crate) fn reset_on_close(&self) {
        // It may be broken already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Ends the direction to the player. What was sent before still arrives.
    pub(crate) fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.permit.is_registered()
    }

    /// Stops counting the player as unregistered.
    pub(crate) fn mark_registered(&self) {
        self.permit.mark_registered();
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        limit_close(&self.stream);
    }
}

/// Makes the kernel give up after [`CLOSE_TIME`] what is not acknowledged when the connection is closed.
pub(crate) fn limit_close(stream: &TcpStream) {
    // It may be broken already.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(CLOSE_TIME));
}
