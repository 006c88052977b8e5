//! What is drawn of each call: its intervals, and what happened at which moment.

use st_core::{By, Event, EventKind, Side, Time};

use crate::replay::{Call, Calls, Verdict};

/// How many calls are drawn: those that came off worst.
pub(super) const MAX_DRAWN: usize = 500;

/// How much is kept of one call; further marks and intervals are counted.
pub(super) const MAX_MARKS: usize = 200;

/// How much is kept of all calls together.
const MAX_ALL: usize = 1 << 18;

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) at: Time,
    pub(super) kind: EventKind,
    pub(super) by: Option<By>,
    pub(super) method: Option<&'static str>,
    pub(super) status: Option<u16>,
    pub(super) reason: Option<String>,
}

/// A stretch of time that began with a 2xx and ends with the next one, or with the call.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    pub(super) from: Time,
    pub(super) seconds: u32,
    pub(super) refresher: Option<Side>,
    /// From when on the peer may hang up.
    pub(super) deadline: Option<Time>,
}

/// One call.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) intervals: Vec<Interval>,
    pub(super) marks: Vec<Mark>,
    /// How many marks and intervals are left out.
    pub(super) more: u64,
}

/// All calls of a capture, in the order of [`Calls`].
#[derive(Clone, Debug, Default)]
pub struct Stories {
    all: Vec<Story>,
    kept: usize,
    /// When the capture began and ended.
    pub(super) span: Option<(Time, Time)>,
}

impl Stories {
    /// Time goes on in the capture.
    pub(crate) fn time(&mut self, now: Time) {
        let from = self.span.map_or(now, |(from, _)| from);
        self.span = Some((from, now));
    }

    /// Something happens in the call that has this place.
    pub(crate) fn event(&mut self, at: usize, event: &Event) {
        if self.all.len() <= at {
            self.all.resize_with(at + 1, Story::default);
        }
        let Some(story) = self.all.get_mut(at) else { return };
        if story.marks.len() + story.intervals.len() >= MAX_MARKS || self.kept >= MAX_ALL {
            story.more += 1;
            return;
        }
        self.kept += 1;
        story.marks.push(Mark {
            at: event.time,
            kind: event.kind,
            by: event.by,
            method: event.method,
            status: event.status,
            reason: event.reason.as_deref().map(|reason| super::cut(reason, super::MAX_TEXT)),
        });
        if matches!(event.kind, EventKind::TimerNegotiated | EventKind::SessionRefreshed) {
            let last = story.intervals.last();
            let seconds = event.interval_s.or(last.map(|last| last.seconds));
            let refresher = event.refresher.or(last.and_then(|last| last.refresher));
            // A 2xx that refreshes may change the interval too, and is told twice.
            let twice = last.is_some_and(|last| last.from == event.time);
            if let Some(seconds) = seconds {
                if twice {
                    story.intervals.pop();
                }
                let deadline = event.deadline;
                story.intervals.push(Interval { from: event.time, seconds, refresher, deadline });
                self.kept += 1;
            }
        }
    }

    pub(super) fn of(&self, at: usize) -> Option<&Story> {
        self.all.get(at)
    }
}

/// The places of the calls that are drawn, in the order in which they began: the worst, where they are too many.
pub(super) fn drawn(calls: &Calls) -> Vec<usize> {
    let mut places: Vec<(usize, &Call)> = calls.iter().enumerate().collect();
    places.sort_by_key(|(_, call)| match call.verdict {
        Verdict::Lost => 0,
        Verdict::Outlived => 1,
        Verdict::Overdue => 2,
        Verdict::KeptAlive => 3,
        Verdict::Sound => 4,
        Verdict::NoTimer => 5,
    });
    places.truncate(MAX_DRAWN);
    let mut places: Vec<usize> = places.into_iter().map(|(at, _)| at).collect();
    places.sort_unstable();
    places
}
