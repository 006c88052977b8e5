//! Events in words, for people who are woken by one.

use std::fmt::Write as _;

use st_core::{Event, EventKind};

use crate::output::printable;

/// Where the documentation of events is, with a heading for each kind.
pub const RUNBOOK: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/events.md");

/// What an event of this kind says, as a sentence without its end.
pub const fn says(kind: EventKind) -> &'static str {
    match kind {
        EventKind::SessionStarted => "a dialog is up",
        EventKind::TimerNegotiated => "a session timer was agreed",
        EventKind::SessionRefreshed => "the session was refreshed",
        EventKind::RefreshDue => "somebody has to refresh the session now",
        EventKind::RefreshSent => "sipst has sent a refresh",
        EventKind::RefreshSucceeded => "sipst's refresh was accepted",
        EventKind::RefreshFailed => "no refresh of sipst's has come through",
        EventKind::AtRisk => "the peer has to refresh, and its refreshes come to nothing here",
        EventKind::RefreshOverdue => "whoever has to refresh the session has not",
        EventKind::RefreshRejected => "the server has turned down the peer's refresh",
        EventKind::RefreshIgnored => "the server does not answer the peer's refresh",
        EventKind::SessionExpiring => "the peer may hang up soon, and nothing has refreshed the session",
        EventKind::SessionExpired => "the session has run out",
        EventKind::SessionEnded => "the dialog is over",
        EventKind::SessionHeld => "an operator has told sipst to keep its hands off the call",
        EventKind::SessionReleased => "an operator has let sipst act in the call again",
        EventKind::NegotiationFault => "what was negotiated cannot be relied upon",
        EventKind::CaptureLoss => "packets were lost before they could be read",
        EventKind::RefreshAnswered => "sipst has answered the peer's refresh in the server's name",
        EventKind::AnswerWithheld => "sipst has left a refusal of the server's as it is",
        EventKind::ServerTold => "the server was told where the peer's media are now",
        EventKind::BreakerOpened => "refreshes on the trunk come to nothing, and most are no longer sent",
        EventKind::BreakerClosed => "refreshes on the trunk are sent again",
        EventKind::ExpiredMediaFlowing => "the session has run out, and its media flow all the same",
        EventKind::ByeSent => "sipst has sent a BYE in a call that had expired",
        EventKind::ByeFailed => "a call that had expired could not be ended",
        EventKind::StateNotKept => "what is known of the calls is not kept on disk",
    }
}

/// Whether a call is lost by what it tells, or about to be.
pub const fn is_critical(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::SessionExpiring | EventKind::SessionExpired | EventKind::BreakerOpened | EventKind::ByeFailed
    )
}

/// One line for people: what, in which call, why, until when.
pub fn line(event: &Event) -> String {
    let mut line = says(event.kind).to_owned();
    // Writing to a string does not fail.
    if let Some(call_id) = event.call_id() {
        let _ = write!(line, ": call {}", printable(&call_id));
    }
    if let Some(peer) = event.peer() {
        let _ = write!(line, " with {peer}");
    }
    if let Some(trunk) = &event.trunk {
        let _ = write!(line, " on trunk {trunk}");
    }
    if let Some(reason) = &event.reason {
        let _ = write!(line, " ({})", printable(reason));
    }
    if let Some(deadline) = event.deadline {
        let _ = write!(line, ", the peer may hang up at {deadline}");
    }
    line
}

/// Where it says what to do about an event of this kind; `base`: of the operator's own runbook.
pub fn runbook(base: Option<&str>, kind: &str) -> String {
    format!("{}#{kind}", base.unwrap_or(RUNBOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_event_has_its_place_in_the_documentation() {
        let page = include_str!("../../docs/events.md");
        for kind in EventKind::ALL {
            let heading = format!("\n## {}\n\n", kind.name());
            let section = page.split(&heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
            assert_eq!(section.starts_with("**Alert.**"), kind.is_alert(), "{heading}");
        }
        assert!(page.contains("\n## alerts_folded\n"));
    }
}
