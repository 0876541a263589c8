//! The kernel's path: pairs of players whose datagrams the kernel itself forwards, so that no process wakes for them.
//!
//! ```text
//! interface --> forward.bpf.c: exactly what a route says? --yes--> rewritten, and out at an interface
//!                  |  ^                                  \--no---> the sockets and the core, as without it
//!          counters|  |routes
//!                  v  |
//!               Grants <--> Core: offers pairs, hears what the kernel forwarded
//! ```
//!
//! The core is the only judge. [`Grants`] tells the kernel what it may forward, and tells the core what it did forward
//! before the core judges anything about that pair.
//!
//! | module | question it answers |
//! |---|---|
//! | [`grants`] | which pairs does the kernel forward now? |
//! | [`api`] | what do the grants need of the kernel? |
//! | `grant` | what is the program told of one pair? |
//! | [`layout`] | how do routes and a pair's state look in the kernel's maps? |
//! | [`clock`] | which of the core's times is a time of the kernel's clock? |
//! | [`interfaces`] | to which interfaces is the program attached? |
//! | `opening` | how is the path opened, and how does it follow the machine's interfaces? |
//! | `requirements` | what is missing for it, and how is that got? |
//! | `program` | how is the program loaded and attached? |
//! | `netlink` | where does a datagram leave the machine, and what has changed? |
//!
//! The last four exist only with the feature `kernel`; without it `absent` is in their place. The others have no system
//! call in them, so that simulations drive them.

#[cfg(not(feature = "kernel"))]
mod absent;
pub mod api;
pub mod clock;
mod grant;
pub mod grants;
pub mod interfaces;
pub mod layout;
#[cfg(feature = "kernel")]
mod netlink;
#[cfg(feature = "kernel")]
mod opening;
#[cfg(feature = "kernel")]
pub mod program;
#[cfg(feature = "kernel")]
mod requirements;

#[cfg(not(feature = "kernel"))]
pub use absent::{Opened, Watching, clean_up, open};
pub use api::{Egress, Kernel};
pub use grants::{Grants, Tally};
#[cfg(feature = "kernel")]
pub use opening::{Opened, Watching, clean_up, open};
