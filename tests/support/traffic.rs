//! Traffic at constant rates, in real time.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::now;

/// Somebody who sends at a constant rate.
pub struct Stream<'a> {
    gap: Duration,
    next: Duration,
    end: Duration,
    send: Box<dyn FnMut(Duration) + 'a>,
}

/// Traffic of many, in real time.
pub struct Traffic<'a> {
    streams: Vec<Stream<'a>>,
    start: Instant,
}

/// How often the traffic looks which datagrams are due.
const TICK: Duration = Duration::from_millis(1);

impl<'a> Traffic<'a> {
    /// Nobody sends yet. Times count from now on.
    pub fn new() -> Self {
        Self { streams: Vec::new(), start: now() }
    }

    /// Calls `send` that often a second between two times.
    pub fn add(&mut self, per_second: f64, [from, end]: [f64; 2], send: impl FnMut(Duration) + 'a) {
        let [from, end] = [from, end].map(Duration::from_secs_f64);
        let gap = Duration::from_secs_f64(1.0 / per_second);
        self.streams.push(Stream { gap, next: from, end, send: Box::new(send) });
    }

    /// Lets all send until then.
    pub fn run(&mut self, end: f64) {
        let end = Duration::from_secs_f64(end);
        let ticks = crossbeam_channel::tick(TICK);
        loop {
            let elapsed = now() - self.start;
            for stream in &mut self.streams {
                while stream.next <= elapsed && stream.next < stream.end {
                    (stream.send)(elapsed);
                    stream.next += stream.gap;
                }
            }
            if elapsed >= end {
                return;
            }
            ticks.recv().expect("the ticker never ends");
        }
    }
}

/// Takes all that has arrived at a socket: the first bytes of each datagram, as a number of four bytes.
pub fn drain(socket: &UdpSocket, mut take: impl FnMut(u32)) {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        if let Some(number) = buffer[..length].first_chunk() {
            take(u32::from_be_bytes(*number));
        }
    }
}
