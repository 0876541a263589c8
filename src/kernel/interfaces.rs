//! The machine's interfaces: to which of them the program is attached, and what the way out takes.

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest IP packet that it takes.
    pub mtu: u32,
    /// The time to live of what a socket sends there by IPv4.
    pub ttl: u8,
    /// The hop limit of what a socket sends there by IPv6.
    pub hop_limit: u8,
    /// Whether datagrams from there may be forwarded: it is up and speaks Ethernet.
    pub is_suitable: bool,
    /// Whether it leads to this machine itself. What comes there is never forwarded, unless a test wants it.
    pub is_loopback: bool,
}

/// Those to which the program is to be attached: the named ones, or all that are suitable.
pub fn chosen(interfaces: &[Interface], named: &[String]) -> Vec<Interface> {
    let is_chosen = |interface: &&Interface| {
        if named.is_empty() {
            interface.is_suitable
        } else {
            named.contains(&interface.name) && (interface.is_suitable || interface.is_loopback)
        }
    };
    interfaces.iter().filter(is_chosen).cloned().collect()
}
