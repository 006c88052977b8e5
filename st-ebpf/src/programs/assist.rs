//! INVITEs that are to make a dialog, where the peer's network is marked: the server's lists `timer` in Supported before it leaves,
//! the peer's does so instead of demanding it. Only while a daemon lives that refreshes then, and only where nothing is in doubt; each
//! copy is treated alike, since all depends on what it says and whom it is for.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_ktime_get_ns, bpf_loop},
    maps::lpm_trie::Key,
};
use st_ebpf::{
    abi::{ASSIST_BYTES, Counter, SILENT_NS, assist},
    scan::{MAX_STEPS, Window, part},
    timers::{Edit, ITEM, LINE, List, ONLY, Reading, SUPPORTED, sum},
};

use super::{
    access::Access,
    lengthen::{Insertion, insert},
    maps::{ASSISTED, Field, HEARTBEAT, Scratch, WIDTH, count},
    message::{forgetting, reserve_reached, scan},
    packet::Datagram,
};

/// Room for each text, so that one bound is right for all.
const TEXT: usize = 32;

const fn padded(text: &[u8]) -> [u8; TEXT] {
    let mut bytes = [0; TEXT];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

static LINE_TEXT: [u8; TEXT] = padded(&LINE);
static ITEM_TEXT: [u8; TEXT] = padded(&ITEM);
static ONLY_TEXT: [u8; TEXT] = padded(&ONLY);

/// Adds `timer` to an INVITE of the server's where that is wanted. The window stays as it is; the record says what was done.
#[inline(always)]
pub fn offer<A: Access>(access: &A, scratch: &mut Scratch, captured: u32) {
    if !is_wanted(scratch) {
        return;
    }
    let mut datagram = forgetting(scratch);
    let edit = if !is_awake() {
        Err(assist::ASLEEP)
    } else if scratch.header.cookie == 0 {
        // No socket of this host's has sent it.
        Err(assist::RELAYED)
    } else if captured != datagram.len || datagram.ip.first {
        Err(assist::TOO_LONG)
    } else {
        read(scratch, captured, List::Supported);
        scratch.reading.offer()
    };
    let done = match edit {
        Ok(edit) => add(access, scratch, &mut datagram, edit),
        Err(reason) => reason,
    };
    tell(scratch, done, Counter::AssistedOut);
}

/// Takes the demand for `timer` out of an INVITE of the peer's where that is wanted, likewise.
#[inline(always)]
pub fn soften<A: Access>(access: &A, scratch: &mut Scratch, captured: u32) {
    if !is_wanted(scratch) {
        return;
    }
    scan(scratch, captured, part::TO);
    if scratch.scan.to_tag.len > 0 {
        return;
    }
    let datagram = forgetting(scratch);
    read(scratch, captured, List::Require);
    let Some(edit) = scratch.reading.soften() else { return };
    let done = if !is_awake() {
        assist::ASLEEP
    } else if captured != datagram.len || datagram.ip.first {
        assist::TOO_LONG
    } else {
        match edit {
            Ok(Edit::Soften(at)) => overwrite(access, scratch, &datagram, at),
            Ok(Edit::Line(_) | Edit::Item(_) | Edit::Only(_)) => assist::UNCLEAR,
            Err(reason) => reason,
        }
    };
    tell(scratch, done, Counter::AssistedIn);
}

/// Whether the peer's network is marked.
#[inline(always)]
fn is_wanted(scratch: &Scratch) -> bool {
    let peer = (&raw const scratch.header.peer).cast::<u32>();
    // SAFETY: inside the address, which is aligned to eight. Four bytes at once, for behind the prefix's length eight would not be
    // aligned on the stack.
    let words: [u32; 4] = unsafe {
        [peer.read_volatile(), peer.add(1).read_volatile(), peer.add(2).read_volatile(), peer.add(3).read_volatile()]
    };
    // SAFETY: as many bytes, of which any will do.
    let peer = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) };
    ASSISTED.get(Key::new(128, peer)).is_some_and(|wanted| *wanted != 0)
}

/// Whether a daemon lives that will see what is sampled: who has nobody to refresh is better off without timers.
#[inline(always)]
fn is_awake() -> bool {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    HEARTBEAT.get(0).is_some_and(|beat| now.saturating_sub(*beat) <= SILENT_NS) && !reserve_reached()
}

/// Leaves word of what was done, or why nothing was.
#[inline(always)]
fn tell(scratch: &mut Scratch, done: u8, counter: Counter) {
    scratch.header.reason = done;
    count(match done {
        assist::DONE => counter,
        assist::OWN => Counter::AssistOwn,
        assist::OTHERS => Counter::AssistOthers,
        assist::TOO_LONG => Counter::AssistTooLong,
        assist::RELAYED => Counter::AssistRelayed,
        assist::ASLEEP => Counter::AssistAsleep,
        _ => Counter::AssistUnclear,
    });
}

struct Context {
    reading: *mut Reading,
    window: *const Window,
}

/// One step of the reading, as `bpf_loop` calls it: 1 ends the loop.
unsafe extern "C" fn read_step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `read` made the context; both pointers are into this CPU's scratch place.
    unsafe {
        let context = &*context.cast::<Context>();
        i64::from((*context.reading).step(&*context.window))
    }
}

/// Reads what the header says of session timers.
#[inline(always)]
fn read(scratch: &mut Scratch, len: u32, list: List) {
    // SAFETY: the scratch place.
    unsafe { st_read(scratch, len, u32::from(matches!(list, List::Require))) };
}

/// [`read`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_read(scratch: *mut Scratch, len: u32, require: u32) -> u32 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let list = if require != 0 { List::Require } else { List::Supported };
    scratch.reading.begin(len, list);
    let mut context = Context { reading: &raw mut scratch.reading, window: &raw const scratch.window };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(MAX_STEPS, read_step as *mut c_void, (&raw mut context).cast(), 0) };
    0
}

/// Inserts the line, or what belongs into the one that is there.
#[inline(always)]
fn add<A: Access>(access: &A, scratch: &Scratch, datagram: &mut Datagram, edit: Edit) -> u8 {
    let (at, text, len, sums) = match edit {
        Edit::Line(at) => (at, LINE_TEXT.as_ptr(), LINE.len() as u32, const { [sum(&LINE, 0), sum(&LINE, 1)] }),
        Edit::Item(at) => (at, ITEM_TEXT.as_ptr(), ITEM.len() as u32, const { [sum(&ITEM, 0), sum(&ITEM, 1)] }),
        Edit::Only(at) => (at, ONLY_TEXT.as_ptr(), ONLY.len() as u32, const { [sum(&ONLY, 0), sum(&ONLY, 1)] }),
        Edit::Soften(_) => return assist::UNCLEAR,
    };
    if datagram.len + len > ASSIST_BYTES as u32 {
        return assist::TOO_LONG;
    }
    let len = (core::hint::black_box(len - 1) & (TEXT as u32 - 1)) + 1;
    let sum = if at & 1 == 0 { sums[0] } else { sums[1] };
    // SAFETY: TEXT bytes, at the most.
    match unsafe { insert(access, scratch, datagram, &Insertion { at, text, len, sum }) } {
        Some(true) => assist::DONE,
        // Not known to happen; it has left the way it is.
        Some(false) => assist::UNCLEAR,
        None => assist::TOO_LONG,
    }
}

struct Soften(*mut Scratch);

/// Writes one byte beside the window, as `bpf_loop` calls it.
unsafe extern "C" fn write_byte(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `overwrite` made the context; the pointer is to this CPU's scratch place.
    let scratch = unsafe { &mut *(*context.cast::<Soften>()).0 };
    if index >= WIDTH as u32 {
        return 1;
    }
    let position = scratch.field.start + index;
    let byte = scratch.window.byte(position);
    let place = position.wrapping_sub(scratch.field.begin);
    scratch.old[index as usize] = byte;
    scratch.new[index as usize] = match place {
        0 => SUPPORTED[0],
        1 => SUPPORTED[1],
        _ if place < SUPPORTED.len() as u32 => b' ',
        _ => byte,
    };
    0
}

/// Writes [`SUPPORTED`] over `Require:`.
#[inline(always)]
fn overwrite<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, at: u32) -> u8 {
    let end = at + SUPPORTED.len() as u32;
    // Even from the UDP header on. A start line stands before it, an empty line behind it.
    let start = ((end + 1) & !1).saturating_sub(WIDTH as u32);
    scratch.field = Field { start, begin: at, end, last: 0, rest: 0 };
    let mut context = Soften(scratch);
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(WIDTH as u32, write_byte as *mut c_void, (&raw mut context).cast(), 0) };
    // SAFETY: both are WIDTH bytes.
    let diff = unsafe {
        bpf_csum_diff(scratch.old.as_mut_ptr().cast(), WIDTH as u32, scratch.new.as_mut_ptr().cast(), WIDTH as u32, 0)
    };
    if diff >= 0 && access.store(datagram.payload + start, &scratch.new, datagram.ip.next + 6, diff as u32) {
        assist::DONE
    } else {
        assist::UNCLEAR
    }
}
