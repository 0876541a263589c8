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
use crate::shell::acceptor::{Accepted, Acceptor, COOL_DOWN, Waited};
use crate::shell::connection::{FAREWELL_TIME, SharedConnection, TcpConnection};
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::{Event, EventSender, LoopGone};
use crate::shell::gate::Gate;
use crate::shell::player_thread;
use crate::shell::refused::RefusedConnections;
use crate::shell::sockets::canonical;
use crate::time::{RunningTime, Timestamp};

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
    gate: Gate,
    refused: RefusedConnections,
    warnings: WarningLimiter,
    time: RunningTime,
    next_id: u64,
    /// Connections whose threads are to be started.
    adopted: Vec<SharedConnection>,
}

/// What another process has handed over.
pub(crate) struct Adopted {
    /// When its last connection came.
    pub(crate) now: Timestamp,
    pub(crate) next_connection: u64,
    pub(crate) connections: Vec<SharedConnection>,
}

impl Default for Adopted {
    /// Nothing.
    fn default() -> Self {
        Self { now: Timestamp::START, next_connection: 0, connections: Vec::new() }
    }
}

impl AcceptLoop {
    pub(crate) fn new(
        acceptor: Acceptor,
        table: Arc<ConnectionTable>,
        events: EventSender,
        gate: Gate,
        adopted: Adopted,
    ) -> Self {
        Self {
            acceptor,
            table,
            events,
            gate,
            refused: RefusedConnections::default(),
            warnings: WarningLimiter::default(),
            time: RunningTime::go_on(clock::now(), adopted.now),
            next_id: adopted.next_connection,
            adopted: adopted.connections,
        }
    }

    /// The body of the thread: accepts until the acceptor is closed, then waits for the players' threads.
    pub(crate) fn run(mut self) {
        thread::scope(|threads| {
            for connection in std::mem::take(&mut self.adopted) {
                if let Err(LoopGone) = self.start_thread(connection, threads) {
                    return;
                }
            }
            loop {
                match self.accept(threads) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(LoopGone) => return,
                }
                let patience = (!self.refused.is_empty()).then_some(FAREWELL_TIME);
                if self.acceptor.wait(patience) == Waited::End {
                    break;
                }
            }
            // If the loop is gone, nobody waits for this.
            let _ = self.events.post(Event::AcceptorClosed);
        });
    }

    /// Accepts a connection, if one waits; whether one did. Between this and what is posted, no handover can come.
    fn accept<'scope>(&mut self, threads: &'scope Scope<'scope, '_>) -> Result<bool, LoopGone> {
        self.refused.close_overdue(clock::now());
        let gate = self.gate.clone();
        let _open = gate.enter();
        match self.acceptor.accept() {
            Some(Accepted::Connection(stream, peer)) => {
                self.handle_connection(stream, peer, threads)?;
            }
            Some(Accepted::Late(stream)) => {
                self.table.record_late();
                self.refused.refuse(stream, &DRAINING, clock::now());
            }
            Some(Accepted::Failed(error)) => self.handle_error(&error),
            None => return Ok(false),
        }
        Ok(true)
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
        let connection = Arc::new(TcpConnection::new(id, stream, peer, permit));
        // Before the thread posts what it reads.
        self.events.post(Event::Connected(Arc::clone(&connection)))?;
        self.start_thread(connection, threads)
    }

    fn start_thread<'scope>(
        &mut self,
        connection: SharedConnection,
        threads: &'scope Scope<'scope, '_>,
    ) -> Result<(), LoopGone> {
        let (own, own_events) = (Arc::clone(&connection), self.events.clone());
        let gate = self.gate.clone();
        let spawned = thread::Builder::new()
            .name("player".to_owned())
            .stack_size(STACK_SIZE)
            .spawn_scoped(threads, move || player_thread::run(&own, &own_events, &gate));
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
