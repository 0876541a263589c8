//! What each reason to drop a datagram means and what the operator can do, and what each limit that was reached is about.
//! The page on troubleshooting has the same words about drops: a house rule compares them.

use crate::core::relay::DropReason;
use crate::limits::bounds::Bound;

/// What an operator should know about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropHelp {
    /// Why the datagram was not relayed.
    pub meaning: &'static str,
    /// What helps; `None` if nothing is wrong with the server.
    pub remedy: Option<&'static str>,
}

impl Bound {
    /// What was refused. The page on security has the limit's value and its reason.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Connections => {
                "connections, because there were NORAY_MAX_CONNECTIONS, or as many as the machine has room for"
            }
            Self::ConnectionsPerIp => "connections of a network that had its share of them",
            Self::NewConnections => "connections of a network that opened too many in a short time",
            Self::UnregisteredPerIp => {
                "connections of a network that had too many without a registered player"
            }
            Self::Threads => "connections, because the system gave no thread",
            Self::Commands => "commands of a player that sent too many",
            Self::WrongOpenIds => {
                "join codes of a network that had named too many wrong ones; somebody may be guessing"
            }
            Self::Introductions => "introductions to a host that had too many askers",
            Self::UnconfirmedConnects => {
                "`connect` of a network whose players' UDP comes from elsewhere than their connection"
            }
            Self::AddressChanges => "changes of the address of a player that changed it too often",
            Self::RelaysPerIp => "relays of a network that had its share of them",
            Self::Relays => {
                "relays, because all ports of NORAY_UDP_RELAY_PORTS were in use; widen that, and the firewalls"
            }
            Self::Requests => {
                "requests for metrics, health or status, because too many came at once"
            }
            Self::UnknownAnswers => {
                "answers of the registrar to datagrams that are no known PrivateID"
            }
        }
    }
}

impl DropReason {
    /// What the operator should know.
    pub fn help(self) -> DropHelp {
        let (meaning, remedy) = words(self);
        DropHelp { meaning, remedy }
    }
}

fn words(reason: DropReason) -> (&'static str, Option<&'static str>) {
    match reason {
        DropReason::NoPair => {
            ("the port carries no pair: stray datagrams of a game that is over, or scanners", None)
        }
        DropReason::InvalidSource => (
            "a source that no player can have, such as port 0 or one of the server's own sockets",
            None,
        ),
        DropReason::WrongIp => (
            "from another IP than the partner's",
            Some("if players use carriers with several IPs, set NORAY_UDP_RELAY_LATCHING=any"),
        ),
        DropReason::WrongPort => (
            "the partner's IP, but another port while the one in place is in use; for up to 2 s after a router changed its \
             mapping",
            None,
        ),
        DropReason::Unconfirmed => (
            "the UDP of neither player comes from the IP of its connection, so both addresses may be forged",
            Some("if they are honest, set NORAY_UDP_RELAY_LATCHING=any"),
        ),
        DropReason::ReceiverUnheard => (
            "the receiver has not sent anything yet and has got its 64 KiB, or did not send within 30 s",
            None,
        ),
        DropReason::SilentHost => (
            "the host has not answered for 3 s, and its askers send more than 64 kB/s together",
            None,
        ),
        DropReason::HostBandwidth => (
            "the host has more than 16 pairs, and their askers send more together than 16 times \
             NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC",
            Some("raise that if your game sends so much"),
        ),
        DropReason::ReceiverSilent => {
            ("the receiver has been silent for NORAY_UDP_RELAY_TIMEOUT", None)
        }
        DropReason::PairBandwidth => (
            "one direction of a pair is over NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC",
            Some("raise that, or let the game send less"),
        ),
        DropReason::GlobalBandwidth => (
            "all relays together are over NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC",
            Some("raise that if the machine's line carries more"),
        ),
        DropReason::LifetimeDuration => (
            "the pair is older than NORAY_UDP_RELAY_MAX_LIFETIME_DURATION; a new connect-relay opens a new relay",
            Some("raise that if games last longer"),
        ),
        DropReason::LifetimeTraffic => (
            "the pair has carried NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC; a new connect-relay opens a new relay",
            Some("raise that if games carry more"),
        ),
        DropReason::SendBufferFull => (
            "the kernel's buffer was full: the machine's line is too slow",
            Some("a server with a faster line, or several servers"),
        ),
        DropReason::TooLarge => (
            "the datagram is larger than the receiver's IP version takes: over 65,507 bytes for IPv4",
            Some("let the game send smaller datagrams"),
        ),
        DropReason::SendFailed => (
            "the kernel refused to send: no route or a firewall",
            Some("the log says which, once a minute; open the firewall for outgoing UDP"),
        ),
    }
}
