//! What is measured: a relay in a process of its own, and the sockets of the players that it connects.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Child;

use socket2::SockRef;

/// A relay process and its players.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    pub(crate) sockets: Vec<PlayerSocket>,
    /// Two for each pair: to the client and to the host.
    pub(crate) flows: Vec<Flow>,
    /// The players' TCP connections: their ids live as long.
    pub(crate) _lines: Vec<TcpStream>,
}

/// A player's socket.
pub(crate) struct PlayerSocket {
    pub(crate) udp: UdpSocket,
    /// Bytes that the relay puts in front of what it brings.
    pub(crate) header: usize,
}

/// One player's way to another.
pub(crate) struct Flow {
    /// The number of the sender's socket.
    pub(crate) from: usize,
    /// The relay's address.
    pub(crate) to: SocketAddr,
    /// A TURN channel, whose number stands in front of each payload.
    pub(crate) channel: Option<u16>,
}

impl Subject {
    /// Processor time that all its threads have used, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanos: f64 = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
            .sum();
        nanos / 1000.0
    }

    /// Resident memory, in kilobytes.
    pub(crate) fn resident_kb(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl PlayerSocket {
    pub(crate) fn new(header: usize) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        SockRef::from(&udp).set_recv_buffer_size(1 << 20).expect("a socket");
        Self { udp, header }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.udp.local_addr().expect("it is bound")
    }

    /// Forgets what came late, and does not wait for more.
    pub(crate) fn discard(&self) {
        self.udp.set_nonblocking(true).expect("a socket");
        while self.udp.recv(&mut [0; 2048]).is_ok() {}
    }

    /// Sends `request` until something comes back; what it was.
    pub(crate) fn ask(&self, request: &[u8], to: SocketAddr) -> Vec<u8> {
        let patience = std::time::Duration::from_millis(200);
        self.udp.set_nonblocking(false).expect("a socket");
        self.udp.set_read_timeout(Some(patience)).expect("a socket");
        let mut answer = [0; 1024];
        for _ in 0..50 {
            self.udp.send_to(request, to).expect("loopback takes it");
            if let Ok(length) = self.udp.recv(&mut answer) {
                return answer[..length].to_vec();
            }
        }
        panic!("{to} does not answer");
    }
}
