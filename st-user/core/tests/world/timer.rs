//! The session timer of a user agent, as its stack reads RFC 4028.

use rand::RngExt as _;

use super::{
    agent::{Agent, Purpose, S, Us, Why},
    sip::{Expires, Msg, Role, Verb},
    stacks::{AsUas, Bare, Expiry},
};

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
        msg.min_se = (self.told_min > 0).then_some(self.told_min);
    }

    /// A 2xx to a request of its own.
    pub(crate) fn agreed_as_uac(&mut self, now: Us, asked: Option<Expires>, answer: Option<Expires>) {
        if !self.stack.asks {
            return;
        }
        let timer = match (answer, asked) {
            (Some(Expires { seconds, refresher }), _) => Some(Timer { seconds, mine: refresher != Some(Role::Uas) }),
            // R12: it goes on alone.
            (None, Some(asked)) => Some(Timer { seconds: asked.seconds, mine: true }),
            (None, None) => None,
        };
        self.start(now, timer);
    }

    /// What its own 2xx says.
    pub(crate) fn agreed_as_uas(&mut self, now: Us, msg: &Msg) -> Option<Expires> {
        let wanted = msg.expires.map_or(self.interval, |expires| expires.seconds.min(self.interval));
        let seconds = wanted.max(msg.min_se.unwrap_or(0)).max(self.min_se);
        let named = msg.expires.and_then(|expires| expires.refresher).filter(|_| msg.supports_timer);
        let bare = msg.to.tag.is_some() && msg.expires.is_none();
        let (refresher, mine) = match self.stack.as_uas {
            AsUas::Silent => return None,
            AsUas::Echoes => {
                return msg.expires.map(|expires| Expires { refresher: Some(Role::Uas), ..expires });
            }
            _ if bare && self.stack.bare == Bare::Off => {
                self.start(now, None);
                return None;
            }
            AsUas::ByTheBook => {
                let role = named.unwrap_or(if msg.supports_timer { Role::Uac } else { Role::Uas });
                (Some(role), role == Role::Uas)
            }
            AsUas::ForcesUac => {
                let role = named.unwrap_or(Role::Uac);
                (Some(role), role == Role::Uas)
            }
            AsUas::Omits => (None, false),
        };
        self.start(now, Some(Timer { seconds, mine }));
        Some(Expires { seconds, refresher })
    }

    fn start(&mut self, now: Us, timer: Option<Timer>) {
        (self.timer, self.since) = (timer, now);
        (self.refresh_at, self.kill_at) = (None, None);
        let Some(Timer { seconds, mine }) = timer else { return };
        let whole = Us::from(seconds) * S;
        if mine && self.stack.refreshes {
            let spread = Us::from(self.stack.spread) * S;
            let early = self.rng.random_range(0..=2 * spread);
            self.refresh_at = Some(now + whole / 2 + early - spread);
            self.kill_at = Some(now + whole);
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
        if self.is_busy() {
            self.refresh_at = Some(now + S);
            return;
        }
        self.refresh_at = None;
        self.diary.refreshes += 1;
        let update = self.stack.updates && self.remote_updates && !self.no_update;
        if update {
            self.ask(now, Verb::Update, Purpose::Refresh, String::new());
        } else {
            let body = self.current_sdp();
            self.ask(now, Verb::Invite, Purpose::Refresh, body);
        }
    }

    /// A refresh or change of its own was turned down, or had no answer.
    pub(crate) fn refresh_failed(&mut self, now: Us, purpose: Purpose, verb: Verb, status: u16, msg: Option<&Msg>) {
        if purpose == Purpose::Change || !self.is_up() {
            return;
        }
        self.no_update |= verb == Verb::Update && status != 491 && status != 422;
        let wait = match status {
            // It has no credentials.
            401 => return,
            481 => return self.hang_up(now, Why::Unknown),
            405 | 501 | 422 => 0,
            491 if self.caller => self.rng.random_range(2 * S + S / 10..4 * S),
            491 => self.rng.random_range(0..2 * S),
            _ => msg.and_then(|msg| msg.retry_after).map_or(2 * S, |seconds| Us::from(seconds) * S),
        };
        if status == 422 {
            self.told_min = self.told_min.max(msg.and_then(|msg| msg.min_se).unwrap_or(0));
        }
        self.refresh_at = Some(now + wait);
    }
}
