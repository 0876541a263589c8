//! The accept loop: a thread that accepts players' connections. It starts a thread for each one, or refuses it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::bounded;

use crate::core::id::ConnectionId;
use crate::core::protocol::{CommandKind, ErrorCode, Reply};
use crate::operation::clock;
use crate::operation::warning_limiter::WarningLimiter;
use crate::shell::acceptor::{Accepted, Acceptor, COOL_DOWN, Waited};
use crate::shell::connection::{FAREWELL_TIME, SharedConnection, TcpConnection};
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::{Event, EventSender, Halted, LoopGone};
use crate::shell::halt::Halt;
use crate::shell::handover::Remains;
use crate::shell::player_thread;
use crate::shell::player_threads::PlayerThreads;
use crate::shell::refused::RefusedConnections;
use crate::shell::sockets::canonical;

/// What those hear who wait to be accepted when the server starts to drain.
const DRAINING: Reply = Reply::Failed(CommandKind::Other, ErrorCode::Draining);

/// The accept loop's state.
pub(crate) struct AcceptLoop {
    acceptor: Acceptor,
    table: Arc<ConnectionTable>,
    events: EventSender,
    halt: Halt,
    threads: PlayerThreads,
    refused: RefusedConnections,
    warnings: WarningLimiter,
    next_id: u64,
    /// Connections whose threads are to be started.
    adopted: Vec<SharedConnection>,
    /// Closed when the thread starts.
    remains: Remains,
}

/// Why no more connections are accepted.
enum Stopped {
    /// The acceptor is closed.
    Closed,
    /// The halt was called.
    Halted,
}

/// What another process has handed over; by default nothing.
#[derive(Default)]
pub(crate) struct Adopted {
    pub(crate) next_connection: u64,
    pub(crate) connections: Vec<SharedConnection>,
    pub(crate) refused: RefusedConnections,
    pub(crate) remains: Remains,
}

impl AcceptLoop {
    pub(crate) fn new(
        acceptor: Acceptor,
        table: Arc<ConnectionTable>,
        events: EventSender,
        halt: Halt,
        adopted: Adopted,
    ) -> Self {
        Self {
            acceptor,
            table,
            events,
            halt,
            threads: PlayerThreads::default(),
            refused: adopted.refused,
            warnings: WarningLimiter::default(),
            next_id: adopted.next_connection,
            adopted: adopted.connections,
            remains: adopted.remains,
        }
    }

    /// The body of the thread: accepts until the acceptor is closed, then waits for the players' threads.
    pub(crate) fn run(mut self) {
        drop(std::mem::take(&mut self.remains));
        // If the loop is gone, the server ends.
        while let Ok(Stopped::Halted) = self.run_until_halt() {
            self.threads.join_all();
            if self.wait_with_the_halt().is_err() {
                break;
            }
        }
        self.threads.join_all();
    }

    fn run_until_halt(&mut self) -> Result<Stopped, LoopGone> {
        for connection in std::mem::take(&mut self.adopted) {
            self.start_thread(connection)?;
        }
        loop {
            if self.accept()? {
                continue;
            }
            let patience = (!self.refused.is_empty()).then_some(FAREWELL_TIME);
            if self.acceptor.wait(patience) == Waited::End {
                self.events.post(Event::AcceptorClosed)?;
                return Ok(Stopped::Closed);
            }
            if self.halt.is_called() {
                return Ok(Stopped::Halted);
            }
        }
    }

    /// Tells the loop that all players' threads have ended, and waits until they may run again. After a handover this
    /// process is another program before that.
    fn wait_with_the_halt(&mut self) -> Result<(), LoopGone> {
        let now = clock::now();
        for connection in self.halt.take_leaving() {
            self.refused.keep_admitted(connection, now);
        }
        let (resume, resumed) = bounded(1);
        let refused = std::mem::take(&mut self.refused);
        self.events.post(Event::Halted(Box::new(Halted { refused, resume })))?;
        (self.adopted, self.refused) = resumed.recv().map_err(|_| LoopGone)?;
        Ok(())
    }

    /// Accepts a connection, if one waits; whether one did.
    fn accept(&mut self) -> Result<bool, LoopGone> {
        self.refused.close_overdue(clock::now());
        if self.halt.is_called() {
            return Ok(false);
        }
        match self.acceptor.accept() {
            Some(Accepted::Connection(stream, peer)) => {
                self.handle_connection(stream, peer)?;
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

    fn handle_connection(&mut self, stream: TcpStream, peer: SocketAddr) -> Result<(), LoopGone> {
        let peer = canonical(peer);
        let Ok(permit) = self.table.admit(peer.ip()) else {
            self.refused.refuse(stream, &Reply::ServerFull, clock::now());
            return Ok(());
        };
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let connection = Arc::new(TcpConnection::new(id, stream, peer, permit));
        // Before the thread posts what it reads.
        self.events.post(Event::Connected(Arc::clone(&connection)))?;
        self.start_thread(connection)
    }

    fn start_thread(&mut self, connection: SharedConnection) -> Result<(), LoopGone> {
        let (own, own_events) = (Arc::clone(&connection), self.events.clone());
        let halt = self.halt.clone();
        let body = move || player_thread::run(&own, &own_events, &halt);
        let spawned = self.threads.start(connection.id, body);
        if let Err(error) = spawned {
            self.events.post(Event::NoThread(connection.id))?;
            self.refused.keep_admitted(connection, clock::now());
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
