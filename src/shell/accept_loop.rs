//! The accept loop: a thread that accepts players' connections. It starts a thread for each one, or refuses it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::Duration;

use crate::core::id::ConnectionId;
use crate::core::protocol::{CommandKind, ErrorCode, Reply};
use crate::operation::clock;
use crate::operation::warning_limiter::WarningLimiter;
use crate::shell::acceptor::{Accepted, Acceptor, COOL_DOWN};
use crate::shell::connection::{FAREWELL_TIME, SharedConnection, TcpConnection};
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::{Event, EventSender, LoopGone};
use crate::shell::player_thread;
use crate::shell::refused::RefusedConnections;
use crate::shell::sockets::canonical;
use crate::time::RunningTime;

/// The stack of a player's thread, in bytes. Measured: threads touch less than half of it. With smaller stacks, all
/// threads together take more memory, and a panic overflows the stack.
const STACK_SIZE: usize = 64 * 1024;

/// What those hear who wait to be accepted when the server starts to drain.
const DRAINING: Reply = Reply::Failed(CommandKind::Other, ErrorCode::Draining);

/// The accept loop's state.
pub(crate) struct AcceptLoop {
    acceptor: Acceptor,
    table: Arc<ConnectionTable>,
    events: EventSender,
    refused: RefusedConnections,
    warnings: WarningLimiter,
    time: RunningTime,
    next_id: u64,
}

impl AcceptLoop {
    pub(crate) fn new(
        acceptor: Acceptor,
        table: Arc<ConnectionTable>,
        events: EventSender,
    ) -> Self {
        Self {
            acceptor,
            table,
            events,
            refused: RefusedConnections::default(),
            warnings: WarningLimiter::default(),
            time: RunningTime::new(clock::now()),
            next_id: 0,
        }
    }

    /// The body of the thread: accepts until the acceptor is closed, then waits for the players' threads.
    pub(crate) fn run(mut self) {
        thread::scope(|threads| {
            loop {
                let patience = (!self.refused.is_empty()).then_some(FAREWELL_TIME);
                let accepted = self.acceptor.accept(patience);
                self.refused.close_overdue(clock::now());
                let handled = match accepted {
                    Accepted::Connection(stream, peer) => {
                        self.handle_connection(stream, peer, threads)
                    }
                    Accepted::Late(stream) => {
                        self.table.record_late();
                        self.refused.refuse(stream, &DRAINING, clock::now());
                        Ok(())
                    }
                    Accepted::Failed(error) => {
                        self.handle_error(&error);
                        Ok(())
                    }
                    Accepted::Nobody => Ok(()),
                    Accepted::End => break,
                };
                if let Err(LoopGone) = handled {
                    return;
                }
            }
            // If the loop is gone, nobody waits for this.
            let _ = self.events.post(Event::AcceptorClosed);
        });
    }

    fn handle_connection<'scope>(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        threads: &'scope Scope<'scope, '_>,
    ) -> Result<(), LoopGone> {
        let peer = canonical(peer);
        let now = self.time.advance(clock::now(), Duration::MAX);
        let Ok(permit) = self.table.admit(peer.ip(), now) else {
            self.refused.refuse(stream, &Reply::ServerFull, clock::now());
            return Ok(());
        };
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.start_thread(Arc::new(TcpConnection::new(id, stream, peer, permit)), threads)
    }

    fn start_thread<'scope>(
        &mut self,
        connection: SharedConnection,
        threads: &'scope Scope<'scope, '_>,
    ) -> Result<(), LoopGone> {
        // Before the thread posts what it reads.
        self.events.post(Event::Connected(Arc::clone(&connection)))?;
        let (own, own_events) = (Arc::clone(&connection), self.events.clone());
        let spawned = thread::Builder::new()
            .name("player".to_owned())
            .stack_size(STACK_SIZE)
            .spawn_scoped(threads, move || player_thread::run(&own, &own_events));
        if let Err(error) = spawned {
            self.events.post(Event::NoThread(connection.id))?;
            self.refused.keep_without_thread(connection, clock::now());
            self.cool_down(&error);
        }
        Ok(())
    }

    fn handle_error(&mut self, error: &io::Error) {
        // The player has left already.
        if error.kind() != ErrorKind::ConnectionAborted {
            self.cool_down(error);
        }
    }

    /// Waits after an error that would come again at once, such as too many open files.
    fn cool_down(&mut self, error: &io::Error) {
        if self.warnings.try_acquire(clock::now()) {
            log::warn!(
                "cannot accept a player's connection: {error}; if too many files are open, raise LimitNOFILE=; \
                 if no thread can be started, raise TasksMax="
            );
        }
        thread::park_timeout(COOL_DOWN);
    }
}
