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
#[repr(C)]
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
    if datagram.len < WIDTH as u32 {
        return false;
    }
    scratch.place = place;
    // SAFETY: the scratch place.
    let diff = unsafe { st_write(scratch, number) };
    if diff < 0 {
        return false;
    }
    let (payload, checksum) = (datagram.payload, datagram.ip.next + 6);
    let stored = access.store(payload + scratch.field.start, &scratch.new, checksum, diff as u32);
    if !stored {
        count(Counter::ShiftFailed);
    }
    stored
}

/// Writes `number` into the window, at the place that stands in the scratch place, to the verifier a function by itself: what a checksum
/// changes by, or less than 0 where the number does not fit.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_write(scratch: *mut Scratch, number: u32) -> i64 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return -1 };
    let Place { digits: Span { at, len }, spaces, left } = scratch.place;
    let spaces = if spaces > MAX_SPACES { MAX_SPACES } else { spaces };
    let end = at + len;
    let begin = at - spaces;
    if spaces > at {
        return -1;
    }
    // The window, even from the UDP header on: it takes in at most the one byte behind the number, or the message's beginning.
    let start = ((end + 1) & !1).saturating_sub(WIDTH as u32);

    // Asked first: the window must not hold what the packet does not.
    let digits = digits(number);
    if digits > len + spaces {
        count(Counter::ShiftNoRoom);
        return -1;
    }
    let pad = if left { len.saturating_sub(digits) } else { 0 };
    scratch.field = Field { start, begin, end, last: end - 1 - pad, rest: number };
    let mut context = Context(scratch);
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(WIDTH as u32, write_byte as *mut c_void, (&raw mut context).cast(), 0) };
    // SAFETY: both are WIDTH bytes.
    let diff = unsafe {
        bpf_csum_diff(scratch.old.as_mut_ptr().cast(), WIDTH as u32, scratch.new.as_mut_ptr().cast(), WIDTH as u32, 0)
    };
    if diff < 0 {
        count(Counter::ShiftFailed);
    }
    diff
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
    // SAFETY: no pointers.
    unsafe { st_digits(number) }
}

/// [`digits`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_digits(number: u32) -> u32 {
    let mut context = Digits { rest: number, count: 1 };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(10, take_digit as *mut c_void, (&raw mut context).cast(), 0) };
    context.count
}
