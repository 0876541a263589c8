//! noray introduces players of online games to each other and relays their UDP traffic where routers forbid it.
//!
//! Players sit behind home routers (NAT) and cannot be reached from outside. noray is the one process with a public
//! address. It gives every player two ids, learns its external address over UDP, tells two players each other's
//! addresses so that both can send first and open their routers (*punchthrough*). Where that fails, it relays their
//! datagrams through its own ports. The README and `docs` say how to run it and how to use its protocol. This page is for people
//! who change the code.
//!
//! # Threads
//!
//! ```text
//! accept-loop   accepts connections, up to the capacity; starts a thread for each player
//! player        one for each player: waits, reads, bounded line reader, parse -> Command -> post; ends before a handover
//!     |  bounded channel + mio Waker
//!     v
//! main          the event loop: mio::Poll; it alone changes the core, uses UDP sockets and writes to players
//! http          metrics, health, and the status with its page
//! request       one for each HTTP request
//! addresses     reads the machine's addresses every 30 s, and posts them when they have changed
//! signals       reads the configuration again; posts Reload, HandOver, Drain, Shutdown
//! log           writes the lines that all others put into a bounded queue
//! ```
//!
//! The names are those in a panic's message. `ps -L` shows them too, and `noray` for `main`. The thread `addresses`
//! runs only if the UDP sockets are bound to all of the machine's addresses.
//!
//! # The way of a datagram
//!
//! ```text
//! socket of port P --> Sockets::receive --> Core::handle_datagram(P, source, length, now)
//!                                               learn    Latch::hear_current(source): is it the partner?
//!                                               check    confirmed, lifetime, consent, rate limits: may it pass?
//!                                               charge   the buckets and the pair's life
//! socket of the sender's port <-- Sockets::send <-- Action::Forward { via, to }, or Action::Drop(reason), counted
//! ```
//!
//! # The way of a command
//!
//! ```text
//! TCP bytes --> LineReader --> ConnectionPolicy: not too many? --> Command::parse --> Event::Command
//!     | channel
//!     v
//! Core::handle(Input::Command) --> Effect::Tell(connection, Reply) --> TcpConnection::send, which never waits
//!                              --> Effect::PairOpened, BoundReached, ..: counted and logged
//! ```
//!
//! # The way of a key
//!
//! ```text
//! file, environment, --set --> Sources --> Effective: a Config and the origin of each value, or every mistake
//! Config --> Settings --> Core::new; after SIGHUP: Event::Reload --> Core::handle(Input::Reload)
//!        --> addresses, ports, caps --> Server::bind; after SIGHUP: caps --> ConnectionTable, and ports --> a handover
//! ```
//!
//! # The way of a snapshot
//!
//! ```text
//! Core::snapshot(now) --> Snapshot --> serde --> Snapshot --> Core::restore(snapshot, settings, own addresses, ports)
//! ```
//!
//! It holds everything that the core must remember: players and their secrets, pairs, latches, buckets, deadlines.
//! A handover passes it to the program, executed anew: see [`shell::handover`].
//!
//! # Rooms
//!
//! | room | question it answers |
//! |---|---|
//! | [`core`] | the rules: who is registered, what a command does, what happens to a datagram |
//! | [`limits`] | how much strangers may use up |
//! | [`config`] | what is configured, and which mistakes are where |
//! | [`time`] | time as a number, without the time in which the process stood still |
//! | [`label`] | enums with a fixed text for each variant: metric labels, tokens on the wire |
//! | [`shell`] | sockets and threads: the event loop, the players' connections, HTTP, signals |
//! | [`operation`] | what the operator sees: log, metrics, systemd, what the machine lacks |
//!
//! Imports go one way: `shell` imports `operation`, and both import the others. No file imports one that imports it.
//! `core`, `limits`, `config`, `time` and `label` use no socket, no thread and no clock; a lint refuses the clock. The
//! binary adds the command line, `noray reload`, `noray status`, and `noray probe`, which plays two players against a
//! server elsewhere.
//!
//! # Invariants
//!
//! - Invariant: only the event loop changes the core; there is no lock around it. The loop waits in `poll`. Besides,
//!   it can only wait for the locks inside the allocator, the logger and the channel, which are held for microseconds.
//!   (The longest wait measured in 60,000 joins: 9 ms, for the allocator.)
//! - Invariant: writing to a player never waits. A player that does not read is disconnected. Writing a log line never
//!   waits for the disk: a line that does not fit into the queue is lost and counted.
//! - Invariant: the core is pure. Time and randomness come in as arguments; time is read once per turn of the loop.
//!   Payloads of relayed datagrams never enter it.
//! - Invariant: a relayed datagram's pair is found by its port alone. The datagram costs no allocation (except when a
//!   player's address changes, and when a network begins to use its share of what is scarce), no log line above `trace`,
//!   and no work that grows with the number of players.
//! - Invariant: nothing that a stranger sends ends the process, makes memory grow without a bound, or stops the loop.
//!   An error on one socket stays with that socket. Every bound has a name and a counter ([`limits::bounds`]).
//! - Invariant: a panic ends the process with status 1, and systemd restarts it. Only a panic on the thread of a
//!   single player or HTTP request ends no more than this thread ([`operation::threads`]).
//! - Invariant: the registrar never answers with more bytes than it got. A player that was not heard at its partner's
//!   port is sent at most 64 KiB in the pair's life, whatever its address.
//! - Invariant: a PrivateID is never logged, never printed by `Debug`, and never written to a disk.
//! - Invariant: metric labels come from closed sets.
//!
//! # Words
//!
//! - *player*, *host*: the protocol calls every registered player a host. In an introduction, the *asker* asks for the
//!   *host*.
//! - *external address*: a player's IP and port as seen from outside its router.
//! - *mapping*, *filtering* (RFC 4787): how a router chooses the external port, and which datagrams it lets in. A
//!   router with address- and port-dependent mapping is called *symmetric*.
//! - *pair*: two introduced players and a *relay port* for each. *Latching* (RFC 7362): a player is sent to
//!   the address where it was last heard, which can differ from the one that it registered.
//! - *confirmed*: a player whose registered address has the IP of its connection. TCP shows that the IP is not forged
//!   (RFC 9000 calls that address validation).
//! - *reservation*: a port kept for a player before its first introduction.
//! - *charged bytes*: a datagram's payload and 28 bytes of headers ([`limits::relay::charged_bytes`]).

#![warn(clippy::unwrap_used)]

pub mod config;
pub mod core;
pub mod kernel;
pub mod label;
pub mod limits;
pub mod operation;
pub mod shell;
pub mod time;
