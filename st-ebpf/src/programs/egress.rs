//! Server to peer: dialog messages sampled, the server's numbers shifted, sipst's own requests committed. This is the
//! only place where a number is given out.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use st_ebpf::{
    abi::{Counter, Shift, Token, direction, kind, refused},
    cseq::{self, BLANKS, Close, RANGES, Range, State},
    scan::{Start, has_our_prefix, method, our_token, part},
};

use super::{
    access::Access,
    lengthen::lengthen,
    maps::{SHIFTED, SHIFTS, Scratch, TOKENS, count},
    media,
    message::{describe, dialog_key, is_outside, scan, submit, take_in},
    packet::{Datagram, Packet, read},
    rewrite::{Place, rewrite},
};
use crate::Fate;

/// How often a compare-and-swap is tried: each failure means that another CPU has moved this one dialog on.
const MAX_TRIES: u32 = 4;

/// 64*T1 (RFC 3261, section 17.1.1.1): after it no copy of a request is on its way any more.
const TRANSACTION_NS: u64 = 32_000_000_000;

/// Looks at a packet that goes out.
#[inline(always)]
pub fn egress<A: Access>(access: &A) -> Fate {
    let datagram = match read(access, |ip, source| media::saw(access, ip, source)) {
        Packet::Other | Packet::IcmpError(_) => return Fate::Pass,
        Packet::Unread(reason) => {
            count(reason);
            return Fate::Pass;
        }
        Packet::First(_) => {
            count(Counter::Fragment);
            return Fate::Pass;
        }
        Packet::Sip(datagram) => datagram,
    };
    let Some((scratch, datagram, captured, start)) = take_in(access, &datagram, direction::EGRESS) else {
        return Fate::Pass;
    };
    match start {
        Start::Request(method) => return request(access, scratch, &datagram, captured, method),
        Start::Response => response(access, scratch, &datagram, captured),
        Start::KeepAlive | Start::NotSip => {}
    }
    Fate::Pass
}

/// A response of the server's: sampled by its method.
#[inline(always)]
fn response<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32) {
    scan(scratch, captured, part::CSEQ);
    if is_outside(scratch.scan.method) {
        count(Counter::OutsideResponse);
    } else if describe(access, scratch, datagram, direction::EGRESS, captured) {
        submit(scratch, captured);
    }
}

/// A request: sipst's own is committed, the server's is sampled and shifted.
#[inline(always)]
fn request<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32, method: u32) -> Fate {
    let quoting = match method {
        method::PRACK => part::RACK,
        method::SUBSCRIBE => part::EVENT,
        _ => 0,
    };
    scan(scratch, captured, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ | quoting);
    let ours = has_our_prefix(&scratch.window, scratch.scan.branch);
    let in_dialog = scratch.scan.to_tag.len > 0;
    if !ours && !in_dialog && method != method::INVITE && method != method::CANCEL {
        count(Counter::OutsideRequest);
        return Fate::Pass;
    }
    let described = describe(access, scratch, datagram, direction::EGRESS, captured);
    if ours {
        return own_request(scratch, captured);
    }
    if !described {
        return Fate::Pass;
    }
    // The sample comes first: whoever makes a shift entry and then drains the ring has seen every request that found
    // no entry.
    match method {
        method::REGISTER | method::PUBLISH => count(Counter::OutsideRequest),
        _ => submit(scratch, captured),
    }
    if in_dialog {
        shift(access, scratch, datagram, method);
    }
    Fate::Pass
}

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

/// Gives a request of the server's its number on the wire.
#[inline(always)]
fn shift<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, method: u32) {
    // SAFETY: only whether it is there is asked.
    if unsafe { SHIFTED.get(scratch.header.server) }.is_none() || scratch.scan.found & part::CSEQ == 0 {
        return;
    }
    let Some(key) = dialog_key(scratch, scratch.scan.from_tag) else { return };
    let Some(entry) = SHIFTS.get_ptr_mut(key.map) else { return };
    let number = scratch.scan.number;
    if number > cseq::MAX_NUMBER as u64 {
        return;
    }
    let number = number as u32;
    // ACK and CANCEL have the number of their INVITE (RFC 3261, section 12.2.1.1) and raise nothing.
    let raises = method != method::ACK && method != method::CANCEL;
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
    let Some(delta) = delta else { return count(Counter::ShiftFailed) };
    let mut datagram = *datagram;
    let wire = cseq::to_wire(&scratch.ranges, delta, number);
    if wire != number {
        let at = scratch.scan.cseq.at;
        if cseq_place(scratch).lacks(wire) && lengthen(access, scratch, &mut datagram, at) {
            scratch.scan.cseq_spaces += BLANKS;
        }
        if rewrite(access, scratch, &datagram, cseq_place(scratch), wire) {
            count(Counter::ShiftedOut);
        }
    }
    shift_quoted(access, scratch, &mut datagram, delta);
}

/// Where the number in CSeq stands.
#[inline(always)]
fn cseq_place(scratch: &Scratch) -> Place {
    Place { digits: scratch.scan.cseq, spaces: scratch.scan.cseq_spaces, left: false }
}

/// Gives a number that another header quotes the same place on the wire as that of the request which it stands for: RAck the
/// INVITE's, `refer;id` in a SUBSCRIBE the REFER's.
#[inline(always)]
fn shift_quoted<A: Access>(access: &A, scratch: &mut Scratch, datagram: &mut Datagram, delta: u32) {
    let number = scratch.scan.quoted_number;
    let left = scratch.scan.found & part::EVENT != 0;
    if scratch.scan.found & (part::RACK | part::EVENT) == 0 || number > cseq::MAX_NUMBER as u64 {
        return;
    }
    let wire = cseq::to_wire(&scratch.ranges, delta, number as u32);
    if wire == number as u32 {
        return;
    }
    let digits = scratch.scan.quoted;
    let mut place = Place { digits, spaces: if left { 0 } else { scratch.scan.quoted_spaces }, left };
    // The blanks go before the number in RAck, behind it in `refer;id`.
    if place.lacks(wire) && lengthen(access, scratch, datagram, if left { digits.at + digits.len } else { digits.at }) {
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

/// A request of sipst's own: passes once its number is committed.
#[inline(always)]
fn own_request(scratch: &mut Scratch, captured: u32) -> Fate {
    let token = our_token(&scratch.window, scratch.scan.branch).unwrap_or(0);
    scratch.header.token = token;
    match record(token, &mut scratch.ranges) {
        Ok(counter) => {
            count(counter);
            scratch.header.kind = kind::INJECTED;
            submit(scratch, captured);
            Fate::Pass
        }
        Err(reason) => {
            count(Counter::Refused);
            scratch.header.kind = kind::REFUSED;
            scratch.header.reason = reason;
            submit(scratch, captured);
            Fate::Take
        }
    }
}

/// Whether the request with this token may leave; its number is committed then.
#[inline(always)]
fn record(token: u64, copy: &mut [Range; RANGES]) -> Result<Counter, u8> {
    let on_record = TOKENS.get_ptr_mut(token).ok_or(refused::UNKNOWN_TOKEN)?;
    // SAFETY: an element of the map, readable until the program ends.
    let Token { dialog, check, expected, committed } = unsafe { on_record.read_volatile() };
    if committed != 0 {
        return Ok(Counter::Repeated);
    }
    let entry = SHIFTS.get_ptr_mut(dialog).ok_or(refused::NO_ENTRY)?;
    let expected = State::from_word(expected);
    let mut tries = 0;
    while tries < MAX_TRIES {
        let word = copy_ranges(entry, check, copy).ok_or(refused::NO_ENTRY)?;
        let state = State::from_word(word);
        // The kernel may have missed requests of the server's from before the entry was made, never later ones.
        if state.known && !expected.known || state.delta != expected.delta || state.number > expected.number {
            return Err(refused::MOVED);
        }
        close(entry, copy, expected)?;
        // SAFETY: an aligned word of the map's element.
        let (_, swapped) = unsafe {
            atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(
                &raw mut (*entry).word,
                word,
                expected.after_injection().to_word(),
            )
        };
        if swapped {
            // SAFETY: as above.
            unsafe { (&raw mut (*on_record).committed).write_volatile(1) };
            return Ok(Counter::Committed);
        }
        tries += 1;
    }
    Err(refused::MOVED)
}

/// Closes the range of the numbers so far. Only sipst's own requests come here, one after the other.
#[inline(always)]
fn close(entry: *mut Shift, ranges: &[Range; RANGES], state: State) -> Result<(), u8> {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    match cseq::close(ranges, state) {
        Close::Nothing => {}
        Close::Write { index, range } => {
            let index = index & (RANGES - 1);
            // SAFETY: an aligned place of the map's element; both halves of the range are written at once.
            unsafe {
                (&raw mut (*entry).closed_ns[index]).write_volatile(now);
                (&raw mut (*entry).ranges[index]).cast::<u64>().write_volatile(packed(range));
            }
        }
        Close::Shift { range } => {
            // SAFETY: as above; `generation` tells readers that places are being moved.
            unsafe {
                if now.wrapping_sub((&raw const (*entry).closed_ns[0]).read_volatile()) < TRANSACTION_NS {
                    return Err(refused::RANGES_FULL);
                }
                let generation = (&raw const (*entry).generation).read_volatile();
                (&raw mut (*entry).generation).write_volatile(generation.wrapping_add(1));
                let mut index = 0;
                while index < RANGES - 1 {
                    let closed = (&raw const (*entry).closed_ns[index + 1]).read_volatile();
                    (&raw mut (*entry).closed_ns[index]).write_volatile(closed);
                    (&raw mut (*entry).ranges[index]).cast::<u64>().write_volatile(packed(ranges[index + 1]));
                    index += 1;
                }
                (&raw mut (*entry).closed_ns[index]).write_volatile(now);
                (&raw mut (*entry).ranges[index]).cast::<u64>().write_volatile(packed(range));
                (&raw mut (*entry).generation).write_volatile(generation.wrapping_add(2));
            }
        }
    }
    Ok(())
}

/// A range as it stands in memory.
#[inline(always)]
const fn packed(range: Range) -> u64 {
    let [a, b, c, d] = range.below.to_ne_bytes();
    let [e, f, g, h] = range.delta.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
