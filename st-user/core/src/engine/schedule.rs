//! When to act: not before the server had its chance, never too late for the peer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timers::TRANSACTION;

/// What a server that refreshes at half the interval is given beyond that: several stacks spread theirs by 5 s.
const GRACE: Duration = Duration::from_secs(6);

/// The longest that a peer may be late with its refresh before that is told.
const PEER_GRACE: Duration = Duration::from_secs(30);

/// The moments of one interval, counted from the 2xx that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schedule {
    /// When somebody has to act, or, where the peer is the refresher, when it should have.
    pub(super) act: Duration,
    /// When to tell that nothing has refreshed the session.
    pub(super) expiring: Duration,
    /// The deadline: when a peer hangs up (R38).
    pub(super) deadline: Duration,
    /// The end of the interval.
    pub(super) expired: Duration,
    /// When sipst refreshes before the peer does, which has to.
    pub(super) take_over: Option<Duration>,
}

/// What a refresh is given before the peer sends its own: a transaction, and a little more.
const AHEAD: Duration = Duration::from_secs(40);

impl Schedule {
    /// Where the server has to refresh. `asked`: the interval that it goes by itself, where that is another; `capable`: it was seen to
    /// know of timers; `act_at`: the share of the interval that such a server is given.
    pub(super) fn server(interval: Duration, asked: Option<Duration>, capable: bool, act_at: f64) -> Self {
        let deadline = deadline(interval);
        let half = interval / 2;
        let act = if capable {
            // Where its own refresh would be too late, it is not waited for.
            let half = asked.map(|asked| asked / 2).filter(|own| (half..deadline).contains(own)).unwrap_or(half);
            let share = Duration::try_from_secs_f64(interval.as_secs_f64() * act_at).unwrap_or(half);
            // Where the interval is so short that this would be too late, half of what is left after its middle.
            (half + GRACE).max(share.min(deadline.saturating_sub(TRANSACTION))).min((half + deadline) / 2)
        } else {
            half
        };
        Self::new(act, deadline, interval)
    }

    /// Where the peer has to.
    pub(super) fn peer(interval: Duration) -> Self {
        Self::new(interval / 2 + (interval / 10).min(PEER_GRACE), deadline(interval), interval)
    }

    /// Where an interval is assumed. `peers`: the one, longer than that, after half of which the peer refreshes.
    pub(super) fn assumed(interval: Duration, peers: Option<Duration>) -> Self {
        let ahead = peers.map_or(interval / 2, |peers| peers * 2 / 5);
        Self::new((interval / 2).min(ahead), deadline(interval), interval)
    }

    /// The same, and sipst refreshes before the peer does; `again`: it has, and the peer stays the refresher.
    pub(super) fn taken_over(interval: Duration, again: bool) -> Self {
        let share = interval * 2 / 5;
        let ahead = if again { share } else { share.min((interval / 2).saturating_sub(AHEAD)) };
        Self { take_over: Some(ahead), ..Self::peer(interval) }
    }

    /// Until when it may be put off: the peer is about to refresh.
    pub(super) fn last_take_over(&self) -> Duration {
        self.expired * 2 / 5
    }

    fn new(act: Duration, deadline: Duration, expired: Duration) -> Self {
        Self { act, expiring: act + deadline.saturating_sub(act) / 2, deadline, expired, take_over: None }
    }

    /// The last moment at which a refresh still has a chance: for dialogs whose state is not known for certain.
    pub(super) fn last_safe(&self) -> Duration {
        let short = self.deadline.saturating_sub(self.expired / 6);
        self.deadline.saturating_sub(TRANSACTION).max(short).max(self.act)
    }
}

/// R38.
fn deadline(interval: Duration) -> Duration {
    interval - TRANSACTION.min(interval / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn r38_the_deadline_leaves_a_transaction() {
        for (interval, at) in [(90, 60), (120, 88), (180, 148), (300, 268), (600, 568), (1800, 1768)] {
            assert_eq!(deadline(s(interval)), s(at));
        }
    }

    #[test]
    fn a_server_that_never_refreshes_gets_half_and_one_that_does_gets_more() {
        assert_eq!(Schedule::server(s(1800), None, false, 0.6).act, s(900));
        assert_eq!(Schedule::server(s(1800), None, true, 0.6).act, s(1080));
        assert_eq!(Schedule::server(s(90), None, false, 0.6).act, s(45));
        assert_eq!(Schedule::server(s(90), None, true, 0.6).act, s(51));
        // One that spreads its refresh by 5 s about the half of what it asked for is let be.
        for (asked, act) in [(60, 51), (90, 51), (100, 55), (110, 57), (120, 51), (1800, 51)] {
            assert_eq!(Schedule::server(s(90), Some(s(asked)), true, 0.6).act.as_secs(), act, "{asked}");
            assert_eq!(Schedule::server(s(90), Some(s(asked)), false, 0.6).act, s(45), "{asked}");
        }
    }

    #[test]
    fn where_the_peer_refreshes_sipst_is_a_transaction_ahead_of_it_if_the_interval_is_long_enough() {
        for (interval, first, again) in
            [(90, 5, 36), (120, 20, 48), (300, 110, 120), (400, 160, 160), (1800, 720, 720), (80, 0, 32), (8, 0, 3)]
        {
            let [found, later] = [false, true].map(|again| Schedule::taken_over(s(interval), again));
            let moments = [found, later].map(|schedule| schedule.take_over.map(|at| at.as_secs()));
            assert_eq!(moments, [Some(first), Some(again)], "{interval}");
            assert_eq!(Schedule { take_over: None, ..found }, Schedule::peer(s(interval)));
            assert!(later.take_over.is_some_and(|at| at == later.last_take_over() && at < s(interval) / 2));
        }
    }

    #[test]
    fn an_assumed_interval_is_acted_upon_at_its_half_and_before_a_peer_that_refreshes_too() {
        let of = |peers: Option<u64>| Schedule::assumed(s(300), peers.map(s));
        assert_eq!([None, Some(1800), Some(375), Some(310)].map(|peers| of(peers).act.as_secs()), [150, 150, 150, 124]);
        let found = of(None);
        assert_eq!((found, found.take_over), (Schedule::server(s(300), None, false, 0.6), None));
    }

    #[test]
    fn every_moment_is_in_order_however_short_or_long_the_interval() {
        for interval in (1..200).chain([1800, 86_400, u64::from(u32::MAX)]) {
            for capable in [false, true] {
                for act_at in [0.5, 0.6, 0.9, 5.0, f64::NAN, f64::INFINITY, -1.0] {
                    let asked = Some(s(interval * 6 / 5)).filter(|_| act_at != 0.6);
                    let found = Schedule::server(s(interval), asked, capable, act_at);
                    assert!(found.act >= s(interval) / 2 && found.act < found.deadline, "{interval} {found:?}");
                    assert!(found.act < found.expiring && found.expiring < found.deadline);
                    assert!(found.last_safe() >= found.act && found.last_safe() < found.deadline);
                }
            }
            for peers in [None, Some(s(interval + 1))] {
                let found = Schedule::assumed(s(interval), peers);
                assert!(
                    found.act < found.expiring && found.expiring < found.deadline && found.deadline < found.expired
                );
                assert!(found.last_safe() >= found.act && found.last_safe() < found.deadline);
            }
            let found = Schedule::peer(s(interval));
            assert!(found.act < found.expiring && found.expiring < found.deadline && found.deadline < found.expired);
        }
    }
}
