//! How often the ring is read while there is much in it: reading it to its end has the kernel wake the daemon up for the very next
//! record, and a wake-up costs as much as several messages.

use std::time::{Duration, Instant};

/// How long records wait for others then. All that may come of them has more time than that: copies of a request come after half a
/// second (RFC 3261, T1), refusals are held back for that long, and what is armed has the ring drained to its end first. What falls due
/// does not wait.
pub(crate) const PACE: Duration = Duration::from_millis(2);

/// So many times in a row there have to have been some: a request and its answers are read as they come.
const OFTEN: u32 = 8;

/// The times at which there was something in the ring.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    latest: Option<Instant>,
    /// How many times in a row, each soon after the one before.
    row: u32,
}

impl Pace {
    /// The ring was read; `found`: there was something. Returns how long it is to be left alone now, if at all.
    pub(crate) fn read(&mut self, now: Instant, found: bool) -> Option<Duration> {
        if !found {
            return None;
        }
        let soon = self.latest.is_some_and(|latest| now.duration_since(latest) <= 2 * PACE);
        self.row = if soon { self.row.saturating_add(1) } else { 1 };
        self.latest = Some(now);
        (self.row >= OFTEN).then_some(PACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_wait_for_others_only_while_there_are_some_time_after_time() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut read = |after: Duration, found| {
            now += after;
            pace.read(now, found)
        };
        let short = PACE / 4;
        for _ in 0..20 {
            assert_eq!(read(Duration::from_millis(5), true), None, "now and then");
        }
        for _ in 2..OFTEN {
            assert_eq!(read(short, true), None);
        }
        assert_eq!(read(short, true), Some(PACE));
        assert_eq!(read(PACE + short, true), Some(PACE));
        assert_eq!(read(PACE, false), None, "nothing came meanwhile: the next one is waited for as ever");
        assert_eq!(read(PACE, true), Some(PACE));
        assert_eq!(read(2 * PACE + short, true), None, "and from here on each is read as it comes");
        assert_eq!(read(short, true), None);
    }
}
