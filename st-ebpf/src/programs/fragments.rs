//! IP fragments of SIP messages. The first has ports and, but for very long headers, all that says what the message is: it is treated
//! as a whole one, and what became of it is kept for a second, for those that follow. All that is to be seen goes into the ring, where
//! the daemon puts it together.
//!
//! What comes before the first of its datagram can be anything. It passes in any case; a copy goes into the ring, so many a second
//! and never into what is kept for known calls, since on a path that parts fragments by their ports the first may always be the last.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use st_ebpf::{
    abi::{Counter, EARLY_FRAGMENTS, EARLY_PERIOD, FRAGMENT_NS, Follow, direction, flags, follow, kind},
    scan::part,
};

use super::{
    access::Access,
    maps::{EARLY, FRAGMENTS, Scratch, count},
    message::{forgetting, load, put, reserve_reached, scratch},
    packet::{Datagram, Ip, addresses, bytes, destination_address, end, source_address},
    shift::is_shifted,
    turn::turn_ends,
};
use crate::Fate;

/// What has to be read of a message for its number to be shifted.
const SHIFTING: u32 = part::FROM | part::TO | part::CALL_ID | part::CSEQ;

/// Writes which datagram a fragment belongs to. False where the packet is shorter than it said.
#[inline(always)]
fn identify<A: Access>(access: &A, scratch: &mut Scratch, ip: Ip, direction: u8) -> bool {
    let key = &mut scratch.fragmented;
    key.identification = ip.identification.to_be_bytes();
    key.direction = direction;
    key.reserved = [0; 3];
    source_address(access, ip, &mut key.source) && destination_address(access, ip, &mut key.destination)
}

/// Leaves word of what becomes of the fragments after the first. `turned`: the packet has its two ends exchanged by now.
#[inline(always)]
fn leave<A: Access>(access: &A, scratch: &mut Scratch, ip: Ip, direction: u8, what: u32, turned: bool) {
    if identify(access, scratch, ip, direction) {
        let key = &mut scratch.fragmented;
        if turned {
            core::mem::swap(&mut key.source, &mut key.destination);
        }
        // SAFETY: no arguments.
        let time_ns = unsafe { bpf_ktime_get_ns() };
        // An LRU map: where the kernel has no memory at all, they pass.
        _ = FRAGMENTS.insert(&scratch.fragmented, Follow { time_ns, what, reserved: 0 }, 0);
    }
}

/// The first fragment of a datagram that is no SIP: those after it are none that came too early.
#[inline(always)]
pub fn foreign<A: Access>(access: &A, ip: Ip, direction: u8) -> Fate {
    count(Counter::Fragment);
    if let Some(scratch) = scratch(direction) {
        leave(access, scratch, ip, direction, 0, false);
    }
    Fate::Pass
}

/// Marks the record of a first fragment as that.
#[inline(always)]
pub fn mark<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram) {
    let ip = datagram.ip;
    if !ip.first {
        return;
    }
    let length = bytes::<2>(access, ip.next + 4).map_or(0, u16::from_be_bytes);
    let header = &mut scratch.header;
    header.flags |= flags::FRAGMENT;
    header.wire_len = length.saturating_sub(8);
    header.identification = ip.identification.to_be_bytes();
    header.place = ip.place.to_be_bytes();
}

/// Whether a request may be one inside a dialog for all that is there of it: its To goes on behind the first fragment.
#[inline(always)]
pub fn ends_before_to(scratch: &Scratch, datagram: &Datagram) -> bool {
    datagram.ip.first && scratch.scan.want & part::TO != 0
}

/// What was looked at, whole or the first fragment, has met its fate: those that follow the first share it.
#[inline(always)]
pub fn lead<A: Access>(access: &A, direction: u8, fate: Fate) -> Fate {
    let Some(scratch) = scratch(direction) else { return fate };
    let Datagram { ip, .. } = forgetting(scratch);
    if !ip.first {
        return fate;
    }
    let kind = scratch.header.kind;
    let sampled = scratch.sampled != 0;
    if sampled && kind == kind::MESSAGE && is_shifted(scratch) && scratch.scan.want & SHIFTING != 0 {
        count(Counter::FragmentUnshifted);
    }
    let mut what = match fate {
        Fate::Pass | Fate::Segment | Fate::Joined => 0,
        Fate::Back if scratch.turned != 0 => follow::TURN,
        Fate::Take | Fate::Back => follow::TAKE,
    };
    if sampled && kind != kind::REFUSED && ip.place != 0 {
        what |= follow::SAMPLE;
    } else if fate == Fate::Pass {
        count(Counter::Fragment);
    }
    leave(access, scratch, ip, direction, what, fate == Fate::Back);
    fate
}

/// A fragment after the first.
#[inline(always)]
pub fn later<A: Access>(access: &A, ip: Ip, direction: u8) -> Fate {
    let Some(scratch) = scratch(direction) else { return Fate::Pass };
    scratch.datagram.write(Datagram { ip, source: 0, destination: 0, payload: ip.next, len: 0 });
    let ip = forgetting(scratch).ip;
    if !identify(access, scratch, ip, direction) {
        return Fate::Pass;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let left = FRAGMENTS.get_ptr(&scratch.fragmented);
    // SAFETY: an element of the map, readable until the program ends.
    let left = left.map(|left| unsafe { left.read_volatile() });
    let Some(Follow { what, .. }) = left.filter(|left| now.wrapping_sub(left.time_ns) <= FRAGMENT_NS) else {
        let read = !reserve_reached() && is_one_of_few(now) && sample(access, scratch, ip, direction, now);
        count(if read { Counter::FragmentEarly } else { Counter::FragmentUnread });
        return Fate::Pass;
    };
    if what & follow::SAMPLE != 0 {
        let room = sample(access, scratch, ip, direction, now);
        count(if room { Counter::FragmentSampled } else { Counter::RingFull });
    } else if what == 0 {
        count(Counter::Fragment);
    }
    if what & follow::TURN != 0 {
        return if turn_ends(access, scratch, ip) { Fate::Back } else { Fate::Take };
    }
    if what & follow::TAKE != 0 {
        count(Counter::FragmentTaken);
        return Fate::Take;
    }
    Fate::Pass
}

/// Whether there is any left of what this CPU may put into the ring in this period.
#[inline(always)]
fn is_one_of_few(now: u64) -> bool {
    let Some(early) = EARLY.get_ptr_mut(0) else { return false };
    let period = now >> EARLY_PERIOD;
    // SAFETY: the element of this CPU.
    let early = unsafe { &mut *early };
    if early.period != period {
        early.period = period;
        early.count = 0;
    }
    early.count += 1;
    early.count <= EARLY_FRAGMENTS
}

/// Puts what a fragment holds into the ring. Whether there was room.
#[inline(always)]
fn sample<A: Access>(access: &A, scratch: &mut Scratch, ip: Ip, direction: u8, now: u64) -> bool {
    let len = end(access, ip).saturating_sub(ip.next);
    let egress = direction == direction::EGRESS;
    let Some(captured) = load(access, scratch, ip.next, len) else { return false };
    if !addresses(access, ip, egress, &mut scratch.header) {
        return false;
    }
    let cut = len > captured;
    if cut {
        count(Counter::Cut);
    }
    let header = &mut scratch.header;
    header.time_ns = now;
    header.cookie = if egress { access.cookie() } else { 0 };
    header.token = 0;
    header.ifindex = access.interface();
    header.wire_len = len as u16;
    header.captured_len = captured as u16;
    header.server_port = [0; 2];
    header.peer_port = [0; 2];
    header.direction = direction;
    header.kind = kind::MESSAGE;
    header.flags = A::FLAGS | flags::FRAGMENT | if cut { flags::CUT } else { 0 };
    header.reason = 0;
    header.identification = ip.identification.to_be_bytes();
    header.place = ip.place.to_be_bytes();
    put(scratch, captured)
}
