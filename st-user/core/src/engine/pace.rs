//! How close together requests may leave: the generic cell rate algorithm (ITU-T I.371), one moment of state.

use std::time::Duration;

use crate::{Rate, Time};

/// Of a rate, the share of a second that may leave at once.
const BURST: u32 = 10;

/// What waits for others to leave, not for a moment: later than any clock.
const NEVER: Time = Time::from_micros(u64::MAX);

/// Keeps a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// When the next one would be due if all were spread evenly.
    due: Time,
    /// Those that may leave, and have not yet. Whoever is to send them may stand still, and send all of them at once then.
    granted: u32,
}

impl Pace {
    /// One that has let nothing through.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, due: Time::from_micros(0), granted: 0 }
    }

    /// Another rate from now on.
    pub(super) fn set(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// From when on the next one may leave; [`NEVER`] while so many may that have not.
    pub(super) fn ready(&self) -> Time {
        let Some(each) = self.rate.spacing() else { return Time::from_micros(0) };
        let more = (self.rate.per_second().unwrap_or(0) / BURST).saturating_sub(1);
        more.checked_sub(self.granted).map_or(NEVER, |more| self.due - each * more)
    }

    /// One may leave.
    pub(super) fn grant(&mut self) {
        self.granted = self.granted.saturating_add(1);
    }

    /// One that may leave will not.
    pub(super) fn take_back(&mut self) {
        self.granted = self.granted.saturating_sub(1);
    }

    /// One that may leave does.
    pub(super) fn leaves(&mut self, now: Time) {
        self.take_back();
        self.due = self.due.max(now) + self.rate.spacing().unwrap_or(Duration::ZERO);
    }

    /// One that was taken for gone is not.
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
                pace.grant();
                pace.leaves(now);
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
            pace.grant();
            assert!(pace.ready() <= now);
        }
    }

    #[test]
    fn what_may_leave_and_does_so_late_makes_no_second_fuller_than_the_rate_and_a_tenth() {
        // Whoever sends them stands still for 700 ms of each second and a half.
        let mut pace = Pace::new(Rate::new(100).unwrap());
        let (mut waiting, mut left) = (0, Vec::new());
        for ms in 0..6_000_u64 {
            let now = Time::from_micros(1_000_000_000 + ms * 1_000);
            while pace.ready() <= now {
                pace.grant();
                waiting += 1;
                assert!(waiting <= 10, "no more may leave at once than a tenth of the rate");
            }
            if ms % 1_500 >= 700 {
                (0..std::mem::take(&mut waiting)).for_each(|_| {
                    pace.leaves(now);
                    left.push(ms);
                });
            }
        }
        let most = left.iter().enumerate().map(|(at, from)| left[at..].partition_point(|ms| *ms < from + 1_000)).max();
        assert!(most.is_some_and(|most| most <= 110), "{most:?}");
        assert!(left.len() >= 330, "{} in 3.2 s in which they could leave", left.len());
    }

    #[test]
    fn who_may_leave_and_does_not_is_nobodys_hindrance() {
        let (mut pace, now) = (Pace::new(Rate::new(1).unwrap()), Time::from_micros(7_000_000));
        pace.grant();
        assert_eq!(pace.ready(), NEVER);
        pace.take_back();
        assert!(pace.ready() <= now);
    }
}
