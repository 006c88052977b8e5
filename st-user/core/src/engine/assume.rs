//! `assume_interval`: no session timer was negotiated, and the peer drops a call that nothing has refreshed for so long all the
//! same. Its clock starts where that of a timer does, with each 2xx to an INVITE or UPDATE (R16). It says when sipst acts, and nothing
//! more: nobody owes a refresh by it, and nobody is hung up on because of it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    breach::Terms,
    dialog::Dialog,
    negotiate::Agreed,
    reason,
    refresh::{Cycle, Stage},
    schedule::Schedule,
    session::{LEAST_INTERVAL, Session},
    shared::Shared,
    timers::{OF_INTERVAL, Timer},
};
use crate::{Action, AssumeMode, By, Event, EventKind, Rules, Side};

/// Where what holds in a dialog comes from. It stands in records by its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Origin {
    /// The two sides have negotiated it, each with a message of its own; or nothing was said yet.
    #[default]
    Negotiated,
    /// They have negotiated nothing. What holds comes from refreshes of sipst's, which the assumption led to.
    Assumed,
    /// The same, and the peer refreshes because sipst has left that to it.
    HandedOff,
    /// The same, and it is not left to the peer any more.
    TakenBack,
}

impl Origin {
    /// What a 2xx makes of it. `themselves`: the two sides have negotiated a timer by it; `holds`: one holds after it.
    pub(super) const fn after(self, themselves: bool, holds: bool) -> Self {
        match (themselves, holds) {
            (true, _) => Self::Negotiated,
            (false, true) => self,
            (false, false) if matches!(self, Self::Negotiated) => Self::Assumed,
            (false, false) => self,
        }
    }
}

impl Session {
    /// Who has to refresh, if anybody.
    pub(super) fn refresher(&self) -> Option<Side> {
        match self.assumed {
            Some(_) => Some(Side::Server),
            None => self.agreed.map(|agreed| agreed.refresher),
        }
    }

    /// What is assumed, for an event's `reason`.
    fn assumption(&self) -> Option<Cow<'static, str>> {
        let assumed = Duration::from_secs(self.assumed?.into());
        Some(format!("{}: {}", reason::ASSUMED, humantime::format_duration(assumed)).into())
    }
}

/// The shortest interval that is acted upon.
pub(super) fn floor(rules: &Rules) -> Duration {
    rules.interval_floor.max(LEAST_INTERVAL)
}

impl Dialog {
    /// What is to be assumed now, in seconds. A timer that holds and is no longer than that comes before.
    fn to_assume(&self, rules: &Rules) -> Option<u32> {
        let assume = rules.assume_interval.filter(|_| self.session.origin != Origin::Negotiated && !self.relayed)?;
        let held_to = self.held_to(rules).map(|agreed| Duration::from_secs(agreed.interval.into()));
        let seconds = || u32::try_from(assume.as_secs()).unwrap_or(u32::MAX);
        held_to.is_none_or(|interval| interval > assume).then(seconds)
    }

    /// The timer that holds, where it is acted upon.
    fn held_to(&self, rules: &Rules) -> Option<Agreed> {
        self.session.agreed.filter(|agreed| Duration::from_secs(agreed.interval.into()) >= floor(rules))
    }

    /// Finds the moments of the interval that begins with a 2xx. `by`: whose request it answers; `alone`: the peer's, who may go on
    /// refreshing without the server; `asked`: for how many seconds the server asked, where the 2xx says nothing of it.
    pub(super) fn set_moments(&mut self, rules: &Rules, by: By, alone: bool, asked: Option<u32>) {
        self.session.assumed = self.to_assume(rules);
        self.session.schedule = self.schedule(rules, by, alone, asked);
    }

    fn schedule(&self, rules: &Rules, by: By, alone: bool, asked: Option<u32>) -> Option<Schedule> {
        let agreed = self.held_to(rules);
        let interval = |seconds: u32| Duration::from_secs(seconds.into());
        if let Some(assumed) = self.session.assumed {
            let peers = agreed.filter(|agreed| agreed.refresher == Side::Peer);
            return Some(Schedule::assumed(interval(assumed), peers.map(|agreed| interval(agreed.interval))));
        }
        let Agreed { interval: seconds, refresher } = agreed?;
        Some(match refresher {
            Side::Server => {
                let capable = self.session.knows_timers() && !self.session.missed || alone;
                Schedule::server(interval(seconds), asked.map(interval), capable, rules.act_at)
            }
            Side::Peer if self.takes_over(rules) => Schedule::taken_over(interval(seconds), by == By::Sipst),
            Side::Peer => Schedule::peer(interval(seconds)),
        })
    }

    // `mode: hand-off`

    /// The interval to be asked for at most, in seconds, where the next refresh is to leave the refreshing to the peer: it sends the
    /// next one by half of what it answers, which has to come in time.
    pub(super) fn hands_off(&self, sx: &Shared, rules: &Rules) -> Option<u32> {
        let wanted = rules.mode == AssumeMode::HandOff && self.session.origin == Origin::Assumed;
        // A server that is known to turn a peer's refreshes down, or not to get them, is spared that.
        self.session.assumed.filter(|_| wanted && sx.risk(self.habit_keys(sx)).is_none())
    }

    /// Whether the peer refreshes because that was left to it.
    pub(super) fn is_handed_off(&self) -> bool {
        self.session.origin == Origin::HandedOff
    }

    /// A 2xx to a request that said `terms`.
    pub(super) fn has_handed_off(&mut self, by: By, terms: Terms) {
        if by == By::Sipst && !terms.timer && self.session.origin == Origin::Assumed {
            self.session.origin = Origin::HandedOff;
        }
    }

    /// The peer has not taken it up, or would come too late.
    pub(super) fn keeps_role(&mut self) {
        if self.is_handed_off() && self.session.refresher() != Some(Side::Peer) {
            self.session.origin = Origin::TakenBack;
        }
    }

    /// A refresh of the peer's has come to nothing, or has not come.
    pub(super) fn take_role_back(&mut self, sx: &mut Shared) {
        if self.is_handed_off() && self.action(sx) == Action::Refresh {
            self.session.origin = Origin::TakenBack;
            self.take_over_now(sx, reason::TAKEN_BACK);
        }
    }

    // When

    /// [`Timer::Act`], where the moment is one that is assumed.
    pub(super) fn act_on_assumption(&mut self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        if self.rules(&policy).1.assume_interval.is_none() {
            return self.stop_assuming(sx);
        }
        let (why, assumption) = (self.forbidden(sx), self.session.assumption());
        if self.action(sx) == Action::Refresh && why.is_none() {
            if self.cycle.failed {
                // One that an operator had asked for, before this one was due.
                self.cycle = Cycle::anew(&self.cycle);
            }
            let due = self.due_event(sx, EventKind::RefreshDue, By::Sipst);
            self.tell(sx, Event { reason: assumption, ..due });
            return self.begin(sx);
        }
        let due = self.due_event(sx, EventKind::RefreshDue, By::Server);
        self.tell(sx, Event { reason: why.map(Cow::from).or(assumption), ..due });
    }

    /// [`Timer::Expiring`], likewise: only where sipst was to act is anything at stake. `why`: what is in the way.
    pub(super) fn expiring_by_assumption(&mut self, sx: &mut Shared, why: Option<Cow<'static, str>>) {
        if self.action(sx) == Action::Refresh && !std::mem::replace(&mut self.session.told_expiring, true) {
            let why = why.or_else(|| self.forbidden(sx).map(Cow::from)).or_else(|| self.session.assumption());
            let deadline = self.session.deadline();
            let event = Event { deadline, reason: why, ..self.timed_event(sx, EventKind::SessionExpiring) };
            self.tell_alarm(sx, event);
        }
    }

    /// [`Timer::Expired`], likewise.
    pub(super) fn assumption_runs_out(&mut self, sx: &mut Shared) {
        self.give_up(sx);
        if self.may_be_over(sx) {
            self.expiring(sx);
        }
        self.stop_assuming(sx);
    }

    /// The call is up though it was not to be, or the rules say so no more: what was agreed holds, if anything was.
    fn stop_assuming(&mut self, sx: &mut Shared) {
        let policy = Arc::clone(&sx.policy);
        self.session.assumed = None;
        self.session.told_expiring = false;
        self.session.schedule = self.schedule(self.rules(&policy).1, By::Server, false, None);
        self.leave_queue(sx);
        if !matches!(self.cycle.stage, Stage::Sent(_)) {
            self.cycle = Cycle::anew(&self.cycle);
        }
        sx.timers.cancel_all(self.id, &OF_INTERVAL);
        match self.session.end() {
            // Nobody was there meanwhile.
            Some(end) if end <= sx.now => sx.timers.set(self.id, Timer::Expired, end),
            Some(_) | None => self.arrange(sx),
        }
        self.watch(sx);
    }

    /// The rules have changed: what they assume now begins in a call that has lived for less than that, and ends where they assume
    /// nothing any more.
    pub(super) fn assume_anew(&mut self, sx: &mut Shared) {
        if !self.would_assume_anew(sx) {
            return;
        }
        if self.session.assumed.is_some() {
            return self.stop_assuming(sx);
        }
        self.cycle = Cycle::anew(&self.cycle);
        let policy = Arc::clone(&sx.policy);
        self.set_moments(self.rules(&policy).1, By::Server, false, None);
        self.arrange(sx);
        self.watch(sx);
    }

    /// Whether [`Dialog::assume_anew`] would change anything.
    pub(super) fn would_assume_anew(&self, sx: &Shared) -> bool {
        let rules = self.rules(&sx.policy).1;
        let Some(since) = self.session.since().filter(|_| !self.is_over()) else { return false };
        match (self.session.assumed, self.to_assume(rules)) {
            (Some(_), _) => rules.assume_interval.is_none(),
            // What is under way is not disturbed. A call that has outlived it shows that it does not hold there.
            (None, Some(assume)) => !self.cycle.active && sx.now < since + Duration::from_secs(assume.into()),
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_negotiated_by_the_two_sides_themselves_and_by_nobody_else() {
        use Origin::{Assumed, HandedOff, Negotiated, TakenBack};
        for before in [Negotiated, Assumed, HandedOff, TakenBack] {
            assert_eq!(before.after(true, true), Negotiated);
            assert_eq!(before.after(false, true), before, "R12");
            assert_eq!(before.after(false, false), if before == Negotiated { Assumed } else { before });
        }
    }
}
