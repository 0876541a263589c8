//! What is to happen, in the order of time.

use std::cmp::Ordering;

use crate::world::net::{Datagram, Time};

/// Something that is to happen.
#[derive(Debug)]
pub enum Event {
    /// A datagram arrives at its destination.
    Datagram(Datagram),
    /// A peer goes on, unless it was told another time since.
    Tick {
        peer: u16,
        generation: u32,
    },
    ToServer {
        connection: u32,
        what: Up,
    },
    ToPeer {
        connection: u32,
        what: Down,
    },
    /// The server's deadline.
    Deadline,
    /// A reader's wait is over.
    Reader {
        connection: u32,
    },
    /// The part of the plan with that number.
    Act(u16),
    /// Everybody leaves.
    AllLeave,
    /// The judge looks at what should have happened by now.
    Check,
    /// A server starts again.
    Start,
    Threads,
}

/// What goes from a player to the server by TCP.
#[derive(Debug)]
pub enum Up {
    Connect,
    Bytes(Box<[u8]>),
    End,
    /// The kernel has given up a player that is not there any more.
    Vanished,
}

/// What comes from the server by TCP.
#[derive(Debug)]
pub enum Down {
    Connected,
    Refused,
    Text(Box<str>),
    Closed,
}

pub(super) struct Planned {
    pub(super) at: Time,
    pub(super) number: u64,
    pub(super) event: Event,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}
