//! A SIP message in the scratch place: loaded, scanned, hashed, put into the ring.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_ringbuf_output},
};
use st_ebpf::{
    abi::{CAPTURE, Counter, RING_STRANGERS, SampleHeader, flags, kind},
    key::{DialogKey, MAX_CALL_ID, MAX_TAG, Sip, Whose},
    scan::{MAX_STEPS, Scan, Span, Start, Window, method, start, token},
};

use super::{
    access::Access,
    fragments::mark,
    maps::{RING, SCRATCH, SETTINGS, Scratch, TOKENS, count},
    packet::{Datagram, addresses},
};

/// The scratch place of this CPU for one of [`st_ebpf::abi::direction`].
#[inline(always)]
pub fn scratch(direction: u8) -> Option<&'static mut Scratch> {
    // SAFETY: nothing else on this CPU uses the place of this direction until the program ends.
    SCRATCH.get_ptr_mut(direction as u32).and_then(|place| unsafe { place.as_mut() })
}

/// Copies the payload in, up to [`CAPTURE`] bytes; its length there, or `None` where there is nothing to read.
#[inline(always)]
pub fn load<A: Access>(access: &A, scratch: &mut Scratch, payload: u32, len: u32) -> Option<u32> {
    if len == 0 {
        return None;
    }
    let wanted = if len > CAPTURE as u32 { CAPTURE as u32 } else { len };
    // The verifier must see both bounds on the value that is used.
    let wanted = (core::hint::black_box(wanted - 1) & (CAPTURE as u32 - 1)) + 1;
    // SAFETY: 1..=CAPTURE bytes into a place of CAPTURE + 16.
    if !unsafe { access.load(payload, scratch.window.bytes.as_mut_ptr(), wanted) } {
        return None;
    }
    let tail = wanted as usize & (2 * CAPTURE - 1);
    if tail <= CAPTURE {
        // SAFETY: eight bytes within the sixteen behind CAPTURE at the most.
        unsafe { scratch.window.bytes.as_mut_ptr().add(tail).cast::<[u8; 8]>().write([0; 8]) };
    }
    Some(wanted)
}

/// The datagram, read back: the verifier forgets then by which of the many ways its headers were read, and follows the rest
/// once.
#[inline(always)]
pub fn forgetting(scratch: &Scratch) -> Datagram {
    // SAFETY: `read_back` has written it.
    unsafe { scratch.datagram.as_ptr().read_volatile() }
}

/// The same, written first.
#[inline(always)]
pub fn read_back(scratch: &mut Scratch, datagram: &Datagram) -> Datagram {
    scratch.datagram.write(*datagram);
    // SAFETY: written just now.
    unsafe { scratch.datagram.as_ptr().read_volatile() }
}

/// Loads the message in a datagram and tells what it begins with and how much of it was loaded. What is no SIP is
/// counted and not given; nor are several datagrams as one packet, which are read elsewhere ([`super::joined`]).
#[inline(always)]
pub fn take_in<A: Access>(
    access: &A,
    datagram: &Datagram,
    direction: u8,
) -> Option<(&'static mut Scratch, Datagram, u32, Start)> {
    count(Counter::Seen);
    let scratch = scratch(direction)?;
    scratch.sampled = 0;
    scratch.turned = 0;
    let datagram = read_back(scratch, datagram);
    if access.is_joined() {
        scratch.gone_through = 0;
        return None;
    }
    let Some(captured) = load(access, scratch, datagram.payload, datagram.len) else {
        count(if datagram.len == 0 { Counter::KeepAlive } else { Counter::Malformed });
        return None;
    };
    let start = start(&scratch.window);
    match start {
        Start::KeepAlive => count(Counter::KeepAlive),
        Start::NotSip => count(Counter::NotSip),
        Start::Request(_) | Start::Response => return Some((scratch, datagram, captured, start)),
    }
    None
}

/// Fills the record's header for a message that goes from (egress) or to (ingress) the server.
#[inline(always)]
pub fn describe<A: Access>(
    access: &A,
    scratch: &mut Scratch,
    datagram: &Datagram,
    direction: u8,
    captured: u32,
) -> bool {
    let egress = direction == st_ebpf::abi::direction::EGRESS;
    let header = &mut scratch.header;
    if !addresses(access, datagram.ip, egress, header) {
        return false;
    }
    let cut = datagram.len > captured;
    if cut {
        count(Counter::Cut);
    }
    let (server_port, peer_port) =
        if egress { (datagram.source, datagram.destination) } else { (datagram.destination, datagram.source) };
    // SAFETY: no arguments.
    header.time_ns = unsafe { bpf_ktime_get_ns() };
    header.cookie = if egress { access.cookie() } else { 0 };
    header.token = 0;
    header.ifindex = access.interface();
    header.wire_len = datagram.len as u16;
    header.captured_len = captured as u16;
    header.server_port = server_port.to_be_bytes();
    header.peer_port = peer_port.to_be_bytes();
    header.direction = direction;
    header.kind = kind::MESSAGE;
    header.flags = A::FLAGS | if cut { flags::CUT } else { 0 };
    header.reason = 0;
    header.identification = [0; 4];
    header.place = [0; 2];
    mark(access, scratch, datagram);
    true
}

/// Whether responses to a method belong to no dialog, or cannot be told from those that do not.
#[inline(always)]
pub const fn is_outside(method: u32) -> bool {
    matches!(method, method::REGISTER | method::SUBSCRIBE | method::MESSAGE | method::PUBLISH | method::OPTIONS)
}

/// Whether the ring's last quarter, which is kept for known calls, has been reached.
#[inline(always)]
pub fn reserve_reached() -> bool {
    RING.query(BPF_RB_AVAIL_DATA as u64) > RING_STRANGERS
}

/// Puts header and message into the ring, whole; the newest is lost where the ring is full. Whether there was room.
#[inline(always)]
pub fn submit(scratch: &mut Scratch, captured: u32) -> bool {
    let room = put(scratch, captured);
    count(if room { Counter::Sampled } else { Counter::RingFull });
    scratch.sampled = u32::from(room);
    room
}

/// The same, and nothing is counted.
#[inline(always)]
pub fn put(scratch: &mut Scratch, captured: u32) -> bool {
    // SAFETY: the scratch place.
    unsafe { st_put(scratch, captured) != 0 }
}

/// [`put`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_put(scratch: *mut Scratch, captured: u32) -> u32 {
    const HEADER: u32 = size_of::<SampleHeader>() as u32;
    if scratch.is_null() {
        return 0;
    }
    let captured = core::hint::black_box(captured) & (2 * CAPTURE as u32 - 1);
    let captured = if captured > CAPTURE as u32 { CAPTURE as u32 } else { captured };
    // SAFETY: header and window stand together in `Scratch`, and `captured` is at most the window's size.
    let result = unsafe {
        bpf_ringbuf_output(
            (&raw const RING).cast_mut().cast::<c_void>(),
            scratch.cast::<c_void>(),
            (HEADER + captured) as u64,
            0,
        )
    };
    u32::from(result == 0)
}

/// Hands an answer to a request of sipst's own, with its branch, to the daemon; its token, where that is on record.
#[inline(always)]
pub fn take_answer(scratch: &mut Scratch, captured: u32, described: bool) -> Option<u64> {
    match token(&scratch.window, scratch.scan.branch) {
        Some(token) if described && TOKENS.get_ptr(token).is_some() => {
            scratch.header.kind = kind::ANSWER;
            scratch.header.token = token;
            submit(scratch, captured);
            count(Counter::AnswerTaken);
            Some(token)
        }
        _ => {
            count(Counter::AnswerUnknown);
            None
        }
    }
}

struct ScanContext {
    scan: *mut Scan,
    window: *const Window,
}

/// One step of the scan, as `bpf_loop` calls it: 1 ends the loop.
unsafe extern "C" fn scan_step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `scan` made the context; both pointers are into this CPU's scratch place.
    unsafe {
        let context = &*context.cast::<ScanContext>();
        i64::from((*context.scan).step(&*context.window))
    }
}

/// Looks for `want` in a message of `len` bytes.
#[inline(always)]
pub fn scan(scratch: &mut Scratch, len: u32, want: u32) {
    // SAFETY: the scratch place.
    unsafe { st_scan(scratch, len, want) };
}

/// [`scan`], to the verifier a function by itself.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_scan(scratch: *mut Scratch, len: u32, want: u32) -> u32 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    scratch.scan.begin(len, want);
    let mut context = ScanContext { scan: &raw mut scratch.scan, window: &raw const scratch.window };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(MAX_STEPS, scan_step as *mut c_void, (&raw mut context).cast(), 0) };
    0
}

struct HashContext {
    sip: Sip,
    window: *const Window,
    at: u32,
    left: u32,
}

/// Takes eight bytes into the hash, as `bpf_loop` calls it: 1 ends the loop.
unsafe extern "C" fn hash_step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `take` made the context; the pointer is into this CPU's scratch place.
    unsafe {
        let context = &mut *context.cast::<HashContext>();
        if context.left == 0 {
            return 1;
        }
        let mut word = (*context.window).word(context.at);
        if context.left < 8 {
            word &= (1 << (8 * (context.left & 7))) - 1;
            context.left = 0;
        } else {
            context.left -= 8;
        }
        context.at += 8;
        context.sip.word(word);
        0
    }
}

/// Takes a part of the message into the hash.
#[inline(always)]
fn take(sip: Sip, window: &Window, span: Span, max: usize) -> Sip {
    let mut context = HashContext { sip, window, at: span.at, left: span.len };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(max as u32 / 8 + 1, hash_step as *mut c_void, (&raw mut context).cast(), 0) };
    context.sip
}

/// The key of one side's numbers in the dialog in which its tag is `tag`; `None` where it is never shifted.
#[inline(always)]
pub fn dialog_key(scratch: &mut Scratch, tag: Span, whose: Whose) -> Option<DialogKey> {
    // SAFETY: the scratch place.
    let known = unsafe { st_dialog_key(scratch, tag.at, tag.len, whose as u32) } != 0;
    if known { Some(scratch.key) } else { None }
}

/// [`dialog_key`], to the verifier a function by itself: leaves the key in the scratch place, and returns whether there is one.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_dialog_key(scratch: *mut Scratch, tag_at: u32, tag_len: u32, whose: u32) -> u32 {
    // SAFETY: the caller's promise.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let call_id = scratch.scan.call_id;
    let tag = Span { at: tag_at, len: tag_len };
    if call_id.len == 0 || call_id.len > MAX_CALL_ID as u32 || tag.len == 0 || tag.len > MAX_TAG as u32 {
        return 0;
    }
    let Some(settings) = SETTINGS.get(0) else { return 0 };
    let sip = take(Sip::new(settings.hash_key), &scratch.window, call_id, MAX_CALL_ID);
    let sip = take(sip, &scratch.window, tag, MAX_TAG);
    scratch.key = sip.finish(call_id.len as usize, side(whose).mark(tag.len as usize));
    1
}

/// Whose numbers, as a function that is one by itself to the verifier is told.
#[inline(always)]
pub const fn side(whose: u32) -> Whose {
    if whose == Whose::Server as u32 { Whose::Server } else { Whose::Peer }
}

/// What stands for the branch of the topmost Via, as [`st_ebpf::key::branch`] makes it.
#[inline(always)]
pub fn branch_key(scratch: &Scratch) -> Option<u64> {
    let branch = scratch.scan.branch;
    if branch.len == 0 || branch.len > MAX_TAG as u32 {
        return None;
    }
    let settings = SETTINGS.get(0)?;
    let sip = take(Sip::new(settings.hash_key), &scratch.window, branch, MAX_TAG);
    Some(sip.finish(0, branch.len as usize).map)
}
