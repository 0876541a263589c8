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
//! listener thread      accept, connection caps
//! one thread a player  blocking reads, bounded line reader, parse -> Command -> post
//!         |  bounded channel + waker
//!         v
//! event loop thread    epoll; sole owner of players, relays, all UDP sockets, and of all that is written to
//!                      a player
//! http thread          answers from atomics; its requests have short-lived threads
//! signal thread        reads the configuration again, posts Reload, Drain, Shutdown
//! log thread           writes the lines that all others put into a bounded queue
//! ```
//!
//! # A datagram's way
//!
//! ```text
//! socket of port P --> sockets.receive --> RelayTable::handle_datagram(P, source, length, now)
//!                                              P's pair, its owner (the receiver) and the other (the sender)
//!                                              Latch::accept(source)      is it the partner?
//!                                              life, consent, rates       may it pass?
//! socket of the sender's port <-- sockets.send <-- Action::Forward { via, to }, or Action::Drop(reason), counted
//! ```
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
//! adds the command line and `noray probe`, which plays two players against a server elsewhere.
//!
//! # Invariants
//!
//! - Invariant: only the event loop changes state; there is no lock around players or relays, and none is held
//!   across a system call. (The listener's table of connections per IP has a lock; it is held for a few additions.)
//! - Invariant: the loop waits only in `poll`. Players are written to without waiting; one that does not read is
//!   disconnected. So is the log: what does not fit into its queue is lost and counted.
//! - Invariant: rules get time as their last argument, read once per turn. Payloads never enter them.
//! - Invariant: a relayed datagram costs one look at its port's entry, no allocation (but when a player's address changes),
//!   no log line above `trace`, and no work that grows with the number of players.
//! - Invariant: nothing that a stranger sends ends the process, grows memory without a bound, or stops the loop from
//!   turning. An error on one socket stays with that socket. Every bound has a name and a counter ([`limits::bounds`]).
//! - Invariant: nobody is sent more by UDP than came from there, unless its owner is known to be there: its connection
//!   comes from the same IP, or it was heard at the relay. Before that, 64 KiB a pair.
//! - Invariant: a PrivateID is never logged, and `Debug` does not print it.
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
