//! The players' side: sends at a rate, receives, and takes the time of every datagram.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::subject::{Flow, Subject};

/// How fast the players send, all together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    PerSecond(u64),
    /// As fast as one thread can that also receives.
    Saturation,
}

impl Rate {
    pub(crate) fn name(self) -> String {
        match self {
            Self::PerSecond(rate) => format!("{rate}/s"),
            Self::Saturation => "saturation".to_owned(),
        }
    }
}

/// One round of traffic.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate: Rate,
    pub(crate) payload: usize,
    pub(crate) duration: Duration,
}

/// What one round showed.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) delivered_per_second: f64,
    pub(crate) loss_percent: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Processor time of the relay per datagram that it delivered.
    pub(crate) cpu_us: f64,
    pub(crate) resident_kb: f64,
}

/// How many datagrams are sent between two looks at the receiving side.
pub(crate) const BURST: u64 = 16;

/// After how long without a datagram the rest is lost.
pub(crate) const STRAGGLERS: Duration = Duration::from_millis(20);

/// What a TURN channel puts in front of a payload: its number and the length.
const CHANNEL_HEADER: usize = 4;

/// A datagram of the load: a payload that begins with the time, and room for a channel's header before it.
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    pub(crate) fn new(payload: usize) -> Self {
        let mut bytes = vec![0; CHANNEL_HEADER + payload];
        bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
        Self(bytes)
    }

    /// What is sent along this flow now, with the time since `start`.
    pub(crate) fn stamped(&mut self, flow: &Flow, start: Instant) -> &[u8] {
        let now = start.elapsed().as_nanos() as u64;
        self.0[CHANNEL_HEADER..][..8].copy_from_slice(&now.to_le_bytes());
        let Some(number) = flow.channel else { return &self.0[CHANNEL_HEADER..] };
        self.0[..2].copy_from_slice(&number.to_be_bytes());
        &self.0
    }
}

impl Load {
    /// What a round shows. One in which nothing arrives is repeated once: a virtual machine can stand still as long.
    pub(crate) fn run(&self, subject: &Subject) -> Figures {
        let figures = self.run_once(subject).or_else(|| self.run_once(subject));
        figures.unwrap_or_else(|| panic!("{} delivered nothing", subject.name))
    }

    fn run_once(&self, subject: &Subject) -> Option<Figures> {
        let mut receiver = Receiver::new(subject);
        let mut frame = Frame::new(self.payload);
        let cpu_before = subject.process.cpu_us();
        let start = Instant::now();
        let mut sent = 0;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= self.duration {
                break;
            }
            let due = match self.rate {
                Rate::PerSecond(rate) => {
                    (elapsed.as_nanos() * u128::from(rate) / 1_000_000_000) as u64
                }
                Rate::Saturation => sent + BURST,
            };
            for _ in 0..BURST.min(due.saturating_sub(sent)) {
                let flow = &subject.flows[sent as usize % subject.flows.len()];
                let socket = &subject.sockets[flow.from].udp;
                sent += u64::from(socket.send_to(frame.stamped(flow, start), flow.to).is_ok());
            }
            receiver.drain(start, Duration::ZERO);
        }
        let elapsed = start.elapsed();
        while receiver.drain(start, STRAGGLERS) {}
        let cpu = subject.process.cpu_us() - cpu_before;
        receiver.figures(sent, elapsed, cpu)
    }
}

struct Receiver<'a> {
    subject: &'a Subject,
    poll: Poll,
    events: Events,
    latencies: Vec<u64>,
}

impl<'a> Receiver<'a> {
    fn new(subject: &'a Subject) -> Self {
        let poll = Poll::new().expect("epoll");
        for (index, socket) in subject.sockets.iter().enumerate() {
            socket.discard();
            let fd = socket.udp.as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), Token(index), Interest::READABLE)
                .expect("epoll takes it");
        }
        Self { subject, poll, events: Events::with_capacity(1024), latencies: Vec::new() }
    }

    /// Receives what is there, waiting for it for at most `patience`; whether anything was.
    fn drain(&mut self, start: Instant, patience: Duration) -> bool {
        self.poll.poll(&mut self.events, Some(patience)).expect("epoll waits");
        let mut buffer = [0; 2048];
        for event in &self.events {
            let socket = &self.subject.sockets[event.token().0];
            while let Ok(length) = socket.udp.recv(&mut buffer) {
                let payload = &buffer[socket.header..length];
                let sent = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
                self.latencies.push(start.elapsed().as_nanos() as u64 - sent);
            }
        }
        !self.events.is_empty()
    }

    fn figures(mut self, sent: u64, elapsed: Duration, cpu_us: f64) -> Option<Figures> {
        self.latencies.sort_unstable();
        let delivered = self.latencies.len();
        if delivered == 0 {
            return None;
        }
        let per_mille =
            |share: usize| self.latencies[(delivered - 1) * share / 1000] as f64 / 1000.0;
        Some(Figures {
            delivered_per_second: delivered as f64 / elapsed.as_secs_f64(),
            loss_percent: 100.0 * (sent as f64 - delivered as f64) / sent as f64,
            p50_us: per_mille(500),
            p99_us: per_mille(990),
            p999_us: per_mille(999),
            cpu_us: cpu_us / delivered as f64,
            resident_kb: self.subject.process.resident_kb(),
        })
    }
}
