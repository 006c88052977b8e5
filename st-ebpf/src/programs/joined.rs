//! Several datagrams as one packet: of a socket that sends so (`UDP_SEGMENT`), before the kernel parts them, or for one that reads so
//! (`UDP_GRO`) or an interface that forwards so (`rx-udp-gro-forwarding`), after it has put them together. Each is read for itself. The
//! packet goes on as it is: what is done to one would be done to all.
//!
//! Numbers are kept as they go by, so that none is given out twice; nothing is rewritten, held back, turned round or taken. That a packet
//! is joined shows in how many bytes each of its datagrams carries; what kind of joining it is does not. An IP datagram of UDP that
//! something below is to cut into fragments (UFO, which no Linux sends since 4.14) looks the same: its first piece is a message without
//! the rest of its body, and the others are no SIP.
//!
//! These programs are called by the others, behind what those find out of where the packet goes, and each calls itself for what is left.

use core::ffi::c_void;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, helpers::generated::bpf_tail_call};
use st_ebpf::{
    abi::{self, Counter, direction, flags, kind},
    key::Whose,
    scan::{Start, has_our_prefix, has_peer_prefix, method, part, start, token},
};

use super::{
    access::Skb,
    maps::{JOINED, Scratch, TOKENS, count, count_many},
    message::{describe, forgetting, is_outside, load, read_back, reserve_reached, scan, scratch, submit},
    packet::Datagram,
    shift::{is_shifted, only_raise, raises, would_be_another},
};

/// Goes on in the program that reads them.
#[inline(always)]
pub fn read_on(skb: &Skb, direction: u8) -> i32 {
    // SAFETY: the context that the kernel gave, and a map. It does not come back where there is a program.
    unsafe { bpf_tail_call(skb.0.cast::<c_void>(), (&raw const JOINED).cast_mut().cast::<c_void>(), direction as u32) };
    count(Counter::JoinedUnread);
    TC_ACT_UNSPEC
}

/// How many are read before the program calls itself.
const AT_ONCE: u32 = 4;

/// As often as it can, it and whoever called it first (`MAX_TAIL_CALL_CNT` of the kernel is 33).
const _: () = assert!(abi::JOINED <= 32 * AT_ONCE);

/// Reads the next datagrams. Whether there may be others.
#[inline(always)]
pub fn read_next(skb: &Skb, direction: u8) -> bool {
    let Some(scratch) = scratch(direction) else { return false };
    let mut read = 0;
    while read < AT_ONCE {
        if !read_one(skb, scratch, direction) {
            return false;
        }
        read += 1;
    }
    true
}

/// Reads the next one. Whether there may be another.
#[inline(always)]
fn read_one(skb: &Skb, scratch: &mut Scratch, direction: u8) -> bool {
    let next = next(skb, scratch, direction);
    match next {
        // SAFETY: the scratch place.
        Next::Request => _ = unsafe { st_joined_request(scratch, direction as u32) },
        // SAFETY: likewise.
        Next::Response => _ = unsafe { st_joined_response(scratch, direction as u32) },
        Next::Other | Next::None => {}
    }
    next != Next::None
}

/// What the next one is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Next {
    None,
    Other,
    Request,
    Response,
}

/// Loads the next one, and fills the record's header for it.
#[inline(never)]
fn next(skb: &Skb, scratch: &mut Scratch, direction: u8) -> Next {
    let at = scratch.gone_through;
    if at == 0 {
        let all = forgetting(scratch);
        scratch.joined.write(all);
        count(Counter::Joined);
    }
    // SAFETY: written when the first was read.
    let all = unsafe { scratch.joined.as_ptr().read_volatile() };
    let size = skb.size_of_each();
    if size == 0 || at >= all.len {
        return Next::None;
    }
    let left = all.len - at;
    if at >= size * abi::JOINED {
        count_many(Counter::JoinedUnread, left.div_ceil(size) as u64);
        return Next::None;
    }
    scratch.gone_through = at + size;
    let len = if left < size { left } else { size };
    let datagram = read_back(scratch, &Datagram { payload: all.payload + at, len, ..all });
    let Some(captured) = load(skb, scratch, datagram.payload, datagram.len) else { return Next::None };
    let next = match start(&scratch.window) {
        Start::KeepAlive => {
            count(Counter::KeepAlive);
            return Next::Other;
        }
        Start::NotSip => {
            count(Counter::NotSip);
            return Next::Other;
        }
        Start::Request(method) => {
            scratch.begins = method;
            Next::Request
        }
        Start::Response => Next::Response,
    };
    if !describe(skb, scratch, &datagram, direction, captured) {
        return Next::None;
    }
    scratch.header.flags |= flags::JOINED;
    next
}

/// [`request`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_joined_request(scratch: *mut Scratch, direction: u32) -> u32 {
    // SAFETY: the caller's promise.
    if let Some(scratch) = unsafe { scratch.as_mut() } {
        request(scratch, direction as u8);
    }
    0
}

/// [`response`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_joined_response(scratch: *mut Scratch, direction: u32) -> u32 {
    // SAFETY: the caller's promise.
    if let Some(scratch) = unsafe { scratch.as_mut() } {
        response(scratch, direction as u8);
    }
    0
}

/// A request: sampled where it is inside a dialog or wants to begin one, and its number kept.
#[inline(always)]
fn request(scratch: &mut Scratch, direction: u8) {
    let (captured, method) = (scratch.header.captured_len as u32, scratch.begins);
    scan(scratch, captured, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ);
    let in_dialog = scratch.scan.to_tag.len > 0;
    let is_outside = !in_dialog && method != method::INVITE && method != method::CANCEL;
    if is_outside || method == method::REGISTER || method == method::PUBLISH {
        return count(Counter::OutsideRequest);
    }
    let egress = direction == direction::EGRESS;
    // What sipst sends is never joined: it is another host's sipst that has sent this.
    if egress
        && (has_our_prefix(&scratch.window, scratch.scan.branch)
            || has_peer_prefix(&scratch.window, scratch.scan.branch))
    {
        return;
    }
    if !egress && !in_dialog && reserve_reached() {
        return count(Counter::RingReserved);
    }
    // The sample comes first: whoever makes a shift entry and then drains the ring has seen every request that found no entry.
    submit(scratch, captured);
    if !in_dialog {
        return;
    }
    let another = if egress {
        (raises(method) || is_shifted(scratch)) && only_raise(scratch, method, Whose::Server)
    } else {
        is_shifted(scratch) && only_raise(scratch, method, Whose::Peer)
    };
    if another {
        count(Counter::JoinedUnshifted);
    }
}

/// A response: sampled by its method; one to a request of sipst's own is handed over as that.
#[inline(always)]
fn response(scratch: &mut Scratch, direction: u8) {
    let captured = scratch.header.captured_len as u32;
    scan(scratch, captured, part::VIA | part::FROM | part::CALL_ID | part::CSEQ);
    let egress = direction == direction::EGRESS;
    let (ours, whose) = if egress {
        (has_peer_prefix(&scratch.window, scratch.scan.branch), Whose::Peer)
    } else {
        (has_our_prefix(&scratch.window, scratch.scan.branch), Whose::Server)
    };
    if ours {
        count(Counter::JoinedAnswer);
        if let Some(token) = token(&scratch.window, scratch.scan.branch)
            && TOKENS.get_ptr(token).is_some()
        {
            scratch.header.kind = kind::ANSWER;
            scratch.header.token = token;
            submit(scratch, captured);
        }
        return;
    }
    if is_outside(scratch.scan.method) {
        return count(Counter::OutsideResponse);
    }
    submit(scratch, captured);
    if is_shifted(scratch) && would_be_another(scratch, whose) {
        count(Counter::JoinedUnshifted);
    }
}
