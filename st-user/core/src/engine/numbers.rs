//! The server's CSeq numbers in one dialog, and the room for ours (RFC 3261, section 12.2.1.1): a number grows into the digits
//! and blanks that the server wrote, and into a few blanks that are added where the request may become longer.

use serde::{Deserialize, Serialize};
use st_ebpf::cseq::{BLANKS, MAX_NUMBER, State};

use crate::message::{CSeq, HeaderName, Message};

/// Numbers kept free for the server after each of ours: its BYE, and a few requests before that.
pub const RESERVE: u32 = 4;

/// As many where the server writes no blank and none can be added: more than it sends in a call.
const FAR: u32 = 1_000;

/// The longest request, in bytes, that is taken to become longer without trouble: RFC 3261, section 18.1.1 leaves as much
/// room below an MTU that nobody knows.
const LENGTHENED: usize = 1_300;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Numbers {
    /// The highest that the server was seen to write.
    highest: Option<u32>,
    /// The highest that the kernel programs told of and that was not seen here. Not on record: it is told again.
    #[serde(skip)]
    unseen: Option<u32>,
    /// The fewest spaces that it wrote before one.
    spaces: Option<u8>,
    /// Those in another header line of its own, for as long as it has not written a number.
    likely_spaces: u8,
    /// Whether it wrote a request that cannot become longer.
    long: bool,
}

impl Numbers {
    /// Takes in a request of the server's of so many bytes.
    pub(super) fn saw(&mut self, cseq: CSeq, length: usize) {
        self.long |= length > LENGTHENED;
        let spaces = cseq.layout.spaces;
        self.spaces = Some(self.spaces.map_or(spaces, |fewest| fewest.min(spaces)));
        self.highest = self.highest.max(Some(cseq.number));
    }

    /// The same of the peer's: it never becomes longer on its way in.
    pub(super) fn saw_peers(&mut self, cseq: CSeq) {
        self.saw(cseq, usize::MAX);
    }

    /// Takes in a 2xx of the server's: it writes its headers all alike, though CSeq itself may be copied from the peer.
    pub(super) fn saw_answer(&mut self, answer: &Message<'_>) {
        self.likely_spaces = answer.spaces_before(HeaderName::Contact).unwrap_or(0);
    }

    /// Whether a request with this number is a later one than all before.
    pub(super) fn is_new(&self, cseq: CSeq) -> bool {
        self.highest.is_none_or(|highest| cseq.number > highest)
    }

    /// Whether all of this stands in a record.
    pub(super) const fn is_on_record(&self) -> bool {
        self.unseen.is_none()
    }

    /// Whether the server has written a number of its own.
    pub(super) const fn is_known(&self) -> bool {
        self.highest.is_some()
    }

    /// The state of a shift entry that is made now.
    pub(super) fn fresh(&self) -> State {
        State { known: self.highest.is_some(), number: self.highest.unwrap_or(0), delta: 0 }
    }

    /// The kernel's state, brought up to what was seen here.
    pub(super) fn reconcile(&self, kernel: State) -> State {
        self.highest.map_or(kernel, |number| kernel.after_server(number))
    }

    /// Whether the kernel programs tell of a later request of the server's than was seen here, for the first time.
    pub(super) fn misses(&mut self, kernel: State) -> bool {
        let number = kernel.known.then_some(kernel.number);
        let misses = number > self.highest.max(self.unseen);
        self.unseen = self.unseen.max(number.filter(|_| misses));
        misses
    }

    /// Whether the next request of ours leaves the server enough room. Its numbers only grow, so none of them will have
    /// fewer digits than its highest. `spaces`: the fewest that it wrote in other dialogs.
    pub(super) fn has_room(&self, state: State, spaces: Option<u8>) -> bool {
        let highest = if state.known { state.number } else { 0 };
        let digits = highest.checked_ilog10().unwrap_or(0) + 1;
        let spaces = self.spaces.or(spaces).unwrap_or(self.likely_spaces);
        // What the server writes is not known before it has written anything.
        let added = if self.is_known() && !self.long { BLANKS } else { 0 };
        let limit = 10_u64
            .checked_pow(digits.saturating_add(spaces.into()).saturating_add(added))
            .map_or(u64::from(MAX_NUMBER), |limit| limit - 1);
        // Without any blank the last numbers before another digit have no room, however many the server sends.
        let reserve = if self.is_known() && added == 0 && spaces == 0 { FAR } else { RESERVE };
        u64::from(state.next_injected()) + u64::from(reserve) <= limit.min(MAX_NUMBER.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Layout, MethodName};

    fn cseq(number: u32, spaces: u8, digits: u8, method: MethodName) -> CSeq {
        CSeq { number, method, layout: Layout { spaces, digits } }
    }

    fn known(number: u32, delta: u32) -> State {
        State { known: true, number, delta }
    }

    #[test]
    fn the_room_is_that_of_the_highest_number_the_fewest_spaces_and_the_blanks_that_can_be_added() {
        let mut numbers = Numbers::default();
        numbers.saw(cseq(2, 1, 1, MethodName::Invite), 1_300);
        // Six digits: one of its own, a blank of its own, four that are added.
        assert!(numbers.has_room(known(2, 999_992), None) && !numbers.has_room(known(2, 999_993), None));
        numbers.saw(cseq(3, 0, 1, MethodName::Bye), 500);
        assert!(numbers.has_room(known(3, 99_991), Some(7)) && !numbers.has_room(known(3, 99_992), Some(7)));
        let nearly = MAX_NUMBER - 9;
        numbers = Numbers::default();
        numbers.saw(cseq(nearly, 255, 255, MethodName::Invite), 500);
        assert!(numbers.has_room(known(nearly, 4), None) && !numbers.has_room(known(nearly, 5), None));
    }

    #[test]
    fn a_server_that_writes_long_requests_has_no_more_room_than_it_writes() {
        let mut numbers = Numbers::default();
        numbers.saw(cseq(2, 1, 1, MethodName::Invite), 1_301);
        numbers.saw(cseq(2, 1, 1, MethodName::Ack), 500);
        assert!(numbers.has_room(known(2, 92), None) && !numbers.has_room(known(2, 93), None));
        // Three digits of its own by now: 9999 at most.
        assert!(numbers.has_room(known(102, 9_892), None) && !numbers.has_room(known(102, 9_893), None));
    }

    #[test]
    fn numbers_that_cannot_become_wider_are_kept_far_from_the_next_digit() {
        let mut numbers = Numbers::default();
        numbers.saw(cseq(1, 0, 1, MethodName::Invite), 1_301);
        assert!(!numbers.has_room(known(1, 0), Some(7)) && !numbers.has_room(known(103, 0), Some(7)));
        assert!(numbers.has_room(known(1_000, 7_998), None) && !numbers.has_room(known(1_000, 7_999), None));
    }

    #[test]
    fn the_room_of_a_server_that_wrote_no_number_is_told_by_its_other_dialogs_or_its_other_headers() {
        let sent = |number| State { known: false, number, delta: 0 };
        let mut numbers = Numbers::default();
        assert!(numbers.has_room(sent(4), None) && !numbers.has_room(sent(5), None));
        assert!(numbers.has_room(sent(94), Some(1)) && !numbers.has_room(sent(95), Some(1)));
        let answer = b"SIP/2.0 200 OK\r\nCSeq:1 INVITE\r\nm: <sip:server@192.0.2.1>\r\n\r\n";
        numbers.saw_answer(&Message::scan(answer, false).unwrap());
        assert!(numbers.has_room(sent(94), None) && !numbers.has_room(sent(95), None));
        assert!(!numbers.has_room(sent(5), Some(0)));
    }

    #[test]
    fn a_number_that_only_the_kernel_saw_is_missed_once() {
        let mut numbers = Numbers::default();
        numbers.saw(cseq(7, 1, 1, MethodName::Info), 500);
        assert!(!numbers.misses(known(7, 2)) && !numbers.misses(State { known: false, number: 9, delta: 0 }));
        assert!(numbers.misses(known(8, 2)) && !numbers.misses(known(8, 2)) && numbers.misses(known(9, 2)));
        assert_eq!(numbers.fresh(), known(7, 0), "it was not seen");
    }

    #[test]
    fn a_first_number_of_zero_is_a_number() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.fresh(), State { known: false, number: 0, delta: 0 });
        numbers.saw(cseq(0, 1, 1, MethodName::Invite), 500);
        numbers.saw(cseq(0, 1, 1, MethodName::Ack), 500);
        assert_eq!(numbers.fresh(), State { known: true, number: 0, delta: 0 });
        assert_eq!(numbers.fresh().next_injected(), 1);
        let sent_two = State { known: false, number: 2, delta: 0 };
        assert_eq!(numbers.reconcile(sent_two), State { known: true, number: 0, delta: 3 });
    }
}
