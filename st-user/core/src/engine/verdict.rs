//! What follows when a refresh of ours is turned down (R30, R34-R36).

use std::{sync::Arc, time::Duration};

use super::{assume::Origin, dialog::Dialog, reason, refresh::Stage, shared::Shared};
use crate::{
    By, Side,
    digest::{self, Answer},
    message::{Message, MethodName},
};

/// How long a peer that is in trouble is left alone if it does not say: twice as long each time.
const TROUBLE: Duration = Duration::from_secs(2);

/// The longest that is waited on one's own account.
const TROUBLE_MAX: Duration = Duration::from_secs(32);

impl Dialog {
    /// A final response that is no 2xx.
    pub(super) fn turned_down(&mut self, sx: &mut Shared, token: u64, message: &Message<'_>, status: u16) {
        let Some(own) = self.own.iter().find(|own| own.token == token) else { return };
        let (method, serial, terms, hop, signed) = (own.method, own.serial, own.terms, own.hop(), own.is_signed());
        if status == 422 {
            // R17, though it came too late for this request.
            self.min_se = self.min_se.max(message.min_se());
            self.too_short(sx, message, Side::Server, terms);
        }
        if matches!(status, 405 | 501) && method == MethodName::Update {
            // F7
            sx.remember(hop, |ways| ways.no_update = true);
        }
        if serial != self.cycle.serial || !self.cycle.active || self.cycle.failed {
            return;
        }
        if status == 481 {
            return self.lost_by_peer(sx);
        }
        if self.cycle.stage != Stage::Sent(token) {
            return;
        }
        self.cycle.stage = Stage::Idle;
        self.weigh(sx, method, hop, status);
        match status {
            401 | 407 => self.challenged(sx, method, message, status, signed),
            // Somebody on the way has waited in vain, or our CANCEL has come through: the other method.
            408 | 487 => {
                self.cycle.prefer_invite = method == MethodName::Update;
                let delay = self.trouble();
                self.later(sx, (reason::NO_ANSWER, Some(status)), delay);
            }
            422 => match message.min_se().filter(|least| *least > terms.interval.unwrap_or(0)) {
                // R36: each value is obeyed once, for the next request asks for no less.
                Some(_) => {
                    self.cycle.why = Some((reason::REFUSED, Some(status)));
                    self.attempt(sx);
                }
                None => self.fail(sx, reason::REFUSED, Some(status)),
            },
            // R30
            491 => {
                let band = match self.caller {
                    Side::Server => (Duration::from_millis(2_100), Duration::from_secs(4)),
                    Side::Peer => (Duration::ZERO, Duration::from_secs(2)),
                };
                let delay = sx.random(band.0, band.1);
                self.later(sx, (reason::REFUSED, Some(status)), delay);
            }
            421 if !terms.timer => {
                // It is handed off no more: who demands `timer` gets it.
                self.session.origin = Origin::TakenBack;
                self.cycle.why = Some((reason::REFUSED, Some(status)));
                self.attempt(sx);
            }
            500 | 503 | 504 => self.peer_in_trouble(sx, message, status),
            // 3xx is never followed.
            ..=399 => self.fail(sx, reason::REFUSED, Some(status)),
            _ => {
                self.cycle.why = Some((reason::REFUSED, Some(status)));
                if method == MethodName::Update {
                    self.cycle.no_update = true;
                    self.attempt(sx);
                } else {
                    self.fail(sx, reason::REFUSED, Some(status));
                }
            }
        }
    }

    /// 481 is definite: the peer has no such dialog.
    fn lost_by_peer(&mut self, sx: &mut Shared) {
        self.concerns_itself(sx);
        if self.cycle.unsure {
            self.forsaken = self.caller == Side::Server;
            return self.end(sx, Some(By::Peer), reason::PEER_LOST_DIALOG.into());
        }
        self.bar_for(reason::PEER_LOST_DIALOG);
        self.fail(sx, reason::PEER_LOST_DIALOG, Some(481));
    }

    /// A challenge is answered; where an answer is challenged again, it is not accepted.
    fn challenged(&mut self, sx: &mut Shared, method: MethodName, message: &Message<'_>, status: u16, signed: bool) {
        let policy = Arc::clone(&sx.policy);
        let credentials = self.rules(&policy).1.credentials.as_ref().filter(|_| !signed);
        let uri = self.target.as_ref().map(|target| target.path().uri.clone()).unwrap_or_default();
        let cnonce = sx.word();
        let request = digest::Request { method, uri: &uri, cnonce: &cnonce };
        let answers: Option<Vec<Answer>> =
            credentials.and_then(|credentials| digest::answers(message, &request, credentials).ok());
        match answers {
            Some(answers) => {
                self.cycle.answers = Some((method, uri, answers));
                self.cycle.why = Some((reason::CHALLENGED, Some(status)));
                self.attempt(sx);
            }
            None => self.fail(sx, reason::CHALLENGED, Some(status)),
        }
    }

    fn peer_in_trouble(&mut self, sx: &mut Shared, message: &Message<'_>, status: u16) {
        if self.cycle.unsure && !std::mem::replace(&mut self.cycle.tried_number, true) {
            // It may only have disliked the number: once more at once, with the kernel's.
            self.cycle.why = Some((reason::REFUSED, Some(status)));
            return self.attempt(sx);
        }
        let asked = match message.retry_after() {
            Some(seconds) => Duration::from_secs(seconds.into()).max(self.session.pause()),
            None => self.trouble(),
        };
        let left = self.session.end().map(|end| end.since(sx.now)).unwrap_or_default();
        // Inside the interval, whatever is asked.
        self.later(sx, (reason::REFUSED, Some(status)), asked.min(left / 2));
    }

    /// The next pause, twice as long as the last one.
    pub(super) fn trouble(&mut self) -> Duration {
        let doubled = TROUBLE * 2_u32.saturating_pow(self.cycle.waits.min(8));
        self.cycle.waits += 1;
        doubled.min(TROUBLE_MAX)
    }
}
