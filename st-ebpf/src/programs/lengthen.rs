//! Packets that become longer: by blanks beside a number of the server's that has outgrown its place, and by what an INVITE is made to
//! say of session timers.

use st_ebpf::{abi::Counter, cseq::BLANKS};

use super::{
    access::{Access, Change},
    maps::{Scratch, count},
    message::load,
    packet::{Datagram, Ip},
};

/// The longest request that is lengthened, no more than half of what is captured, so that the verifier sees the bounds: a power of two.
const LONGEST: u32 = 2_048;

/// The sum of the blanks as 16-bit words, wherever they begin.
const BLANKS_SUM: u32 = 0x2020 * BLANKS / 2;

/// Puts blanks into a request, at that offset of the message: in the packet, in the window and in what the scan found. False, and
/// nothing is changed, where the packet cannot grow.
#[inline(always)]
pub fn lengthen<A: Access>(access: &A, scratch: &mut Scratch, datagram: &mut Datagram, at: u32) -> bool {
    let text = Insertion { at, text: [b' '; BLANKS as usize].as_ptr(), len: BLANKS, sum: BLANKS_SUM };
    // SAFETY: as many blanks as there.
    let Some(done) = (unsafe { insert(access, scratch, datagram, &text) }) else { return false };
    let done = done && load(access, scratch, datagram.payload, datagram.len).is_some();
    count(if done { Counter::Lengthened } else { Counter::ShiftFailed });
    if scratch.scan.cseq.at >= at {
        scratch.scan.cseq.at += BLANKS;
    }
    if scratch.scan.quoted.at >= at {
        scratch.scan.quoted.at += BLANKS;
    }
    true
}

/// What is inserted.
pub struct Insertion {
    /// Where, in the message.
    pub at: u32,
    /// The text.
    pub text: *const u8,
    /// Its length: even, so that what stands behind it keeps its place in the checksum's words.
    pub len: u32,
    /// What it adds to a checksum.
    pub sum: u32,
}

/// Inserts something into the message in a packet; the window stays as it is. `None`, and nothing is changed, where the packet cannot
/// grow; false where it is not whole any more, which nothing but a broken helper can cause.
///
/// # Safety
/// The text must have its length.
#[inline(always)]
pub unsafe fn insert<A: Access>(
    access: &A,
    scratch: &Scratch,
    datagram: &mut Datagram,
    insertion: &Insertion,
) -> Option<bool> {
    let &Insertion { at, text, len, sum } = insertion;
    // What is captured is the whole message, then. A fragment has its length from those around it.
    if datagram.ip.first || datagram.len > LONGEST || at >= datagram.len || !access.may_grow(len as i32) {
        return None;
    }
    let rest = (core::hint::black_box(datagram.len - at - 1) & (LONGEST - 1)) + 1;
    let from = core::hint::black_box(at) & (LONGEST - 1);
    let payload = datagram.payload;
    if !access.resize(access.len() + len) {
        return None;
    }
    // Offsets that were inside the packet are inside it still: from here on no step can fail for the packet's sake.
    // SAFETY: at most twice LONGEST from the window's begin on; the caller's promise.
    let moved = unsafe {
        let rest_from = scratch.window.bytes.as_ptr().add(from as usize);
        access.overwrite(payload + at + len, rest_from, rest) && access.overwrite(payload + at, text, len)
    };
    let udp_len = datagram.len as u16 + 8;
    let new_len = udp_len + len as u16;
    datagram.len += len;
    let change =
        Change { payload: sum, old_len: udp_len.to_be(), new_len: new_len.to_be(), whole: [0; 2], fragment: false };
    Some(
        moved
            && store(access, datagram.ip.next + 4, new_len)
            && access.renew_checksum(datagram.ip.next + 6, &change)
            && lengthen_ip(access, datagram.ip, len as u16),
    )
}

/// The IP header of a longer packet.
#[inline(always)]
fn lengthen_ip<A: Access>(access: &A, ip: Ip, by: u16) -> bool {
    let field = ip.at + if ip.v6 { 4 } else { 2 };
    let Some(old) = fetch(access, field) else { return false };
    let new = old.wrapping_add(by);
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
