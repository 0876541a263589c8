//! The ports that a new configuration has and this process has not. They are opened before anything changes, so that a port
//! that cannot be had is a reason to refuse.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use crate::config::Config;
use crate::core::relay::RelayPort;
use crate::shell::acceptor;
use crate::shell::sockets;

/// New sockets, in place of those of this process or beside them. `None` is for those that stay.
#[derive(Default)]
pub(crate) struct Openings {
    pub(crate) players: Option<TcpListener>,
    pub(crate) http: Option<TcpListener>,
    pub(crate) registrar: Option<UdpSocket>,
    pub(crate) relays: Vec<(RelayPort, UdpSocket)>,
}

impl Openings {
    /// Opens what `to` has and `from` has not. This process may have more relay ports than `from`: those `of_pairs` that were
    /// made when the range was another one.
    ///
    /// # Errors
    /// Which port cannot be had, and why.
    pub(crate) fn open(
        from: &Config,
        to: &Config,
        of_pairs: &BTreeSet<RelayPort>,
    ) -> Result<Self, String> {
        let mut openings = Self::default();
        if from.socket_address() != to.socket_address() {
            let listener = acceptor::listen_for_players(to.socket_address());
            openings.players =
                Some(listener.map_err(|error| taken(to.socket_address(), "tcp", &error))?);
        }
        if from.http_address() != to.http_address() {
            let listener = TcpListener::bind(to.http_address());
            openings.http =
                Some(listener.map_err(|error| taken(to.http_address(), "tcp", &error))?);
        }
        if from.registrar_port != to.registrar_port {
            let address = to.registrar_address();
            let socket = sockets::bind_registrar(address);
            openings.registrar = Some(socket.map_err(|error| taken(address, "udp", &error))?);
        }
        for port in to.relay_ports.as_slice() {
            if !from.relay_ports.contains(*port) && !of_pairs.contains(&RelayPort(*port)) {
                let address = SocketAddr::new(to.udp_host, *port);
                let socket =
                    sockets::bind_udp(address).map_err(|error| taken(address, "udp", &error))?;
                openings.relays.push((RelayPort(*port), socket));
            }
        }
        Ok(openings)
    }
}

fn taken(address: SocketAddr, protocol: impl Display, error: &io::Error) -> String {
    format!("{address}/{protocol} cannot be opened: {error}")
}
