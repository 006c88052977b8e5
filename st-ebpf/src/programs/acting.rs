//! Acting over TCP: bytes of a connection that others take the place of, without a length that changes. The plan says which, by
//! sequence number; it is made where a message begins a segment, from what the message is before anything is written, and every
//! segment that overlaps it is written alike, whoever sends it again and however it is cut.
//!
//! Three things are planned. The status of an answer to a request of sipst's own becomes `100`: both ends let that be (a `100` that belongs to
//! no transaction; RFC 3261, section 17.1.3). A request of sipst's own whose number cannot be committed begins `SIP/2.0 100 ` instead, which its
//! peer lets be likewise: in a stream nothing can be dropped. And the server's numbers go up, and down again in the responses.
//!
//! These programs are called by the others, behind all that those do, and only where the daemon has put them into [`ACTING`]: the ring has a
//! segment as its sender sent it.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::generated::{bpf_l4_csum_replace, bpf_loop, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_tail_call},
};
use st_ebpf::{
    abi::{Counter, direction, flags, kind, tcp},
    key::Whose,
    plan::{PATCH_BYTES, PATCHES, Patch, Plan, bits, change},
    scan::{FirstLine, LINE_STEPS, Start, Window, has_our_prefix, method, part, start, token},
};

use super::{
    access::{Access, Change, Skb},
    egress::record,
    maps::{ACTING, PLANS, Scratch, WIDTH, count},
    message::{describe, forgetting, load, scan, scratch, submit},
    packet::{Datagram, destination_address, source_address},
    shift::{is_shifted, raises, shift, shift_back, shift_back_quoted},
    stream::Header,
};

/// Where the status of a response begins: `SIP/2.0 `.
const STATUS: u32 = 8;

/// In the place of a method.
const RESPONSE: u32 = 255;

/// What a response begins with that nobody waits for, and its status alone; with room, as a patch has.
const NOBODYS: [u8; PATCH_BYTES] = *b"SIP/2.0 100             ";
const NOBODYS_LEN: u32 = 12;
const NOBODYS_STATUS: [u8; PATCH_BYTES] = *b"100                     ";
const NOBODYS_STATUS_LEN: u32 = 3;

/// What the shift writes at once is a patch.
const _: () = assert!(WIDTH == PATCH_BYTES);

/// Goes on in the program that writes into connections, where there is one; else the segment goes on as it is.
#[inline(always)]
pub fn go_on(skb: &Skb, direction: u8) -> i32 {
    // SAFETY: the context that the kernel gave, and a map. It does not come back where there is a program.
    unsafe { bpf_tail_call(skb.0.cast::<c_void>(), (&raw const ACTING).cast_mut().cast::<c_void>(), direction as u32) };
    TC_ACT_UNSPEC
}

/// Looks at a segment of a connection with a plan; what calls this has read its headers.
#[inline(always)]
pub fn act(skb: &Skb, direction: u8) {
    let Some(scratch) = scratch(direction) else { return };
    let Datagram { ip, source, destination, .. } = forgetting(scratch);
    // SAFETY: the program that has called this one has written it.
    let Header { sequence, acknowledged, flags } = unsafe { scratch.segment.as_ptr().read_volatile() };
    let egress = direction == direction::EGRESS;
    let connection = &mut scratch.connection;
    let (server, peer) = if egress {
        (source_address(skb, ip, &mut connection.server), destination_address(skb, ip, &mut connection.peer))
    } else {
        (destination_address(skb, ip, &mut connection.server), source_address(skb, ip, &mut connection.peer))
    };
    if !server || !peer {
        return;
    }
    let (server_port, peer_port) = if egress { (source, destination) } else { (destination, source) };
    connection.server_port = server_port.to_be_bytes();
    connection.peer_port = peer_port.to_be_bytes();
    connection.reserved = [0; 4];
    let segment = forgetting(scratch);
    let Some(plan) = PLANS.get_ptr_mut(&scratch.connection) else { return };
    if flags & tcp::ACK != 0 {
        // SAFETY: an element of the map, readable until the program ends.
        unsafe { (&raw mut (*plan).acknowledged[1 - direction as usize & 1]).write_volatile(acknowledged) };
    }
    if segment.len == 0 {
        return;
    }
    let stream = Stream { skb: Skb(skb.0), payload: segment.payload, sequence, plan, direction };
    make(&stream, scratch, &segment);
    write(&stream, &segment);
}

/// Plans for the message that begins the segment, if one does. A function of its own, so that whatever way it has gone the verifier goes
/// on from one state.
#[inline(never)]
fn make(stream: &Stream, scratch: &mut Scratch, segment: &Datagram) {
    let Some(captured) = load(&stream.skb, scratch, segment.payload, segment.len) else { return };
    scratch.begins = match start(&scratch.window) {
        // The rest of a message may begin with anything.
        Start::Request(method) if is_request(scratch) => method,
        Start::Response => RESPONSE,
        Start::Request(_) | Start::KeepAlive | Start::NotSip => return,
    };
    // Read back, for the same reason.
    // SAFETY: written just now.
    let begins = unsafe { (&raw const scratch.begins).read_volatile() };
    let start = if begins == RESPONSE { Start::Response } else { Start::Request(begins) };
    // As long as what was loaded, for a long segment is no message that was cut.
    if !describe(&stream.skb, scratch, &Datagram { len: captured, ..*segment }, stream.direction, captured) {
        return;
    }
    scratch.header.wire_len = segment.len as u16;
    scratch.header.flags |= flags::STREAM;
    // SAFETY: an element of the map.
    let flags = unsafe { (&raw const (*stream.plan).flags).read_volatile() };
    let numbers = flags & bits::NUMBERS != 0;
    match (start, stream.direction) {
        (Start::Request(method), direction::EGRESS) => leaving(stream, scratch, segment, captured, method, numbers),
        (Start::Response, direction::INGRESS) => {
            coming(stream, scratch, segment, captured, flags & (bits::NUMBERS | bits::ANSWERS) != 0);
        }
        (Start::Request(method::NOTIFY), direction::INGRESS) if numbers && is_shifted(scratch) => {
            scan(scratch, captured, part::FROM | part::TO | part::CALL_ID | part::EVENT | part::END);
            if whole(scratch) && scratch.scan.to_tag.len > 0 {
                shift_back_quoted(stream, scratch, segment, Whose::Server);
            }
        }
        _ => {}
    }
}

/// Whether the first line in the window is a request's.
#[inline(always)]
fn is_request(scratch: &mut Scratch) -> bool {
    let mut context = LineContext { line: FirstLine::default(), window: &raw const scratch.window };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(LINE_STEPS, line_step as *mut c_void, (&raw mut context).cast(), 0) };
    context.line.is_requests(&scratch.window)
}

#[repr(C)]
struct LineContext {
    line: FirstLine,
    window: *const Window,
}

/// One step to the end of the first line, as `bpf_loop` calls it: 1 ends the loop.
unsafe extern "C" fn line_step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `is_request` made the context; the pointer is into this CPU's scratch place.
    unsafe {
        let context = &mut *context.cast::<LineContext>();
        i64::from(context.line.step(&*context.window))
    }
}

/// Whether the header of the message ends in the segment; what does not is left alone.
#[inline(always)]
fn whole(scratch: &Scratch) -> bool {
    let whole = scratch.scan.saw_end(&scratch.window);
    if !whole {
        count(Counter::StreamUnshifted);
    }
    whole
}

/// A request: sipst's own is committed, the server's has its number shifted.
#[inline(always)]
fn leaving(stream: &Stream, scratch: &mut Scratch, segment: &Datagram, captured: u32, method: u32, numbers: bool) {
    let quoting = match method {
        method::PRACK => part::RACK,
        method::SUBSCRIBE | method::NOTIFY => part::EVENT,
        _ => 0,
    };
    scan(scratch, captured, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ | quoting | part::END);
    if has_our_prefix(&scratch.window, scratch.scan.branch) {
        // What is left of a first line that was cut names none of these.
        if method != method::OTHER {
            own(stream, scratch, captured);
        }
        return;
    }
    if scratch.scan.to_tag.len == 0 || method == method::REGISTER || method == method::PUBLISH {
        return;
    }
    if !numbers {
        // What is answered from here on may be this one.
        // SAFETY: an element of the map.
        return unsafe { (&raw mut (*stream.plan).flags).write_volatile(0) };
    }
    if !whole(scratch) {
        return;
    }
    if method == method::NOTIFY && is_shifted(scratch) {
        shift_back_quoted(stream, scratch, segment, Whose::Peer);
    }
    if raises(method) || is_shifted(scratch) {
        shift(stream, scratch, segment, method, Whose::Server);
    }
}

/// A request of sipst's own: it has left when its number is committed, and is made nothing where that cannot be.
#[inline(always)]
fn own(stream: &Stream, scratch: &mut Scratch, captured: u32) {
    if stream.has(stream.sequence) {
        // A copy of one that was refused.
        return;
    }
    let token = token(&scratch.window, scratch.scan.branch).unwrap_or(0);
    scratch.header.token = token;
    match record(scratch, token) {
        Ok(Counter::Repeated) if scratch.scan.found & part::CSEQ != 0 && scratch.scan.method != method::ACK => {
            count(Counter::Repeated);
        }
        Ok(counter) => {
            count(counter);
            scratch.header.kind = kind::INJECTED;
            submit(scratch, captured);
        }
        Err(reason) => {
            count(Counter::Refused);
            stream.add(stream.sequence, &NOBODYS, NOBODYS_LEN);
            count(Counter::RequestWritten);
            scratch.header.kind = kind::REFUSED;
            scratch.header.reason = reason;
            submit(scratch, captured);
        }
    }
}

/// A response: one to a request of sipst's own is made a `100`, whatever its token says; others have the server's number back.
#[inline(always)]
fn coming(stream: &Stream, scratch: &mut Scratch, segment: &Datagram, captured: u32, numbers: bool) {
    let numbers = numbers && is_shifted(scratch);
    let dialog = if numbers { part::CALL_ID | part::FROM | part::CSEQ | part::END } else { 0 };
    scan(scratch, captured, part::VIA | dialog);
    if has_our_prefix(&scratch.window, scratch.scan.branch) {
        stream.add(stream.sequence.wrapping_add(STATUS), &NOBODYS_STATUS, NOBODYS_STATUS_LEN);
        return count(Counter::AnswerWritten);
    }
    if numbers && whole(scratch) {
        shift_back(stream, scratch, segment, Whose::Server);
    }
}

/// One direction of a connection, as what shifts numbers takes a packet: what it stores becomes a patch.
struct Stream {
    skb: Skb,
    /// Offset of what the segment carries.
    payload: u32,
    /// The number of its first byte.
    sequence: u32,
    plan: *mut Plan,
    direction: u8,
}

impl Stream {
    /// The patches of this direction.
    #[inline(always)]
    fn patches(&self) -> *mut Patch {
        // SAFETY: an element of the map.
        unsafe { patches(&raw mut *self.plan, self.direction as u32) }
    }

    /// Whether there is a patch that begins with this number.
    #[inline(always)]
    fn has(&self, first: u32) -> bool {
        // SAFETY: an element of the map.
        unsafe { st_has_patch(self.plan, self.direction as u32, first) != 0 }
    }

    /// Adds a patch, of the first `len` of those bytes, once.
    #[inline(always)]
    fn add(&self, first: u32, from: &[u8; PATCH_BYTES], len: u32) {
        // A map that programs only read is none that the verifier lets a function have that is one by itself.
        let bytes = *from;
        // SAFETY: an element of the map, and this stack.
        unsafe { st_add_patch(self.plan, self.direction as u32, first, &raw const bytes, len) };
    }
}

/// The patches of a direction.
///
/// # Safety
/// It must be a plan.
#[inline(always)]
unsafe fn patches(plan: *mut Plan, direction: u32) -> *mut Patch {
    // SAFETY: one of two, inside the plan.
    unsafe { (&raw mut (*plan).patches).cast::<Patch>().add((direction as usize & 1) * PATCHES) }
}

/// [`Stream::has`], to the verifier a function by itself. In sums, not in branches: it would follow all of their ways.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_has_patch(plan: *mut Plan, direction: u32, first: u32) -> u32 {
    const fn is_not_zero(word: u32) -> u32 {
        (word | word.wrapping_neg()) >> 31
    }
    if plan.is_null() {
        return 0;
    }
    let mut found = 0;
    let mut index = 0;
    while index < PATCHES {
        // SAFETY: inside the plan.
        let (there, len) = unsafe {
            let patch = patches(plan, direction).add(index);
            ((&raw const (*patch).first).read_volatile(), (&raw const (*patch).len).read_volatile())
        };
        found |= core::hint::black_box(is_not_zero(len) & (1 ^ is_not_zero(there ^ first)));
        index += 1;
    }
    found
}

/// [`Stream::add`], to the verifier a function by itself. The length is written last: who reads it finds the rest.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn st_add_patch(
    plan: *mut Plan,
    direction: u32,
    first: u32,
    from: *const [u8; PATCH_BYTES],
    len: u32,
) -> u32 {
    // SAFETY: the caller's promise.
    let Some(from) = (unsafe { from.as_ref() }) else { return 0 };
    // SAFETY: the same plan.
    if plan.is_null() || unsafe { st_has_patch(plan, direction, first) } != 0 {
        return 0;
    }
    let side = direction as usize & 1;
    // SAFETY: inside the plan.
    unsafe {
        let next = (&raw mut (*plan).next[side]).read_volatile();
        (&raw mut (*plan).next[side]).write_volatile(next.wrapping_add(1));
        let patch = patches(plan, direction).add(core::hint::black_box(next) as usize & (PATCHES - 1));
        let acknowledged = (&raw const (*plan).acknowledged[side]).read_volatile();
        let before = (&raw const (*patch).len).read_volatile();
        let end = (&raw const (*patch).first).read_volatile().wrapping_add(before);
        if before != 0 && end.wrapping_sub(acknowledged) as i32 > 0 {
            count(Counter::PatchEvicted);
        }
        (&raw mut (*patch).len).write_volatile(0);
        (&raw mut (*patch).first).write_volatile(first);
        // All of them: only so many count.
        let mut at = 0;
        while at < PATCH_BYTES {
            (&raw mut (*patch).bytes).cast::<u8>().add(at).write_volatile(from[at]);
            at += 1;
        }
        (&raw mut (*patch).len).write_volatile(len);
    }
    1
}

impl Access for Stream {
    const FLAGS: u8 = flags::STREAM;

    #[inline(always)]
    fn data(&self) -> usize {
        self.skb.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.skb.data_end()
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.skb.len()
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.skb.load(offset, to, len) }
    }

    /// Plans it; the checksum is mended when it is written.
    #[inline(always)]
    fn store(&self, offset: u32, from: &[u8; WIDTH], _checksum: u32, _diff: u32) -> bool {
        self.add(self.sequence.wrapping_add(offset.wrapping_sub(self.payload)), from, WIDTH as u32);
        true
    }

    #[inline(always)]
    unsafe fn overwrite(&self, _offset: u32, _from: *const u8, _len: u32) -> bool {
        false
    }

    /// No length changes in a stream.
    #[inline(always)]
    fn resize(&self, _to: u32) -> bool {
        false
    }

    #[inline(always)]
    fn may_grow(&self, _by: i32) -> bool {
        false
    }

    #[inline(always)]
    fn renew_checksum(&self, _checksum: u32, _change: &Change) -> bool {
        false
    }

    /// What offloads hand over as one segment is one stretch of the stream.
    #[inline(always)]
    fn is_joined(&self) -> bool {
        false
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.skb.interface()
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        self.skb.cookie()
    }
}

/// What is written into a segment. In this order the zeroes are whole words, which is how the stack has to be written.
#[repr(C)]
struct Writing {
    skb: *mut __sk_buff,
    patches: *const Patch,
    payload: u32,
    len: u32,
    /// What the checksum changes by.
    sum: u32,
    /// How many bytes were written.
    written: u32,
    sequence: u32,
    /// How many could not be.
    failed: u32,
}

/// The byte of a patch that is written next.
#[repr(C)]
struct Byte {
    writing: *mut Writing,
    patch: *const Patch,
    first: u32,
    len: u32,
}

/// Writes what the plan says over the segment's bytes.
#[inline(never)]
fn write(stream: &Stream, segment: &Datagram) {
    let mut writing = Writing {
        skb: stream.skb.0,
        patches: stream.patches(),
        payload: segment.payload,
        len: segment.len,
        sequence: stream.sequence,
        sum: 0,
        written: 0,
        failed: 0,
    };
    // SAFETY: a callback of this program, a context on this stack.
    unsafe { bpf_loop(PATCHES as u32, write_patch as *mut c_void, (&raw mut writing).cast(), 0) };
    if writing.written > 0 {
        // Flags 0: a TCP checksum of 0 is one as any other.
        // SAFETY: the context that the kernel gave; the helper checks the offset.
        let mended = unsafe { bpf_l4_csum_replace(stream.skb.0, segment.ip.next + 16, 0, writing.sum as u64, 0) };
        count(if mended == 0 && writing.failed == 0 { Counter::Patched } else { Counter::PatchFailed });
    }
}

/// Writes one patch, as `bpf_loop` calls it.
unsafe extern "C" fn write_patch(index: u32, context: *mut c_void) -> i64 {
    if index >= PATCHES as u32 {
        return 1;
    }
    // SAFETY: `write` made the context; the pointer is into the map's element.
    unsafe {
        let writing = context.cast::<Writing>();
        let patch = (*writing).patches.add(index as usize & (PATCHES - 1));
        let len = (&raw const (*patch).len).read_volatile();
        let first = (&raw const (*patch).first).read_volatile();
        if Patch::overlaps(first, len, (*writing).sequence, (*writing).len) {
            let mut byte = Byte { writing, patch, first, len };
            bpf_loop(PATCH_BYTES as u32, write_byte as *mut c_void, (&raw mut byte).cast(), 0);
        }
    }
    0
}

/// Writes one byte of it, as `bpf_loop` calls it.
unsafe extern "C" fn write_byte(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `write_patch` made the context; both pointers are good until the program ends.
    unsafe {
        let Byte { writing, patch, first, len } = context.cast::<Byte>().read();
        if index >= len || index >= PATCH_BYTES as u32 {
            return 1;
        }
        let at = first.wrapping_add(index).wrapping_sub((*writing).sequence);
        if at >= (*writing).len {
            return 0;
        }
        let new = (&raw const (*patch).bytes).cast::<u8>().add(index as usize & 31).read_volatile();
        let offset = (*writing).payload.wrapping_add(at);
        let mut old = MaybeUninit::<u8>::uninit();
        if bpf_skb_load_bytes((*writing).skb.cast(), offset, old.as_mut_ptr().cast(), 1) != 0 {
            (*writing).failed += 1;
            return 1;
        }
        let old = old.assume_init();
        if old != new {
            if bpf_skb_store_bytes((*writing).skb, offset, (&raw const new).cast(), 1, 0) != 0 {
                (*writing).failed += 1;
                return 1;
            }
            (*writing).sum += change(at & 1 == 0, old, new);
            (*writing).written += 1;
        }
    }
    0
}
