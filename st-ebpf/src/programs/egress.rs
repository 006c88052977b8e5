//! Server to peer: dialog messages sampled, the server's numbers shifted and the peer's shifted back, sipst's own requests
//! committed, those in the peer's name turned back to the server, and its answers to them taken, its refusals held back. This
//! is the only place where a number is given out.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use st_ebpf::{
    abi::{Counter, Shift, Token, direction, kind, refused},
    cseq::{self, Close, RANGES, Range, State},
    key::Whose,
    scan::{Start, has_our_prefix, has_peer_prefix, is_500, is_refusal, method, part, token},
};

use super::{
    access::Access,
    ack::acknowledge,
    assist::offer,
    fragments::{ends_before_to, foreign, later, lead},
    hold::{Acks, Held, acks, acks_are_held, hold},
    ingress::about_ours,
    loopback::{End, end},
    maps::{SHIFTS, Scratch, TOKENS, count},
    media,
    message::{describe, forgetting, is_outside, scan, submit, take_answer, take_in},
    packet::{Datagram, Packet, read},
    shift::{MAX_TRIES, copy_ranges, is_shifted, raises, shift, shift_back, shift_back_quoted},
    stream::segment,
    turn::turn,
};
use crate::Fate;

/// 64*T1 (RFC 3261, section 17.1.1.1): after it no copy of a request is on its way any more.
const TRANSACTION_NS: u64 = 32_000_000_000;

/// Looks at a packet that goes out.
#[inline(always)]
pub fn egress<A: Access>(access: &A) -> Fate {
    let datagram = match read(access, |ip, ports| media::left(access, ip, ports.source)) {
        Packet::Other => return Fate::Pass,
        Packet::IcmpError(datagram) => return about_ours(access, &datagram, Whose::Peer),
        Packet::Unread(reason) => {
            count(reason);
            return Fate::Pass;
        }
        Packet::Foreign(ip) => return foreign(access, ip, direction::EGRESS),
        Packet::Later(ip) => return later(access, ip, direction::EGRESS),
        Packet::Segment(ip) => return segment(access, ip, direction::EGRESS),
        Packet::Sip(datagram) | Packet::First(datagram) => datagram,
    };
    match end(access, datagram.source, datagram.destination) {
        End::This => {}
        End::Other | End::Unclear if datagram.ip.first => return foreign(access, datagram.ip, direction::EGRESS),
        End::Other => return Fate::Pass,
        End::Unclear => {
            count(Counter::Loopback);
            return Fate::Pass;
        }
    }
    let fate = match take_in(access, &datagram, direction::EGRESS) {
        Some((scratch, datagram, captured, Start::Request(method))) => {
            request(access, scratch, &datagram, captured, method)
        }
        Some((scratch, datagram, captured, Start::Response)) => response(access, scratch, &datagram, captured),
        None if access.is_joined() => Fate::Joined,
        Some((.., Start::KeepAlive | Start::NotSip)) | None => Fate::Pass,
    };
    lead(access, direction::EGRESS, fate)
}

/// A response of the server's: taken where sipst asked in the peer's name, or where it is a refusal to be held back, else sampled
/// by its method, and its number shifted back.
#[inline(always)]
fn response<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32) -> Fate {
    let described = describe(access, scratch, datagram, direction::EGRESS, captured);
    let shifted = is_shifted(scratch);
    let dialog = if shifted || is_refusal(&scratch.window) { part::CALL_ID | part::FROM } else { 0 };
    // It stands anywhere, so the whole header is gone through.
    let retry = if is_500(&scratch.window) { part::RETRY_AFTER } else { 0 };
    scan(scratch, captured, part::VIA | part::CSEQ | dialog | retry);
    let datagram = &forgetting(scratch);
    if has_peer_prefix(&scratch.window, scratch.scan.branch) {
        // Never for the peer, whatever the token says.
        return match take_answer(scratch, captured, described) {
            Some(token) if acknowledge(access, scratch, datagram, captured, token) => Fate::Back,
            Some(_) | None => Fate::Take,
        };
    }
    if !described {
        return Fate::Pass;
    }
    match hold(scratch, datagram, captured) {
        Held::Yes => return Fate::Take,
        Held::No if is_outside(scratch.scan.method) => count(Counter::OutsideResponse),
        Held::No => _ = submit(scratch, captured),
        Held::NoRoom => {}
    }
    if shifted {
        shift_back(access, scratch, datagram, Whose::Peer);
    }
    Fate::Pass
}

/// A request: sipst's own is committed, the server's is sampled and shifted.
#[inline(always)]
fn request<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32, method: u32) -> Fate {
    let quoting = match method {
        method::PRACK => part::RACK,
        method::SUBSCRIBE | method::NOTIFY => part::EVENT,
        _ => 0,
    };
    let all = part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ | quoting;
    // Most of the others are outside dialogs, which takes two headers to know.
    let first = match method {
        method::ACK | method::BYE | method::UPDATE | method::PRACK | method::INFO | method::NOTIFY => all,
        _ => part::VIA | part::TO,
    };
    scan(scratch, captured, first);
    let peers = has_peer_prefix(&scratch.window, scratch.scan.branch);
    let ours = peers || has_our_prefix(&scratch.window, scratch.scan.branch);
    let in_dialog = scratch.scan.to_tag.len > 0;
    let unclear = ends_before_to(scratch, datagram);
    if !ours && !in_dialog && !unclear && method != method::INVITE && method != method::CANCEL {
        count(Counter::OutsideRequest);
        return Fate::Pass;
    }
    let described = describe(access, scratch, datagram, direction::EGRESS, captured);
    if ours {
        let fate = own_request(scratch, captured);
        if fate != Fate::Pass || !peers {
            return fate;
        }
        return if turn(access, scratch) { Fate::Back } else { Fate::Take };
    }
    if method == method::ACK && acks_are_held() && acks(scratch) == Acks::Refusal {
        // In the peer's name: the tag in From is the peer's.
        count(Counter::AckTurned);
        return if turn(access, scratch) { Fate::Back } else { Fate::Take };
    }
    if !described {
        return Fate::Pass;
    }
    if method == method::INVITE && !in_dialog {
        // The window stays as it was; no number is looked for in such a request.
        offer(access, scratch, captured);
    }
    // The sample comes first: whoever makes a shift entry and then drains the ring has seen every request that found
    // no entry.
    match method {
        method::REGISTER | method::PUBLISH => count(Counter::OutsideRequest),
        _ => _ = submit(scratch, captured),
    }
    if in_dialog {
        if first != all {
            scan(scratch, captured, all);
        }
        if method == method::NOTIFY && is_shifted(scratch) {
            shift_back_quoted(access, scratch, datagram, Whose::Peer);
        }
        if raises(method) || is_shifted(scratch) {
            shift(access, scratch, datagram, method, Whose::Server);
        }
    }
    Fate::Pass
}

/// A request of sipst's own: passes once its number is committed.
#[inline(always)]
fn own_request(scratch: &mut Scratch, captured: u32) -> Fate {
    let token = token(&scratch.window, scratch.scan.branch).unwrap_or(0);
    scratch.header.token = token;
    match record(scratch, token) {
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

/// What [`st_record`] returns where a request may leave; else why it may not, which is none of these.
const COMMITTED: u32 = 1 << 8;
const REPEATED: u32 = 2 << 8;

/// Whether the request with this token may leave; its number is committed then.
#[inline(always)]
pub fn record(scratch: &mut Scratch, token: u64) -> Result<Counter, u8> {
    // SAFETY: the scratch place.
    match unsafe { st_record(scratch, token) } {
        COMMITTED => Ok(Counter::Committed),
        REPEATED => Ok(Counter::Repeated),
        reason => Err(reason as u8),
    }
}

/// [`record`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_record(scratch: *mut Scratch, token: u64) -> u32 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return refused::UNKNOWN_TOKEN as u32 };
    match commit(token, &mut scratch.ranges) {
        Ok(Counter::Repeated) => REPEATED,
        Ok(_) => COMMITTED,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn commit(token: u64, copy: &mut [Range; RANGES]) -> Result<Counter, u8> {
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
