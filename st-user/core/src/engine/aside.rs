//! What the peer has said to sipst alone, in its answers to refreshes in the server's name. The server knows nothing of it: where the
//! peer says the same in a refresh that the server turns down, that is more than a refresh for the server.

use super::{dialog::Dialog, sdp::is_repeated};
use crate::message::{Message, MethodName};

/// What that is about. On record behind the rest of a session, where it is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) contact: bool,
    pub(super) sdp: bool,
}

impl Aside {
    /// What of it the server would have to know to take a request of the peer's; `offers`: whether that has an offer.
    pub(super) const fn of(self, offers: bool) -> Option<&'static str> {
        match self {
            Self { contact: true, .. } => Some("a Contact that the server was not told"),
            Self { sdp: true, .. } if offers => Some("media that the server was not told"),
            Self { .. } => None,
        }
    }
}

impl Dialog {
    /// Takes in a 2xx to a refresh of sipst's, before anything else does.
    pub(super) fn hear_aside(&mut self, answer: &Message<'_>, method: MethodName) {
        let elsewhere = |contact: &[u8]| self.target.as_ref().is_some_and(|target| target.remote() != contact);
        let contact = answer.contact().is_some_and(|contact| elsewhere(contact.uri));
        let other = |sdp: &[u8]| self.peer_sdp.as_ref().is_some_and(|before| !is_repeated(before, sdp));
        let sdp =
            method == MethodName::Invite && super::sdp::Said::by(answer).sdp().is_some_and(|sdp| other(&sdp.bytes));
        self.aside.contact |= contact;
        self.aside.sdp |= sdp;
    }

    /// The two sides have agreed on something by themselves: each knows where the other one is.
    pub(super) fn heard_by_server(&mut self, method: MethodName) {
        self.aside.contact = false;
        self.aside.sdp &= method != MethodName::Invite;
    }
}
