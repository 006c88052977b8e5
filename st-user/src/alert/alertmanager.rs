//! Prometheus's Alertmanager (API v2). An alert fires until what it is about has ended; while it does it is sent again before its end
//! comes, so that it resolves by itself where no sipst is left to say so.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Map, Value, json};
use st_core::{Event, EventKind, Names, Time};

use super::{
    counts::SinkCounts,
    notice::{FOLDED, More, Notice, word},
    post::{Failure, Poster},
    sink::{Feed, Pace, Signal},
};
use crate::{config::Alertmanager, words};

/// How many alerts fire at once, those included of which it is still to be told that they have ended.
pub(super) const FIRING: usize = 4_096;

/// How many go in one request.
const BATCH: usize = 256;

/// An alert is good for so many times of what it is sent again after.
const GOOD_FOR: u32 = 4;

/// What nothing ends by itself, such as lost packets, fires no longer than this after its last occurrence.
const PASSING: Duration = Duration::from_secs(600);

/// Nothing fires longer than this after its last occurrence: its end may have gone by unseen.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The longest pause after a request that was not taken.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Sends what it hears.
pub(super) fn run(manager: &Alertmanager, name: &str, pace: Pace, feed: &Feed) {
    let url = format!("{}/api/v2/alerts", manager.url.trim_end_matches('/'));
    let poster = Poster::new(url, manager.timeout);
    let mut firing = Firing::new(manager.runbook.clone(), pace.resend);
    let mut pause = pace.backoff;
    let mut not_before = Instant::now();
    loop {
        let mut ended = false;
        // Whatever is there goes in one request.
        loop {
            let now = Instant::now();
            let until = firing.due().map(|due| due.max(not_before));
            match feed.next(Some(until.unwrap_or(now + PASSING).min(now + PASSING))) {
                Ok(signal) => firing.hear(signal, Instant::now(), &feed.counts),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        if ended && feed.is_hurried() {
            return;
        }
        while let Some(batch) = firing.batch(Instant::now(), SystemTime::now(), ended) {
            match poster.post(&batch.body) {
                Ok(()) => {
                    SinkCounts::add(&feed.counts.sent, firing.taken(&batch, Instant::now()));
                    pause = pace.backoff;
                }
                Err(Failure { reason, again }) => {
                    tracing::warn!(alertmanager = name, reason, "alerts could not be sent");
                    if again && !ended {
                        // They are still to be sent, by then with what has happened meanwhile.
                        not_before = Instant::now() + pause;
                        pause = (pause * 4).clamp(Duration::from_millis(1), LONGEST_PAUSE.max(pace.backoff));
                        firing.give_up_old(Instant::now(), &feed.counts);
                        break;
                    }
                    SinkCounts::add(&feed.counts.failed, firing.taken(&batch, Instant::now()));
                }
            }
        }
        if ended {
            return;
        }
    }
}

/// What makes an alert's labels its own.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    dialog: Option<Box<[u8]>>,
    trunk: Option<String>,
    kind: &'static str,
    reason: Option<String>,
}

struct Entry {
    kind: Option<EventKind>,
    labels: Value,
    annotations: Value,
    starts: Time,
    /// When it happened last.
    last: Instant,
    /// When it was sent last; `None`: what is new has not been sent.
    sent: Option<Instant>,
    /// Since when it is over.
    over: Option<Instant>,
}

/// One request.
struct Batch {
    body: String,
    keys: Vec<Key>,
}

/// The alerts that fire.
struct Firing {
    alerts: HashMap<Key, Entry>,
    runbook: Option<String>,
    resend: Duration,
    instance: String,
}

impl Firing {
    fn new(runbook: Option<String>, resend: Duration) -> Self {
        let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { alerts: HashMap::new(), runbook, resend, instance }
    }

    fn hear(&mut self, signal: Signal, now: Instant, counts: &SinkCounts) {
        match signal {
            Signal::Tell(Notice::Alert(event)) | Signal::Repeat(event) => self.fire(&event, now, counts),
            Signal::Tell(Notice::More(more)) => self.more(&more, now, counts),
            Signal::Over(event) => self.end(&event, now),
        }
    }

    fn fire(&mut self, event: &Arc<Event>, now: Instant, counts: &SinkCounts) {
        let key = Key {
            dialog: event.names.as_deref().map(dialog),
            trunk: event.trunk.clone(),
            kind: event.kind.name(),
            reason: word(event).map(str::to_owned),
        };
        let mut annotations = json!({
            "summary": words::says(event.kind),
            "description": words::line(event),
            "runbook_url": words::runbook(self.runbook.as_deref(), key.kind),
        });
        if let Some(deadline) = event.deadline {
            annotations["deadline"] = deadline.to_string().into();
        }
        if let Some(entry) = self.alerts.get_mut(&key) {
            (entry.last, entry.annotations) = (now, annotations);
            if entry.over.take().is_some() {
                (entry.starts, entry.sent) = (event.time, None);
            }
            return;
        }
        let mut labels = self.labels(key.kind, event.trunk.as_deref());
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                labels.insert(name.to_owned(), value.into());
            }
        };
        set("severity", Some(severity(event.kind).to_owned()));
        set("call_id", event.call_id().map(Into::into));
        set("local_tag", event.local_tag().map(Into::into));
        set("remote_tag", event.remote_tag().map(Into::into));
        set("server", event.server().map(|address| address.to_string()));
        set("peer", event.peer().map(|address| address.to_string()));
        set("reason", key.reason.clone());
        let (kind, starts) = (Some(event.kind), event.time);
        let entry = Entry { kind, labels: labels.into(), annotations, starts, last: now, sent: None, over: None };
        self.keep(key, entry, counts);
    }

    fn more(&mut self, more: &More, now: Instant, counts: &SinkCounts) {
        let key = Key { dialog: None, trunk: more.trunk.clone(), kind: FOLDED, reason: None };
        let mut labels = self.labels(FOLDED, more.trunk.as_deref());
        labels.insert("severity".into(), "critical".into());
        let annotations = json!({
            "summary": more.text(),
            "description": format!("{}: {:?}", more.text(), more.kinds),
            "runbook_url": words::runbook(self.runbook.as_deref(), FOLDED),
        });
        let starts = self.alerts.get(&key).map_or(more.time, |entry| entry.starts);
        let entry = Entry { kind: None, labels: labels.into(), annotations, starts, last: now, sent: None, over: None };
        self.keep(key, entry, counts);
    }

    fn labels(&self, kind: &str, trunk: Option<&str>) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert("alertname".into(), alertname(kind).into());
        labels.insert("instance".into(), self.instance.as_str().into());
        if let Some(trunk) = trunk {
            labels.insert("trunk".into(), trunk.into());
        }
        labels
    }

    fn keep(&mut self, key: Key, entry: Entry, counts: &SinkCounts) {
        if self.alerts.len() >= FIRING && !self.alerts.contains_key(&key) {
            SinkCounts::add(&counts.dropped, 1);
            return;
        }
        self.alerts.insert(key, entry);
    }

    /// Ends what `event` says to be over.
    fn end(&mut self, event: &Event, now: Instant) {
        let dialog = event.names.as_deref().map(dialog);
        for (key, entry) in &mut self.alerts {
            let here = if dialog.is_some() {
                key.dialog == dialog
            } else {
                event.kind == EventKind::BreakerClosed && key.trunk == event.trunk
            };
            let is_over = entry.kind.is_some_and(|kind| ends(event.kind, kind, key.reason.as_deref()));
            if here && is_over && entry.over.is_none() {
                (entry.over, entry.sent) = (Some(now), None);
            }
        }
    }

    /// When the next request is due.
    fn due(&self) -> Option<Instant> {
        self.alerts.values().map(|entry| entry.sent.map_or(entry.last, |sent| sent + self.resend)).min()
    }

    /// What is due by now; `new`: only what has not been sent.
    fn batch(&mut self, now: Instant, wall: SystemTime, new: bool) -> Option<Batch> {
        for entry in self.alerts.values_mut().filter(|entry| entry.over.is_none()) {
            let longest = match entry.kind {
                Some(kind) if !is_passing(kind) => LONGEST,
                Some(_) | None => PASSING,
            };
            if now.saturating_duration_since(entry.last) >= longest {
                (entry.over, entry.sent) = (Some(now), None);
            }
        }
        let is_due = |entry: &Entry| match entry.sent {
            None => true,
            Some(sent) => !new && now.saturating_duration_since(sent) >= self.resend,
        };
        let keys: Vec<Key> =
            self.alerts.iter().filter(|(_, entry)| is_due(entry)).take(BATCH).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() {
            return None;
        }
        let stamp = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        let good_until = stamp(wall + self.resend * GOOD_FOR);
        let alerts: Vec<Value> = keys
            .iter()
            .filter_map(|key| self.alerts.get(key))
            .map(|entry| {
                let ends = match entry.over {
                    None => good_until.clone(),
                    Some(_) => stamp(wall),
                };
                json!({
                    "labels": entry.labels,
                    "annotations": entry.annotations,
                    "startsAt": entry.starts.to_string(),
                    "endsAt": ends,
                })
            })
            .collect();
        Some(Batch { body: Value::from(alerts).to_string(), keys })
    }

    /// They were taken, or are given up. Returns how many were new.
    fn taken(&mut self, batch: &Batch, now: Instant) -> u64 {
        let mut new = 0;
        for key in &batch.keys {
            let Some(entry) = self.alerts.get_mut(key) else { continue };
            new += u64::from(entry.sent.is_none());
            entry.sent = Some(now);
            if entry.over.is_some() {
                self.alerts.remove(key);
            }
        }
        new
    }

    /// What has ended and could not be told for so long that it has resolved by itself goes.
    fn give_up_old(&mut self, now: Instant, counts: &SinkCounts) {
        let good_for = self.resend * GOOD_FOR;
        let before = self.alerts.len();
        self.alerts.retain(|_, entry| entry.over.is_none_or(|over| now.saturating_duration_since(over) < good_for));
        SinkCounts::add(&counts.failed, (before - self.alerts.len()) as u64);
    }
}

fn dialog(names: &Names) -> Box<[u8]> {
    [names.call_id(), b"\0", names.local_tag(), b"\0", names.remote_tag()].concat().into()
}

/// `refresh_overdue` as alerts are named: `SipstRefreshOverdue`.
fn alertname(kind: &str) -> String {
    let mut name = String::from("Sipst");
    for word in kind.split('_') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(letters);
    }
    name
}

/// How bad it is: a call is lost or about to be, or it may come to that.
const fn severity(kind: EventKind) -> &'static str {
    if words::is_critical(kind) { "critical" } else { "warning" }
}

/// Whether it tells of a moment, not of something that goes on.
const fn is_passing(kind: EventKind) -> bool {
    matches!(kind, EventKind::CaptureLoss | EventKind::StateNotKept | EventKind::ByeSent)
}

/// Whether an event may end alerts.
pub(super) const fn may_end(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::SessionRefreshed
            | EventKind::TimerNegotiated
            | EventKind::SessionEnded
            | EventKind::SessionReleased
            | EventKind::BreakerClosed
    )
}

/// Whether an event of this kind ends an alert of that kind, in the same dialog or on the same trunk.
fn ends(event: EventKind, alert: EventKind, reason: Option<&str>) -> bool {
    if event == EventKind::BreakerClosed || alert == EventKind::BreakerOpened {
        return event == EventKind::BreakerClosed && alert == EventKind::BreakerOpened;
    }
    match reason {
        Some("held") if event == EventKind::SessionReleased => true,
        // The session has an interval before it again. What was negotiated is as it was.
        _ if event == EventKind::SessionRefreshed => alert != EventKind::NegotiationFault,
        _ => matches!(event, EventKind::SessionEnded | EventKind::TimerNegotiated),
    }
}

#[cfg(test)]
mod tests;
