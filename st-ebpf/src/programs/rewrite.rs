//! Writing another number into CSeq without changing the length: digits grow into the blanks before them, and what they
//! leave becomes blanks.

use aya_ebpf::helpers::generated::bpf_csum_diff;
use st_ebpf::{abi::Counter, scan::Span};

use super::{
    access::Access,
    maps::{Scratch, WIDTH, count},
    packet::Datagram,
};

/// The most blanks that are looked at.
const MAX_SPACES: u32 = 10;

/// Writes `number` in place of the one that the scan found. False, and nothing is changed, where it does not fit.
#[inline(always)]
pub fn rewrite<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, number: u32) -> bool {
    let Span { at, len } = scratch.scan.cseq;
    let spaces = scratch.scan.cseq_spaces;
    let spaces = if spaces > MAX_SPACES { MAX_SPACES } else { spaces };
    let end = at + len;
    let begin = at - spaces;
    // The window's end, even from the UDP header on: it takes in at most the one byte behind the number.
    let window_end = (end + 1) & !1;
    if window_end < WIDTH as u32 || spaces > at {
        return false;
    }
    let start = window_end - WIDTH as u32;

    let mut rest = number;
    let mut index = WIDTH;
    while index > 0 {
        index -= 1;
        let position = start + index as u32;
        let byte = scratch.window.byte(position);
        scratch.old[index] = byte;
        scratch.new[index] = if position < begin || position >= end {
            byte
        } else if rest > 0 || position == end - 1 {
            let digit = (rest % 10) as u8;
            rest /= 10;
            b'0' + digit
        } else {
            b' '
        };
    }
    if rest > 0 {
        count(Counter::ShiftNoRoom);
        return false;
    }
    // SAFETY: both are WIDTH bytes.
    let diff = unsafe {
        bpf_csum_diff(
            scratch.old.as_mut_ptr().cast(),
            WIDTH as u32,
            scratch.new.as_mut_ptr().cast(),
            WIDTH as u32,
            0,
        )
    };
    let stored = diff >= 0 && access.store(datagram.payload + start, &scratch.new, datagram.ip.next + 6, diff as u32);
    if !stored {
        count(Counter::ShiftFailed);
    }
    stored
}
