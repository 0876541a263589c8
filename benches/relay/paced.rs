//! The load of the kernel's bench: one thread sends and sleeps, another waits for what arrives, so that the machine's idle
//! time is a measure.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time, and this one sleeps")]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::load::{BURST, Frame, Rate, STRAGGLERS};
use crate::subject::{Flow, PlayerSocket};

/// What one round showed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Round {
    pub(crate) delivered: u64,
    pub(crate) loss_percent: f64,
    pub(crate) delivered_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Processor time of the whole machine.
    pub(crate) busy_us: f64,
}

const PAYLOAD: usize = 200;

/// The sender sleeps so long between its bursts.
const PACE: Duration = Duration::from_micros(200);

/// How busy all processors are now, without a load, in percent. On a machine that others keep busy, no processor time can
/// be told from theirs.
pub(crate) fn busy_percent() -> f64 {
    let (idle_before, start) = (idle_us(), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let all = start.elapsed().as_secs_f64() * 1e6 * processors() as f64;
    100.0 * (1.0 - (idle_us() - idle_before) / all).max(0.0)
}

/// Sends for `duration` and takes the time of what arrives.
pub(crate) fn run(
    sockets: &[PlayerSocket],
    flows: &[Flow],
    rate: Rate,
    duration: Duration,
) -> Round {
    let is_over = AtomicBool::new(false);
    let idle_before = idle_us();
    let start = Instant::now();
    let (sent, delays) = thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(sockets, start, &is_over));
        let sent = send(sockets, flows, rate, start, duration);
        is_over.store(true, Ordering::Relaxed);
        (sent, receiver.join().expect("it does not panic"))
    });
    let elapsed = start.elapsed();
    let processors = processors() as f64;
    let busy_us = elapsed.as_secs_f64() * 1e6 * processors - (idle_us() - idle_before);
    figures(sent, delays, duration, busy_us)
}

fn send(
    sockets: &[PlayerSocket],
    flows: &[Flow],
    rate: Rate,
    start: Instant,
    duration: Duration,
) -> u64 {
    let mut frame = Frame::new(PAYLOAD);
    let mut sent = 0;
    while start.elapsed() < duration {
        let due = match rate {
            Rate::PerSecond(rate) => (start.elapsed().as_secs_f64() * rate as f64) as u64,
            Rate::Saturation => sent + BURST,
        };
        while sent < due {
            let flow = &flows[sent as usize % flows.len()];
            // What does not leave is lost.
            let _ = sockets[flow.from].udp.send_to(frame.stamped(flow, start), flow.to);
            sent += 1;
        }
        if rate != Rate::Saturation {
            thread::sleep(PACE);
        }
    }
    sent
}

/// The delays in nanoseconds.
fn receive(sockets: &[PlayerSocket], start: Instant, is_over: &AtomicBool) -> Vec<u64> {
    let mut poll = Poll::new().expect("epoll");
    for (index, socket) in sockets.iter().enumerate() {
        socket.discard();
        let fd = socket.udp.as_raw_fd();
        let registry = poll.registry();
        registry
            .register(&mut SourceFd(&fd), Token(index), Interest::READABLE)
            .expect("epoll takes it");
    }
    let (mut events, mut buffer, mut delays) = (Events::with_capacity(1024), [0; 2048], Vec::new());
    loop {
        poll.poll(&mut events, Some(STRAGGLERS)).expect("epoll waits");
        for event in &events {
            let socket = &sockets[event.token().0];
            while let Ok(length) = socket.udp.recv(&mut buffer) {
                let payload = &buffer[socket.header..length];
                let sent = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
                delays.push((start.elapsed().as_nanos() as u64).saturating_sub(sent));
            }
        }
        if events.is_empty() && is_over.load(Ordering::Relaxed) {
            return delays;
        }
    }
}

fn figures(sent: u64, mut delays: Vec<u64>, duration: Duration, busy_us: f64) -> Round {
    delays.sort_unstable();
    let delivered = delays.len();
    if delivered == 0 {
        return Round { loss_percent: 100.0, busy_us, ..Round::default() };
    }
    let per_mille = |share: usize| delays[(delivered - 1) * share / 1000] as f64 / 1000.0;
    Round {
        delivered: delivered as u64,
        loss_percent: 100.0 * (sent as f64 - delivered as f64) / sent as f64,
        delivered_per_second: delivered as f64 / duration.as_secs_f64(),
        p50_us: per_mille(500),
        p99_us: per_mille(990),
        p999_us: per_mille(999),
        busy_us,
    }
}

fn processors() -> usize {
    let text = std::fs::read_to_string("/proc/stat").expect("the kernel tells it");
    text.lines().filter(|line| line.starts_with("cpu")).count() - 1
}

/// The idle time of all processors since the machine's start, in microseconds; known to 10 ms each.
fn idle_us() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("the kernel tells it");
    let line = text.lines().next().expect("all processors");
    let numbers: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
    // Idle, and idle while a disk works; in hundredths of a second.
    (numbers[3] + numbers[4]) * 10_000.0
}
