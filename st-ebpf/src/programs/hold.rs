//! The server's refusals of the peer's refreshes, held back where the daemon has marked the dialog and lives; and the ACKs
//! that belong to what it answers in the server's place.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use st_ebpf::{
    abi::{Counter, HELD_BYTES, HOLD_SILENT_NS, Hold, holds, kind},
    key::Whose,
    scan::{is_refusal, method, part},
};

use super::{
    maps::{HEARTBEAT, HELD_ACKS, HOLDS, Scratch, count},
    message::{branch_key, dialog_key, submit},
    packet::Datagram,
};

/// What became of a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Held {
    /// It is nothing to hold back.
    No,
    /// It is in the ring, whole.
    Yes,
    /// There was no room in the ring.
    NoRoom,
}

/// Puts a response of the server's into the ring instead of letting it out, if all says that it may be held back.
#[inline(always)]
pub fn hold(scratch: &mut Scratch, datagram: &Datagram, captured: u32) -> Held {
    let whole = !datagram.ip.first && captured == datagram.len && datagram.len <= HELD_BYTES as u32;
    // SAFETY: the scratch place.
    let held = if whole { unsafe { st_hold(scratch, captured) } } else { Held::No as u32 };
    if held == Held::Yes as u32 {
        Held::Yes
    } else if held == Held::NoRoom as u32 {
        Held::NoRoom
    } else {
        Held::No
    }
}

/// [`hold`], to the verifier a function by itself, of a whole response.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_hold(scratch: *mut Scratch, captured: u32) -> u32 {
    // SAFETY: the caller's promise.
    let held = unsafe { scratch.as_mut() }.map_or(Held::No, |scratch| hold_whole(scratch, captured));
    held as u32
}

#[inline(always)]
fn hold_whole(scratch: &mut Scratch, captured: u32) -> Held {
    let refused = match scratch.scan.method {
        method::INVITE => holds::INVITE,
        method::UPDATE => holds::UPDATE,
        _ => return Held::No,
    };
    let read = part::CSEQ | part::FROM | part::CALL_ID;
    if !is_refusal(&scratch.window) || scratch.scan.found & (read | part::RETRY_AFTER) != read || !is_awake() {
        return Held::No;
    }
    let Some(mark) = mark(scratch) else { return Held::No };
    if mark.methods & refused == 0 || mark.cookie != scratch.header.cookie {
        return Held::No;
    }
    scratch.header.kind = kind::HELD;
    let room = submit(scratch, captured);
    scratch.header.kind = kind::MESSAGE;
    if !room {
        return Held::NoRoom;
    }
    count(Counter::Held);
    Held::Yes
}

/// Whether a daemon reads what is held back, and at once.
#[inline(always)]
fn is_awake() -> bool {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    HEARTBEAT.get(0).is_some_and(|beat| now.saturating_sub(*beat) <= HOLD_SILENT_NS)
}

/// The mark on the dialog of a request of the peer's, or of a response to it.
#[inline(always)]
fn mark(scratch: &mut Scratch) -> Option<Hold> {
    let key = dialog_key(scratch, scratch.scan.from_tag, Whose::Peer)?;
    let mark = HOLDS.get_ptr(key.map)?;
    // SAFETY: an element of the map, readable until the program ends.
    let mark = unsafe { mark.read_volatile() };
    (mark.check == key.check).then_some(mark)
}

/// Whose an ACK from the peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Acks {
    /// Nothing of what follows.
    Other,
    /// The server's own refusal, which the peer has never seen.
    Refusal,
    /// The 2xx in the server's name, of which the server has never heard.
    Success,
}

/// Whether any ACK has to be looked at just now.
#[inline(always)]
pub fn acks_are_held() -> bool {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    HELD_ACKS.get(0).is_some_and(|until| now < *until)
}

/// Tells what an ACK with the peer's tag in From is for.
#[inline(always)]
pub fn acks(scratch: &mut Scratch) -> Acks {
    // SAFETY: the scratch place.
    let acks = unsafe { st_acks(scratch) };
    if acks == Acks::Refusal as u32 {
        Acks::Refusal
    } else if acks == Acks::Success as u32 {
        Acks::Success
    } else {
        Acks::Other
    }
}

/// [`acks`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_acks(scratch: *mut Scratch) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { scratch.as_mut() }.map_or(Acks::Other, by_mark) as u32
}

#[inline(always)]
fn by_mark(scratch: &mut Scratch) -> Acks {
    let Some(mark) = mark(scratch) else { return Acks::Other };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let number = scratch.scan.number;
    if scratch.scan.found & part::CSEQ == 0 || now >= mark.until_ns {
        return Acks::Other;
    }
    let same = branch_key(scratch).is_some_and(|branch| branch == mark.branch);
    if same && number == mark.answered as u64 {
        Acks::Refusal
    } else if !same && number == mark.wire as u64 {
        Acks::Success
    } else {
        Acks::Other
    }
}
