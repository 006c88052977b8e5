//! The ACK to the 2xx of a re-INVITE of sipst's own, where no daemon lives to send it: the 2xx becomes the ACK that was made
//! ready before the re-INVITE left, and goes back.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_ktime_get_ns, bpf_loop};
use st_ebpf::{
    abi::{ACK_BYTES, Ack, CAPTURE, Counter, SILENT_NS, direction, flags, kind},
    scan::Window,
};

use super::{
    access::{Access, Change},
    maps::{ACKS, HEARTBEAT, Scratch, count},
    message::{load, submit},
    packet::{Datagram, Ip},
};

/// How many bytes are summed at once: `bpf_csum_diff` takes 512 at most.
const CHUNK: u32 = 256;

/// Length of an Ethernet address.
const MAC: usize = 6;

/// Where the status begins in a response: `SIP/2.0 `.
const STATUS: u32 = 8;

/// Makes a 2xx into its ACK where no daemon does. True: the packet has to go back.
#[inline(always)]
pub fn acknowledge<A: Access>(
    access: &A,
    scratch: &mut Scratch,
    datagram: &Datagram,
    captured: u32,
    token: u64,
) -> bool {
    if scratch.window.byte(STATUS) != b'2' {
        return false;
    }
    let Some(ack) = ACKS.get_ptr(token) else { return false };
    // SAFETY: an element of the map, readable until the program ends. Its daemon writes it once, before the re-INVITE
    // leaves, and a later one writes `orphan`.
    let ack = unsafe { &*ack };
    let header = &scratch.header;
    // From where the re-INVITE went: so the two ends' addresses change places, and a checksum does not change by them.
    let same = ack.server == header.server
        && ack.peer == header.peer
        && ack.server_port == header.server_port
        && ack.peer_port == header.peer_port;
    // The first fragment of a long one gives way to a whole packet.
    let header_len = match datagram.ip {
        Ip { first: true, v6: true, .. } => 48,
        Ip { first: true, .. } => 28,
        ip => datagram.payload - ip.at,
    };
    if !same || ack.header_len != header_len || captured != datagram.len || !(ack.orphan != 0 || is_silent()) {
        return false;
    }
    // SAFETY: the scratch place.
    let payload = unsafe { st_payload_change(scratch, captured, ack.sum) };
    if payload > u32::MAX as u64 {
        return false;
    }
    let payload = payload as u32;
    let sent = send_back(access, scratch, datagram, payload, ack);
    count(if sent { Counter::AckedHere } else { Counter::AckFailed });
    // What TC sends to the peer, `st_egress` sees leave; the rest nobody sees.
    if sent && (A::FLAGS & flags::XDP != 0 || scratch.header.direction == direction::EGRESS) {
        show(access, scratch, datagram.ip.at + header_len, ack);
    }
    sent
}

/// Puts the ACK, which the packet's payload is by now, into the ring as a request of sipst's own that has left. The 2xx has been
/// read. It is read back from the packet, and not copied from the map: the helper for that is none that a kernel gives which keeps
/// its memory to itself (lockdown, `confidentiality`).
#[inline(always)]
fn show<A: Access>(access: &A, scratch: &mut Scratch, payload: u32, ack: &Ack) {
    let Some(len) = load(access, scratch, payload, ack.len) else { return };
    let header = &mut scratch.header;
    header.kind = kind::INJECTED;
    header.direction = direction::EGRESS;
    header.wire_len = len as u16;
    header.captured_len = len as u16;
    header.flags = 0;
    header.identification = [0; 4];
    header.place = [0; 2];
    header.cookie = 0;
    submit(scratch, len);
}

/// Whether the daemon is dead or hangs.
#[inline(always)]
fn is_silent() -> bool {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    HEARTBEAT.get(0).is_none_or(|beat| now.saturating_sub(*beat) > SILENT_NS)
}

/// Writes the ACK in the packet's place. Once the length has been changed there is no way back, and the answer is not for
/// the server either way.
#[inline(always)]
fn send_back<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, payload: u32, ack: &Ack) -> bool {
    let at = datagram.ip.at;
    let header_len = if ack.header_len == 28 { 28 } else { 48 };
    if ack.len == 0 || ack.len > ACK_BYTES as u32 || !access.resize(at + header_len + ack.len) {
        return false;
    }
    let ends = scratch.new.as_mut_ptr();
    // SAFETY: six bytes each, of 24.
    if !unsafe { access.load(0, ends.add(MAC), MAC as u32) && access.load(MAC as u32, ends, MAC as u32) } {
        return false;
    }
    // All but the UDP checksum.
    let headers = if header_len == 28 { 26 } else { 46 };
    let len = (core::hint::black_box(ack.len - 1) & (ACK_BYTES as u32 - 1)) + 1;
    let change = Change {
        payload,
        old_len: (datagram.len as u16 + 8).to_be(),
        new_len: (ack.len as u16 + 8).to_be(),
        whole: ack.checksum,
        fragment: datagram.ip.first,
    };
    // SAFETY: both ends; 26 or 46 bytes of 48; at most as many as the message's place has.
    unsafe {
        access.overwrite(0, ends, 2 * MAC as u32)
            && access.overwrite(at, ack.headers.as_ptr(), headers)
            && access.overwrite(at + header_len, ack.message.as_ptr(), len)
            && access.renew_checksum(at + headers, &change)
    }
}

/// What a checksum changes by when the message in the window gives way to the ACK's, of which that is the sum; more than 32 bits where the
/// message cannot be summed. To the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_payload_change(scratch: *mut Scratch, captured: u32, ack_sum: u32) -> u64 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return u64::MAX };
    let mut context = Context { window: &raw const scratch.window, at: 0, len: captured, sum: 0 };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(CAPTURE as u32 / CHUNK, sum_step as *mut c_void, (&raw mut context).cast(), 0) };
    if context.at < captured {
        return u64::MAX;
    }
    let sum = ack_sum as u64 + !context.sum as u64;
    (sum as u32).wrapping_add((sum >> 32) as u32) as u64
}

struct Context {
    window: *const Window,
    at: u32,
    len: u32,
    sum: u32,
}

/// Takes [`CHUNK`] bytes of the window into the sum, as `bpf_loop` calls it: 1 ends the loop. Behind the message stand
/// zeroes.
unsafe extern "C" fn sum_step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `payload_change` made the context; the pointer is into this CPU's scratch place.
    unsafe {
        let context = &mut *context.cast::<Context>();
        let at = context.at;
        if at >= context.len || at > CAPTURE as u32 - CHUNK {
            return 1;
        }
        let left = context.len - at;
        let size = if left < CHUNK { (left + 3) & (2 * CHUNK - 4) } else { CHUNK };
        let size = core::hint::black_box(size).min(CHUNK);
        let bytes = (&raw const (*context.window).bytes).cast::<u8>().add(at as usize).cast_mut();
        let result = bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast(), size, context.sum);
        if result < 0 {
            return 1;
        }
        context.sum = result as u32;
        context.at = at + CHUNK;
        0
    }
}
