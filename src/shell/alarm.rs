//! The alarm: a timer that mio reports when the loop's next deadline comes.
//!
//! It is set only when the deadline changes, about once a second. A time limit on every wait would also work, but it costs
//! 2 % of a relayed datagram.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::time::Timestamp;

/// A timer of the kernel. It goes off once each time that it is set.
pub(crate) struct Alarm {
    timer: OwnedFd,
    /// When it goes off, if it is set.
    due: Option<Timestamp>,
}

impl Alarm {
    /// Makes mio report the alarm as `token`.
    ///
    /// # Errors
    /// If the kernel has no descriptor or memory left.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, due: None })
    }

    /// Sets the alarm to go off at `due`, which comes after `left`. `left` must not be zero: that would stop the timer.
    ///
    /// # Errors
    /// If the kernel refuses the time, which would be a mistake in this program.
    pub(crate) fn set(&mut self, due: Timestamp, left: Duration) -> io::Result<()> {
        debug_assert!(!left.is_zero());
        if self.due == Some(due) {
            return Ok(());
        }
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let time = Itimerspec { it_interval: once, it_value: left };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        self.due = Some(due);
        Ok(())
    }

    /// Records that mio reported the alarm. It must be set again, even for the same time.
    pub(crate) fn handle_ring(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn it_goes_off_each_time_that_it_is_set() {
        const TOKEN: Token = Token(7);
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(4));
        let mut alarm = Alarm::new(poll.registry(), TOKEN).unwrap();
        let left = Duration::from_millis(1);
        // The second deadline is the same as the first, as happens after the process stood still.
        for due in [Timestamp::START, Timestamp::START, Timestamp::START + left] {
            alarm.set(due, left).unwrap();
            poll.poll(&mut events, None).unwrap();
            assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [TOKEN]);
            alarm.handle_ring();
        }
    }
}
