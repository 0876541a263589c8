//! Reads no file and no environment: text as given becomes a [`Config`], typed and checked, or every mistake at
//! once with its place.

mod file;
mod keys;
mod reload;
pub mod units;

use std::fmt::{self, Write};
use std::net::SocketAddr;

use log::LevelFilter;

use crate::core::Settings;
use crate::core::id::{IdScheme, OpenIdScheme};
use crate::core::relay::RelaySettings;
use crate::label::labels;
use crate::limits::relay::RelayLimits;

pub use keys::{Config, KEYS, Key, TakesEffect};
pub use reload::{Change, Reload};

/// The fewest random bits that a PrivateID may have: fewer could be guessed over the network.
const MIN_PRIVATE_ID_BITS: f64 = 64.0;

labels! {
    /// Which log lines are written: those of this level and of all levels above it.
    pub enum LogLevel {
        /// No lines.
        Silent = "silent",
        /// The same as [`Self::Error`]; the existing server has both.
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

impl Config {
    /// Where players connect.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.socket_host, self.socket_port)
    }

    /// Where metrics and health are served.
    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.http_host, self.http_port)
    }

    /// Where players register their external address.
    pub fn registrar_address(&self) -> SocketAddr {
        SocketAddr::new(self.udp_host, self.registrar_port)
    }

    /// What the core is told.
    pub fn settings(&self) -> Settings {
        Settings {
            id_scheme: self.id_scheme(),
            relay: self.relay_settings(),
            sweep_interval: self.relay_cleanup_interval.0,
            drain_timeout: self.drain_timeout.0,
        }
    }

    /// What of the relays can be set.
    pub fn relay_settings(&self) -> RelaySettings {
        let limits = RelayLimits {
            pair_rate: self.relay_max_individual_traffic.0,
            global_rate: self.relay_max_global_traffic.0,
            burst: self.relay_traffic_interval.0,
            lifetime: self.relay_max_lifetime_duration.0,
            lifetime_traffic: self.relay_max_lifetime_traffic.0,
            idle_timeout: self.relay_timeout.0,
            max_per_network: self.relay_max_per_ip,
        };
        RelaySettings { limits, latching: self.relay_latching }
    }

    /// How the players' ids look.
    pub fn id_scheme(&self) -> IdScheme {
        let prefix = self.oid_prefix.clone();
        let open = if self.enable_words_oid {
            OpenIdScheme::words(prefix, self.words_oid_length)
        } else {
            OpenIdScheme::characters(prefix, self.oid_charset.clone(), self.oid_length)
        };
        IdScheme {
            open,
            private_alphabet: self.pid_charset.clone(),
            private_length: self.pid_length,
        }
    }

    /// What is wrong with values taken together: their keys, the one to blame first, and why.
    fn contradictions(&self) -> Vec<([&'static str; 2], String)> {
        let mut found = Vec::new();
        if self.relay_ports.contains(self.registrar_port) {
            let keys = ["NORAY_UDP_RELAY_PORTS", "NORAY_UDP_REGISTRAR_PORT"];
            found.push((keys, format!("holds {}, which is {}", self.registrar_port, keys[1])));
        }
        if self.relay_ports.as_slice().len() < 2 {
            let what = "a relay needs two ports, name at least two".to_owned();
            found.push((["NORAY_UDP_RELAY_PORTS"; 2], what));
        }
        let do_hosts_overlap = self.http_host == self.socket_host
            || self.http_host.is_unspecified()
            || self.socket_host.is_unspecified();
        if self.http_port == self.socket_port && self.http_port != 0 && do_hosts_overlap {
            let keys = ["NORAY_HTTP_PORT", "NORAY_SOCKET_PORT"];
            found.push((keys, format!("{} is {} already", self.http_port, keys[1])));
        }
        let characters = self.pid_charset.to_string().len();
        let bits = self.pid_length as f64 * (characters as f64).log2();
        if bits < MIN_PRIVATE_ID_BITS {
            let what = format!(
                "{} characters out of {characters} are {bits:.0} bits and could be guessed, \
                 at least {MIN_PRIVATE_ID_BITS} are needed",
                self.pid_length
            );
            found.push((["NORAY_PID_LENGTH", "NORAY_PID_CHARSET"], what));
        }
        found
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

/// Where a value came from; later ones win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A line of the configuration file.
    File {
        /// The file's name, as given.
        name: String,
        /// The line's number, from 1.
        line: usize,
    },
    /// The process's environment.
    Environment,
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment => f.write_str("environment"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong: `place: KEY: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands.
    pub origin: Origin,
    /// The key, or what stands in its place.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl fmt::Display for Mistake {
    /// One line, whatever was in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}: {}: {}", self.origin, self.key, self.what);
        text.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// One `KEY=value`, wherever it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    origin: Origin,
    key: String,
    value: String,
}

/// What was given in each place, as it was given.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file's name and content.
    pub file: Option<(String, Vec<u8>)>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// `KEY=value` of each `--set`.
    pub command_line: Vec<String>,
}

/// A checked configuration, with the origin of each value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    origins: Vec<Origin>,
}

impl Effective {
    /// Reads all sources: the command line wins over the environment over the file over the defaults. An empty
    /// value counts as not set; on the command line it brings the default back.
    ///
    /// # Errors
    /// Every mistake in all of them.
    pub fn read(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut assignments = Vec::new();
        if let Some((name, content)) = &sources.file {
            file::read(name, content, &mut assignments, &mut mistakes);
        }
        for (key, value) in &sources.environment {
            if key.starts_with("NORAY_") && !is_set_by_orchestrator(key) {
                let (key, value) = (key.clone(), value.clone());
                assignments.push(Assignment { origin: Origin::Environment, key, value });
            }
        }
        for text in &sources.command_line {
            let origin = Origin::CommandLine;
            match file::split(text) {
                Ok((key, value)) => {
                    let (key, value) = (key.to_owned(), value.to_owned());
                    assignments.push(Assignment { origin, key, value });
                }
                Err(what) => mistakes.push(Mistake { origin, key: format!("--set {text}"), what }),
            }
        }
        let mut effective =
            Self { config: Config::default(), origins: vec![Origin::Default; KEYS.len()] };
        for assignment in assignments {
            if let Err(mistake) = effective.apply(assignment) {
                mistakes.push(mistake);
            }
        }
        for (keys, what) in effective.config.contradictions() {
            // What a mistaken value would have been is not known.
            if mistakes.iter().all(|mistake| !keys.contains(&mistake.key.as_str())) {
                let [key, ..] = keys;
                let index = KEYS.iter().position(|known| known.name == key).expect("a known key");
                let origin = effective.origins[index].clone();
                mistakes.push(Mistake { origin, key: key.to_owned(), what });
            }
        }
        if mistakes.is_empty() { Ok(effective) } else { Err(mistakes) }
    }

    fn apply(&mut self, assignment: Assignment) -> Result<(), Mistake> {
        let Assignment { origin, key, value } = assignment;
        let Some(index) = KEYS.iter().position(|known| known.name == key) else {
            let what = format!("unknown key, did you mean {}?", keys::nearest(&key));
            return Err(Mistake { origin, key, what });
        };
        let value = match (value.as_str(), &origin) {
            ("", Origin::CommandLine) => KEYS[index].default,
            ("", _) => return Ok(()),
            (value, _) => value,
        };
        match (KEYS[index].set)(&mut self.config, value) {
            Ok(()) => {
                self.origins[index] = origin;
                Ok(())
            }
            Err(what) => Err(Mistake { origin, key, what }),
        }
    }

    /// How many values were set, and not left at their defaults.
    pub fn set_values(&self) -> usize {
        self.origins.iter().filter(|origin| **origin != Origin::Default).count()
    }
}

impl fmt::Display for Effective {
    /// As a configuration file, with the origin of each value behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, origin) in KEYS.iter().zip(&self.origins) {
            writeln!(f, "{}={} # {origin}", key.name, file::quote(&(key.show)(&self.config)))?;
        }
        Ok(())
    }
}

/// Whether a container orchestrator sets this variable for a service that is called noray: such variables name
/// the service's addresses and are no settings.
fn is_set_by_orchestrator(variable: &str) -> bool {
    variable == "NORAY_PORT"
        || variable.starts_with("NORAY_PORT_")
        || variable.starts_with("NORAY_SERVICE_")
}

#[cfg(test)]
mod tests;
