//! Understands no event: waits for sockets, for other threads, and for a point in time.
//!
//! epoll, level-triggered: a socket is reported as long as it has something, so nobody reads once more only to find
//! it empty, which would be one system call of four for a datagram that comes alone. The kernel reports ready sockets
//! in turn, also when there are more than fit. The time to wake is set in a timer of its own and only when it
//! changes: a time limit on every wait costs 2 % of a datagram.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::time::Timestamp;

/// How many sockets are reported at once.
pub const MAX_READY: usize = 64;

/// What a reported socket was added with.
pub type Token = u64;

/// Tokens of the poller's own.
const WAKER: Token = Token::MAX;
const TIMER: Token = Token::MAX - 1;

/// Waits for whatever comes first.
pub struct Poller {
    epoll: Epoll,
    events: [EpollEvent; MAX_READY],
    /// How many of them the last wait brought.
    count: usize,
    wakeup: Arc<Wakeup>,
    timer: TimerFd,
    /// When the timer goes off, if it is set.
    alarm: Option<Timestamp>,
}

/// Wakes a [`Poller`] from another thread.
#[derive(Clone)]
pub struct Waker(Arc<Wakeup>);

struct Wakeup {
    event: EventFd,
    /// Whether the poller is going to wake anyhow.
    is_pending: AtomicBool,
}

impl Poller {
    /// # Errors
    /// If the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let poller = Self {
            epoll,
            events: [EpollEvent::empty(); MAX_READY],
            count: 0,
            wakeup: Arc::new(Wakeup { event, is_pending: AtomicBool::new(false) }),
            timer,
            alarm: None,
        };
        poller.add(&poller.wakeup.event, WAKER)?;
        poller.add(&poller.timer, TIMER)?;
        Ok(poller)
    }

    /// What wakes this poller.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wakeup))
    }

    /// Reports `socket` as `token` when it has something to read.
    ///
    /// # Errors
    /// If the kernel has no memory left.
    pub fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Looks what is ready, without waiting.
    ///
    /// # Errors
    /// If `epoll_wait` itself fails, which leaves nothing to go on with.
    pub fn look(&mut self) -> io::Result<()> {
        self.poll(EpollTimeout::ZERO)
    }

    /// Waits until something is ready, a waker wakes it, or `deadline` comes; it is `now`. May return early.
    ///
    /// # Errors
    /// If `epoll_wait` itself fails, which leaves nothing to go on with.
    pub fn wait(&mut self, deadline: Timestamp, now: Timestamp) -> io::Result<()> {
        let left = deadline.since(now);
        if left.is_zero() {
            return self.look();
        }
        if self.alarm != Some(deadline) {
            let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
            self.timer.set(expiration, TimerSetTimeFlags::empty())?;
            self.alarm = Some(deadline);
        }
        self.poll(EpollTimeout::NONE)
    }

    /// Waits for sockets only, for about `limit` at most.
    ///
    /// # Errors
    /// If `epoll_wait` itself fails.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<()> {
        let millis = limit.as_micros().div_ceil(1000);
        self.poll(EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX))
    }

    /// The tokens of the sockets that were ready.
    pub fn ready(&self) -> impl Iterator<Item = Token> + '_ {
        let tokens = self.events[..self.count].iter().map(EpollEvent::data);
        tokens.filter(|token| ![WAKER, TIMER].contains(token))
    }

    fn poll(&mut self, timeout: EpollTimeout) -> io::Result<()> {
        self.count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &self.events[..self.count] {
            match event.data() {
                WAKER => self.wakeup.take(),
                // It stays ready until it is set again.
                TIMER => self.alarm = None,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Waker {
    /// Whatever was done before is seen by the poller's thread after it woke.
    pub fn wake(&self) {
        if self.0.is_pending.swap(true, Ordering::AcqRel) {
            return;
        }
        // It fails only if it was written 2^64 - 2 times without being read.
        let _ = self.0.event.write(1);
    }
}

impl Wakeup {
    fn take(&self) {
        // In this order: a waker that comes in between writes nothing, and what it was for is handled in this turn.
        let _ = self.event.read();
        self.is_pending.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const FAR: Timestamp = Timestamp::from_nanos(u64::MAX / 4);

    fn ready(poller: &Poller) -> Vec<Token> {
        poller.ready().collect()
    }

    #[test]
    fn a_socket_is_reported_until_it_is_empty() {
        let mut poller = Poller::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        poller.add(&socket, 7).unwrap();
        poller.look().unwrap();
        assert!(ready(&poller).is_empty());
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        for _ in 0..2 {
            poller.wait(FAR, Timestamp::START).unwrap();
            assert_eq!(ready(&poller), [7]);
        }
        socket.recv(&mut [0; 8]).unwrap();
        poller.look().unwrap();
        assert!(ready(&poller).is_empty());
    }

    #[test]
    fn many_ready_sockets_have_their_turn() {
        let mut poller = Poller::new().unwrap();
        let sockets: Vec<UdpSocket> =
            (0..3 * MAX_READY).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for (token, socket) in (0..).zip(&sockets) {
            poller.add(socket, token).unwrap();
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        }
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            poller.look().unwrap();
            seen.extend(poller.ready());
        }
        assert_eq!(seen.len(), sockets.len(), "none of them was read");
    }

    #[test]
    fn a_waker_wakes_once_however_often_it_is_called() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        for _ in 0..2 {
            let waker = waker.clone();
            std::thread::spawn(move || (0..100).for_each(|_| waker.wake())).join().unwrap();
            poller.wait(FAR, Timestamp::START).unwrap();
            assert_eq!((poller.count, ready(&poller)), (1, vec![]));
            poller.look().unwrap();
            assert_eq!(poller.count, 0);
        }
    }

    #[test]
    fn the_timer_goes_off_at_each_deadline() {
        let mut poller = Poller::new().unwrap();
        let millis = |n| Timestamp::START + Duration::from_millis(n);
        poller.wait(FAR.min(millis(1)), Timestamp::START).unwrap();
        poller.wait(millis(2), millis(1)).unwrap();
        poller.wait(millis(2), millis(1)).unwrap();
        poller.wait(millis(1), millis(2)).unwrap();
    }
}
