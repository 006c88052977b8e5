//! The server's CSeq numbers in one dialog, and the room for ours (RFC 3261, section 12.2.1.1; design: a request keeps
//! its length, so a number can only grow into the digits and spaces that the server wrote).

use st_ebpf::cseq::{MAX_NUMBER, State};

use crate::message::CSeq;

/// Numbers kept free for the server after each of ours: its BYE, and a few requests before that.
pub const RESERVE: u32 = 4;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// The highest that the server was seen to write.
    highest: Option<u32>,
    /// Digits and spaces where it wrote them narrowest.
    width: Option<u8>,
}

impl Numbers {
    /// Takes in a request of the server's.
    pub(super) fn saw(&mut self, cseq: CSeq) {
        let width = cseq.layout.spaces.saturating_add(cseq.layout.digits);
        self.width = Some(self.width.map_or(width, |narrowest| narrowest.min(width)));
        self.highest = self.highest.max(Some(cseq.number));
    }

    /// The state of a shift entry that is made now.
    pub(super) fn fresh(&self) -> State {
        State { known: self.highest.is_some(), number: self.highest.unwrap_or(0), delta: 0 }
    }

    /// The kernel's state, brought up to what was seen here.
    pub(super) fn reconcile(&self, kernel: State) -> State {
        self.highest.map_or(kernel, |number| kernel.after_server(number))
    }

    /// Whether a request of ours with this number leaves the server enough room. `spaces`: what is assumed of a server
    /// that has not written any number here.
    pub(super) fn has_room(&self, number: u32, spaces: u8) -> bool {
        let width = self.width.unwrap_or(spaces.saturating_add(1));
        let limit = 10_u64.checked_pow(width.into()).map_or(u64::from(MAX_NUMBER), |limit| limit - 1);
        u64::from(number) + u64::from(RESERVE) <= limit.min(MAX_NUMBER.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Layout, MethodName};

    fn cseq(number: u32, spaces: u8, digits: u8, method: MethodName) -> CSeq {
        CSeq { number, method, layout: Layout { spaces, digits } }
    }

    #[test]
    fn the_room_is_that_of_the_narrowest_request() {
        let mut numbers = Numbers::default();
        numbers.saw(cseq(102, 1, 3, MethodName::Invite));
        assert!(numbers.has_room(9_995, 0) && !numbers.has_room(9_996, 0));
        numbers.saw(cseq(7, 1, 1, MethodName::Bye));
        assert!(numbers.has_room(95, 0) && !numbers.has_room(96, 0));
        assert!(Numbers::default().has_room(5, 0) && !Numbers::default().has_room(6, 0));
        assert!(Numbers::default().has_room(95, 1));
        numbers = Numbers::default();
        numbers.saw(cseq(MAX_NUMBER - 9, 255, 255, MethodName::Invite));
        assert!(numbers.has_room(MAX_NUMBER - RESERVE, 0) && !numbers.has_room(MAX_NUMBER - RESERVE + 1, 0));
    }

    #[test]
    fn a_first_number_of_zero_is_a_number() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.fresh(), State { known: false, number: 0, delta: 0 });
        numbers.saw(cseq(0, 1, 1, MethodName::Invite));
        numbers.saw(cseq(0, 1, 1, MethodName::Ack));
        assert_eq!(numbers.fresh(), State { known: true, number: 0, delta: 0 });
        assert_eq!(numbers.fresh().next_injected(), 1);
        let sent_two = State { known: false, number: 2, delta: 0 };
        assert_eq!(numbers.reconcile(sent_two), State { known: true, number: 0, delta: 3 });
    }
}
