//! The daemon's one clock: `CLOCK_MONOTONIC`, as the kernel programs stamp it, on the wall clock's scale.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use st_core::{Event, Time};

/// A wall clock that is off by less was not set: the two clocks are not read in the same moment.
const STEP: Duration = Duration::from_millis(100);

/// Turns the kernel's stamps into [`Time`].
///
/// The distance between the two scales is taken once, so that a wall clock that is set later moves no deadline. What people are
/// told follows it, by [`Clock::told`].
#[derive(Debug)]
pub struct Clock {
    /// Wall clock minus monotonic clock, in nanoseconds.
    offset_ns: u64,
    latest: Time,
    /// By how much the wall clock was set since, in microseconds.
    set_us: i64,
}

impl Clock {
    /// Takes the distance now.
    pub fn start() -> Self {
        Self::new(wall(), monotonic())
    }

    /// Goes on with a distance that was taken earlier, in the same boot of the host.
    pub const fn resume(offset_ns: u64) -> Self {
        Self { offset_ns, latest: Time::from_micros(0), set_us: 0 }
    }

    /// The distance, in nanoseconds.
    pub const fn offset_ns(&self) -> u64 {
        self.offset_ns
    }

    fn new(wall: Duration, monotonic: Duration) -> Self {
        Self { offset_ns: nanos(wall).saturating_sub(nanos(monotonic)), latest: Time::from_micros(0), set_us: 0 }
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

    /// Looks whether the wall clock was set since the last look.
    pub fn look(&mut self) {
        if let Some(seconds) = self.compare(wall(), monotonic()) {
            tracing::warn!(seconds, "the host's clock was set: events follow it, no deadline does");
        }
    }

    /// By how many seconds it was.
    fn compare(&mut self, wall: Duration, monotonic: Duration) -> Option<f64> {
        let own = self.past(nanos(monotonic)).as_micros().saturating_add_signed(self.set_us);
        let by = (nanos(wall) / 1000).wrapping_sub(own).cast_signed();
        if u128::from(by.unsigned_abs()) < STEP.as_micros() {
            return None;
        }
        self.set_us = self.set_us.saturating_add(by);
        Some(Duration::from_micros(by.unsigned_abs()).as_secs_f64().copysign(by.signum() as f64))
    }

    /// An event as people are told of it: its times are the wall clock's as it is now.
    pub fn told(&self, event: Event) -> Event {
        Event { time: self.wall(event.time), deadline: event.deadline.map(|deadline| self.wall(deadline)), ..event }
    }

    /// A time on the wall clock as that is now.
    pub fn wall(&self, time: Time) -> Time {
        Time::from_micros(time.as_micros().saturating_add_signed(self.set_us))
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

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
    use st_core::EventKind;

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
    fn a_wall_clock_that_is_set_moves_no_deadline_and_what_is_told_follows_it() {
        let second = 1_000_000;
        let at = |seconds: u64| Time::from_micros(seconds * second);
        let mut clock = Clock::new(Duration::from_secs(1_700_000_000), Duration::from_secs(50));
        // Seconds of the monotonic clock, of the wall clock, by how much it was set.
        for (monotonic, wall, set) in [
            (51, 1_700_000_001, None),
            // By a day, back by more, before the epoch's first day is over.
            (52, 1_700_086_402, Some(86_400.0)),
            (53, 1_700_086_403, None),
            (54, 1_600_000_000, Some(-100_086_404.0)),
            (55, 1_600_000_001, None),
            (56, 10, Some(-1_599_999_992.0)),
            (57, 11, None),
        ] {
            let found = clock.compare(Duration::from_secs(wall), Duration::from_secs(monotonic));
            assert_eq!(found, set, "{monotonic}");
            let now = clock.at(monotonic * 1_000_000_000);
            assert_eq!(now, at(1_700_000_000 - 50 + monotonic), "what the engine goes by");
            let event =
                Event { deadline: Some(now + Duration::from_secs(9)), ..Event::new(now, EventKind::RefreshDue) };
            let told = clock.told(event);
            assert_eq!((told.time, told.deadline), (at(wall), Some(at(wall + 9))), "{monotonic}");
        }
    }

    #[test]
    fn a_clock_that_was_set_between_two_runs_is_followed_too() {
        let before = Clock::new(Duration::from_secs(1_700_000_000), Duration::from_secs(50));
        let mut clock = Clock::resume(before.offset_ns());
        let deadline = before.past(90_000_000_000);
        assert_eq!(clock.compare(Duration::from_secs(1_700_003_610), Duration::from_secs(60)), Some(3_600.0));
        assert_eq!(deadline.since(clock.at(60_000_000_000)), Duration::from_secs(30));
        let event = Event { deadline: Some(deadline), ..Event::new(clock.at(60_000_000_000), EventKind::RefreshDue) };
        let told = clock.told(event);
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        assert_eq!((told.time, told.deadline), (at(1_700_003_610), Some(at(1_700_003_640))));
    }

    #[test]
    fn clocks_that_are_read_one_after_the_other_are_not_set() {
        let mut clock = Clock::new(Duration::from_secs(1_700_000_000), Duration::from_secs(50));
        for later in [0, 1, 99] {
            let wall = Duration::from_secs(1_700_000_001) + Duration::from_millis(later);
            assert_eq!(clock.compare(wall, Duration::from_secs(51)), None);
        }
        let event = clock.told(Event::new(Time::from_micros(7), EventKind::RefreshDue));
        assert_eq!(event.time, Time::from_micros(7));
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
