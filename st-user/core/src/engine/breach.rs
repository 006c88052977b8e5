//! What a side does against RFC 4028 and sipst copes with: it wakes nobody, it rides on the dialog's next event. By whom: the
//! side that the message came from; a proxy between may have written it.

use serde::{Deserialize, Serialize};

use super::{negotiate::Agreed, reason};
use crate::{
    Side,
    event::Breach,
    message::{HeaderFault, Message, Role, SessionExpires},
};

/// RFC 4028, section 4: no interval and no Min-SE is shorter, and it is what a Min-SE that is absent means (R4).
const LEAST: u32 = 90;

/// What an INVITE or UPDATE says about session timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Whether Supported lists `timer` (R3).
    pub(super) timer: bool,
    /// Its Session-Expires, in seconds.
    pub(super) interval: Option<u32>,
    pub(super) refresher: Option<Role>,
    pub(super) min_se: Option<u32>,
}

impl Terms {
    pub(super) fn of(request: &Message<'_>) -> Self {
        let expires = request.session_expires().and_then(Result::ok);
        Self {
            timer: request.supports(b"timer"),
            interval: expires.map(|expires| expires.interval_s),
            refresher: expires.and_then(|expires| expires.refresher),
            min_se: request.min_se(),
        }
    }

    /// Of an INVITE or UPDATE of `sender`'s in a dialog where `agreed` held.
    pub(super) fn breaches(self, sender: Side, agreed: Option<Agreed>) -> Vec<Breach> {
        // R14: whoever says `uac` takes the refreshing over; only the refresher may, or may hand it on.
        let takes_over = self.refresher == Some(Role::Uac) && agreed.is_some_and(|agreed| agreed.refresher != sender);
        let below = self.interval.is_some_and(|interval| interval < self.min_se.unwrap_or(0));
        found(sender, [(takes_over, reason::ROLE_FLIPPED), (below, reason::REQUEST_BELOW_MIN_SE)])
    }

    /// Of the 2xx to such a request; `expires`: its Session-Expires.
    pub(super) fn breaches_of_2xx(
        self,
        sender: Side,
        answer: &Message<'_>,
        expires: Option<Result<SessionExpires, HeaderFault>>,
    ) -> Vec<Breach> {
        let Some(Ok(SessionExpires { interval_s, refresher })) = expires else { return Vec::new() };
        let by_uac = refresher == Some(Role::Uac);
        // Below 90 s it is told as that.
        let below_min_se = interval_s < self.min_se.unwrap_or(0) && interval_s >= LEAST;
        let overridden = self.timer && self.refresher.is_some() && refresher.is_some() && refresher != self.refresher;
        found(
            sender.other(),
            [
                (by_uac && !self.timer, reason::REFRESHER_WITHOUT_TIMER),
                (overridden, reason::REFRESHER_OVERRIDDEN),
                // R10
                (by_uac && !answer.requires(b"timer"), reason::REQUIRE_TIMER_MISSING),
                (interval_s < LEAST, reason::INTERVAL_BELOW_90),
                (below_min_se, reason::INTERVAL_BELOW_MIN_SE),
                // R8
                (self.interval.is_some_and(|asked| interval_s > asked), reason::INTERVAL_RAISED),
            ],
        )
    }

    /// Of a 422 to such a request (R7).
    pub(super) fn breaches_of_422(self, sender: Side, answer: &Message<'_>) -> Vec<Breach> {
        let (asked, least) = (self.interval, answer.min_se());
        let obeyed = asked.is_some_and(|asked| least.is_some_and(|least| least <= asked));
        found(
            sender.other(),
            [(!self.timer, reason::UNDUE_422), (least.is_none(), reason::MIN_SE_MISSING), (obeyed, reason::LOOP_422)],
        )
    }
}

fn found<const N: usize>(by: Side, all: [(bool, &'static str); N]) -> Vec<Breach> {
    all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, reason)| Breach { by, reason }).collect()
}
