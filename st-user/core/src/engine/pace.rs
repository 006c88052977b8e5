//! How close together requests may leave: the generic cell rate algorithm (ITU-T I.371), one moment of state.

use std::time::Duration;

use crate::{Rate, Time};

/// Of a rate, the share of a second that may leave at once.
const BURST: u32 = 10;

/// Keeps a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// When the next one would be due if all were spread evenly.
    due: Time,
}

impl Pace {
    /// One that has let nothing through.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, due: Time::from_micros(0) }
    }

    /// Another rate from now on.
    pub(super) fn set(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// From when on the next one may leave.
    pub(super) fn ready(&self) -> Time {
        let Some(each) = self.rate.spacing() else { return Time::from_micros(0) };
        let more = (self.rate.per_second().unwrap_or(0) / BURST).saturating_sub(1);
        self.due - each * more
    }

    /// One leaves.
    pub(super) fn take(&mut self, now: Time) {
        self.due = self.due.max(now) + self.rate.spacing().unwrap_or(Duration::ZERO);
    }

    /// One that was taken in did not leave.
    pub(super) fn give_back(&mut self) {
        self.due = self.due - self.rate.spacing().unwrap_or(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many leave if as many as may do so in each of these milliseconds.
    fn leave(pace: &mut Pace, milliseconds: std::ops::Range<u64>) -> usize {
        let mut count = 0;
        for now in milliseconds.map(|ms| Time::from_micros(1_000_000_000 + ms * 1_000)) {
            while pace.ready() <= now {
                pace.take(now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn no_more_leave_in_a_second_than_the_rate_and_a_tenth_of_it_at_once() {
        let mut pace = Pace::new(Rate::new(100).unwrap());
        assert_eq!(leave(&mut pace, 0..1), 10);
        assert_eq!(leave(&mut pace, 1..1_000), 99);
        assert_eq!(leave(&mut pace, 1_000..2_000), 100);
        assert_eq!(leave(&mut pace, 60_000..60_001), 10, "what was not used is not saved up");
    }

    #[test]
    fn a_slow_rate_lets_one_at_a_time_through() {
        let mut pace = Pace::new(Rate::new(2).unwrap());
        assert_eq!(leave(&mut pace, 0..500), 1);
        assert_eq!(leave(&mut pace, 500..501), 1);
        pace.give_back();
        assert_eq!(leave(&mut pace, 501..502), 1, "what was given back may leave after all");
        assert_eq!(leave(&mut pace, 502..1_000), 0);
    }

    #[test]
    fn without_a_rate_the_next_one_may_always_leave() {
        let (mut pace, now) = (Pace::new(Rate::OFF), Time::from_micros(7));
        for _ in 0..1_000 {
            pace.take(now);
            assert!(pace.ready() <= now);
        }
    }
}
