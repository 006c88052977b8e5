//! `on_expired: bye`: a session that has expired, in which nobody has given a sign of life since and whose media are silent both
//! ways, is ended by a BYE to each side in the other's name. Where anything speaks against it, it is an alert and nothing more.

mod bye;

use std::{sync::Arc, time::Duration};

use self::bye::{Bye, Progress};
use super::{
    Mode,
    dialog::{Dialog, Phase, SILENCE},
    evidence::{MEDIA_SILENCE, Media},
    gate::Request,
    reason,
    shared::Shared,
    timers::{REARM, TRANSACTION, Timer},
};
use crate::{Action, By, Event, EventKind, MediaSeen, Refusal, Side, Time, message::MethodName};

/// How soon it is looked again where something is in the way that passes.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For [`Timer::HangUp`], or for nothing more in this interval.
    Waiting,
    /// [`crate::Output::Look`] is out.
    Looking,
    /// For its turn ([`super::gate`]).
    Queued,
    /// The BYEs are on their way.
    Going,
}

/// What is done about a session that has expired.
#[derive(Clone, Debug)]
pub(super) struct Hangup {
    stage: Stage,
    /// Whether it was told that media flow.
    told_flow: bool,
    /// How often it was tried in vain.
    tries: u32,
    byes: Vec<Bye>,
    /// Whether it goes in the place of the server's own, which the peer has refused: nothing speaks against it.
    instead: bool,
}

impl Hangup {
    fn new() -> Self {
        Self { stage: Stage::Waiting, told_flow: false, tries: 0, byes: Vec::new(), instead: false }
    }

    /// Whether one side may have been hung up on, so that the other has to follow.
    fn has_begun(&self) -> bool {
        self.instead || self.byes.iter().any(|bye| bye.left || matches!(bye.progress, Progress::Sent | Progress::Open))
    }
}

impl Dialog {
    // Whether.

    /// The interval has run out.
    pub(super) fn has_expired(&mut self, sx: &mut Shared) {
        let Some(end) = self.session.end().filter(|_| sx.mode == Mode::Live && !self.is_over()) else { return };
        let policy = Arc::clone(&sx.policy);
        if self.evidence.is_none() && !self.rules(&policy).1.hangs_up() {
            return;
        }
        self.hangup = Some(Box::new(Hangup::new()));
        sx.timers.set(self.id, Timer::HangUp, (end + self.grace()).max(sx.now));
    }

    /// How long after the end of an interval somebody may still refresh it: a transaction lasts so long, and some peers wait for a
    /// tenth more.
    fn grace(&self) -> Duration {
        TRANSACTION.max(self.interval() / 10)
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(self.session.agreed.map_or(0, |agreed| agreed.interval.into()))
    }

    /// When nobody has given a sign of life for a whole interval and the grace, as far as this daemon was there and has seen all:
    /// had the session been refreshed unseen, it would have had to be refreshed again by then.
    fn quiet_at(&self, sx: &Shared) -> Time {
        self.heard.max(sx.resumed).max(sx.lost) + (self.interval() + self.grace()).max(MEDIA_SILENCE)
    }

    /// Whether it may be forgotten in this very moment, so that nothing may be armed any more.
    fn is_about_to_go(&self, sx: &Shared) -> bool {
        match self.phase {
            Phase::Ended(at) => sx.now.since(at) >= TRANSACTION && sx.now.since(self.heard) >= TRANSACTION,
            Phase::Started | Phase::Confirmed => sx.now.since(self.heard) >= SILENCE,
        }
    }

    /// [`Timer::HangUp`]
    pub(super) fn hang_up_timer(&mut self, sx: &mut Shared) {
        if self.hangup.as_ref().is_some_and(|hangup| hangup.stage == Stage::Going) {
            return self.go_on_hanging_up(sx);
        }
        if self.is_over() || self.session.end().is_none_or(|end| sx.now < end) {
            return self.retire_hangup(sx);
        }
        // Of a session that was restored nothing is known but the time.
        let hangup = self.hangup.get_or_insert_with(|| Box::new(Hangup::new()));
        hangup.stage = Stage::Looking;
        if !self.look(sx) {
            self.saw_media(sx, MediaSeen::default());
        }
    }

    /// [`crate::Command::Media`]
    pub(super) fn saw_media(&mut self, sx: &mut Shared, seen: MediaSeen) {
        if let Some(evidence) = &mut self.evidence {
            evidence.saw(seen);
        }
        let Some(hangup) = self.hangup.as_mut().filter(|hangup| hangup.stage == Stage::Looking) else { return };
        hangup.stage = Stage::Waiting;
        match self.speaks_against(sx) {
            Ok(()) => self.queue_to_hang_up(sx),
            Err(Doubt::Flow(last)) => {
                self.tell_flow(sx);
                self.look_at(sx, last + MEDIA_SILENCE);
            }
            Err(Doubt::Until(at)) => self.look_at(sx, at),
            Err(Doubt::Why(why)) => self.say_not_hung_up(sx, why, "", None),
            Err(Doubt::Policy) => {}
        }
    }

    /// It is looked again then, where that is to lead to anything.
    fn look_at(&self, sx: &mut Shared, at: Time) {
        let policy = Arc::clone(&sx.policy);
        if self.rules(&policy).1.hangs_up() {
            sx.timers.set(self.id, Timer::HangUp, at.max(sx.now + REARM));
        }
    }

    /// Why it is not hung up, by all that is known in this moment.
    fn speaks_against(&self, sx: &Shared) -> Result<(), Doubt> {
        let media = self.media_say(sx);
        if let Media::Flow(last) = media {
            return Err(Doubt::Flow(last));
        }
        let policy = Arc::clone(&sx.policy);
        if !self.rules(&policy).1.hangs_up() || self.is_about_to_go(sx) {
            return Err(Doubt::Policy);
        }
        let quiet_at = self.quiet_at(sx);
        if sx.now < quiet_at {
            return Err(Doubt::Until(quiet_at));
        }
        self.whose_byes().map_err(Doubt::Why)?;
        if !self.is_confirmed(sx) {
            return Err(Doubt::Why(reason::NOT_CONFIRMED));
        }
        if self.exchanges.open(sx.now).is_some() || self.is_inviting() || self.own.iter().any(|own| own.is_open()) {
            return Err(Doubt::Until(sx.now + PAUSE));
        }
        match media {
            Media::SilentAt(at) if at <= sx.now => Ok(()),
            Media::SilentAt(at) | Media::Flow(at) => Err(Doubt::Until(at)),
            Media::Held => Err(Doubt::Why(reason::ON_HOLD)),
            Media::Unknown => Err(Doubt::Why(reason::MEDIA_UNKNOWN)),
        }
    }

    /// In whose names there are BYEs: a side that has no such dialog any more needs none. Or why there can be none.
    fn whose_byes(&self) -> Result<&'static [Side], &'static str> {
        if self.held {
            return Err(reason::HELD);
        }
        if self.relayed {
            return Err(reason::RELAYED);
        }
        if self.streamed.is_some() {
            return Err(reason::OVER_TCP);
        }
        if self.target.is_none() || self.look.contact().is_none() {
            return Err(self.barred.filter(|why| *why == reason::MID_CALL).unwrap_or(reason::NO_TARGET));
        }
        match self.barred {
            None | Some(reason::MAX_SESSION | reason::CSEQ_ROOM | reason::JOINED) => Ok(&[Side::Server, Side::Peer]),
            Some(reason::SERVER_LOST_DIALOG) => Ok(&[Side::Server]),
            Some(reason::PEER_LOST_DIALOG) => Ok(&[Side::Peer]),
            Some(why) if why == Refusal::ServerGone.reason() => Ok(&[Side::Server]),
            Some(why) => Err(why),
        }
    }

    fn tell_flow(&mut self, sx: &mut Shared) {
        let Some(hangup) = self.hangup.as_mut().filter(|hangup| !hangup.told_flow) else { return };
        hangup.told_flow = true;
        let event = Event { deadline: self.session.deadline(), ..self.timed_event(sx, EventKind::ExpiredMediaFlowing) };
        self.tell(sx, event);
    }

    fn say_not_hung_up(&mut self, sx: &mut Shared, why: &str, whom: &str, status: Option<u16>) {
        let reason = if whom.is_empty() { why.to_owned() } else { format!("{why}: {whom}") };
        let event = Event {
            by: Some(By::Sipst),
            method: Some(MethodName::Bye.name()),
            status,
            reason: Some(reason.into()),
            ..self.event(sx, EventKind::ByeFailed)
        };
        self.tell(sx, event);
    }

    // How.

    /// BYEs leave no faster than refreshes do, and after these.
    fn queue_to_hang_up(&mut self, sx: &mut Shared) {
        let Some(hangup) = &mut self.hangup else { return };
        hangup.stage = Stage::Queued;
        let policy = Arc::clone(&sx.policy);
        let (trunk, rules, _) = self.rules(&policy);
        let by = Time::from_micros(u64::MAX);
        let (rate, overall) = (rules.refresh_rate, policy.refresh_rate);
        sx.gate.join(sx.now, Request { session: self.id, trunk, rate, overall, by, proven: true });
    }

    /// Whether it waits for its turn.
    pub(super) fn is_hanging_up(&self) -> bool {
        self.hangup.as_ref().is_some_and(|hangup| hangup.stage == Stage::Queued)
    }

    /// The queue is full.
    pub(super) fn hang_up_later(&mut self, sx: &mut Shared) {
        self.call_off(sx, sx.now + PAUSE);
    }

    /// Nothing is sent now; it is looked again then.
    fn call_off(&mut self, sx: &mut Shared, at: Time) {
        self.take_back(sx);
        self.look_at(sx, at);
    }

    /// What was not sent is off the record.
    fn take_back(&mut self, sx: &mut Shared) {
        sx.gate.leave(sx.now, self.id);
        let Some(hangup) = &mut self.hangup else { return };
        hangup.stage = Stage::Waiting;
        let byes = std::mem::take(&mut hangup.byes);
        byes.iter().for_each(|bye| self.retire_bye(sx, bye.token));
    }

    /// Its turn has come.
    pub(super) fn may_hang_up(&mut self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        let (_, _, peers) = self.rules(&policy);
        let hop = self.target.as_ref().and_then(|target| target.hop(peers));
        let whose = self.speaks_against(sx).and_then(|()| self.whose_byes().map_err(Doubt::Why));
        let (whose, hop) = match (whose, hop) {
            (Ok(whose), Some(hop)) => (whose, hop),
            (Ok(_), None) => return self.give_hanging_up_up(sx, reason::NO_HOP),
            (Err(doubt), _) => return self.doubt(sx, doubt),
        };
        let Some(hangup) = &mut self.hangup else { return };
        hangup.stage = Stage::Going;
        hangup.byes = whose.iter().map(|whose| Bye::new(*whose, hop)).collect();
        self.next_bye(sx);
    }

    /// The peer has refused the server's BYE as one with a number that is too low: its number could not be shifted. The server takes any
    /// answer for the end of the call (RFC 3261, section 15.1.1), and the peer would keep it.
    pub(super) fn bye_was_refused(&mut self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        let (_, rules, peers) = self.rules(&policy);
        let unshifted = self.streamed.is_some() && rules.refreshes_over_tcp()
            || self.streamed.is_none() && self.is_joined() && rules.action == Action::Refresh;
        let may = unshifted && self.followed && sx.mode == Mode::Live;
        if !may || self.held || self.relayed || self.hangup.is_some() {
            return;
        }
        let Some(hop) = self.hop(peers) else { return };
        let byes = vec![Bye::new(Side::Server, hop)];
        self.hangup = Some(Box::new(Hangup { stage: Stage::Going, byes, instead: true, ..Hangup::new() }));
        self.next_bye(sx);
    }

    /// One after the other: that the first could leave says that its side has sent nothing in this very moment.
    fn next_bye(&mut self, sx: &mut Shared) {
        let goes = self.is_about_to_go(sx);
        let Some(hangup) = self.hangup.as_mut().filter(|_| !goes) else { return };
        let is_at_it = |bye: &Bye| matches!(bye.progress, Progress::Arming | Progress::Retrying | Progress::Sent);
        if hangup.byes.iter().any(is_at_it) {
            return;
        }
        let Some(next) = hangup.byes.iter_mut().find(|bye| bye.progress == Progress::Pending) else { return };
        next.progress = Progress::Arming;
        let (whose, hop) = (next.whose, next.hop);
        self.arm_bye(sx, whose, hop);
    }

    /// It is not hung up in this interval.
    fn give_hanging_up_up(&mut self, sx: &mut Shared, why: &str) {
        self.take_back(sx);
        sx.timers.cancel(self.id, Timer::HangUp);
        self.say_not_hung_up(sx, why, "", None);
    }

    /// Something has come between.
    fn doubt(&mut self, sx: &mut Shared, doubt: Doubt) {
        match doubt {
            Doubt::Flow(last) => self.call_off(sx, last + MEDIA_SILENCE),
            Doubt::Until(at) => self.call_off(sx, at),
            Doubt::Policy => self.call_off(sx, sx.now + PAUSE),
            Doubt::Why(why) => self.give_hanging_up_up(sx, why),
        }
    }

    /// Takes it all off the record.
    pub(super) fn retire_hangup(&mut self, sx: &mut Shared) {
        sx.timers.cancel(self.id, Timer::HangUp);
        let Some(hangup) = self.hangup.take() else { return };
        sx.gate.leave(sx.now, self.id);
        hangup.byes.iter().for_each(|bye| self.retire_bye(sx, bye.token));
    }

    /// The dialog is over: what was not sent yet is not sent any more.
    pub(super) fn stop_hanging_up(&mut self, sx: &mut Shared) {
        if self.hangup.as_ref().is_some_and(|hangup| !hangup.has_begun()) {
            self.retire_hangup(sx);
        }
    }
}

/// What speaks against hanging up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Media flow: they were last seen then.
    Flow(Time),
    /// Something that may have passed by then.
    Until(Time),
    /// In this interval it is not done.
    Why(&'static str),
    /// Nobody has asked for it.
    Policy,
}
