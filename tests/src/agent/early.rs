//! A re-INVITE that only rings: its reliable provisional response, and the CANCEL that ends it.

use std::net::SocketAddr;

use super::{Message, run::Ua};

/// RSeq of every reliable response.
pub const RSEQ: u32 = 1;

impl Ua {
    /// Lets a re-INVITE ring, by a reliable response (RFC 3262), until it is cancelled.
    pub(super) fn ring(&mut self, invite: &Message, from: SocketAddr) {
        let ringing = Message::response(invite, 180, "Ringing").with("Require", "100rel").with("RSeq", RSEQ);
        self.send(&ringing, from);
        self.rings = Some((invite.clone(), from));
    }

    /// RFC 3261, section 9.2.
    pub(super) fn on_cancel(&mut self, cancel: &Message, from: SocketAddr) {
        let of = |(invite, _): &mut (Message, SocketAddr)| {
            let number = |message: &Message| message.cseq().map(|cseq| cseq.number);
            invite.param("Via", "branch") == cancel.param("Via", "branch") && number(invite) == number(cancel)
        };
        let Some((invite, to)) = self.rings.take_if(of) else {
            self.fault(format!("a CANCEL for no INVITE: {cancel}"));
            return self.answer(cancel, from, Message::response(cancel, 481, "Call/Transaction Does Not Exist"));
        };
        self.answer(cancel, from, Message::response(cancel, 200, "OK"));
        let terminated = Message::response(&invite, 487, "Request Terminated");
        self.answer(&invite, to, terminated);
    }

    /// Cancels its own INVITE that has no final response.
    pub(super) fn cancel(&mut self) {
        let invite = self.open.iter().find(|one| one.message.method() == Some("INVITE"));
        let Some((invite, to)) = invite.map(|one| (one.message.clone(), one.to)) else {
            return self.fault("CANCEL without an INVITE");
        };
        let number = invite.cseq().map_or(0, |cseq| cseq.number);
        let mut cancel = Message { body: String::new(), ..invite };
        cancel.start = cancel.start.replacen("INVITE", "CANCEL", 1);
        let kept = ["Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq"];
        cancel.headers.retain(|(name, _)| kept.contains(&name.as_str()));
        for (_, value) in cancel.headers.iter_mut().filter(|(name, _)| name == "CSeq") {
            *value = format!("{number} CANCEL");
        }
        self.send_request(cancel, to);
    }
}
