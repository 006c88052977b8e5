//! What happened in calls, as far as it is kept: the latest events of all of them together, alerts apart, so that a flood of
//! refreshes that go well displaces none that went wrong.

use std::collections::VecDeque;

use st_core::{Event, Names, Time};

/// Events that are kept.
const EVENTS: usize = 16_384;

/// Alerts that are kept.
const ALERTS: usize = 4_096;

/// Events of one call that are shown: the latest.
pub(crate) const SHOWN: usize = 200;

/// The latest events, as they were told.
#[derive(Debug)]
pub(crate) struct Timeline {
    events: VecDeque<Event>,
    alerts: VecDeque<Event>,
    /// Since when every event is kept.
    since: Time,
    /// How many had to go.
    gone: u64,
    /// How many alerts there were.
    alerted: u64,
}

impl Timeline {
    pub(crate) fn new(now: Time) -> Self {
        Self { events: VecDeque::new(), alerts: VecDeque::new(), since: now, gone: 0, alerted: 0 }
    }

    /// Keeps an event.
    pub(crate) fn saw(&mut self, event: &Event) {
        self.alerted += u64::from(event.kind.is_alert());
        let (queue, most) = if event.kind.is_alert() { (&mut self.alerts, ALERTS) } else { (&mut self.events, EVENTS) };
        if queue.len() >= most
            && let Some(gone) = queue.pop_front()
        {
            self.since = self.since.max(gone.time);
            self.gone += 1;
        }
        queue.push_back(event.clone());
    }

    /// All that are kept of those that `wanted` says true of, the oldest first.
    pub(crate) fn all(&self, wanted: impl Fn(&Event) -> bool) -> Vec<&Event> {
        let mut all: Vec<&Event> = self.events.iter().chain(&self.alerts).filter(|event| wanted(event)).collect();
        all.sort_by_key(|event| event.time);
        all
    }

    /// The latest of one call.
    pub(crate) fn of(&self, names: &Names) -> Vec<&Event> {
        let all = self.all(|event| event.names.as_deref() == Some(names));
        let first = all.len().saturating_sub(SHOWN);
        all[first..].to_vec()
    }

    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// How many alerts there were, kept or not.
    pub(crate) fn alerts(&self) -> u64 {
        self.alerted
    }

    pub(crate) fn last_alert(&self) -> Option<&Event> {
        self.alerts.back()
    }

    pub(crate) fn kept(&self) -> usize {
        self.events.len() + self.alerts.len()
    }

    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use st_core::EventKind;

    use super::*;

    fn names(call_id: &str) -> Arc<Names> {
        let address = "192.0.2.1:5060".parse().unwrap();
        Arc::new(Names::new(call_id.as_bytes(), b"l", b"r", address, address))
    }

    fn event(micros: u64, kind: EventKind, names: &Arc<Names>) -> Event {
        Event { names: Some(Arc::clone(names)), ..Event::new(Time::from_micros(micros), kind) }
    }

    #[test]
    fn alerts_outlive_a_flood_of_events_and_what_is_kept_has_a_limit() {
        let mut timeline = Timeline::new(Time::from_micros(1));
        let (mine, others) = (names("mine"), names("others"));
        timeline.saw(&event(2, EventKind::SessionStarted, &mine));
        timeline.saw(&event(3, EventKind::RefreshFailed, &mine));
        assert_eq!((timeline.of(&mine).len(), timeline.since(), timeline.gone()), (2, Time::from_micros(1), 0));
        for micros in 0..EVENTS as u64 + 10 {
            timeline.saw(&event(10 + micros, EventKind::SessionRefreshed, &others));
        }
        let kept: Vec<_> = timeline.of(&mine).iter().map(|event| event.kind).collect();
        assert_eq!(kept, [EventKind::RefreshFailed]);
        assert_eq!((timeline.kept(), timeline.gone()), (EVENTS + 1, 11));
        assert_eq!(timeline.since(), Time::from_micros(19));
        assert_eq!(timeline.of(&others).len(), SHOWN);
        for micros in 0..2 * ALERTS as u64 {
            timeline.saw(&event(micros, EventKind::RefreshOverdue, &others));
        }
        assert_eq!(timeline.kept(), EVENTS + ALERTS);
        assert_eq!(timeline.alerts(), 2 * ALERTS as u64 + 1);
        assert_eq!(timeline.last_alert().map(|last| last.kind), Some(EventKind::RefreshOverdue));
    }

    #[test]
    fn a_calls_events_and_alerts_are_in_the_order_of_time() {
        let mut timeline = Timeline::new(Time::from_micros(0));
        let (mine, others) = (names("mine"), names("others"));
        for (micros, kind) in
            [(1, EventKind::SessionStarted), (2, EventKind::RefreshOverdue), (3, EventKind::SessionEnded)]
        {
            timeline.saw(&event(micros, kind, &mine));
            timeline.saw(&event(micros, kind, &others));
        }
        let kinds: Vec<_> = timeline.of(&mine).iter().map(|event| event.kind.name()).collect();
        assert_eq!(kinds, ["session_started", "refresh_overdue", "session_ended"]);
    }
}
