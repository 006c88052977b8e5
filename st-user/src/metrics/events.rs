//! Events, counted.

use std::{collections::HashSet, sync::Mutex, sync::PoisonError};

use st_core::{By, Event, EventKind, Side};

use super::{Metrics, Word};

/// Names of trunks that are labels, those of earlier configurations too; past that a trunk is counted as [`OTHER`].
pub(crate) const MAX_TRUNKS: usize = 4_096;

/// All trunks past [`MAX_TRUNKS`].
const OTHER: &str = "other";

/// Names of trunks that are labels.
#[derive(Debug, Default)]
pub(super) struct Trunks(Mutex<HashSet<String>>);

impl Trunks {
    fn label(&self, trunk: &str) -> Word {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(trunk) {
            if known.len() >= MAX_TRUNKS {
                return OTHER.into();
            }
            known.insert(trunk.to_owned());
        }
        trunk.to_owned().into()
    }
}

impl Metrics {
    /// A trunk's name as a label.
    pub(crate) fn trunk(&self, trunk: &str) -> Word {
        self.trunks.label(trunk)
    }

    /// Counts an event.
    pub(crate) fn event(&self, event: &Event) {
        let families = &self.families;
        let trunk = || event.trunk.as_deref().map_or(Word::Borrowed(""), |trunk| self.trunk(trunk));
        let refresher = || event.refresher.map_or(Word::Borrowed(""), side);
        let refreshed = |who, result: &'static str| families.refreshes.add([trunk(), who, result.into()]);
        families.events.add([event.kind.name().into(), trunk()]);
        match event.kind {
            EventKind::TimerNegotiated => families.negotiations.add([trunk(), refresher()]),
            EventKind::NegotiationFault => families.negotiation_faults.add([trunk(), reason(event)]),
            EventKind::SessionRefreshed => refreshed(event.by.map_or(Word::Borrowed(""), by), "succeeded"),
            EventKind::RefreshFailed => {
                refreshed(by(By::Sipst), "failed");
                families.refresh_failures.add([trunk(), reason(event)]);
            }
            EventKind::RefreshRejected => refreshed(by(By::Peer), "rejected"),
            EventKind::RefreshIgnored => refreshed(by(By::Peer), "ignored"),
            EventKind::RefreshAnswered => refreshed(by(By::Peer), "answered"),
            EventKind::RefreshOverdue => {
                families.refresh_overdue.add([trunk(), event.by.map_or(Word::Borrowed(""), by)]);
            }
            EventKind::SessionExpired => families.expired.add([trunk(), refresher()]),
            EventKind::SessionStarted
            | EventKind::RefreshDue
            | EventKind::RefreshSent
            | EventKind::RefreshSucceeded
            | EventKind::AtRisk
            | EventKind::SessionExpiring
            | EventKind::SessionEnded
            | EventKind::SessionHeld
            | EventKind::SessionReleased
            | EventKind::CaptureLoss
            | EventKind::AnswerWithheld
            | EventKind::ServerTold
            | EventKind::BreakerOpened
            | EventKind::BreakerClosed
            | EventKind::ExpiredMediaFlowing
            | EventKind::ByeSent
            | EventKind::ByeFailed
            | EventKind::StateNotKept => {}
        }
    }
}

fn by(by: By) -> Word {
    match by {
        By::Server => "server",
        By::Peer => "peer",
        By::Sipst => "sipst",
    }
    .into()
}

fn side(side: Side) -> Word {
    by(side.into())
}

/// The word that a reason begins with: one of a table, so that details from the wire never become labels.
fn reason(event: &Event) -> Word {
    let word = event.reason.as_deref().unwrap_or_default().split(':').next().unwrap_or_default();
    let known = st_core::engine::reason::ALL.iter().find(|(known, _)| *known == word);
    known.map_or("other", |(known, _)| *known).into()
}
