//! The bounded channel through which all other threads post events to the event loop. Each event also wakes the loop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::core::id::ConnectionId;
use crate::core::protocol::{Command, CommandKind};
use crate::core::snapshot::Snapshot;
use crate::kernel::Kernel;
use crate::kernel::interfaces::Interface;
use crate::limits::connection_policy::DisconnectReason;
use crate::shell::connection::SharedConnection;
use crate::shell::handover::Departure;
use crate::shell::refused::RefusedConnections;
use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

/// What other threads tell the loop. Large parts are boxed, because the channel uses memory for its full length from the
/// start.
pub(crate) enum Event {
    /// A player has connected; its thread is about to read.
    Connected(SharedConnection),
    /// No thread could be started for this player.
    NoThread(ConnectionId),
    /// A player sent a line.
    Command { player: ConnectionId, command: Box<Command>, received: Instant },
    /// A player sent a command that its rate does not allow.
    RateLimitedCommand { player: ConnectionId, kind: CommandKind, received: Instant },
    /// A player is to be told why its connection is closed; no more commands come from it.
    Disconnect(ConnectionId, DisconnectReason),
    /// A player's connection has ended.
    Disconnected(ConnectionId),
    /// A health check. A loop that turns answers it.
    Ping(Sender<()>),
    /// A new configuration. The loop answers when it is in force.
    Reload(Box<Config>, Sender<()>),
    /// Somebody wants a snapshot of the core.
    Snapshot(Sender<Box<Snapshot>>),
    /// The program is to be executed anew. An answer comes only if that fails: the reason.
    HandOver(Box<Departure>, Sender<String>),
    /// All players' threads have ended, because the halt was called. The accept loop waits until they may run again.
    Halted(Box<Halted>),
    /// The machine has these IPs now.
    OwnIps(BTreeSet<IpAddr>),
    /// The machine's interfaces are these, or its routes have changed.
    Interfaces(Vec<Interface>),
    /// The kernel's path is to be used from now on, or not any more. The loop answers when that is so.
    KernelPath(Option<Box<dyn Kernel>>, Sender<()>),
    /// The server is to end once its relays are quiet.
    Drain,
    /// The server is to end.
    Shutdown,
    /// The accept loop has ended: nobody connects any more.
    AcceptorClosed,
}

/// What the accept loop leaves to the event loop during a halt.
pub(crate) struct Halted {
    /// The refused connections that are still open.
    pub(crate) refused: RefusedConnections,
    /// For the connections that need threads again, and the refused ones.
    pub(crate) resume: Sender<(Vec<SharedConnection>, RefusedConnections)>,
}

/// The loop has ended; nobody listens any more.
#[derive(Debug)]
pub(crate) struct LoopGone;

/// A channel that holds `size` events; each one posted also wakes the loop.
pub(crate) fn channel(size: usize, waker: Waker) -> (EventSender, Receiver<Event>) {
    let (channel, receiver) = crossbeam_channel::bounded(size);
    (EventSender { channel, waker: Arc::new(waker) }, receiver)
}

/// Posts events to the loop and wakes it.
#[derive(Clone)]
pub(crate) struct EventSender {
    channel: Sender<Event>,
    waker: Arc<Waker>,
}

impl EventSender {
    /// Posts an event, waiting while the channel is full.
    pub(crate) fn post(&self, event: Event) -> Result<(), LoopGone> {
        self.channel.send(event).map_err(|_| LoopGone)?;
        self.wake();
        Ok(())
    }

    /// How many events may wait.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.channel.capacity().expect("it is bounded")
    }

    /// Posts an event, waiting for at most `patience` while the channel is full.
    pub(crate) fn post_within(&self, event: Event, patience: Duration) -> Result<(), LoopGone> {
        self.channel.send_timeout(event, patience).map_err(|_| LoopGone)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // This fails only if the kernel has no memory left. Then the loop takes the event in its next turn.
        let _ = self.waker.wake();
    }
}
