//! One timer for all that the loop waits for, by the kernel's own (timerfd): to the moment, and with one wake-up. A runtime's timers go
//! off in steps of a millisecond, and one that is further off wakes the thread up before, to be sorted anew.

use std::{io, os::fd::OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::clock::monotonic_ns;

/// The timer.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// When it goes off, in nanoseconds of `CLOCK_MONOTONIC`.
    set_ns: u64,
}

impl Alarm {
    /// Makes it. To be called in a runtime.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn open() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor is open, and the same one, until it is dropped; it is never exchanged.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self { timer, set_ns: 0 })
    }

    /// Waits until then, in nanoseconds of `CLOCK_MONOTONIC`. Given up, it goes off all the same, and is set anew the next time.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub(crate) async fn wait(&mut self, until_ns: u64) -> io::Result<()> {
        while monotonic_ns() < until_ns {
            if self.set_ns != until_ns {
                let it_value = Timespec {
                    tv_sec: i64::try_from(until_ns / 1_000_000_000).unwrap_or(i64::MAX),
                    tv_nsec: (until_ns % 1_000_000_000) as _,
                };
                let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
                timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
                self.set_ns = until_ns;
            }
            // What went off may have been set for another moment. It is not read: setting it takes that back.
            self.timer.readable().await?.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHORT_NS: u64 = 3_000_000;

    #[tokio::test]
    async fn it_is_never_early_whatever_it_was_set_for_before() {
        let mut alarm = Alarm::open().unwrap();
        alarm.wait(0).await.unwrap();
        let begin = monotonic_ns();
        // Given up: one that would have come much later, one that goes off meanwhile, and one that went off.
        for (given_up_ns, waits) in [(begin + 3_600_000_000_000, 1), (begin + SHORT_NS / 2, 1), (begin + 1, 5)] {
            let _ = tokio::time::timeout(Duration::from_millis(waits), alarm.wait(given_up_ns)).await;
            let until = monotonic_ns() + SHORT_NS;
            alarm.wait(until).await.unwrap();
            assert!(monotonic_ns() >= until);
            alarm.wait(until).await.unwrap();
        }
    }
}
