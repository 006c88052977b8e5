//! The peer's own refreshes, and what becomes of them at the server: never seen, turned down, or left without a word.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    assume::Origin,
    breach::Terms,
    dialog::{Dialog, Phase},
    exchange::{Exchange, IGNORED, Talk},
    habits::Keys,
    reason,
    sdp::{Said, is_repeated},
    session::Turned,
    shared::Shared,
    timers::{TRANSACTION, Timer},
};
use crate::{
    Action, By, Event, EventKind, Rules, Side,
    message::{HeaderName, Message, MethodName, Start},
};

/// How much of the server's own words is told, in bytes.
const MAX_WORDS: usize = 256;

/// How many ways in which the server deals with the peer's refreshes are told in one interval.
const MAX_TOLD: usize = 8;

impl Dialog {
    /// Whether an INVITE or UPDATE of the peer's changes nothing, so that it can only be a refresh. Where that is not known, one with
    /// Session-Expires counts.
    fn is_refresh(&self, method: MethodName, talk: &Talk) -> bool {
        let asks = talk.terms.interval.is_some();
        match (&talk.asked, &self.peer_sdp) {
            (Said::Nothing, _) if method == MethodName::Update => true,
            (Said::Sdp(sdp), Some(before)) => is_repeated(before, &sdp.bytes),
            (Said::Nothing | Said::Sdp(_) | Said::Unclear, _) => asks,
        }
    }

    /// Whether the call depends on a refresh of the peer's: it has to refresh, or does so on its own account (R12).
    fn is_needed(&self, terms: Terms) -> bool {
        match self.session.agreed {
            Some(agreed) => agreed.refresher == Side::Peer,
            None => terms.interval.is_some(),
        }
    }

    /// How long the server may be silent to a refresh of the peer's before that is told.
    fn silence(&self) -> Duration {
        IGNORED.min(self.session.interval().map_or(IGNORED, |interval| interval / 3))
    }

    /// A new INVITE or UPDATE of the peer's has come in.
    pub(super) fn peer_asks(&mut self, sx: &mut Shared) {
        let Some((method, talk)) = self.exchanges.last().and_then(Exchange::of_peers) else { return };
        if !self.is_needed(talk.terms) || !self.is_refresh(method, talk) {
            return;
        }
        if !std::mem::replace(&mut self.session.peer_asked, true) && sx.has_habits() {
            let keys = self.habit_keys(sx);
            sx.learn_seen(keys);
        }
        if !self.is_watched(sx) {
            sx.timers.set(self.id, Timer::Ignored, sx.now + self.silence());
        }
    }

    /// Whether a refresh of the peer's waits for the server's first word.
    pub(super) fn is_watched(&self, sx: &Shared) -> bool {
        sx.timers.of(self.id).iter().any(|(_, timer)| *timer == Timer::Ignored)
    }

    /// [`Timer::Ignored`]
    pub(super) fn peer_is_ignored(&mut self, sx: &mut Shared) {
        let silence = self.silence();
        let patience = |known: &Exchange| if known.is_provisional() { TRANSACTION } else { silence };
        // The server's answer may have gone by unseen.
        let all = self.exchanges.all().iter().filter(|_| !self.is_unsure(sx));
        let open: Vec<_> = all
            .filter(|known| known.is_unanswered())
            .filter_map(|known| Some((known, known.of_peers()?)))
            .filter(|(_, (method, talk))| self.is_needed(talk.terms) && self.is_refresh(*method, talk))
            .map(|(known, (method, _))| (known.heard + patience(known), method, known.copies, known.is_provisional()))
            .collect();
        if let Some(at) = open.iter().map(|(at, ..)| *at).filter(|at| *at > sx.now).min() {
            sx.timers.set(self.id, Timer::Ignored, at);
        }
        let now = sx.now;
        for (_, method, copies, is_provisional) in open.into_iter().filter(|(at, ..)| *at <= now) {
            // A single one proves nothing: whoever means it sends it again.
            if copies > 1 {
                let keys = self.habit_keys(sx);
                sx.learn_turned(keys, Turned { method, status: None });
            }
            let said = if is_provisional { "no final answer" } else { "not a word" };
            let why = format!(
                "{}: {said} to {copies} copies; a firewall may have dropped them",
                reason::SERVER_IGNORES_REFRESH
            );
            self.turned(sx, Turned { method, status: None }, EventKind::RefreshIgnored, why.into());
        }
    }

    /// The server has turned an INVITE or UPDATE of the peer's down.
    pub(super) fn peer_turned_down(
        &mut self,
        sx: &mut Shared,
        method: MethodName,
        talk: &Talk,
        message: &Message<'_>,
        status: u16,
    ) {
        if !is_rejection(message, status) || !self.is_needed(talk.terms) || !self.is_refresh(method, talk) {
            return;
        }
        // Others speak of this call alone.
        if !matches!(status, 404 | 410 | 480..=485) {
            let keys = self.habit_keys(sx);
            sx.learn_turned(keys, Turned { method, status: Some(status) });
        }
        let why = match words(message) {
            Some(words) => format!("{}: {words}", reason::SERVER_REFUSES_REFRESH).into(),
            None => reason::SERVER_REFUSES_REFRESH.into(),
        };
        self.turned(sx, Turned { method, status: Some(status) }, EventKind::RefreshRejected, why);
    }

    /// Tells what the server has made of a refresh of the peer's, each way once in an interval.
    fn turned(&mut self, sx: &mut Shared, turned: Turned, kind: EventKind, why: Cow<'static, str>) {
        if self.session.turned.contains(&turned) || self.session.turned.len() >= MAX_TOLD {
            return;
        }
        self.session.turned.push(turned);
        let Turned { method, status } = turned;
        let event =
            Event { method: Some(method.name()), status, reason: Some(why), ..self.due_event(sx, kind, By::Peer) };
        self.tell_alarm(sx, event);
        let policy = Arc::clone(&sx.policy);
        if self.takes_over(self.rules(&policy).1) {
            self.take_over_now(sx, reason::TAKE_OVER);
        } else {
            self.take_role_back(sx);
        }
    }

    /// The server has taken an INVITE or UPDATE of the peer's.
    pub(super) fn peer_was_taken(&self, sx: &mut Shared, method: MethodName) {
        if self.phase == Phase::Confirmed && sx.has_habits() {
            let keys = self.habit_keys(sx);
            sx.learn_taken(keys, method);
        }
    }

    /// No refresh of the peer's was seen though it was due.
    pub(super) fn was_not_seen(&self, sx: &mut Shared) {
        if !self.session.peer_asked && !self.may_be_over(sx) {
            let keys = self.habit_keys(sx);
            sx.learn_unseen(keys);
        }
    }

    /// What is known of such calls is found by that.
    pub(super) fn habit_keys(&self, sx: &Shared) -> Keys {
        let policy = Arc::clone(&sx.policy);
        let trunk = self.rules(&policy).0.as_bytes();
        let (server, peer) = (self.names.server.to_string(), self.names.peer.ip().to_string());
        Keys {
            server: sx.secret.fingerprint([trunk, server.as_bytes()]),
            peer: sx.secret.fingerprint([trunk, server.as_bytes(), peer.as_bytes()]),
        }
    }

    /// Tells, once for each reason, that the peer has to refresh and that this will come to nothing; `hopes`: not where sipst is to
    /// take the refreshing over.
    pub(super) fn tell_risk(&mut self, sx: &mut Shared, hopes: bool) {
        if self.session.refresher() != Some(Side::Peer) || self.session.deadline().is_none() {
            return;
        }
        let policy = Arc::clone(&sx.policy);
        if hopes && self.takes_over(self.rules(&policy).1) && self.forbidden(sx).is_none() {
            return;
        }
        if !sx.has_habits() {
            return;
        }
        let Some((word, what)) = sx.risk(self.habit_keys(sx)) else { return };
        if self.session.told_risk.replace(word) == Some(word) {
            return;
        }
        let reason = Some(format!("{word}: {what}").into());
        let event = Event { reason, ..self.due_event(sx, EventKind::AtRisk, By::Peer) };
        self.tell_alarm(sx, event);
    }

    /// Whether sipst refreshes where the peer has to: by the rules, because it has only come to that by a refresh of sipst's, or because
    /// there are timers only because sipst has seen to it: the peer's refreshes are for a server that has none.
    pub(super) fn takes_over(&self, rules: &Rules) -> bool {
        let is_ours = self.assisted || matches!(self.session.origin, Origin::Assumed | Origin::TakenBack);
        (rules.take_over || is_ours) && rules.action == Action::Refresh && !self.relayed
    }

    /// [`Timer::TakeOver`]
    pub(super) fn take_over(&mut self, sx: &mut Shared) {
        let Some(last) = self.session.last_take_over() else { return };
        // A dialog that may be over is asked at the last moment before the peer refreshes: something may be heard of it.
        if self.is_unsure(sx) && sx.now < last {
            return sx.timers.set(self.id, Timer::TakeOver, last);
        }
        if self.exchanges.refreshing(sx.now, Side::Peer) {
            // It is early. What the server makes of it is waited for.
            return sx.timers.set(self.id, Timer::TakeOver, sx.now + self.session.pause());
        }
        let policy = Arc::clone(&sx.policy);
        if self.takes_over(self.rules(&policy).1) {
            self.take_over_now(sx, reason::TAKE_OVER);
        }
    }

    /// The peer has to refresh, and sipst does.
    pub(super) fn take_over_now(&mut self, sx: &mut Shared, why: &'static str) {
        let peer = self.session.agreed.is_some_and(|agreed| agreed.refresher == Side::Peer);
        if !peer || self.cycle.active || self.is_over() {
            return;
        }
        if self.forbidden(sx).is_some() {
            return self.tell_risk(sx, false);
        }
        let reason = Some(why.into());
        let event = Event { reason, ..self.due_event(sx, EventKind::RefreshDue, By::Sipst) };
        self.tell(sx, event);
        self.begin(sx);
    }
}

/// Whether a final response of the server's to a refresh says that it does not take it: not what the peer can do something about, or
/// has itself asked for.
fn is_rejection(message: &Message<'_>, status: u16) -> bool {
    match status {
        401 | 407 | 422 | 487 | 491 => false,
        500 => message.retry_after().is_none(),
        _ => status >= 300,
    }
}

/// What the server says about it, as far as it is text.
fn words(message: &Message<'_>) -> Option<String> {
    let Start::Response { reason, .. } = message.start() else { return None };
    let cause = message.first(HeaderName::Reason).or_else(|| message.first(HeaderName::Warning));
    let cut = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(MAX_WORDS)]).into_owned();
    match (cut(reason), cause.map(cut)) {
        (phrase, Some(cause)) => Some(format!("{phrase} ({cause})")),
        (phrase, None) => Some(phrase).filter(|phrase| !phrase.is_empty()),
    }
}
