//! The CSeq mapping: which number a request of the server's carries on the wire once sipst has sent requests of its own
//! in the dialog, and back. Pure functions of the server's own number, so that a retransmission, an ACK, a CANCEL and a
//! late response all map alike with no transaction table (RFC 3261, section 12.2.1.1 for the numbers themselves).
//!
//! `st_egress` is the only writer of a live [`State`]: it raises `number` for the server's requests and commits an
//! injected request by compare-and-swap, both on [`State::to_word`].

/// How many closed ranges of the server's numbers a dialog remembers.
pub const RANGES: usize = 4;

/// How many blanks `st_egress` puts before a number of the server's that has outgrown its place.
pub const BLANKS: u32 = 4;

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

/// What becomes of the closed ranges when a request is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The numbers so far are covered already.
    Nothing,
    /// Write `range` at `index`.
    Write {
        /// The place, below [`RANGES`].
        index: usize,
        /// What to write.
        range: Range,
    },
    /// All places are in use: drop the oldest, if it is old enough, and write `range` at the end.
    Shift {
        /// What to write.
        range: Range,
    },
}

/// How to close the range of the numbers up to `state.number` before `state` takes in an injection. To write it early, or
/// for an injection that then fails, does no harm: those numbers have this delta either way.
#[inline(always)]
pub fn close(ranges: &[Range; RANGES], state: State) -> Close {
    if !state.known {
        return Close::Nothing;
    }
    let range = Range { below: state.number.wrapping_add(1), delta: state.delta };
    let mut last = Range { below: 0, delta: 0 };
    let mut used = 0;
    for place in ranges {
        if place.below != 0 {
            last = *place;
            used += 1;
        }
    }
    if used > 0 && last.below >= range.below {
        Close::Nothing
    } else if used > 0 && last.delta == range.delta {
        Close::Write { index: used - 1, range }
    } else if used < RANGES {
        Close::Write { index: used, range }
    } else {
        Close::Shift { range }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, vec::Vec};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Server { gap: u32 },
        Inject,
        FailedInject,
    }

    fn apply(ranges: &mut [Range; RANGES], state: State) -> bool {
        match close(ranges, state) {
            Close::Nothing => true,
            Close::Write { index, range } => {
                ranges[index] = range;
                true
            }
            Close::Shift { .. } => false,
        }
    }

    proptest! {
        /// The peer sees each number once and never a lower one; every number of the server's maps to the same place
        /// for ever, and back.
        #[test]
        fn the_wire_only_goes_up_and_the_mapping_is_a_bijection(
            first in prop_oneof![Just(0_u32), 1..20_u32, Just(0x7fff_0000)],
            told in any::<bool>(),
            steps in proptest::collection::vec(prop_oneof![
                (1..3_u32).prop_map(|gap| Step::Server { gap }), Just(Step::Inject), Just(Step::FailedInject)], 0..40),
        ) {
            let mut state = State::default();
            let mut ranges = [Range::default(); RANGES];
            let mut wire = Vec::new();
            let mut seen = BTreeMap::new();
            let mut next = first;
            let mut server = |state: &mut State, ranges: &[Range; RANGES], wire: &mut Vec<u32>, seen: &mut BTreeMap<u32, u32>, gap: u32| {
                let number = next;
                next += gap;
                *state = state.after_server(number);
                let at = to_wire(ranges, state.delta, number);
                wire.push(at);
                seen.insert(number, at);
            };
            if told {
                server(&mut state, &ranges, &mut wire, &mut seen, 1);
            }
            for step in steps {
                match step {
                    Step::Server { gap } => server(&mut state, &ranges, &mut wire, &mut seen, gap),
                    Step::FailedInject => { apply(&mut ranges, state); }
                    Step::Inject => if apply(&mut ranges, state) {
                        wire.push(state.next_injected());
                        state = state.after_injection();
                    },
                }
                for (number, at) in &seen {
                    prop_assert_eq!(to_wire(&ranges, state.delta, *number), *at);
                    prop_assert_eq!(from_wire(&ranges, state.delta, *at), Some(*number));
                }
                prop_assert_eq!(State::from_word(state.to_word()), state);
                prop_assert_eq!(state.highest_on_wire(), wire.last().copied().unwrap_or(0));
            }
            prop_assert!(wire.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", wire);
        }
    }

    #[test]
    fn a_first_number_of_zero_after_injections_is_lifted_above_them() {
        let state = State::default().after_injection().after_injection();
        assert_eq!(state.highest_on_wire(), 2);
        let state = state.after_server(0);
        assert_eq!(to_wire(&[Range::default(); RANGES], state.delta, 0), 3);
    }

    #[test]
    fn a_first_number_below_the_injected_ones_is_lifted_to_the_next_and_no_further() {
        let state = State::default().after_injection().after_injection().after_injection();
        assert_eq!(state.after_server(2), State { known: true, number: 2, delta: 2 });
        assert_eq!(state.after_server(4), State { known: true, number: 4, delta: 0 });
    }

    #[test]
    fn ranges_are_closed_one_after_the_other_until_all_places_are_in_use() {
        let mut ranges = [Range::default(); RANGES];
        for index in 0..RANGES {
            let state = State { known: true, number: 10 * (1 + index as u32), delta: index as u32 };
            let range = Range { below: state.number + 1, delta: state.delta };
            assert_eq!(close(&ranges, state), Close::Write { index, range });
            ranges[index] = range;
            assert_eq!(close(&ranges, state), Close::Nothing);
            // Nothing was injected since: the same range goes on.
            let later = State { number: state.number + 3, ..state };
            let range = Range { below: later.number + 1, delta: state.delta };
            assert_eq!(close(&ranges, later), Close::Write { index, range });
        }
        let state = State { known: true, number: 99, delta: RANGES as u32 };
        assert_eq!(close(&ranges, state), Close::Shift { range: Range { below: 100, delta: state.delta } });
    }

    #[test]
    fn a_first_number_above_the_injected_ones_stays_as_it_is() {
        let state = State::default().after_injection().after_server(1_000_000);
        assert_eq!(state, State { known: true, number: 1_000_000, delta: 0 });
    }

    #[test]
    fn our_own_numbers_are_nobodys() {
        let ranges = [Range { below: 11, delta: 0 }, Range::default(), Range::default(), Range::default()];
        assert_eq!(from_wire(&ranges, 2, 10), Some(10));
        assert_eq!(from_wire(&ranges, 2, 11), None);
        assert_eq!(from_wire(&ranges, 2, 12), None);
        assert_eq!(from_wire(&ranges, 2, 13), Some(11));
    }
}
