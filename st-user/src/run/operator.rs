//! What operators ask of the running daemon, answered between two turns of its loop: one question a turn, each about so many
//! sessions that a million of them put nothing off.

use serde_json::json;
use st_core::{
    Event, SessionId, Side, Time,
    engine::{Denial, Standing, View, Wish},
    message::MethodName,
};

use super::Driver;
use crate::control::{
    protocol::{Call, Only, Row},
    server::{Ask, Census, LOOKED_AT, Page, Rank, SHOWN, rank},
};

impl Driver<'_> {
    /// Tells the world: whoever takes events, who follows them, and what is kept of them.
    pub(super) fn tell(&mut self, event: Event) {
        let event = self.clock.told(event);
        self.sink.event(&event);
        self.control.event(&event);
        self.timeline.saw(&event);
        self.measure.metrics.event(&event);
    }

    /// Answers one question.
    pub(super) fn answer(&mut self) {
        let Some(ask) = self.control.take() else { return };
        let now = self.clock.now();
        // Who asked may be gone by now, to which every answer is the same.
        match ask {
            Ask::Page { from, only, before, reply } => drop(reply.send(self.page(now, from, &only, before))),
            Ask::Census { from, census, reply } => drop(reply.send(self.census(now, from, census))),
            Ask::Show { session, reply } => drop(reply.send(self.show(now, session))),
            Ask::Trace { call_id, reply } => {
                drop(reply.send(self.trace.of(call_id.as_bytes(), |time| self.clock.wall(time))));
            }
            Ask::Wish { session, wish, by, reply } => drop(reply.send(self.wish(now, session, wish, &by))),
            Ask::Kept { only, reply } => {
                let kept = self.timeline.all(|event| only.covers(event));
                let lines = kept.into_iter().filter_map(|event| serde_json::to_string(event).ok());
                drop(reply.send(lines.map(|event| format!("{{\"event\":{event}}}\n")).collect()));
            }
            Ask::Follow { follower } => self.control.follow(follower),
            Ask::Status { reply } => drop(reply.send(self.overview(now))),
            Ask::Reload { by, reply } => self.reload(&by, Some(reply)),
        }
    }

    fn page(&self, now: Time, from: SessionId, only: &Only, before: Option<Rank>) -> Page {
        let (mut rows, mut found) = (Vec::new(), 0);
        let next = self.engine.sessions(now, from, LOOKED_AT, |view| {
            if only.covers(&view, now) {
                found += 1;
                let rank = rank(&view);
                if before.is_none_or(|before| rank < before) {
                    rows.push((rank, self.row(&view, now)));
                }
            }
            rows.len() < SHOWN
        });
        Page { rows, found, next }
    }

    fn row(&self, view: &View<'_>, now: Time) -> Row {
        Row::new(view, now, |time| self.clock.wall(time))
    }

    fn census(&self, now: Time, from: SessionId, mut census: Census) -> (Census, Option<SessionId>) {
        let next = self.engine.sessions(now, from, LOOKED_AT, |view| {
            if let Some(at) = Standing::ALL.iter().position(|state| *state == view.state) {
                census.states[at] += 1;
            }
            if view.state != Standing::Ended {
                census.held += u64::from(view.held);
                census.unsure += u64::from(view.unsure);
                let left = view.deadline.filter(|deadline| *deadline > now).map(|deadline| deadline.since(now));
                let left = left.map(|left| left.as_secs_f64());
                census.next_s = [census.next_s, left].into_iter().flatten().reduce(f64::min);
            }
            true
        });
        (census, next)
    }

    fn show(&self, now: Time, session: SessionId) -> Option<Box<Call>> {
        let outlook = self.engine.outlook(now, session)?;
        self.engine.session(now, session, |view| self.call(&view, outlook, now))
    }

    fn call(&self, view: &View<'_>, outlook: Result<MethodName, &'static str>, now: Time) -> Box<Call> {
        let (would_send, would_not) = match (view.state, view.refresher, outlook) {
            (Standing::Ended, ..) => (None, Some("ended")),
            (Standing::Untimed | Standing::Ignored, ..) => (None, Some("untimed")),
            (_, Some(Side::Peer), _) if view.assumed_s.is_none() => (None, Some("peer_refreshes")),
            (_, _, Ok(method)) => (Some(method.name()), None),
            (_, _, Err(reason)) => (None, Some(reason)),
        };
        let timeline = self.timeline.of(view.names);
        Box::new(Call {
            row: self.row(view, now),
            would_send: would_send.map(Into::into),
            would_not: would_not.map(Into::into),
            timeline: timeline.into_iter().filter_map(|event| serde_json::to_value(event).ok()).collect(),
            kept_since: self.timeline.since().to_string(),
        })
    }

    fn wish(&mut self, now: Time, session: SessionId, wish: Wish, by: &str) -> Result<(), Denial> {
        let done = self.engine.handle_wish(now, session, wish);
        let call_id =
            self.engine.session(now, session, |view| String::from_utf8_lossy(view.names.call_id()).into_owned());
        match done {
            Ok(()) => tracing::info!(?wish, by, call_id, "an operator's command"),
            Err(denial) => tracing::info!(?wish, by, call_id, %denial, "an operator's command is not done"),
        }
        self.outputs();
        done
    }

    fn overview(&self, now: Time) -> serde_json::Value {
        let stats = self.engine.counted();
        let (clients, lost) = self.control.counts();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": self.started.to_string(),
            "uptime_s": now.since(self.began).as_secs(),
            "interfaces": self.kernel.configured(),
            "remarks": self.kernel.remarks(),
            "waiting_refreshes": stats.waiting,
            "open_breakers": stats.open_breakers,
            "alerts": { "count": self.timeline.alerts(), "last": self.timeline.last_alert() },
            "counted": {
                "messages": stats.messages,
                "unparsable": stats.unparsable,
                "unknown_dialog": stats.unknown_dialog,
                "lost": stats.lost,
                "refused_sessions": stats.refused_sessions,
                "delayed": stats.delayed,
                "too_late": stats.too_late,
                "breakers_opened": stats.breakers_opened,
            },
            "tcp": self.streamed.status(),
            "tcp_refresh": self.acting.status(),
            "reload": self.reload.status(),
            "control": {
                "clients": clients,
                "events_lost": lost,
                "events_kept": self.timeline.kept(),
                "events_gone": self.timeline.gone(),
            },
        })
    }
}
