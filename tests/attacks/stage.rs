//! The real binary with its defaults, and many connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::ignore;
use crate::support::process::Process;
pub(crate) use crate::support::traffic::{Traffic, drain};
use crate::support::{Line, Player, metric, own_ip};

/// The real binary at the default ports, on an address of its own.
pub(crate) struct Noray {
    process: Process,
    ip: IpAddr,
}

const HTTP_PORT: u16 = 8891;

impl Noray {
    /// With the defaults, as far as `settings` do not differ.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let ip = own_ip();
        let defaults = ["NORAY_UDP_RELAY_PORTS=49152-51200", "NORAY_HTTP_PORT=8891"];
        let settings: Vec<&str> = defaults.iter().chain(settings).copied().collect();
        Self { process: Process::start(ip, "ulimit -Sn hard", &settings), ip }
    }

    /// Where players connect.
    pub(crate) fn players(&self) -> SocketAddr {
        self.process.players
    }

    /// Where they register their addresses.
    pub(crate) fn registrar(&self) -> SocketAddr {
        self.process.registrar
    }

    /// Where a relay port is reached.
    pub(crate) fn relay(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    /// The value of a metric, by its name with labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        metric(SocketAddr::new(self.ip, HTTP_PORT), name)
    }

    /// A player that has registered its address.
    pub(crate) fn join(&self, ip: IpAddr) -> Player {
        let mut player = Player::register_at(self.players(), self.registrar(), ip);
        player.register_address();
        player
    }

    /// As many registered connections from that IP as the server lets in, at most `wanted`.
    pub(crate) fn fill(&self, ip: IpAddr, wanted: usize) -> Vec<Line> {
        let attempts = std::iter::repeat_with(|| self.register(ip)).take(wanted);
        attempts.map_while(|line| line).collect()
    }

    /// A registered connection, unless it is refused.
    pub(crate) fn register(&self, ip: IpAddr) -> Option<Line> {
        let mut line = Line::connect_from(self.players(), ip);
        line.send("register-host");
        let answer = line.receive()?;
        if answer.starts_with("error server-full") {
            return None;
        }
        assert!(answer.starts_with("set-oid "), "{answer}");
        line.expect("set-pid");
        Some(line)
    }
}

/// Whoever needs many connections or sockets calls this first. Where the hard limit is lower, the test is ignored.
pub(crate) fn need_files(count: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    if hard < count {
        ignore(format!("it needs {count} open files, and the hard limit is {hard}"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
}

/// The `index`th IP that players come from. No other test's server has it.
pub(crate) fn ip(index: usize) -> IpAddr {
    let [.., high, low] = index.to_be_bytes();
    Ipv4Addr::new(127, 0, high, low).into()
}

pub(crate) fn report(attack: &str, outcome: &str) {
    println!("{attack:<80} {outcome}");
}
