//! The session timer of a user agent, as its stack reads RFC 4028.

use rand::RngExt as _;

use super::{
    agent::{Act, Agent, Life, Purpose, S, Us, Why},
    faults::Fault,
    sip::{Expires, Msg, Role, Verb},
    stacks::{AsUas, Bare, Expiry, Requires, SaysMinSe, Then},
};

/// How often a stack asks again as it was seen to.
const PATIENCE: u32 = 3;

/// What an agent believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) seconds: u32,
    /// Whether it has to refresh itself.
    pub(crate) mine: bool,
}

impl Agent {
    /// What a request of its own says of timers.
    pub(crate) fn ask_timer(&mut self, msg: &mut Msg) {
        if !self.stack.asks {
            return;
        }
        let seconds = self.timer.map_or(self.interval, |timer| timer.seconds).max(self.told_min);
        // In a dialog the roles are named, so that they stay (R14).
        let refresher = self.timer.map(|timer| if timer.mine { Role::Uac } else { Role::Uas });
        msg.expires = Some(Expires { seconds, refresher });
        let says = match self.stack.says_min_se {
            SaysMinSe::Never => false,
            SaysMinSe::AtFirst => self.timer.is_none(),
            SaysMinSe::Asking | SaysMinSe::Always => true,
        };
        let least = self.told_min.max(if says { self.min_se } else { 0 });
        msg.min_se = (least > 0).then_some(least);
    }

    /// A 2xx to a request of its own.
    pub(crate) fn agreed_as_uac(&mut self, now: Us, asked: Option<Expires>, answer: Option<Expires>) {
        if !self.stack.asks {
            return;
        }
        self.alone = answer.is_none();
        let timer = match (answer, asked) {
            (Some(Expires { seconds, refresher }), _) => Some(Timer { seconds, mine: refresher != Some(Role::Uas) }),
            // R12: it goes on alone.
            (None, Some(asked)) => Some(Timer { seconds: asked.seconds, mine: true }),
            (None, None) => None,
        };
        self.start(now, timer);
    }

    /// What its own 2xx says of timers.
    pub(crate) fn agree_timer(&mut self, now: Us, request: &Msg, answer: &mut Msg) {
        answer.expires = self.agreed_as_uas(now, request);
        let Some(Expires { refresher, .. }) = answer.expires else { return };
        answer.min_se = (self.stack.says_min_se == SaysMinSe::Always).then_some(self.min_se);
        answer.requires_timer = match self.stack.requires {
            Requires::Never => false,
            Requires::OfUac => refresher == Some(Role::Uac),
            Requires::IfListed => request.supports_timer,
            Requires::IfInviteLists => request.supports_timer && request.verb == Verb::Invite,
        };
    }

    fn agreed_as_uas(&mut self, now: Us, msg: &Msg) -> Option<Expires> {
        self.alone = false;
        let asked = msg.expires.map(|expires| expires.seconds);
        let most = if self.stack.lowers { self.interval } else { u32::MAX };
        let seconds =
            asked.map_or(self.interval, |asked| asked.min(most)).max(msg.min_se.unwrap_or(0)).max(self.min_se);
        let kept =
            self.timer.filter(|_| self.stack.keeps_role).map(|timer| if timer.mine { Role::Uas } else { Role::Uac });
        let asked = msg.expires.and_then(|expires| expires.refresher).or(kept);
        let named = asked.filter(|_| msg.supports_timer || kept.is_some());
        let bare = msg.to.tag.is_some() && msg.expires.is_none();
        let role = match self.stack.as_uas {
            AsUas::Silent => return None,
            AsUas::Echoes => {
                return msg.expires.map(|expires| Expires { refresher: Some(Role::Uas), ..expires });
            }
            _ if bare && self.stack.bare == Bare::Off => {
                self.start(now, None);
                return None;
            }
            AsUas::ByTheBook => Some(named.unwrap_or(if msg.supports_timer { Role::Uac } else { Role::Uas })),
            AsUas::ForcesUac => Some(named.unwrap_or(Role::Uac)),
            AsUas::Volunteers => Some(asked.unwrap_or(Role::Uas)),
            AsUas::Follows => Some(asked.unwrap_or(if msg.expires.is_some() { Role::Uac } else { Role::Uas })),
            AsUas::VolunteersIfListed if !msg.supports_timer => {
                self.start(now, None);
                return None;
            }
            AsUas::VolunteersIfListed => Some(named.unwrap_or(Role::Uas)),
            AsUas::Omits => None,
        };
        self.start(now, Some(Timer { seconds, mine: role == Some(Role::Uas) }));
        Some(Expires { seconds, refresher: role })
    }

    fn start(&mut self, now: Us, timer: Option<Timer>) {
        (self.timer, self.since) = (timer, now);
        self.asked_in_vain = 0;
        (self.refresh_at, self.first_due, self.kill_at) = (None, None, None);
        let Some(Timer { seconds, mine }) = timer else { return };
        let whole = Us::from(seconds) * S;
        if mine && self.stack.refreshes {
            let spread = if seconds < 90 { 0 } else { Us::from(self.stack.spread) * S };
            let early = self.rng.random_range(0..=2 * spread);
            self.refresh_at = Some(now + whole / 2 + early - spread);
            self.first_due = self.refresh_at;
            self.kill_at = self.stack.stops_itself.then_some(now + whole);
        } else if !mine {
            let after = match self.stack.expiry {
                Expiry::Never => return,
                Expiry::Third => whole - (whole / 3).min(32 * S),
                Expiry::Tenth => whole - (whole / 10).min(32 * S),
                Expiry::Full => whole,
                Expiry::Late => whole / 10 * 11,
            };
            self.kill_at = Some(now + after);
        }
    }

    /// Its own refresh is due.
    pub(crate) fn refresh(&mut self, now: Us) {
        self.first_due = None;
        if self.is_busy() {
            self.refresh_at = Some(now + S);
            return;
        }
        self.refresh_at = None;
        self.diary.refreshes += 1;
        let update = self.stack.updates && self.remote_updates && !self.no_update;
        let verb = if update { Verb::Update } else { Verb::Invite };
        let describes = !update || self.stack.describes_updates || self.offers;
        let body = if describes { self.sdp.clone() } else { String::new() };
        self.ask(now, verb, Purpose::Refresh, body);
    }

    /// A refresh or change of its own was turned down, or had no answer.
    pub(crate) fn refresh_failed(&mut self, now: Us, purpose: Purpose, verb: Verb, status: u16, msg: Option<&Msg>) {
        if purpose == Purpose::Change || !self.is_up() {
            return;
        }
        let then = match status {
            405 | 501 => self.stack.failed.refused,
            481 => self.stack.failed.unknown,
            491 => self.stack.failed.glare,
            408 => self.stack.failed.silence,
            422 if !self.stack.obeys_422 => Then::GivesUp,
            500.. => self.stack.failed.error,
            _ => Then::Mends,
        };
        match then {
            Then::Mends => {}
            // Once is what was seen.
            Then::Offers | Then::OffersAndHangsUp if self.offers => {}
            Then::Again(pause) => {
                self.refresh_at = Some(now + self.patience(pause));
                return;
            }
            Then::NextTime => {
                let half = self.timer.map_or(S, |timer| Us::from(timer.seconds) * S / 2);
                self.refresh_at = Some(self.since + ((now - self.since) / half + 1) * half);
                return;
            }
            Then::Offers | Then::OffersAndHangsUp => {
                self.offers = true;
                self.diary.tally.add(Fault::BodyAfterBodyless, (verb == Verb::Update).into());
                self.refresh_at = Some(now);
                if then == Then::OffersAndHangsUp {
                    self.plans(now + 5 * S, Act::HangUp);
                }
                return;
            }
            Then::GivesUp => return,
            Then::HangsUp(cause) => return self.end(now, Why::GaveUp, cause),
            Then::Leaves => {
                self.life = Life::Over(now, Why::GaveUp);
                return;
            }
        }
        self.no_update |= verb == Verb::Update && status != 491 && status != 422;
        let wait = match status {
            // It has no credentials.
            401 | 407 => return,
            481 => return self.hang_up(now, Why::Unknown),
            405 | 501 if verb == Verb::Update => 0,
            422 => 0,
            491 if self.caller => self.rng.random_range(2 * S + S / 10..4 * S),
            491 => self.rng.random_range(0..2 * S),
            _ => msg.and_then(|msg| msg.retry_after).map_or(2 * S, |seconds| Us::from(seconds) * S),
        };
        if status == 422 {
            self.told_min = self.told_min.max(msg.and_then(|msg| msg.min_se).unwrap_or(0));
        }
        self.refresh_at = Some(now + self.patience(wait));
    }

    /// How long it waits until it asks again: nobody asks the same without end.
    fn patience(&mut self, wait: Us) -> Us {
        self.asked_in_vain += 1;
        let tenth = self.timer.map_or(S, |timer| Us::from(timer.seconds) * S / 10);
        if self.asked_in_vain > PATIENCE { wait.max(tenth) } else { wait }
    }
}
