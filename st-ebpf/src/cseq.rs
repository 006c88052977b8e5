//! The CSeq mapping: which number a request of the server's carries on the wire once sipst has sent requests of its own
//! in the dialog, and back. Pure functions of the server's own number, so that a retransmission, an ACK, a CANCEL and a
//! late response all map alike with no transaction table (RFC 3261, section 12.2.1.1 for the numbers themselves).
//!
//! `st_egress` is the only writer of a live [`State`]: it raises `number` for the server's requests and commits an
//! injected request by compare-and-swap, both on [`State::to_word`].

/// How many closed ranges of the server's numbers a dialog remembers.
pub const RANGES: usize = 4;

/// The highest CSeq number that RFC 3261, section 8.1.1.5 allows.
pub const MAX_NUMBER: u32 = 0x7fff_ffff;

/// What one 64-bit word of the shift entry says about a dialog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether the server has sent a request in this dialog.
    pub known: bool,
    /// `known`: the highest number that the server wrote. Otherwise: the highest number that sipst sent, 0 for none.
    pub number: u32,
    /// What is added to numbers of the server's that are above every closed range.
    pub delta: u32,
}

impl State {
    /// The state as the kernel's compare-and-swap takes it: bit 63 `known`, 62 to 32 `number`, 31 to 0 `delta`.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        ((self.known as u64) << 63) | (((self.number & MAX_NUMBER) as u64) << 32) | self.delta as u64
    }

    /// The inverse of [`State::to_word`].
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { known: word >> 63 == 1, number: (word >> 32) as u32 & MAX_NUMBER, delta: word as u32 }
    }

    /// The highest number that the peer has seen from this side, 0 for none.
    #[inline(always)]
    pub const fn highest_on_wire(self) -> u32 {
        if self.known { self.number.wrapping_add(self.delta) } else { self.number }
    }

    /// The number that the next injected request carries.
    #[inline(always)]
    pub const fn next_injected(self) -> u32 {
        self.highest_on_wire().wrapping_add(1)
    }

    /// The state once that request has left.
    #[inline(always)]
    pub const fn after_injection(self) -> Self {
        if self.known {
            Self { known: true, number: self.number, delta: self.delta.wrapping_add(1) }
        } else {
            Self { known: false, number: self.number.wrapping_add(1), delta: 0 }
        }
    }

    /// The state once the server has sent a request with `number`.
    #[inline(always)]
    pub const fn after_server(self, number: u32) -> Self {
        if !self.known {
            let next = self.next_injected();
            let delta = if self.number == 0 || number >= next { 0 } else { next - number };
            Self { known: true, number, delta }
        } else if number > self.number {
            Self { known: true, number, delta: self.delta }
        } else {
            self
        }
    }
}

/// The numbers below `below` (and at or above the range before it) that were given `delta`; `below` 0 is an unused place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Range {
    /// One past the last of the server's numbers in this range.
    pub below: u32,
    /// What was added to them.
    pub delta: u32,
}

/// The server's number as it stands on the wire.
#[inline(always)]
pub fn to_wire(ranges: &[Range; RANGES], open_delta: u32, number: u32) -> u32 {
    let mut delta = open_delta;
    let mut found = false;
    for range in ranges {
        if !found && number < range.below {
            delta = range.delta;
            found = true;
        }
    }
    number.wrapping_add(delta)
}

/// The server's number behind a number on the wire; `None` where that number was sipst's own.
#[inline(always)]
pub fn from_wire(ranges: &[Range; RANGES], open_delta: u32, wire: u32) -> Option<u32> {
    let mut floor = 0;
    for range in ranges {
        if range.below == 0 {
            continue;
        }
        if wire < range.below.wrapping_add(range.delta) {
            let number = wire.checked_sub(range.delta)?;
            return if number >= floor { Some(number) } else { None };
        }
        floor = range.below;
    }
    let number = wire.checked_sub(open_delta)?;
    if number >= floor { Some(number) } else { None }
}
