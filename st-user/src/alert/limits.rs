//! Which alerts are told: none twice, and of one trunk no more than so many a minute. The rest is told as a number.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use st_core::{Event, Names};

use super::notice::More;

/// How long the same is not told again: the same kind and reason in the same dialog.
pub(super) const REPEAT: Duration = Duration::from_secs(300);

/// What a trunk's alerts are counted over.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// How many alerts are remembered as told. Past that they are told again, as the trunk's rate allows.
const REMEMBERED: usize = 16_384;

/// What is to be done with an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is told.
    Tell,
    /// It was told a moment ago.
    Repeat,
    /// It goes into the number of those that are not told one by one.
    Fold,
}

/// What was told lately.
#[derive(Default)]
pub(super) struct Limits {
    told: HashMap<Box<[u8]>, Instant>,
    windows: HashMap<Option<String>, Window>,
}

struct Window {
    began: Instant,
    told: u32,
    folded: Option<More>,
}

impl Limits {
    /// Says what is done with an alert; `rate`: how many of one trunk are told in a [`WINDOW`], `None` for any number.
    pub(super) fn verdict(&mut self, event: &Event, rate: Option<u32>, now: Instant) -> Verdict {
        let key = key(event);
        if self.told.get(&key).is_some_and(|at| now.duration_since(*at) < REPEAT) {
            return Verdict::Repeat;
        }
        if let Some(rate) = rate {
            // A reload may bring other trunks: those that say nothing any more go.
            self.windows.retain(|_, window| window.folded.is_some() || now.duration_since(window.began) < WINDOW);
            let fresh = || Window { began: now, told: 0, folded: None };
            let window = self.windows.entry(event.trunk.clone()).or_insert_with(fresh);
            if window.told >= rate {
                let trunk = event.trunk.clone();
                let more =
                    window.folded.get_or_insert_with(|| More { time: event.time, trunk, kinds: BTreeMap::new() });
                more.time = event.time;
                *more.kinds.entry(event.kind.name()).or_default() += 1;
                return Verdict::Fold;
            }
            window.told += 1;
        }
        if self.told.len() >= REMEMBERED {
            self.told.retain(|_, at| now.duration_since(*at) < REPEAT);
        }
        if self.told.len() < REMEMBERED {
            self.told.insert(key, now);
        }
        Verdict::Tell
    }

    /// When the next number is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.windows.values().filter(|window| window.folded.is_some()).map(|window| window.began + WINDOW).min()
    }

    /// The numbers of those trunks whose minute is over; `all`: of all trunks, for it is the end.
    pub(super) fn over(&mut self, now: Instant, all: bool) -> Vec<More> {
        let over = |window: &Window| all || now.duration_since(window.began) >= WINDOW;
        let told = self.windows.values_mut().filter(|window| over(window)).filter_map(|window| window.folded.take());
        let told = told.collect();
        self.windows.retain(|_, window| !over(window));
        told
    }
}

/// What makes two alerts the same.
fn key(event: &Event) -> Box<[u8]> {
    let mut key = Vec::with_capacity(128);
    let mut add = |part: &[u8]| {
        key.extend((part.len() as u64).to_ne_bytes());
        key.extend(part);
    };
    match event.names.as_deref() {
        Some(names) => [Names::call_id, Names::local_tag, Names::remote_tag].map(|part| add(part(names))),
        None => [event.trunk.as_deref().unwrap_or_default(), "", ""].map(|part| add(part.as_bytes())),
    };
    add(event.kind.name().as_bytes());
    add(super::notice::word(event).unwrap_or_default().as_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use st_core::{EventKind, Time};

    use super::*;

    fn alert(call: &str, kind: EventKind, reason: &str, trunk: &str) -> Event {
        let [server, peer] = ["192.0.2.1:5060", "198.51.100.2:5060"].map(|address| address.parse().unwrap());
        Event {
            names: Some(Arc::new(Names::new(call.as_bytes(), b"l", b"r", server, peer))),
            reason: Some(reason.to_owned().into()),
            trunk: Some(trunk.to_owned()),
            ..Event::new(Time::from_micros(0), kind)
        }
    }

    #[test]
    fn the_same_in_the_same_dialog_is_told_once_until_it_is_old() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let overdue = alert("a", EventKind::RefreshOverdue, "held", "t");
        assert_eq!(limits.verdict(&overdue, None, start), Verdict::Tell);
        let details = alert("a", EventKind::RefreshOverdue, "held: since noon", "t");
        assert_eq!(limits.verdict(&details, None, start + REPEAT / 2), Verdict::Repeat);
        for other in [
            alert("b", EventKind::RefreshOverdue, "held", "t"),
            alert("a", EventKind::SessionExpiring, "held", "t"),
            alert("a", EventKind::RefreshOverdue, "refused", "t"),
        ] {
            assert_eq!(limits.verdict(&other, None, start), Verdict::Tell, "{other:?}");
        }
        assert_eq!(limits.verdict(&overdue, None, start + REPEAT), Verdict::Tell);
    }

    #[test]
    fn past_its_rate_a_trunk_is_told_of_as_a_number_and_the_others_are_not_touched() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let mut verdict = |call: usize, trunk: &str, at| {
            let event = alert(&call.to_string(), EventKind::SessionExpiring, "x", trunk);
            limits.verdict(&event, Some(3), at)
        };
        for call in 0..3 {
            assert_eq!(verdict(call, "carrier", start), Verdict::Tell);
        }
        for call in 3..44 {
            assert_eq!(verdict(call, "carrier", start + WINDOW / 2), Verdict::Fold);
        }
        assert_eq!(verdict(99, "other", start), Verdict::Tell);
        assert_eq!(limits.due(), Some(start + WINDOW));
        assert_eq!(limits.over(start + WINDOW / 2, false), []);
        let told = limits.over(start + WINDOW, false);
        assert_eq!(told.iter().map(More::text).collect::<Vec<_>>(), ["and 41 more on trunk carrier in 60 s"]);
        assert_eq!(limits.due(), None);
        // What was folded was never told, so it is told when it comes again.
        let event = alert("3", EventKind::SessionExpiring, "x", "carrier");
        assert_eq!(limits.verdict(&event, Some(3), start + WINDOW), Verdict::Tell);
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut limits = Limits::default();
        let start = Instant::now();
        for call in 0..REMEMBERED + 10 {
            let event = alert(&call.to_string(), EventKind::SessionExpiring, "x", "t");
            assert_eq!(limits.verdict(&event, None, start), Verdict::Tell);
        }
        assert_eq!(limits.told.len(), REMEMBERED);
        let event = alert("later", EventKind::SessionExpiring, "x", "t");
        assert_eq!(limits.verdict(&event, None, start + REPEAT), Verdict::Tell);
        assert_eq!(limits.told.len(), 1);
    }
}
