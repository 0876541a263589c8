//! noray introduces players of online games to each other and relays their UDP traffic where routers forbid it.
//!
//! Players sit behind home routers (NAT) and cannot be reached from outside. noray is the one process with a public
//! address. It gives every player two ids, learns its external address over UDP, tells two players each other's
//! addresses so that both can send first and open their routers (*punchthrough*), and where that fails relays their
//! datagrams through its own ports. The README says how to run it and how to speak with it; this page is for those
//! who change it.
//!
//! # Threads
//!
//! ```text
//! accept loop          accepts, up to the capacity; starts a thread for each player
//! one thread a player  blocking reads, bounded line reader, parse -> Command -> post
//!         |  bounded channel + mio Waker
//!         v
//! event loop           mio::Poll; sole owner of the core, of all UDP sockets, and of what is written to players
//! http                 answers from atomics; its requests have short-lived threads
//! addresses            reads the machine's addresses every 30 s, posts them when they changed
//! signals              reads the configuration again, posts Reload, Drain, Shutdown
//! log                  writes the lines that all others put into a bounded queue
//! ```
//!
//! # The way of a datagram
//!
//! ```text
//! socket of port P --> Sockets::receive --> Core::handle_datagram(P, source, length, now)
//!                                               learn    Latch::accept(source): is it the partner?
//!                                               check    life, consent, rate limits: may it pass?
//!                                               charge   the buckets and the pair's life
//! socket of the sender's port <-- Sockets::send <-- Action::Forward { via, to }, or Action::Drop(reason), counted
//! ```
//!
//! # The way of a command
//!
//! ```text
//! TCP bytes --> LineReader --> Command::parse --> ConnectionPolicy: not too many? --> Event::Command
//!     | channel
//!     v
//! Core::handle(Input::Command) --> Effect::Tell(connection, Reply) --> Connection::send, which never waits
//!                              --> Effect::PairOpened, BoundReached, ..: counted and logged
//! ```
//!
//! # The way of a key
//!
//! ```text
//! file, environment, --set --> Sources --> Effective: a Config and the origin of each value, or every mistake
//! Config --> Settings --> Core::new; after SIGHUP: Event::Reload --> Core::handle(Input::Reload)
//!        --> addresses, ports, caps --> Server::bind
//! ```
//!
//! # The way of a snapshot
//!
//! ```text
//! Core::snapshot(now) --> Snapshot --> JSON in memory --> Snapshot --> Core::restore(snapshot, settings, ports)
//! ```
//!
//! It holds all that the core has to remember: players and their secrets, pairs, latches, buckets, deadlines.
//!
//! # Rooms
//!
//! | room | question it answers |
//! |---|---|
//! | [`core`] | the rules: who is registered, what a command leads to, what becomes of a datagram |
//! | [`limits`] | how much strangers may use up |
//! | [`config`] | what was configured, and every mistake with its place |
//! | [`time`] | time as a number, without the time in which the process stood still |
//! | [`label`] | enums with a fixed text for each variant: a metric's labels, tokens on the wire |
//! | [`shell`] | sockets and threads: the event loop, the players' connections, HTTP, signals |
//! | [`operation`] | what the operator sees: log, metrics, systemd, what the machine lacks |
//!
//! `core`, `limits`, `config`, `time` and `label` know no socket, no thread and no clock; a lint keeps them so. The binary
//! adds the command line, `noray reload` and `noray probe`, which plays two players against a server elsewhere.
//!
//! # Invariants
//!
//! - Invariant: only the event loop changes the core; there is no lock around it. The loop waits for nothing but `poll`:
//!   it takes no lock that a thread of lower priority may hold, and reads nothing that the kernel's configuration can
//!   delay, as interface addresses are.
//! - Invariant: players are written to without waiting; one that does not read is disconnected. A log line that does not
//!   fit into its queue is lost and counted.
//! - Invariant: the core is pure. Time comes in as an argument, read once per turn of the loop; so does randomness.
//!   Payloads of relayed datagrams never enter it.
//! - Invariant: a relayed datagram costs one look at its port's entry, no allocation (except when a player's address
//!   changes), no log line above `trace`, and no work that grows with the number of players.
//! - Invariant: nothing that a stranger sends ends the process, grows memory without a bound, or stops the loop from
//!   turning. An error on one socket stays with that socket. Every bound has a name and a counter
//!   ([`limits::bounds`]).
//! - Invariant: one of the server's own threads that panics ends the process with status 1, and systemd restarts it. Only
//!   the thread of a single player or HTTP request may panic alone ([`operation::threads`]).
//! - Invariant: the registrar never answers with more bytes than it got. An address that was not heard at a pair's port is
//!   sent at most 64 KiB in the pair's life.
//! - Invariant: a PrivateID is never logged, never printed by `Debug`, and never written to a disk.
//! - Invariant: metric labels come from closed sets.
//!
//! # Words
//!
//! - *player*, *host*: every player registers as a host in the protocol's words, clients too.
//! - *external address*: a player's IP and port as seen from outside its router.
//! - *mapping*, *filtering* (RFC 4787): how a router chooses the external port, and whose datagrams it lets in. A
//!   router with address- and port-dependent mapping is called *symmetric*.
//! - *pair*: two introduced players and a *relay port* for each. *Latching* (RFC 7362): sending to where a player
//!   was last heard, not to where it said it is.
//! - *confirmed*: a player whose registered address is at the IP of its connection, and so not forged.
//! - *reservation*: a port kept for a player before its first introduction.
//! - *charge*: a datagram's payload and 28 bytes of headers.

#![warn(clippy::unwrap_used)]

pub mod config;
pub mod core;
pub mod label;
pub mod limits;
pub mod operation;
pub mod shell;
pub mod time;
