//! The real binary as a process, with what it logs.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::{Player, own_ip};

pub const NORAY: &str = env!("CARGO_BIN_EXE_noray");

/// A new folder, in which no noray.conf lies.
pub fn empty_folder() -> PathBuf {
    let name = own_ip().to_string();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A running process with the addresses that it logged, ended when it goes out of scope.
pub struct Process {
    pub child: Child,
    log: BufReader<ChildStderr>,
    /// What was logged until all ports were bound.
    pub start: String,
    pub players: SocketAddr,
    pub registrar: SocketAddr,
}

impl Process {
    /// Runs `sh -c "$script; exec noray .."` on an address of its own.
    pub fn start(ip: IpAddr, script: &str, settings: &[&str]) -> Self {
        let own = format!(
            "NORAY_SOCKET_HOST={ip} NORAY_UDP_HOST={ip} NORAY_HTTP_HOST={ip} NORAY_SOCKET_PORT=0 \
             NORAY_UDP_REGISTRAR_PORT=0 NORAY_HTTP_PORT=0 NORAY_UDP_RELAY_PORTS=20000-20063"
        );
        let arguments =
            own.split(' ').chain(settings.iter().copied()).flat_map(|key| ["--set", key]);
        let mut child = Command::new("sh")
            .args(["-c", &format!("{script}\nexec \"$@\""), "sh", NORAY])
            .args(arguments)
            .current_dir(empty_folder())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut start = String::new();
        while !start.contains("relays: ") {
            assert_ne!(log.read_line(&mut start).unwrap(), 0, "it ended:\n{start}");
        }
        let address = |name: &str, protocol: &str| {
            let (_, rest) = start.split_once(name).expect("the address is logged");
            rest.split_once(protocol).unwrap().0.parse().expect("an address")
        };
        let (players, registrar) = (address("players: ", "/tcp"), address("registrar: ", "/udp"));
        Self { child, log, start, players, registrar }
    }

    /// What was logged from here on until a line that contains `text`, which is the last.
    pub fn log_until(&mut self, text: &str) -> String {
        let mut lines = String::new();
        while !lines.lines().last().is_some_and(|line| line.contains(text)) {
            assert_ne!(
                self.log.read_line(&mut lines).unwrap(),
                0,
                "it ended without {text}:\n{lines}"
            );
        }
        lines
    }

    /// A player that has registered its address.
    pub fn join(&self) -> Player {
        let mut player =
            Player::register_at(self.players, self.registrar, Ipv4Addr::LOCALHOST.into());
        player.register_address();
        player
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end; the exit status and the rest of the log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process, ended when it goes out of scope.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command for a program that the kernel kills when the thread that spawns it ends, also by SIGKILL to the tests.
/// Otherwise it would survive.
pub fn ends_with_this_thread(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}
