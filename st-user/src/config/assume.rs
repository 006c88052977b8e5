//! What a trunk's rules say about calls in which no session timer is negotiated.

use std::time::Duration;

use st_core::{AssumeMode, Rules};

use super::{
    fields::{Fields, choice, off_or, seconds},
    schema::INTERVALS,
    trunks::Around,
};

/// The keys that say how something is sent.
pub(super) const KEYS: [&str; 3] = ["assume_interval", "session_expires", "mode"];

/// As read: they make no sense one by one.
pub(super) struct Assumed {
    pub(super) assume_interval: Option<Duration>,
    pub(super) session_expires: Duration,
    pub(super) mode: AssumeMode,
}

/// Reads them. `floor`: the trunk's `interval_floor`, where it is sound; `min_se` likewise.
pub(super) fn assumed(
    fields: &mut Fields<'_>,
    around: Around<'_>,
    floor: Option<Duration>,
    min_se: Option<Duration>,
    take_over: bool,
) -> Assumed {
    let shown = humantime::format_duration;
    let given = fields.get("assume_interval", off_or(seconds(INTERVALS)));
    let asked = fields.get("session_expires", seconds(INTERVALS));
    let modes = [("hold", AssumeMode::Hold), ("hand-off", AssumeMode::HandOff)];
    let mode = fields.get("mode", choice(&modes)).unwrap_or(Rules::default().mode);
    let assume_interval = given.flatten();
    if let (Some(value), Some(at)) = (assume_interval, fields.value_at("assume_interval")) {
        if let Some(floor) = floor.filter(|floor| value < *floor) {
            let what = format!("`assume_interval` is shorter than `interval_floor`, {}", shown(floor));
            fields.note(at, what, "raise it, or lower `interval_floor`: a shorter interval is not acted upon");
        }
        if around.max_session.is_some_and(|most| value > most) {
            fields.note(at, "`assume_interval` is longer than `max_session`", "no call would be refreshed: lower it");
        }
    }
    let base = Rules::default().session_expires;
    let session_expires = asked.unwrap_or(base.max(assume_interval.unwrap_or_default()));
    if let (Some(value), Some(at)) = (asked, fields.value_at("session_expires")) {
        if given.is_none() && fields.sound("assume_interval") {
            let cure = "add `assume_interval`, or take it away: a timer that was negotiated keeps its own interval";
            fields.note(at, "`session_expires` says what is asked for where an interval is assumed, and none is", cure);
        }
        if let Some(assumed) = assume_interval.filter(|assumed| value < *assumed) {
            let what = format!("`session_expires` is less than `assume_interval`, {}", shown(assumed));
            fields.note(at, what, "raise it: a shorter timer would be made than there was");
        } else if let Some(least) = min_se.filter(|least| value < *least) {
            let what = format!("`session_expires` is less than `min_se`, {}", shown(least));
            fields.note(at, what, "raise it, or lower `min_se`: no request may ask for less than its own Min-SE");
        }
    }
    if let (AssumeMode::HandOff, Some(at)) = (mode, fields.value_at("mode")) {
        if assume_interval.is_none() && fields.sound("assume_interval") {
            let what = "`mode` is `hand-off`, and there is no `assume_interval` of which that could be";
            fields.note(at, what, "add `assume_interval`, or write `mode: hold`");
        } else if take_over {
            let what = "`mode: hand-off` leaves the refreshing to the peer, and `take_over: true` takes it from there";
            fields.note(at, what, "write `mode: hold`, or `take_over: false`");
        }
    }
    Assumed { assume_interval, session_expires, mode }
}
