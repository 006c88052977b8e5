//! Peer to server: answers to sipst's requests are taken, dialog messages sampled, numbers in responses shifted back.

use st_ebpf::{
    abi::{Counter, direction, kind},
    cseq,
    scan::{Span, Start, has_our_prefix, method, our_token, part, start},
};

use super::{
    access::Access,
    ack::acknowledge,
    egress::copy_ranges,
    maps::{SHIFTED, SHIFTS, Scratch, TOKENS, count},
    message::{describe, dialog_key, is_outside, load, read_back, reserve_reached, scan, scratch, submit, take_in},
    packet::{Datagram, Packet, read},
    rewrite::{Place, rewrite},
};
use crate::Fate;

/// Looks at a packet that comes in.
#[inline(always)]
pub fn ingress<A: Access>(access: &A) -> Fate {
    let datagram = match read(access, |_, _| {}) {
        Packet::Other => return Fate::Pass,
        Packet::Unread(reason) => {
            count(reason);
            return Fate::Pass;
        }
        Packet::First(datagram) => return beginning(access, &datagram, false),
        Packet::IcmpError(datagram) => return beginning(access, &datagram, true),
        Packet::Sip(datagram) => datagram,
    };
    let Some((scratch, datagram, captured, start)) = take_in(access, &datagram, direction::INGRESS) else {
        return Fate::Pass;
    };
    match start {
        Start::Request(method) => request(access, scratch, &datagram, captured, method),
        Start::Response => return response(access, scratch, &datagram, captured),
        Start::KeepAlive | Start::NotSip => {}
    }
    Fate::Pass
}

/// A request of the peer's, or of a stranger's: sampled where it is inside a dialog or wants to begin one.
#[inline(always)]
fn request<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32, method: u32) {
    match method {
        method::REGISTER | method::PUBLISH => return count(Counter::OutsideRequest),
        method::INVITE => {
            if reserve_reached() {
                scan(scratch, captured, part::TO);
                if scratch.scan.to_tag.len == 0 {
                    return count(Counter::RingReserved);
                }
            }
        }
        method::ACK | method::BYE | method::CANCEL | method::UPDATE | method::PRACK | method::INFO => {}
        _ => {
            let quoting = if method == method::NOTIFY { part::CALL_ID | part::EVENT } else { 0 };
            scan(scratch, captured, part::TO | quoting);
            if scratch.scan.to_tag.len == 0 {
                return count(Counter::OutsideRequest);
            }
        }
    }
    if !describe(access, scratch, datagram, direction::INGRESS, captured) {
        return;
    }
    submit(scratch, captured);
    if method == method::NOTIFY && scratch.scan.found & part::EVENT != 0 {
        // `refer;id` quotes the number that the server's REFER had on the wire. No blank may stand before it.
        let (tag, wire) = (scratch.scan.to_tag, scratch.scan.quoted_number);
        let place = Place { digits: scratch.scan.quoted, spaces: 0, left: true };
        restore(access, scratch, datagram, tag, place, wire);
    }
}

/// A response: taken where sipst asked, else sampled by its method, and its number shifted back.
#[inline(always)]
fn response<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32) -> Fate {
    scan(scratch, captured, part::VIA | part::CSEQ | part::CALL_ID | part::FROM);
    let described = describe(access, scratch, datagram, direction::INGRESS, captured);
    if has_our_prefix(&scratch.window, scratch.scan.branch) {
        // Never for the server, whatever the token says.
        match our_token(&scratch.window, scratch.scan.branch) {
            Some(token) if described && TOKENS.get_ptr(token).is_some() => {
                scratch.header.kind = kind::ANSWER;
                scratch.header.token = token;
                submit(scratch, captured);
                count(Counter::AnswerTaken);
                if acknowledge(access, scratch, datagram, captured, token) {
                    return Fate::Back;
                }
            }
            _ => count(Counter::AnswerUnknown),
        }
        return Fate::Take;
    }
    if !described {
        return Fate::Pass;
    }
    if is_outside(scratch.scan.method) {
        count(Counter::OutsideResponse);
    } else {
        submit(scratch, captured);
    }
    shift_back(access, scratch, datagram);
    Fate::Pass
}

/// Gives the server its own number back, in the response to its request.
#[inline(always)]
fn shift_back<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram) {
    if scratch.scan.found & part::CSEQ != 0 {
        let (tag, wire) = (scratch.scan.from_tag, scratch.scan.number);
        let place = Place { digits: scratch.scan.cseq, spaces: scratch.scan.cseq_spaces, left: false };
        restore(access, scratch, datagram, tag, place, wire);
    }
}

/// Writes the server's own number in place of `wire`. `tag`: the server's.
#[inline(always)]
fn restore<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, tag: Span, place: Place, wire: u64) {
    // SAFETY: only whether it is there is asked.
    if unsafe { SHIFTED.get(scratch.header.server) }.is_none() || wire > u32::MAX as u64 {
        return;
    }
    let Some(key) = dialog_key(scratch, tag) else { return };
    let Some(entry) = SHIFTS.get_ptr(key.map) else { return };
    let Some(word) = copy_ranges(entry.cast_mut(), key.check, &mut scratch.ranges) else { return };
    let state = cseq::State::from_word(word);
    match cseq::from_wire(&scratch.ranges, state.delta, wire as u32) {
        Some(number) if number as u64 == wire => {}
        Some(number) => {
            if rewrite(access, scratch, datagram, place, number) {
                count(Counter::ShiftedIn);
            }
        }
        None => count(Counter::ShiftNoNumber),
    }
}

/// The beginning of a datagram. The first fragment of an answer to sipst is taken: what is left of the answer never becomes a
/// datagram. So is an ICMP error about a request of sipst's: it would reach the server's socket as an error of its own.
#[inline(always)]
fn beginning<A: Access>(access: &A, datagram: &Datagram, quoted: bool) -> Fate {
    if !quoted {
        count(Counter::Fragment);
    }
    let Some(scratch) = scratch(direction::INGRESS) else { return Fate::Pass };
    let datagram = read_back(scratch, datagram);
    let Some(captured) = load(access, scratch, datagram.payload, datagram.len) else { return Fate::Pass };
    match start(&scratch.window) {
        Start::Response if !quoted => {}
        Start::Request(_) if quoted => {}
        _ => return Fate::Pass,
    }
    scan(scratch, captured, part::VIA);
    if !has_our_prefix(&scratch.window, scratch.scan.branch) {
        return Fate::Pass;
    }
    count(if quoted { Counter::IcmpTaken } else { Counter::AnswerUnknown });
    Fate::Take
}
