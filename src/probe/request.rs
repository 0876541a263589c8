//! The command line of `noray probe`.

use argh::FromArgs;
use noray::config::units::PortList;

use crate::target::{Target, port};

/// The port that is probed if none is named: the default of `NORAY_SOCKET_PORT`.
pub(super) const DEFAULT_PORT: u16 = 8890;

/// Play a host and a client against a noray server, from another machine than the server's own, and say for each hop
/// what was seen and what helps. Exit status: 0 if a game would work, 1 if not.
#[derive(Clone, Debug, FromArgs)]
#[argh(subcommand, name = "probe", help_triggers("-h", "--help", "help"))]
pub(crate) struct Request {
    /// the server: a name, an IPv4 or an IPv6 address, with its TCP port if that is not 8890; an IPv6
    /// address that has a port stands in brackets
    #[argh(positional, arg_name = "host[:port]", from_str_fn(target))]
    pub(super) target: Target,
    /// the server's NORAY_UDP_REGISTRAR_PORT (default: 8809)
    #[argh(option, arg_name = "port", default = "8809", from_str_fn(port))]
    pub(super) registrar_port: u16,
    /// the server's NORAY_UDP_RELAY_PORTS (default: 49152-51200)
    #[argh(option, arg_name = "ports", default = "(49_152..=51_200).collect()")]
    pub(super) relay_ports: PortList,
    /// print JSON, at the end
    #[argh(switch)]
    pub(super) json: bool,
}

fn target(text: &str) -> Result<Target, String> {
    Target::parse(text, DEFAULT_PORT)
}
