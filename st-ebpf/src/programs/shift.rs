//! Numbers on their way: those of a side's requests go up by what sipst has sent in its name, and come down again in the
//! responses to them. The server's by `st_egress` out and the ingress programs back, the peer's the other way round.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};

use st_ebpf::{
    abi::{Counter, Latest, Shift, kind},
    cseq::{self, BLANKS, RANGES, Range, State},
    key::{DialogKey, Whose},
    scan::{Span, method, part},
};

use super::{
    access::Access,
    lengthen::lengthen,
    maps::{LATEST, SHIFTED, SHIFTS, Scratch, count},
    message::{dialog_key, side},
    packet::Datagram,
    record::{copy, numbers},
    rewrite::{Place, rewrite},
};

/// How often a compare-and-swap is tried: each failure means that another CPU has moved this one dialog on.
pub const MAX_TRIES: u32 = 4;

/// The word and the ranges of an entry as they were together, if the entry is this dialog's.
#[inline(always)]
pub fn copy_ranges(entry: *mut Shift, check: u64, to: &mut [Range; RANGES]) -> Option<u64> {
    let mut tries = 0;
    while tries < 2 {
        // SAFETY: an element of the map; it stays readable until the program ends, though it may be another dialog's by
        // then, which `check` tells.
        unsafe {
            let generation = (&raw const (*entry).generation).read_volatile();
            let word = (&raw const (*entry).word).read_volatile();
            let mut index = 0;
            while index < RANGES {
                to[index] = (&raw const (*entry).ranges[index]).read_volatile();
                index += 1;
            }
            let same = (&raw const (*entry).check).read_volatile() == check;
            if !same {
                return None;
            }
            if generation & 1 == 0 && (&raw const (*entry).generation).read_volatile() == generation {
                return Some(word);
            }
        }
        tries += 1;
    }
    None
}

/// Whether any dialog of this server's address is shifted.
#[inline(always)]
pub fn is_shifted(scratch: &Scratch) -> bool {
    // SAFETY: only whether it is there is asked.
    unsafe { SHIFTED.get(scratch.header.server) }.is_some()
}

/// Whether a request uses up a number: ACK and CANCEL have that of their INVITE (RFC 3261, section 12.2.1.1).
#[inline(always)]
pub const fn raises(method: u32) -> bool {
    method != method::ACK && method != method::CANCEL
}

/// Keeps the highest number of the server's in a dialog, for whoever makes its entry later: the ring may have no room for the
/// request, or nobody live who writes down that it was there.
#[inline(always)]
fn note(key: DialogKey, number: u32) {
    let number = number as u64;
    if let Some(latest) = LATEST.get_ptr_mut(key.map) {
        let mut tries = 0;
        while tries < MAX_TRIES {
            // SAFETY: aligned words of the map's element, which stays readable until the program ends.
            let (check, known) = unsafe {
                ((&raw const (*latest).check).read_volatile(), (&raw const (*latest).number).read_volatile())
            };
            if check != key.check {
                break;
            }
            if known >= number {
                return;
            }
            // SAFETY: as above.
            let (_, swapped) =
                unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(&raw mut (*latest).number, known, number) };
            if swapped {
                return;
            }
            tries += 1;
        }
    }
    _ = LATEST.insert(key.map, Latest { check: key.check, number }, 0);
}

/// Keeps the number of a request of the server's (egress) or the peer's (ingress), in its dialog's entry too where there is one. Where
/// there is, that number and by how much it is to go up; the ranges are in the scratch place then.
#[inline(always)]
fn raise(scratch: &mut Scratch, method: u32, whose: Whose) -> Option<(u32, u32)> {
    // SAFETY: the scratch place.
    let raised = unsafe { st_raise(scratch, method, whose as u32) } != 0;
    if raised { Some((scratch.number, scratch.delta)) } else { None }
}

/// [`raise`], to the verifier a function by itself: both are in the scratch place where it returns 1.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_raise(scratch: *mut Scratch, method: u32, whose: u32) -> u32 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    match try_raise(scratch, method, side(whose)) {
        Some((number, delta)) => {
            scratch.number = number;
            scratch.delta = delta;
            1
        }
        None => 0,
    }
}

#[inline(always)]
fn try_raise(scratch: &mut Scratch, method: u32, whose: Whose) -> Option<(u32, u32)> {
    if scratch.scan.found & part::CSEQ == 0 {
        return None;
    }
    let key = dialog_key(scratch, scratch.scan.from_tag, whose)?;
    let number = scratch.scan.number;
    if number > cseq::MAX_NUMBER as u64 {
        return None;
    }
    let number = number as u32;
    let raises = raises(method);
    if matches!(whose, Whose::Server) && raises {
        // Before the look-up: who makes an entry and then asks for this has missed nothing.
        note(key, number);
        if !is_shifted(scratch) {
            return None;
        }
    }
    let entry = SHIFTS.get_ptr_mut(key.map)?;
    let mut tries = 0;
    let mut delta = None;
    while tries < MAX_TRIES {
        let Some(word) = copy_ranges(entry, key.check, &mut scratch.ranges) else { break };
        let state = State::from_word(word);
        let next = if raises { state.after_server(number) } else { state };
        // Also where nothing changes: the swap says that word and ranges belong together.
        // SAFETY: an aligned word of the map's element.
        let (_, swapped) =
            unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(&raw mut (*entry).word, word, next.to_word()) };
        if swapped {
            delta = Some(next.delta);
            break;
        }
        tries += 1;
    }
    let Some(delta) = delta else {
        count(Counter::ShiftFailed);
        return None;
    };
    Some((number, delta))
}

/// Of a request that is not rewritten: its number is kept all the same. Whether it would have become another.
#[inline(always)]
pub fn only_raise(scratch: &mut Scratch, method: u32, whose: Whose) -> bool {
    let Some((number, delta)) = raise(scratch, method, whose) else { return false };
    to_wire(scratch, delta, number) != number
}

/// The number of a request on the wire, by the ranges in the scratch place.
#[inline(always)]
fn to_wire(scratch: &mut Scratch, delta: u32, number: u32) -> u32 {
    // SAFETY: the scratch place.
    unsafe { st_to_wire(scratch, delta, number) }
}

/// [`to_wire`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_to_wire(scratch: *mut Scratch, delta: u32, number: u32) -> u32 {
    // SAFETY: the caller's promise.
    match unsafe { scratch.as_ref() } {
        Some(scratch) => cseq::to_wire(&scratch.ranges, delta, number),
        None => number,
    }
}

/// Of a response that is not rewritten: whether its number would have become another.
#[inline(always)]
pub fn would_be_another(scratch: &mut Scratch, whose: Whose) -> bool {
    let wire = scratch.scan.number;
    if scratch.scan.found & part::CSEQ == 0 || wire > u32::MAX as u64 {
        return false;
    }
    let tag = scratch.scan.from_tag;
    matches!(own_number(scratch, tag, wire as u32, whose), Own::Number(own) if own as u64 != wire)
}

/// What stands behind a number on the wire.
enum Own {
    /// No entry of the dialog.
    Unknown,
    /// A request of sipst's.
    Ours,
    /// The side's own number.
    Number(u32),
}

/// What [`st_own_number`] returns in a number's place.
const UNKNOWN: u64 = u64::MAX;
const OURS: u64 = u64::MAX - 1;

/// A side's own number behind one on the wire. `tag`: that side's.
#[inline(always)]
fn own_number(scratch: &mut Scratch, tag: Span, wire: u32, whose: Whose) -> Own {
    // SAFETY: the scratch place.
    match unsafe { st_own_number(scratch, tag.at, tag.len, wire, whose as u32) } {
        UNKNOWN => Own::Unknown,
        OURS => Own::Ours,
        number => Own::Number(number as u32),
    }
}

/// [`own_number`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_own_number(scratch: *mut Scratch, tag_at: u32, tag_len: u32, wire: u32, whose: u32) -> u64 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return UNKNOWN };
    let tag = Span { at: tag_at, len: tag_len };
    let Some(key) = dialog_key(scratch, tag, side(whose)) else { return UNKNOWN };
    let Some(entry) = SHIFTS.get_ptr(key.map) else { return UNKNOWN };
    let Some(word) = copy_ranges(entry.cast_mut(), key.check, &mut scratch.ranges) else { return UNKNOWN };
    match cseq::from_wire(&scratch.ranges, State::from_word(word).delta, wire) {
        Some(number) => number as u64,
        None => OURS,
    }
}

/// Gives a request of the server's (egress) or the peer's (ingress) its number for the other side.
#[inline(always)]
pub fn shift<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, method: u32, whose: Whose) {
    let Some((number, delta)) = raise(scratch, method, whose) else { return };
    // XDP cannot tell whether a longer packet is taken further on.
    let grows = matches!(whose, Whose::Server);
    let mut datagram = *datagram;
    let wire = to_wire(scratch, delta, number);
    let mut rewritten = false;
    if wire != number {
        copy(scratch, &datagram, kind::BEFORE, numbers(number, wire));
        let at = scratch.scan.cseq.at;
        if grows && cseq_place(scratch).lacks(wire) && lengthen(access, scratch, &mut datagram, at) {
            scratch.scan.cseq_spaces += BLANKS;
        }
        rewritten = rewrite(access, scratch, &datagram, cseq_place(scratch), wire);
        if rewritten {
            count(Counter::ShiftedOut);
        }
    }
    // What a NOTIFY quotes is the other side's.
    if method != method::NOTIFY {
        shift_quoted(access, scratch, &mut datagram, delta, grows);
    }
    // A header that quotes a number is rewritten with CSeq or not at all: what it quotes is an earlier one.
    if rewritten {
        copy(scratch, &datagram, kind::REWRITTEN, numbers(number, wire));
    }
}

/// Where the number in CSeq stands.
#[inline(always)]
fn cseq_place(scratch: &Scratch) -> Place {
    Place { digits: scratch.scan.cseq, spaces: scratch.scan.cseq_spaces, left: false }
}

/// Gives a number that another header quotes the same place on the wire as that of the request which it stands for: RAck the
/// INVITE's, `refer;id` in a SUBSCRIBE the REFER's.
#[inline(always)]
fn shift_quoted<A: Access>(access: &A, scratch: &mut Scratch, datagram: &mut Datagram, delta: u32, grows: bool) {
    let number = scratch.scan.quoted_number;
    let left = scratch.scan.found & part::EVENT != 0;
    if scratch.scan.found & (part::RACK | part::EVENT) == 0 || number > cseq::MAX_NUMBER as u64 {
        return;
    }
    let wire = to_wire(scratch, delta, number as u32);
    if wire == number as u32 {
        return;
    }
    let digits = scratch.scan.quoted;
    let mut place = Place { digits, spaces: if left { 0 } else { scratch.scan.quoted_spaces }, left };
    // The blanks go before the number in RAck, behind it in `refer;id`.
    let end = if left { digits.at + digits.len } else { digits.at };
    if grows && place.lacks(wire) && lengthen(access, scratch, datagram, end) {
        if left {
            place.digits.len += BLANKS;
        } else {
            place.digits.at += BLANKS;
            place.spaces += BLANKS;
        }
    }
    if rewrite(access, scratch, datagram, place, wire) {
        count(Counter::ShiftedOut);
    }
}

/// Gives a side its own number back, in the response to its request.
#[inline(always)]
pub fn shift_back<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, whose: Whose) {
    if scratch.scan.found & part::CSEQ != 0 {
        let (tag, wire) = (scratch.scan.from_tag, scratch.scan.number);
        let place = Place { digits: scratch.scan.cseq, spaces: scratch.scan.cseq_spaces, left: false };
        restore(access, scratch, datagram, tag, place, wire, whose);
    }
}

/// The same in the other side's NOTIFY: `refer;id` quotes the number that the REFER had there. No blank may stand before it.
#[inline(always)]
pub fn shift_back_quoted<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, whose: Whose) {
    if scratch.scan.found & part::EVENT != 0 {
        let (tag, wire) = (scratch.scan.to_tag, scratch.scan.quoted_number);
        let place = Place { digits: scratch.scan.quoted, spaces: 0, left: true };
        restore(access, scratch, datagram, tag, place, wire, whose);
    }
}

/// Writes a side's own number in place of `wire`. `tag`: that side's.
#[inline(always)]
fn restore<A: Access>(
    access: &A,
    scratch: &mut Scratch,
    datagram: &Datagram,
    tag: Span,
    place: Place,
    wire: u64,
    whose: Whose,
) {
    if wire > u32::MAX as u64 {
        return;
    }
    match own_number(scratch, tag, wire as u32, whose) {
        Own::Unknown => {}
        Own::Number(number) if number as u64 == wire => {}
        Own::Number(number) => {
            copy(scratch, datagram, kind::BEFORE, numbers(wire as u32, number));
            if rewrite(access, scratch, datagram, place, number) {
                count(Counter::ShiftedIn);
                copy(scratch, datagram, kind::REWRITTEN, numbers(wire as u32, number));
            }
        }
        Own::Ours => count(Counter::ShiftNoNumber),
    }
}
