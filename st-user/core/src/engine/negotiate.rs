//! What a 2xx to an INVITE or UPDATE says about the session timer (RFC 4028, sections 7 and 9).

use serde::{Deserialize, Serialize};

use super::reason;
use crate::{
    Side,
    message::{HeaderFault, Role, SessionExpires},
};

/// An agreed session timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Agreed {
    /// In seconds.
    pub(super) interval: u32,
    /// Who refreshes.
    pub(super) refresher: Side,
}

/// What cannot be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Session-Expires that cannot be read, or that stands there twice.
    Malformed,
    /// R13: nobody is named as the refresher.
    RefresherMissing,
}

impl Fault {
    /// The word in an event's `reason`.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => reason::MALFORMED,
            Self::RefresherMissing => reason::REFRESHER_MISSING,
        }
    }
}

/// What holds after a 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The timer, if there is one.
    pub(super) agreed: Option<Agreed>,
    /// What was wrong with what the 2xx said.
    pub(super) fault: Option<Fault>,
}

/// R11 to R14. `sender` sent the request; `answer` is the Session-Expires of its 2xx; `strict`: R12 to the letter.
pub(super) fn negotiate(
    before: Option<Agreed>,
    sender: Side,
    answer: Option<Result<SessionExpires, HeaderFault>>,
    strict: bool,
) -> Outcome {
    match answer {
        // R11
        Some(Ok(SessionExpires { interval_s, refresher })) => {
            // R14: uac and uas are the roles of this transaction.
            let (refresher, fault) = match refresher {
                Some(Role::Uac) => (sender, None),
                Some(Role::Uas) => (sender.other(), None),
                // R13: most stacks take it for uac.
                None => (sender, Some(Fault::RefresherMissing)),
            };
            Outcome { agreed: Some(Agreed { interval: interval_s, refresher }), fault }
        }
        Some(Err(_)) => Outcome { agreed: before, fault: Some(Fault::Malformed) },
        // R12: "off" by the letter, but border controllers go on.
        None => Outcome { agreed: before.filter(|_| !strict), fault: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Option<Agreed> = Some(Agreed { interval: 1800, refresher: Side::Peer });

    fn said(refresher: Option<Role>) -> Option<Result<SessionExpires, HeaderFault>> {
        Some(Ok(SessionExpires { interval_s: 90, refresher }))
    }

    #[test]
    fn r14_roles_are_those_of_the_transaction() {
        for (sender, role, refresher) in [
            (Side::Server, Role::Uac, Side::Server),
            (Side::Server, Role::Uas, Side::Peer),
            (Side::Peer, Role::Uac, Side::Peer),
            (Side::Peer, Role::Uas, Side::Server),
        ] {
            let found = negotiate(None, sender, said(Some(role)), false);
            assert_eq!(found, Outcome { agreed: Some(Agreed { interval: 90, refresher }), fault: None });
        }
    }

    #[test]
    fn r13_without_a_refresher_the_uac_is_assumed() {
        let found = negotiate(BEFORE, Side::Server, said(None), false);
        assert_eq!(found.agreed, Some(Agreed { interval: 90, refresher: Side::Server }));
        assert_eq!(found.fault, Some(Fault::RefresherMissing));
    }

    #[test]
    fn r12_a_2xx_without_session_expires_keeps_what_was_agreed_unless_strict() {
        assert_eq!(negotiate(BEFORE, Side::Peer, None, false), Outcome { agreed: BEFORE, fault: None });
        assert_eq!(negotiate(BEFORE, Side::Peer, None, true), Outcome { agreed: None, fault: None });
        assert_eq!(negotiate(None, Side::Peer, None, false), Outcome { agreed: None, fault: None });
    }
}
