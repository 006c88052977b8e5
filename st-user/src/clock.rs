//! The daemon's one clock: `CLOCK_MONOTONIC`, as the kernel programs stamp it, on the wall clock's scale.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use st_core::Time;

/// Turns the kernel's stamps into [`Time`].
///
/// The distance between the two scales is taken once, so that a wall clock that is set later moves no deadline.
#[derive(Debug)]
pub struct Clock {
    /// Wall clock minus monotonic clock, in nanoseconds.
    offset_ns: u64,
    latest: Time,
}

impl Clock {
    /// Takes the distance now.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(wall, monotonic())
    }

    /// Goes on with a distance that was taken earlier, in the same boot of the host.
    pub const fn resume(offset_ns: u64) -> Self {
        Self { offset_ns, latest: Time::from_micros(0) }
    }

    /// The distance, in nanoseconds.
    pub const fn offset_ns(&self) -> u64 {
        self.offset_ns
    }

    /// How far the wall clock has gone off since the distance was taken.
    pub fn drift(&self) -> Duration {
        let now = Self::start();
        Duration::from_nanos(now.offset_ns.abs_diff(self.offset_ns))
    }

    fn new(wall: Duration, monotonic: Duration) -> Self {
        Self { offset_ns: nanos(wall).saturating_sub(nanos(monotonic)), latest: Time::from_micros(0) }
    }

    /// The time of a stamp in `CLOCK_MONOTONIC` nanoseconds; never earlier than what was returned before, because the
    /// processors' records can stand in the ring a little out of order.
    pub fn at(&mut self, monotonic_ns: u64) -> Time {
        self.latest = self.latest.max(self.past(monotonic_ns));
        self.latest
    }

    /// The time of a stamp of the same clock, however long ago.
    pub fn past(&self, monotonic_ns: u64) -> Time {
        Time::from_micros(monotonic_ns.saturating_add(self.offset_ns) / 1000)
    }

    /// The time now.
    pub fn now(&mut self) -> Time {
        self.at(monotonic_ns())
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, as the kernel programs read it.
pub fn monotonic_ns() -> u64 {
    nanos(monotonic())
}

fn monotonic() -> Duration {
    // The monotonic clock starts at 0: neither part is ever negative.
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_land_on_the_wall_clocks_scale() {
        let mut clock = Clock::new(Duration::from_secs(1_700_000_000), Duration::from_secs(50));
        assert_eq!(clock.at(51_000_001_999), Time::from_micros(1_700_000_001_000_001));
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::new(Duration::from_secs(1_700_000_000), Duration::from_secs(50));
        let later = clock.at(60_000_000_000);
        assert_eq!(clock.at(59_999_999_999), later);
        assert!(clock.at(60_000_001_000) > later);
        assert_eq!(
            clock.past(51_000_000_000),
            Time::from_micros(1_700_000_001_000_000),
            "but a past time is what it was"
        );
    }

    #[test]
    fn a_stamp_taken_before_the_start_lies_before_it() {
        let mut clock = Clock::new(Duration::from_secs(1_700_000_000), Duration::from_secs(50));
        assert_eq!(clock.at(0), Time::from_micros((1_700_000_000 - 50) * 1_000_000));
    }

    #[test]
    fn now_agrees_with_the_systems_clocks() {
        let mut clock = Clock::start();
        let before = clock.now();
        assert!(clock.now() >= before);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(Time::from_micros(wall.as_micros() as u64).since(before) < Duration::from_secs(60));
    }
}
