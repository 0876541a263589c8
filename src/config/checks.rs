//! Values that are right by themselves and wrong or doubtful together, or for a game.

use crate::config::Config;
use crate::config::units::ByteSize;
use crate::limits::network::is_public;

/// The fewest random bits that a PrivateID may have. Fewer could be guessed over the network.
const MIN_PRIVATE_ID_BITS: f64 = 64.0;

/// What a small game sends to each player, in bytes a second: 30 datagrams of 240 bytes, with their headers.
const GAME_RATE: ByteSize = ByteSize(8 << 10);

/// OpenIDs below this length are soon used up, and any code that somebody types is another game's.
const SHORT_OPEN_ID: usize = 3;

impl Config {
    /// Values that cannot be in force together: the two keys, and what is wrong.
    pub(super) fn contradictions(&self) -> Vec<([&'static str; 2], String)> {
        let mut found = Vec::new();
        if self.relay_ports.contains(self.registrar_port) {
            let keys = ["NORAY_UDP_RELAY_PORTS", "NORAY_UDP_REGISTRAR_PORT"];
            found.push((keys, both(self.registrar_port, keys)));
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
            found.push((keys, both(self.http_port, keys)));
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

    /// Values that can be in force and are hardly meant: the key, and why.
    pub(super) fn doubts(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let http = self.http_address();
        if http.ip().is_unspecified() || is_public(http.ip()) {
            let what = format!(
                "everybody who reaches {http} can read the metrics and the status, which has players' addresses: use 127.0.0.1, or close port {} in the firewall \
                 to all but your monitoring",
                http.port()
            );
            found.push(("NORAY_HTTP_HOST", what));
        }
        for (key, rate) in [
            ("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC", self.relay_max_individual_traffic),
            ("NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC", self.relay_max_global_traffic),
        ] {
            if rate < GAME_RATE {
                let what = format!(
                    "{rate} a second is less than a game needs ({GAME_RATE} for each player of a small one), \
                     datagrams will be dropped"
                );
                found.push((key, what));
            }
        }
        if self.oid_length < SHORT_OPEN_ID && !self.enable_words_oid {
            let codes = self.oid_charset.to_string().len().pow(self.oid_length as u32);
            let what = format!(
                "there are only {codes} such codes, and whoever guesses one meets a stranger's game; use at least \
                 {SHORT_OPEN_ID} characters"
            );
            found.push(("NORAY_OID_LENGTH", what));
        }
        found
    }
}

fn both(port: u16, [one, other]: [&str; 2]) -> String {
    format!("port {port} is in both {one} and {other}")
}
