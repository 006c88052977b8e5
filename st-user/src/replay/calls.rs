//! What became of each call of a capture: who had to refresh it, who did, who failed, when it would have died.

use std::{borrow::Cow, collections::HashMap, fmt, io, net::SocketAddr, time::Duration};

use serde::Serialize;
use st_core::{By, Event, EventKind, Side, Time};

use crate::output::{Format, printable};

/// How many calls are told apart; further ones are counted.
const MAX_CALLS: usize = 65_536;

/// How much earlier than reckoned here a peer's deadline may be: its clock started before the 2xx came in.
const EARLY: Duration = Duration::from_secs(2);

/// What became of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No session timer was agreed: nothing to refresh.
    #[default]
    NoTimer,
    /// Every refresh that was needed came from the two ends.
    Sound,
    /// sipst refreshed it where the refresher did not.
    KeptAlive,
    /// The interval ran out and the call went on: nobody enforced it.
    Outlived,
    /// The call or the capture ends while a refresh is overdue, before the peer's deadline.
    Overdue,
    /// A refresh was overdue, and the peer hung up at its deadline or said why.
    Lost,
}

/// How often the server, the peer and sipst did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The server.
    pub server: u64,
    /// The peer.
    pub peer: u64,
    /// sipst, in the server's name.
    pub sipst: u64,
}

/// A breach or a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// The side that it came from, where that is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Side>,
    /// As in the events, with its details.
    pub reason: String,
}

/// One call; absent fields are left out of its JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// `call`: what tells the object from an event.
    pub summary: &'static str,
    /// Call-ID.
    pub call_id: String,
    /// The server's tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
    /// The server's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// The peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// Name of the trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// When it was first told of.
    pub started: Time,
    /// When it was over; absent where the capture ends before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<By>,
    /// The interval in seconds that was agreed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u32>,
    /// Who had to refresh, in the order in which they first had to.
    pub refreshers: Vec<Side>,
    /// Who did: refreshes that were answered by a 2xx.
    pub refreshed: Counts,
    /// Who failed: intervals in which the server or the peer had to and did not in time, refreshes of sipst's that did not
    /// come off.
    pub failed: Counts,
    /// Why sipst failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the peer could first have hung up if sipst had not been there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_have_died: Option<Time>,
    /// What was against RFC 4028 or could not be relied upon, each once.
    pub breaches: Vec<Wrong>,
    /// What became of it.
    pub verdict: Verdict,
    /// Whether a refresh is overdue, and the deadline.
    #[serde(skip)]
    overdue: Option<Option<Time>>,
}

impl Call {
    fn new(event: &Event) -> Self {
        Self {
            summary: "call",
            call_id: event.call_id().unwrap_or_default().into(),
            local_tag: event.local_tag().unwrap_or_default().into(),
            remote_tag: event.remote_tag().unwrap_or_default().into(),
            server: event.server(),
            peer: event.peer(),
            trunk: event.trunk.clone(),
            started: event.time,
            ended: None,
            ended_by: None,
            interval_s: None,
            refreshers: Vec::new(),
            refreshed: Counts::default(),
            failed: Counts::default(),
            reason: None,
            would_have_died: None,
            breaches: Vec::new(),
            verdict: Verdict::NoTimer,
            overdue: None,
        }
    }

    fn take(&mut self, event: &Event) {
        for breach in &event.breaches {
            self.wrong(Some(breach.by), breach.reason);
        }
        match event.kind {
            EventKind::SessionStarted
            | EventKind::CaptureLoss
            | EventKind::StateNotKept
            | EventKind::AtRisk
            | EventKind::RefreshSucceeded
            | EventKind::ServerTold
            | EventKind::RefreshAnswered
            | EventKind::AnswerWithheld
            | EventKind::ExpiredMediaFlowing
            | EventKind::ByeSent
            | EventKind::ByeFailed
            | EventKind::SessionHeld
            | EventKind::SessionReleased
            | EventKind::BreakerOpened
            | EventKind::BreakerClosed => {}
            EventKind::TimerNegotiated => {
                self.interval_s = event.interval_s;
                if let Some(refresher) = event.refresher.filter(|side| !self.refreshers.contains(side)) {
                    self.refreshers.push(refresher);
                }
                if self.verdict == Verdict::NoTimer && event.interval_s.is_some() {
                    self.verdict = Verdict::Sound;
                }
            }
            EventKind::SessionRefreshed => self.refreshed(event),
            // The peer has to, and is not late: sipst is early.
            EventKind::RefreshDue | EventKind::RefreshSent
                if self.overdue.is_none() && event.by == Some(By::Sipst) && event.refresher == Some(Side::Peer) => {}
            EventKind::RefreshDue | EventKind::RefreshOverdue => {
                if self.overdue.is_none() {
                    self.overdue = Some(event.deadline);
                    match event.refresher {
                        Some(Side::Server) => self.failed.server += 1,
                        Some(Side::Peer) => self.failed.peer += 1,
                        None => {}
                    }
                }
            }
            // The peer did, and the server did not let it.
            EventKind::RefreshRejected | EventKind::RefreshIgnored => {
                if self.overdue.is_none() {
                    self.overdue = Some(event.deadline);
                    self.failed.server += 1;
                }
                self.wrong(Some(Side::Server), event.reason.as_deref().unwrap_or_default());
            }
            EventKind::RefreshSent => {
                self.overdue.get_or_insert(event.deadline);
            }
            EventKind::RefreshFailed => {
                self.failed.sipst += 1;
                self.reason = event.reason.as_deref().map(Into::into);
            }
            EventKind::SessionExpiring => {}
            EventKind::SessionExpired => {
                self.dies(event.deadline);
                self.verdict = Verdict::Outlived;
            }
            EventKind::SessionEnded => {
                self.ended = Some(event.time);
                self.ended_by = event.by;
                if let Some(deadline) = self.overdue.filter(|_| event.by == Some(By::Peer)) {
                    let late = deadline.is_some_and(|deadline| event.time + EARLY >= deadline);
                    if late || event.reason.as_deref().is_some_and(names_timeout) {
                        self.dies(deadline);
                        self.verdict = Verdict::Lost;
                    } else if self.verdict != Verdict::Outlived {
                        self.verdict = Verdict::Overdue;
                    }
                }
            }
            EventKind::NegotiationFault => self.wrong(None, event.reason.as_deref().unwrap_or_default()),
        }
    }

    fn refreshed(&mut self, event: &Event) {
        let overdue = self.overdue.take();
        match event.by {
            Some(By::Server) => self.refreshed.server += 1,
            Some(By::Peer) => self.refreshed.peer += 1,
            Some(By::Sipst) => {
                self.refreshed.sipst += 1;
                self.dies(overdue.flatten());
                if self.verdict == Verdict::Sound {
                    self.verdict = Verdict::KeptAlive;
                }
            }
            None => {}
        }
    }

    fn dies(&mut self, deadline: Option<Time>) {
        self.would_have_died = self.would_have_died.or(deadline);
    }

    fn wrong(&mut self, by: Option<Side>, reason: &str) {
        let wrong = Wrong { by, reason: reason.into() };
        if !self.breaches.contains(&wrong) {
            self.breaches.push(wrong);
        }
    }

    /// The capture is over.
    fn close(&mut self) {
        if self.ended.is_none() && self.overdue.is_some() && self.verdict != Verdict::Outlived {
            self.verdict = Verdict::Overdue;
        }
    }
}

/// Lines, each with its newline.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |side: Option<SocketAddr>| side.map_or_else(|| "-".to_owned(), |side| side.to_string());
        writeln!(
            f,
            "call {} (server {}, peer {}, {}): {}",
            printable(&self.call_id),
            address(self.server),
            address(self.peer),
            printable(self.trunk.as_deref().unwrap_or("-")),
            match self.verdict {
                Verdict::NoTimer => "no session timer",
                Verdict::Sound => "sound",
                Verdict::KeptAlive => "kept alive by sipst",
                Verdict::Outlived => "its interval ran out, and nobody enforced that",
                Verdict::Overdue => "a refresh was overdue at its end",
                Verdict::Lost => "lost: a refresh was overdue, and the peer hung up",
            }
        )?;
        if let Some(interval_s) = self.interval_s {
            let names: Vec<String> = self.refreshers.iter().map(Side::to_string).collect();
            writeln!(f, "  had to refresh: {}, within {interval_s} s", names.join(", then "))?;
            writeln!(f, "  did: {}", self.refreshed)?;
            let reason = self.reason.as_deref().map(|reason| format!(" ({})", printable(reason)));
            writeln!(f, "  failed: {}{}", self.failed, reason.unwrap_or_default())?;
        }
        if let Some(at) = self.would_have_died {
            let but = if self.verdict == Verdict::KeptAlive { ", but for sipst" } else { "" };
            writeln!(f, "  could have died: {at}{but}")?;
        }
        for Wrong { by, reason } in &self.breaches {
            let by = by.map(|by| format!(" by the {by}"));
            writeln!(f, "  breach{}: {}", by.unwrap_or_default(), printable(reason))?;
        }
        match (self.ended, self.ended_by) {
            (Some(at), Some(by)) => writeln!(f, "  ended: {at} by {by}"),
            (Some(at), None) => writeln!(f, "  ended: {at}"),
            (None, _) => writeln!(f, "  did not end in this capture"),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, peer, sipst } = self;
        let all = [("server", server), ("peer", peer), ("sipst", sipst)];
        let some: Vec<String> =
            all.iter().filter(|(_, count)| **count > 0).map(|(who, count)| format!("{who} ({count})")).collect();
        f.write_str(if some.is_empty() { "nobody" } else { "" })?;
        f.write_str(&some.join(", "))
    }
}

/// Whether a BYE's Reason is that of a session that ran out, as stacks write it: `SIP;cause=408;text="Session timeout"`.
fn names_timeout(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["cause=408", "session timeout", "session timer", "session expired"].iter().any(|word| reason.contains(word))
}

/// Call-ID and tags.
type Key = [Option<String>; 3];

/// The calls of a capture, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    calls: Vec<Call>,
    index: HashMap<Key, usize>,
    /// Events of calls beyond the limit.
    beyond: u64,
}

impl Calls {
    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Call> {
        self.calls.iter()
    }

    /// How many events there were of calls beyond the limit.
    pub(super) const fn beyond(&self) -> u64 {
        self.beyond
    }

    /// The place of the call that an event is about, among all of them.
    pub(super) fn event(&mut self, event: &Event) -> Option<usize> {
        event.names.as_ref()?;
        let key = [event.call_id(), event.local_tag(), event.remote_tag()].map(|name| name.map(Cow::into_owned));
        // A dialog that is made again is another call.
        let known = self.index.get(&key).copied().filter(|_| event.kind != EventKind::SessionStarted);
        let at = match known {
            Some(at) => at,
            None if self.calls.len() >= MAX_CALLS => {
                self.beyond += 1;
                return None;
            }
            None => {
                self.calls.push(Call::new(event));
                self.index.insert(key, self.calls.len() - 1);
                self.calls.len() - 1
            }
        };
        self.calls.get_mut(at)?.take(event);
        Some(at)
    }

    pub(super) fn close(&mut self) {
        self.calls.iter_mut().for_each(Call::close);
    }

    /// Writes one object or one paragraph a call: objects to `out`, text to `log`.
    ///
    /// # Errors
    /// Those of `out`; `log` may be closed.
    pub fn write(&self, format: Format, out: &mut dyn io::Write, log: &mut dyn io::Write) -> io::Result<()> {
        for call in &self.calls {
            match format {
                Format::Json => writeln!(out, "{}", serde_json::to_string(call)?)?,
                Format::Human => {
                    let _ = write!(log, "{call}");
                }
            }
        }
        if self.beyond > 0 {
            let _ = writeln!(log, "and more than these {MAX_CALLS} calls: {} of their events", self.beyond);
        }
        out.flush()
    }
}
