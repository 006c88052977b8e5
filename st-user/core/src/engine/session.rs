//! The session timer of a dialog: what a 2xx sets, and what happens when its moments come.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Mode,
    assume::{Origin, floor},
    breach::Terms,
    dialog::Dialog,
    negotiate::{Agreed, Outcome, negotiate},
    reason,
    record::words,
    refresh::Cycle,
    schedule::Schedule,
    shared::Shared,
    timers::{REARM, Timer},
};
use crate::{
    Action, Breach, By, Event, EventKind, Side, Time,
    message::{HeaderName, Message, MethodName, Role, SessionExpires},
};

/// A shorter interval is not acted upon, whatever the policy says: it could only be a mistake or an attack (R42).
pub(super) const LEAST_INTERVAL: Duration = Duration::from_secs(2);

/// Where a dialog stands with RFC 4028.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) agreed: Option<Agreed>,
    /// Where that comes from.
    pub(super) origin: Origin,
    /// What is assumed in this interval, in seconds, in place of what was agreed.
    pub(super) assumed: Option<u32>,
    /// When the interval began: R16.
    since: Option<Time>,
    /// The moments of this interval; `None` where it is not acted upon.
    pub(super) schedule: Option<Schedule>,
    /// Whether the server listed `timer` or sent Session-Expires.
    knows_timers: bool,
    /// Whether it let an interval pass since.
    pub(super) missed: bool,
    /// Whether [`EventKind::SessionExpiring`] was told in this interval.
    pub(super) told_expiring: bool,
    /// Replay: whether a refresh has no answer in the capture, so that what follows from silence is not told.
    pub(super) partial: bool,
    /// Faults that were told: each is told once.
    #[serde(deserialize_with = "words::many")]
    told_faults: Vec<&'static str>,
    /// Breaches that came to light; each is told once.
    #[serde(deserialize_with = "words::breaches")]
    breaches: Vec<Breach>,
    /// How many of them were told.
    told_breaches: usize,
    /// Whether the server and the peer have sent refreshes since the refresher last changed.
    refreshed: [bool; 2],
    /// What the server has made of the peer's refreshes in this interval, as far as it was told.
    pub(super) turned: Vec<Turned>,
    /// Whether a refresh of the peer's was seen in this interval.
    pub(super) peer_asked: bool,
    /// The last word with which [`EventKind::AtRisk`] was told.
    #[serde(deserialize_with = "words::maybe")]
    pub(super) told_risk: Option<words::Word>,
}

/// How the server deals with a refresh of the peer's that comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turned {
    pub(super) method: MethodName,
    /// `None`: by silence.
    pub(super) status: Option<u16>,
}

/// A transaction that refreshes the session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deal {
    /// Who sent the request; the server's are also those in its name.
    pub(super) sender: Side,
    pub(super) by: By,
    /// Whether sipst has answered it in the server's name.
    pub(super) answered: bool,
    pub(super) method: MethodName,
    /// What the request says.
    pub(super) terms: Terms,
    /// Whether it leaves the session as it is: a refresh and nothing else.
    pub(super) unchanged: bool,
}

impl Turned {
    /// The word in an event's `reason`.
    pub(super) const fn reason(&self) -> &'static str {
        match self.status {
            Some(_) => reason::SERVER_REFUSES_REFRESH,
            None => reason::SERVER_IGNORES_REFRESH,
        }
    }
}

impl Session {
    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> usize {
        let lengths = self.told_faults.len() ^ self.breaches.len() ^ self.told_breaches ^ self.turned.len();
        let since = self.since.map_or(0, |at| at.as_micros() as usize);
        let schedule = self
            .schedule
            .map_or(0, |schedule| (schedule.act.subsec_nanos() ^ schedule.expired.subsec_nanos()) as usize);
        lengths ^ since ^ schedule ^ usize::from(self.missed ^ self.agreed.is_some() ^ self.told_risk.is_some())
    }

    /// Takes in an INVITE or UPDATE of the server's or its 2xx to one.
    pub(super) fn saw_server(&mut self, message: &Message<'_>) {
        self.knows_timers =
            self.knows_timers || message.first(HeaderName::SessionExpires).is_some() || message.supports(b"timer");
    }

    /// Whether the server has shown that it has timers of its own.
    pub(super) const fn knows_timers(&self) -> bool {
        self.knows_timers
    }

    /// Takes in what is to be told with the next event.
    pub(super) fn breached(&mut self, breaches: Vec<Breach>) {
        for breach in breaches {
            if !self.breaches.contains(&breach) {
                self.breaches.push(breach);
            }
        }
    }

    /// What was not told yet.
    pub(super) fn untold(&mut self) -> Vec<Breach> {
        let told = std::mem::replace(&mut self.told_breaches, self.breaches.len());
        self.breaches[told..].to_vec()
    }

    /// F4: only one side is to refresh.
    fn refreshed_by(&mut self, deal: Deal, before: Option<Side>) {
        let now = self.agreed.map(|agreed| agreed.refresher);
        if now != before {
            self.refreshed = [false; 2];
        }
        // Where sipst refreshes beside the peer, that is on purpose.
        let beside = deal.by == By::Sipst && now == Some(Side::Peer);
        if deal.unchanged && deal.terms.interval.is_some() && !beside {
            self.refreshed[usize::from(deal.sender == Side::Peer)] = true;
        }
        if let Some(refresher) = now.filter(|_| self.refreshed == [true; 2]) {
            self.breached(vec![Breach { by: refresher.other(), reason: reason::BOTH_REFRESH }]);
        }
    }

    /// How long it is.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.schedule.map(|schedule| schedule.expired)
    }

    /// Until when a refresh before the peer's may be put off.
    pub(super) fn last_take_over(&self) -> Option<Time> {
        Some(self.since? + self.schedule?.last_take_over())
    }

    /// When the peer, which has to refresh, is about to.
    pub(super) fn peers_turn(&self) -> Option<Time> {
        let peer = self.refresher() == Some(Side::Peer);
        Some(self.since? + self.schedule.filter(|_| peer)?.expired / 2)
    }

    /// When the interval began.
    pub(super) const fn since(&self) -> Option<Time> {
        self.since
    }

    /// When somebody has to act.
    pub(super) fn act_at(&self) -> Option<Time> {
        Some(self.since? + self.schedule?.act)
    }

    /// When the peer may hang up.
    pub(super) fn deadline(&self) -> Option<Time> {
        Some(self.since? + self.schedule?.deadline)
    }

    /// When to tell that nothing has refreshed the session.
    pub(super) fn expiring_at(&self) -> Option<Time> {
        Some(self.since? + self.schedule?.expiring)
    }

    /// When the interval has run out.
    pub(super) fn end(&self) -> Option<Time> {
        Some(self.since? + self.schedule?.expired)
    }

    /// R31: how long to wait until something is tried again that cannot be done right now.
    pub(super) fn pause(&self) -> Duration {
        self.schedule.map_or(REARM, |schedule| REARM.min(schedule.expired / 20))
    }
}

impl Dialog {
    /// A 2xx to an INVITE or UPDATE.
    pub(super) fn agree(&mut self, sx: &mut Shared, message: &Message<'_>, deal: Deal) {
        let Deal { sender, by, answered, method, terms, unchanged: _ } = deal;
        let policy = Arc::clone(&sx.policy);
        let rules = self.rules(&policy).1;
        let before = self.session.agreed;
        let expires = message.session_expires();
        let undertaken = self.undertaken(deal, expires.is_some());
        let outcome = match undertaken {
            Some(agreed) => Outcome { agreed: Some(agreed), fault: None },
            None => negotiate(before, sender, expires, rules.strict_r12),
        };
        self.session.agreed = outcome.agreed;
        if by != By::Sipst {
            self.session.breached(terms.breaches(sender, before));
        }
        self.session.breached(terms.breaches_of_2xx(sender, message, expires));
        self.session.refreshed_by(deal, before.map(|agreed| agreed.refresher));
        // R16: the UAC's clock starts with the arrival of the 2xx, the UAS's when it leaves.
        self.session.since = Some(sx.now);
        self.session.told_expiring = false;
        self.session.partial = false;
        self.session.turned.clear();
        self.session.peer_asked = false;
        let named = matches!(expires, Some(Ok(SessionExpires { refresher: Some(Role::Uas), .. })));
        if by == By::Server && self.session.knows_timers || by == By::Peer && named && !answered {
            // It refreshes, or has just said that it will.
            self.session.missed = false;
        }
        // R12: a peer that has asked may go on alone, and refreshes by itself where it does.
        let alone = by == By::Peer && expires.is_none() && undertaken.is_none() && terms.interval.is_some();
        self.leave_queue(sx);
        self.retire_hangup(sx);
        self.cycle = Cycle::after(&self.cycle);
        sx.timers.cancel_all(self.id, &[Timer::Ignored, Timer::Retry, Timer::Armed]);
        let themselves = matches!(expires, Some(Ok(_))) && by != By::Sipst && !answered;
        self.session.origin = self.session.origin.after(themselves, outcome.agreed.is_some());
        let was_assumed = self.session.assumed.is_some();
        self.has_handed_off(by, terms);
        // R12: where the answer says nothing, a server that refreshes does so by what it asked for.
        let asked = terms.interval.filter(|_| sender == Side::Server && expires.is_none());
        self.set_moments(rules, by, alone, asked);
        self.keeps_role();
        let floor = floor(rules);
        let too_short = outcome.agreed.is_some_and(|agreed| Duration::from_secs(agreed.interval.into()) < floor);
        let told = |kind, dialog: &Self, sx: &Shared| Event {
            by: Some(by),
            method: Some(method.name()),
            status: message.status(),
            deadline: dialog.session.deadline(),
            ..dialog.timed_event(sx, kind)
        };
        if outcome.agreed != before {
            let reason = undertaken.map(|_| reason::ASSISTED.into());
            let event = Event { reason, ..told(EventKind::TimerNegotiated, self, sx) };
            self.tell(sx, event);
        }
        if let Some(fault) = outcome.fault {
            self.fault(sx, fault.reason(), "");
        }
        if too_short {
            let shortest = humantime::format_duration(floor).to_string();
            self.fault(sx, reason::BELOW_FLOOR, &format!("shorter than {shortest}, not acted upon"));
        }
        // R15
        let runs = outcome.agreed.is_some() || self.session.assumed.is_some();
        if (before.is_some() || was_assumed) && runs {
            let event = told(EventKind::SessionRefreshed, self, sx);
            self.tell(sx, event);
        }
        self.watch(sx);
        self.arrange(sx);
        // The peer's own refresh has just got through.
        if by != By::Peer || before.is_none() {
            self.tell_risk(sx, true);
        }
        // The answer to a re-INVITE of sipst's shows the peer's once more.
        if let Some(responding) = self.responding.as_mut().filter(|_| method == MethodName::Invite) {
            responding.losses = sx.losses;
        }
        self.mark(sx);
    }

    /// Starts the timers of the interval.
    pub(super) fn arrange(&self, sx: &mut Shared) {
        match self.session.since.zip(self.session.schedule.and_then(|schedule| schedule.take_over)) {
            Some((since, after)) => sx.timers.set(self.id, Timer::TakeOver, since + after),
            None => sx.timers.cancel(self.id, Timer::TakeOver),
        }
        let moments = self.session.since.zip(self.session.schedule).map(|(since, schedule)| {
            [(Timer::Act, schedule.act), (Timer::Expiring, schedule.expiring), (Timer::Expired, schedule.expired)]
                .map(|(timer, after)| (timer, since + after))
        });
        match moments {
            Some(moments) => sx.timers.set_all(self.id, moments),
            None => sx.timers.cancel_all(self.id, &[Timer::Act, Timer::Expiring, Timer::Expired]),
        }
    }

    /// A 422 to an INVITE or UPDATE of `sender`'s. Where the peer has to refresh and can never do so, the call is at risk.
    pub(super) fn too_short(&mut self, sx: &mut Shared, message: &Message<'_>, sender: Side, terms: Terms) {
        let breaches = terms.breaches_of_422(sender, message);
        let hopeless = breaches.iter().find(|breach| breach.reason != reason::UNDUE_422).copied();
        self.session.breached(breaches);
        let must = self.session.agreed.is_some_and(|agreed| agreed.refresher == Side::Peer);
        if let Some(Breach { reason, .. }) = hopeless.filter(|_| must && sender == Side::Peer) {
            self.fault(sx, reason, "422 to the peer's refresh");
        }
    }

    /// Tells once that what was negotiated cannot be relied upon.
    pub(super) fn fault(&mut self, sx: &mut Shared, reason: &'static str, details: &str) {
        if self.session.told_faults.contains(&reason) {
            return;
        }
        self.session.told_faults.push(reason);
        let reason = if details.is_empty() { reason.into() } else { format!("{reason}: {details}").into() };
        let event = Event { reason: Some(reason), ..self.timed_event(sx, EventKind::NegotiationFault) };
        self.tell(sx, event);
    }

    /// An event with what was agreed.
    pub(super) fn timed_event(&self, sx: &Shared, kind: EventKind) -> Event {
        Event {
            interval_s: self.session.agreed.map(|agreed| agreed.interval),
            refresher: self.session.agreed.map(|agreed| agreed.refresher),
            ..self.event(sx, kind)
        }
    }

    /// An event of the interval that is running.
    pub(super) fn due_event(&self, sx: &Shared, kind: EventKind, by: By) -> Event {
        Event { by: Some(by), deadline: self.session.deadline(), ..self.timed_event(sx, kind) }
    }

    /// [`Timer::Act`]: the obligation matrix.
    pub(super) fn act(&mut self, sx: &mut Shared) {
        let (Some(refresher), Some(since), Some(schedule)) =
            (self.session.refresher(), self.session.since, self.session.schedule)
        else {
            return;
        };
        if self.rules(&Arc::clone(&sx.policy)).1.hangs_up() {
            // Whether media were seen both ways is kept on record: a daemon that comes later may need to know.
            self.look(sx);
        }
        // A dialog that may be over is asked at the last moment that is safe: something may be heard of it until then.
        let last_safe = since + schedule.last_safe();
        if self.is_unsure(sx) && sx.now < last_safe {
            return sx.timers.set(self.id, Timer::Act, last_safe);
        }
        let again = sx.now + self.session.pause();
        if self.exchanges.refreshing(sx.now, refresher) && again < since + schedule.deadline {
            return sx.timers.set(self.id, Timer::Act, again);
        }
        if refresher == Side::Peer && self.is_watched(sx) && again < since + schedule.expired {
            // Its refresh was seen: what becomes of it is told as such.
            return sx.timers.set(self.id, Timer::Act, again);
        }
        if self.session.assumed.is_some() {
            return self.act_on_assumption(sx);
        }
        let action = self.action(sx);
        let reason = self.forbidden(sx).map(Cow::from);
        match (refresher, action) {
            // It was told what the server makes of it, or sipst is at it.
            (Side::Peer, _) if !self.session.turned.is_empty() || self.cycle.is_on() => {}
            (Side::Peer, Action::Alert | Action::Refresh) => {
                self.was_not_seen(sx);
                let event = self.due_event(sx, EventKind::RefreshOverdue, By::Peer);
                self.tell_alarm(sx, event);
                self.take_role_back(sx);
            }
            (Side::Peer, Action::Observe) => {}
            (Side::Server, Action::Refresh) if reason.is_none() => {
                if self.cycle.failed {
                    // One that an operator had asked for, before this one was due.
                    self.cycle = Cycle::anew(&self.cycle);
                }
                let event = self.due_event(sx, EventKind::RefreshDue, By::Sipst);
                self.tell(sx, event);
                self.begin(sx);
            }
            (Side::Server, Action::Observe) => {
                self.session.missed = true;
                let event = Event { reason, ..self.due_event(sx, EventKind::RefreshDue, By::Server) };
                self.tell(sx, event);
            }
            (Side::Server, Action::Alert | Action::Refresh) => {
                self.session.missed = true;
                for kind in [EventKind::RefreshDue, EventKind::RefreshOverdue] {
                    let event = Event { reason: reason.clone(), ..self.due_event(sx, kind, By::Server) };
                    self.tell_alarm(sx, event);
                }
            }
        }
    }

    /// [`Timer::Expiring`]
    pub(super) fn expiring(&mut self, sx: &mut Shared) {
        let ran_out = || self.session.end().is_some_and(|end| end <= sx.resumed).then_some(reason::OUTAGE);
        let silent = || self.cycle.silent.then_some(reason::MEDIA_SILENT);
        let turned = || self.session.turned.last().map(Turned::reason);
        let reason = ran_out().or_else(|| self.waits_for(sx)).or_else(silent).or_else(turned).map(Cow::from);
        if self.session.assumed.is_some() {
            return self.expiring_by_assumption(sx, reason);
        }
        if !std::mem::replace(&mut self.session.told_expiring, true) {
            let by = self.session.agreed.map(|agreed| By::from(agreed.refresher));
            let deadline = self.session.deadline();
            let event = Event { by, deadline, reason, ..self.timed_event(sx, EventKind::SessionExpiring) };
            self.tell_alarm(sx, event);
        }
    }

    /// [`Timer::Expired`]
    pub(super) fn expired(&mut self, sx: &mut Shared) {
        if self.session.assumed.is_some() {
            return self.assumption_runs_out(sx);
        }
        self.give_up(sx);
        if self.may_be_over(sx) {
            self.expiring(sx);
        } else {
            let event = Event { deadline: self.session.deadline(), ..self.timed_event(sx, EventKind::SessionExpired) };
            self.tell_alarm(sx, event);
        }
        self.has_expired(sx);
    }

    /// Replay: whether the capture may lack what would have kept the session alive.
    pub(super) fn is_partial(&self, sx: &Shared) -> bool {
        self.session.partial || self.lacks_answer(sx)
    }

    /// Tells what follows from silence; not where the capture cannot have what would break it.
    pub(super) fn tell_alarm(&mut self, sx: &mut Shared, event: Event) {
        if sx.mode == Mode::Live || !self.is_partial(sx) {
            self.tell(sx, event);
        }
    }
}
