//! Blanks beside a number of the server's that has outgrown its place: the request becomes longer by [`BLANKS`] bytes.

use st_ebpf::{
    abi::{CAPTURE, Counter},
    cseq::BLANKS,
};

use super::{
    access::{Access, Change},
    maps::{Scratch, count},
    message::load,
    packet::{Datagram, Ip},
};

/// The longest request that is lengthened: half of what is captured, so that the verifier sees the bounds.
const LONGEST: u32 = CAPTURE as u32 / 2;

/// The sum of the blanks as 16-bit words, wherever they begin.
const BLANKS_SUM: u32 = 0x2020 * BLANKS / 2;

/// Puts blanks into a request, at that offset of the message: in the packet, in the window and in what the scan found. False, and
/// nothing is changed, where the packet cannot grow.
#[inline(always)]
pub fn lengthen<A: Access>(access: &A, scratch: &mut Scratch, datagram: &mut Datagram, at: u32) -> bool {
    // What is captured is the whole message, then.
    if datagram.len > LONGEST || at >= datagram.len || !access.may_grow(BLANKS as i32) {
        return false;
    }
    let rest = (core::hint::black_box(datagram.len - at - 1) & (LONGEST - 1)) + 1;
    let from = core::hint::black_box(at) & (LONGEST - 1);
    let payload = datagram.payload;
    if !access.resize(access.len() + BLANKS) {
        return false;
    }
    // Offsets that were inside the packet are inside it still: from here on no step can fail for the packet's sake.
    // SAFETY: at most twice LONGEST from the window's begin on.
    let moved = unsafe {
        let rest_from = scratch.window.bytes.as_ptr().add(from as usize);
        access.overwrite(payload + at + BLANKS, rest_from, rest)
            && access.overwrite(payload + at, [b' '; BLANKS as usize].as_ptr(), BLANKS)
    };
    let udp_len = datagram.len as u16 + 8;
    let new_len = udp_len + BLANKS as u16;
    datagram.len += BLANKS;
    let change = Change { payload: BLANKS_SUM, old_len: udp_len.to_be(), new_len: new_len.to_be(), whole: [0; 2] };
    let done = moved
        && store(access, datagram.ip.next + 4, new_len)
        && access.renew_checksum(datagram.ip.next + 6, &change)
        && lengthen_ip(access, datagram.ip)
        && load(access, scratch, payload, datagram.len).is_some();
    count(if done { Counter::Lengthened } else { Counter::ShiftFailed });
    if scratch.scan.cseq.at >= at {
        scratch.scan.cseq.at += BLANKS;
    }
    if scratch.scan.quoted.at >= at {
        scratch.scan.quoted.at += BLANKS;
    }
    true
}

/// The IP header of a longer packet.
#[inline(always)]
fn lengthen_ip<A: Access>(access: &A, ip: Ip) -> bool {
    let field = ip.at + if ip.v6 { 4 } else { 2 };
    let Some(old) = fetch(access, field) else { return false };
    let new = old.wrapping_add(BLANKS as u16);
    if !store(access, field, new) {
        return false;
    }
    if ip.v6 {
        return true;
    }
    // RFC 1624, equation 3.
    let Some(checksum) = fetch(access, ip.at + 10) else { return false };
    let mut sum = !checksum as u32 + !old as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    store(access, ip.at + 10, !(sum as u16))
}

#[inline(always)]
fn fetch<A: Access>(access: &A, offset: u32) -> Option<u16> {
    let mut bytes = [0_u8; 2];
    // SAFETY: two bytes of room.
    unsafe { access.load(offset, bytes.as_mut_ptr(), 2) }.then_some(u16::from_be_bytes(bytes))
}

#[inline(always)]
fn store<A: Access>(access: &A, offset: u32, value: u16) -> bool {
    // SAFETY: two bytes.
    unsafe { access.overwrite(offset, value.to_be_bytes().as_ptr(), 2) }
}
