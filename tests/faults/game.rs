//! Does no harm: a game in progress on the real binary, and what can be seen of the process from outside.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::ignore;
use crate::support::process::Process;
use crate::support::{PATIENCE, Player, connect_relay, metric, own_ip, try_until};

/// Where metrics and health are served in these tests.
pub(crate) const HTTP_PORT: u16 = 20_100;

/// How often each player of a [`Match`] sends.
const TICK: Duration = Duration::from_millis(10);

/// The real binary, which serves metrics and health at [`HTTP_PORT`].
pub(crate) struct Noray {
    pub(crate) process: Process,
    ip: IpAddr,
}

impl Noray {
    /// Runs `sh -c "$script; exec noray .."`.
    pub(crate) fn start(script: &str, settings: &[&str]) -> Self {
        let ip = own_ip();
        let http = format!("NORAY_HTTP_PORT={HTTP_PORT}");
        let settings: Vec<&str> = settings.iter().copied().chain([http.as_str()]).collect();
        Self { process: Process::start(ip, script, &settings), ip }
    }

    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, HTTP_PORT)
    }

    /// The value of a metric, by its name with labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        metric(self.http(), name)
    }

    /// Waits until a metric has that value.
    pub(crate) fn wait_for(&self, name: &str, value: u64) {
        assert!(try_until(PATIENCE, || self.metric(name) == value), "{name} is not {value}");
    }

    /// What is below that path of the process in /proc.
    pub(crate) fn proc(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{path}", self.process.child.id()))
    }

    /// How many descriptors it has open, or threads, by the folder's name in /proc.
    pub(crate) fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.proc(folder)).expect("the process is there").count()
    }

    /// All that was logged until now, which is not read again. Only for levels at which a reload is logged.
    pub(crate) fn log(&mut self) -> String {
        self.process.signal("HUP");
        self.process.log_until("the same as before")
    }
}

/// Two players with a relay, and where each reaches the other.
pub(crate) struct Pair {
    pub(crate) players: [Player; 2],
    pub(crate) ways: [SocketAddr; 2],
}

impl Pair {
    pub(crate) fn join(process: &Process) -> Self {
        Self::introduce([process.join(), process.join()], process.registrar.ip())
    }

    /// Two players of the server at `ip` get a relay.
    pub(crate) fn introduce(mut players: [Player; 2], ip: IpAddr) -> Self {
        let [client, host] = &mut players;
        let (hosts, clients) = connect_relay(client, host);
        Self { players, ways: [hosts, clients].map(|port| SocketAddr::new(ip, port)) }
    }

    /// A datagram each way arrives.
    pub(crate) fn play(&self) {
        let [client, host] = &self.players;
        client.send(b"ping", self.ways[0]);
        assert_eq!(host.receive(), (b"ping".to_vec(), self.ways[1]));
        host.send(b"pong", self.ways[1]);
        assert_eq!(client.receive(), (b"pong".to_vec(), self.ways[0]));
    }

    /// Both are still connected, and heard.
    pub(crate) fn settle(&mut self) {
        self.players.iter_mut().for_each(|player| player.line.settle());
    }
}

/// A pair that plays in a thread of its own. Not one datagram may be lost.
pub(crate) struct Match {
    rounds: Arc<AtomicU64>,
    stop: SyncSender<()>,
    thread: JoinHandle<Pair>,
}

impl Match {
    pub(crate) fn begin(process: &Process) -> Self {
        Self::go_on(Pair::join(process))
    }

    pub(crate) fn go_on(pair: Pair) -> Self {
        let rounds = Arc::new(AtomicU64::new(0));
        let (stop, is_stopped) = sync_channel(1);
        let counter = Arc::clone(&rounds);
        let thread = thread::spawn(move || {
            while is_stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                pair.play();
                counter.fetch_add(1, Ordering::Relaxed);
            }
            pair
        });
        Self { rounds, stop, thread }
    }

    /// Rounds that begin after this call are played to their end.
    pub(crate) fn goes_on(&self) {
        let begin = self.rounds();
        let has_gone_on = try_until(PATIENCE, || {
            thread::yield_now();
            self.rounds() > begin + 1
        });
        assert!(has_gone_on, "the relay stands still");
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Ends it; nothing was lost.
    pub(crate) fn end(self) -> Pair {
        self.goes_on();
        // Fails if the thread has panicked, which `join` tells.
        let _ = self.stop.send(());
        self.thread.join().expect("every datagram arrived")
    }
}

/// Where the program cannot be run with these arguments, the test is ignored.
pub(crate) fn need(program: &str, arguments: &[&str], package: &str) {
    let reason = match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("{error} (Debian's package {package})"),
    };
    ignore(format!("{program} does not run: {reason}"));
}
