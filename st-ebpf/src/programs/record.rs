//! Copies for the daemon's flight recorder: a message that is rewritten, before and after, and an ACK that is taken. Only where the
//! daemon that has loaded the programs keeps a recorder: everywhere else the verifier sees that nothing of this is reached.

use st_ebpf::abi::{CAPTURE, Counter};

use super::{
    maps::{Scratch, count},
    message::{put, reserve_reached},
    packet::Datagram,
};

/// Not 0: there is a recorder. Set before the programs are loaded ([`st_ebpf::abi::names::RECORDING`]); constant from then on.
#[unsafe(no_mangle)]
static RECORDING: u8 = 0;

/// Puts a copy of the message as it is now into the ring. `numbers`: the one before in the upper half, the one after in the lower.
/// The ring's last quarter is for what the daemon must see.
#[inline(always)]
pub fn copy(scratch: &mut Scratch, datagram: &Datagram, kind: u8, numbers: u64) {
    // SAFETY: a constant in the programs' read-only data; volatile, for its value is known only when they are loaded.
    if unsafe { (&raw const RECORDING).read_volatile() } == 0 {
        return;
    }
    if reserve_reached() {
        return count(Counter::Unrecorded);
    }
    let captured = if datagram.len > CAPTURE as u32 { CAPTURE as u32 } else { datagram.len };
    let header = &mut scratch.header;
    let (kind_before, token_before) = (header.kind, header.token);
    header.kind = kind;
    header.token = numbers;
    header.wire_len = datagram.len as u16;
    header.captured_len = captured as u16;
    let room = put(scratch, captured);
    scratch.header.kind = kind_before;
    scratch.header.token = token_before;
    if !room {
        count(Counter::Unrecorded);
    }
}

/// The number before and the one after, as [`copy`] takes them.
#[inline(always)]
pub const fn numbers(before: u32, after: u32) -> u64 {
    (before as u64) << 32 | after as u64
}
