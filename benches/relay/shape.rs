//! Starts nothing: who plays with whom.

/// How the players are grouped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many pairs of two players each.
    Pairs(usize),
    /// So many hosts with so many clients each.
    Stars { hosts: usize, clients: usize },
}

impl Shape {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Pairs(pairs) => format!("{pairs} pairs"),
            Self::Stars { hosts, clients } => format!("{hosts} x {clients} stars"),
        }
    }

    /// How many players there are.
    pub(crate) fn players(self) -> usize {
        match self {
            Self::Pairs(pairs) => 2 * pairs,
            Self::Stars { hosts, clients } => hosts * (1 + clients),
        }
    }

    /// The numbers of each pair's host and client. Every player has a number, and a host is nobody's client.
    pub(crate) fn pairs(self) -> Vec<[usize; 2]> {
        match self {
            Self::Pairs(pairs) => (0..pairs).map(|pair| [2 * pair, 2 * pair + 1]).collect(),
            Self::Stars { hosts, clients } => {
                (0..hosts * clients).map(|index| [index / clients, hosts + index]).collect()
            }
        }
    }
}
