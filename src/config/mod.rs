//! The configuration: it turns text into a checked [`Config`] with warnings, or into a list of mistakes with their
//! places.
//!
//! ```text
//! file --> file.rs: lines --+
//! environment --------------+--> keys.rs: each value is read --> checks.rs: all of them together --> Effective
//! --set --------------------+
//! ```
//!
//! [`KEYS`] is the table of all keys. A new key is a new field there, and a line in the README and in the example
//! file. This room reads no file and no environment: it gets the texts as arguments, and a function that reads the file
//! of blocked words.

mod blocked;
mod changes;
mod checks;
mod effective;
mod file;
mod keys;
mod names;
mod origin;
pub mod units;

use std::fmt;
use std::net::SocketAddr;

use log::LevelFilter;

use crate::core::id::{IdScheme, OpenIdScheme};
use crate::core::players::PlayersSettings;
use crate::core::relay::RelaySettings;
use crate::core::{IntroductionSettings, Settings};
use crate::label::labels;
use crate::limits::relay::{CROWD, RelayLimits};

pub use blocked::BlockedList;
pub use changes::{Change, ConfigChanges};
pub use effective::{Effective, Sources};
pub use keys::{Config, KEYS, Key, MAX_CONNECTIONS, PublicHost, TakesEffect};
pub use origin::{MAX_MISTAKES, Mistake, Mistakes, Origin};

labels! {
    /// The log level: lines of this level and of the more serious ones are written.
    pub enum LogLevel {
        /// No lines.
        Silent = "silent",
        /// The same as [`Self::Error`]. The existing server has both.
        Fatal = "fatal",
        /// What ends the server.
        Error = "error",
        /// What the operator must act on.
        Warn = "warn",
        /// Each step in a player's or relay's life.
        Info = "info",
        /// Players' mistakes.
        Debug = "debug",
        /// Single datagrams.
        Trace = "trace",
    }
}

labels! {
    /// Whether the kernel forwards established pairs by itself.
    pub enum KernelPath {
        /// All datagrams take the way through the sockets.
        Off = "off",
        /// The kernel does, if it can.
        Auto = "auto",
        /// The server does not start if the kernel cannot.
        Required = "required",
    }
}

/// Names of interfaces, joined by commas; none for all that are up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceNames(pub Vec<String>);

impl fmt::Display for InterfaceNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.join(","))
    }
}

impl Config {
    /// The address at which players connect.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.socket_host, self.socket_port)
    }

    /// The address at which metrics, health and status are served.
    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.http_host, self.http_port)
    }

    /// The address at which players register their external address.
    pub fn registrar_address(&self) -> SocketAddr {
        SocketAddr::new(self.udp_host, self.registrar_port)
    }

    /// The settings of the core.
    pub fn settings(&self) -> Settings {
        Settings {
            players: PlayersSettings {
                id_scheme: self.id_scheme(),
                resume_window: self.resume_window.0,
                max_connections: self.max_connections,
                max_per_network: self.max_connections_per_ip,
            },
            introductions: IntroductionSettings {
                relay_only: self.relay_only,
                public_host: self.public_host.0.clone(),
            },
            relay: self.relay_settings(),
            sweep_interval: self.relay_cleanup_interval.0,
            drain_timeout: self.drain_timeout.0,
        }
    }

    /// The settings of the relays.
    pub fn relay_settings(&self) -> RelaySettings {
        let limits = RelayLimits {
            pair_rate: self.relay_max_individual_traffic.0,
            global_rate: self.relay_max_global_traffic.0,
            burst: self.relay_traffic_interval.0,
            lifetime: self.relay_max_lifetime_duration.0,
            lifetime_traffic: self.relay_max_lifetime_traffic.0,
            idle_timeout: self.relay_timeout.0,
            max_per_network: self.relay_max_per_ip,
            crowd: CROWD,
        };
        RelaySettings { limits, latching: self.relay_latching }
    }

    /// How the ids of new players look.
    pub fn id_scheme(&self) -> IdScheme {
        let prefix = self.oid_prefix.clone();
        let open = if self.enable_words_oid {
            OpenIdScheme::words(prefix, self.words_oid_length)
        } else {
            OpenIdScheme::characters(prefix, self.oid_charset.clone(), self.oid_length)
        };
        IdScheme {
            open: open.without(self.oid_blocked.words.clone()),
            private_alphabet: self.pid_charset.clone(),
            private_length: self.pid_length,
        }
    }
}

impl LogLevel {
    /// The filter that the logger takes.
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Silent => LevelFilter::Off,
            Self::Fatal | Self::Error => LevelFilter::Error,
            Self::Warn => LevelFilter::Warn,
            Self::Info => LevelFilter::Info,
            Self::Debug => LevelFilter::Debug,
            Self::Trace => LevelFilter::Trace,
        }
    }
}

#[cfg(test)]
mod tests;
