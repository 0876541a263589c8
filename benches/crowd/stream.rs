//! A game that goes on meanwhile: one player sends steadily through the relay, and the other takes the time.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Fifty datagrams a second, as games send.
const INTERVAL: Duration = Duration::from_millis(20);

/// How long a datagram is waited for after the last was sent.
const STRAGGLERS: Duration = Duration::from_millis(500);

pub(crate) struct Stream {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

/// What became of the stream.
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) latencies: Latencies,
}

/// Times, in the order in which they are measured or sorted.
pub(crate) struct Latencies(pub(crate) Vec<Duration>);

impl Latencies {
    /// The time below which so many per cent lie, in milliseconds.
    pub(crate) fn percentile_ms(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1).expect("something was measured");
        self.0[last * percent / 100].as_secs_f64() * 1000.0
    }
}

impl Stream {
    /// Sends from `sender` to `to` until it is stopped; `receiver` hears it.
    pub(crate) fn start(sender: &UdpSocket, to: SocketAddr, receiver: &UdpSocket) -> Self {
        let sender = sender.try_clone().expect("a descriptor");
        let receiver = receiver.try_clone().expect("a descriptor");
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || run(&sender, to, &receiver, &end));
        Self { is_over, thread }
    }

    pub(crate) fn stop(self) -> Outcome {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

fn run(sender: &UdpSocket, to: SocketAddr, receiver: &UdpSocket, is_over: &AtomicBool) -> Outcome {
    receiver.set_nonblocking(false).expect("a socket");
    let start = Instant::now();
    let (mut sent, mut latencies) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let now = start.elapsed().as_nanos() as u64;
        sender.send_to(&now.to_le_bytes(), to).expect("loopback takes it");
        sent += 1;
        receive(receiver, start, start + INTERVAL * sent, &mut latencies);
    }
    receive(receiver, start, Instant::now() + STRAGGLERS, &mut latencies);
    Outcome { sent: sent.into(), latencies: Latencies(latencies) }
}

/// Takes the time of what comes until `deadline`.
fn receive(receiver: &UdpSocket, start: Instant, deadline: Instant, latencies: &mut Vec<Duration>) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        receiver.set_read_timeout(Some(left)).expect("a socket");
        let mut buffer = [0; 64];
        if let Ok(8) = receiver.recv(&mut buffer) {
            let sent = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes"));
            latencies.push(start.elapsed().saturating_sub(Duration::from_nanos(sent)));
        }
    }
}
