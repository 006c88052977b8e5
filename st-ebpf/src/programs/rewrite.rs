//! Writing another number without changing the length: digits grow into the blanks before them, and what they leave
//! becomes blanks.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_loop};
use st_ebpf::{
    abi::{CAPTURE, Counter},
    cseq::BLANKS,
    scan::Span,
};

use super::{
    access::Access,
    maps::{Field, Scratch, WIDTH, count},
    packet::Datagram,
};

/// The most blanks that are looked at.
const MAX_SPACES: u32 = 10;

struct Context(*mut Scratch);

/// Writes one byte of the window, the last one first, as `bpf_loop` calls it.
unsafe extern "C" fn write_byte(done: u32, context: *mut c_void) -> i64 {
    // SAFETY: `rewrite` made the context; the pointer is to this CPU's scratch place.
    let scratch = unsafe { &mut *(*context.cast::<Context>()).0 };
    let index = (WIDTH as u32 - 1).wrapping_sub(done);
    if index >= WIDTH as u32 {
        return 1;
    }
    let Field { start, begin, end, last, rest } = scratch.field;
    let position = start + index;
    let byte = scratch.window.byte(position);
    scratch.old[index as usize] = byte;
    let new = if position < begin || position >= end {
        byte
    } else if position == last || position < last && rest > 0 {
        scratch.field.rest = rest / 10;
        b'0' + (rest % 10) as u8
    } else {
        b' '
    };
    scratch.new[index as usize] = new;
    // What is written next may stand in the same window.
    scratch.window.bytes[position as usize & (CAPTURE - 1)] = new;
    0
}

/// Where a number stands.
#[derive(Clone, Copy)]
pub struct Place {
    /// Its digits.
    pub digits: Span,
    /// Blanks before them that can be spent.
    pub spaces: u32,
    /// Whether a shorter number leaves its blanks behind it, where none should stand before it.
    pub left: bool,
}

impl Place {
    /// Whether a number fits only with [`BLANKS`] more.
    #[inline(always)]
    pub fn lacks(&self, number: u32) -> bool {
        let room = self.digits.len + if self.spaces > MAX_SPACES { MAX_SPACES } else { self.spaces };
        let digits = digits(number);
        digits > room && digits <= room + BLANKS
    }
}

/// Writes `number` in that place. False, and nothing is changed, where it does not fit.
#[inline(always)]
pub fn rewrite<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, place: Place, number: u32) -> bool {
    let Span { at, len } = place.digits;
    let spaces = if place.spaces > MAX_SPACES { MAX_SPACES } else { place.spaces };
    let end = at + len;
    let begin = at - spaces;
    if datagram.len < WIDTH as u32 || spaces > at {
        return false;
    }
    // The window, even from the UDP header on: it takes in at most the one byte behind the number, or the message's beginning.
    let start = ((end + 1) & !1).saturating_sub(WIDTH as u32);

    // Asked first: the window must not hold what the packet does not.
    let digits = digits(number);
    if digits > len + spaces {
        count(Counter::ShiftNoRoom);
        return false;
    }
    let pad = if place.left { len.saturating_sub(digits) } else { 0 };
    scratch.field = Field { start, begin, end, last: end - 1 - pad, rest: number };
    let mut context = Context(scratch);
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(WIDTH as u32, write_byte as *mut c_void, (&raw mut context).cast(), 0) };
    // SAFETY: both are WIDTH bytes.
    let diff = unsafe {
        bpf_csum_diff(scratch.old.as_mut_ptr().cast(), WIDTH as u32, scratch.new.as_mut_ptr().cast(), WIDTH as u32, 0)
    };
    let stored = diff >= 0 && access.store(datagram.payload + start, &scratch.new, datagram.ip.next + 6, diff as u32);
    if !stored {
        count(Counter::ShiftFailed);
    }
    stored
}

struct Digits {
    rest: u32,
    count: u32,
}

/// Takes a digit off, as `bpf_loop` calls it: 1 ends the loop.
unsafe extern "C" fn take_digit(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `digits` made the context.
    let context = unsafe { &mut *context.cast::<Digits>() };
    context.rest /= 10;
    if context.rest == 0 {
        return 1;
    }
    context.count += 1;
    0
}

/// How many decimal digits a number has.
#[inline(always)]
fn digits(number: u32) -> u32 {
    let mut context = Digits { rest: number, count: 1 };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(10, take_digit as *mut c_void, (&raw mut context).cast(), 0) };
    context.count
}
