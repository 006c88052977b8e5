//! Calls in which datagrams go by as parts of packets that the kernel has joined. The programs read those and let them be, so no number in
//! them is shifted: after a refresh the server's next request in one would be refused (500), and its answer would name a number that the
//! server knows nothing of. So nothing is sent in the name of a server of which such a packet was seen.
//!
//! Only what the server sends says so, and answers that name the branch of what it has asked: anybody can send several datagrams at once.

use super::{dialog::Dialog, reason, shared::Shared};
use crate::{Direction, Packet, Side};

impl Shared {
    /// What is read next was one of several datagrams as one packet.
    pub(super) fn sees_joined(&mut self, packet: &Packet<'_>) {
        self.joined = true;
        if packet.direction == Direction::Egress && packet.cookie != 0 {
            self.joining.insert(packet.cookie, ());
        }
    }
}

impl Dialog {
    /// The server's message was one of several as one packet, or the answer to it.
    pub(super) fn was_joined(&mut self, sx: &mut Shared) {
        // What was found out before stands where it says that a side has forgotten the dialog, or the kernel its numbers.
        if matches!(self.barred, None | Some(reason::MID_CALL | reason::CSEQ_ROOM | reason::MAX_SESSION)) {
            self.bar_for(reason::JOINED);
            self.mark(sx);
        }
    }

    /// An answer to what the server or the peer has asked, by its branch.
    pub(super) fn answer_was_joined(&mut self, sx: &mut Shared, responder: Side) {
        if sx.joined && responder == Side::Peer {
            self.was_joined(sx);
        }
    }

    /// Whether such a message was seen in it.
    pub(super) fn is_joined(&self) -> bool {
        self.barred == Some(reason::JOINED)
    }

    /// Whether its next one may be: the server's socket has sent such a packet in another dialog, or outside all.
    pub(super) fn may_be_joined(&self, sx: &Shared) -> Option<&'static str> {
        sx.joining.get(&self.cookie).map(|()| reason::JOINED)
    }
}
