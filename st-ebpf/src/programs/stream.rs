//! TCP: segments of SIP ports are put into the ring as they are, for user space to put together; what goes by on ports whose traffic
//! cannot be read is counted. Nothing of it is ever changed or taken.

use st_ebpf::abi::{CAPTURE, Counter, PIECES, direction, kind, tcp};

use super::{
    access::Access,
    loopback::{End, end, is_loopback},
    maps::{Scratch, count},
    message::{describe, load, put, read_back, reserve_reached, scratch},
    packet::{Datagram, Ip, bytes, carries_sip},
};
use crate::Fate;

/// How much of a header is read (RFC 9293, section 3.1).
const FIELDS: usize = 14;

/// What its header says of a segment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    /// The number of its first byte.
    pub sequence: u32,
    /// The number that it acknowledges.
    pub acknowledged: u32,
    /// Bits of [`tcp`], and others.
    pub flags: u8,
}

/// A TCP segment of a port that is looked at.
#[inline(always)]
pub fn segment<A: Access>(access: &A, ip: Ip, direction: u8) -> Fate {
    let Some(scratch) = scratch(direction) else { return Fate::Pass };
    // Read back, the verifier forgets by which of the many ways the headers were read.
    let Datagram { ip, .. } = read_back(scratch, &Datagram { ip, source: 0, destination: 0, payload: 0, len: 0 });
    // Not onto the stack, which wants whole words aligned.
    // SAFETY: as many bytes, into a place of CAPTURE + 16.
    if !unsafe { access.load(ip.next, scratch.window.bytes.as_mut_ptr(), FIELDS as u32) } {
        count(Counter::Malformed);
        return Fate::Pass;
    }
    // SAFETY: loaded just now.
    let fields = unsafe { scratch.window.bytes.as_ptr().cast::<[u8; FIELDS]>().read() };
    let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags] = fields;
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    if !(carries_sip(source) | carries_sip(destination)) {
        opaque(access, direction, flags);
        return Fate::Pass;
    }
    let egress = direction == direction::EGRESS;
    match end(access, if egress { source } else { destination }, if egress { destination } else { source }) {
        End::This => {}
        End::Unclear if egress => {
            count(Counter::Loopback);
            return Fate::Pass;
        }
        End::Unclear | End::Other => return Fate::Pass,
    }
    let header = (offset as u32 >> 4) * 4;
    let payload = ip.next + header;
    let end = end_of(access, ip);
    if header < 20 || payload > end {
        count(Counter::Malformed);
        return Fate::Pass;
    }
    let datagram = Datagram { ip, source, destination, payload, len: end - payload };
    let header = Header {
        sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        acknowledged: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
    };
    // For what writes into connections.
    scratch.datagram.write(datagram);
    scratch.segment.write(header);
    sample(access, scratch, &datagram, header, direction);
    Fate::Segment
}

/// Where the IP packet ends: what Ethernet fills a short frame up with is no part of it.
#[inline(always)]
fn end_of(access: &impl Access, ip: Ip) -> u32 {
    let len = access.len();
    let (field, header) = if ip.v6 { (4, 40) } else { (2, 0) };
    let Some(said) = bytes::<2>(access, ip.at + field) else { return len };
    let said = u16::from_be_bytes(said) as u32;
    let end = ip.at + header + said;
    // It says nothing where offloads hand over more than 65,535 bytes.
    if said == 0 || end > len { len } else { end }
}

/// Counts what goes by on ports whose traffic cannot be read: segments, and connections by the answer to the first, which the other
/// end means.
#[inline(always)]
fn opaque(access: &impl Access, direction: u8, flags: u8) {
    if direction == direction::INGRESS && is_loopback(access) {
        // It was counted when it left.
        return;
    }
    count(Counter::OpaqueSegment);
    if flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
        count(Counter::OpaqueConnection);
    }
}

/// Puts a segment into the ring, where it carries anything or begins or ends a connection.
#[inline(always)]
fn sample<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, header: Header, direction: u8) {
    count(Counter::Seen);
    let &Datagram { payload, len, .. } = datagram;
    let Header { sequence, acknowledged, flags } = header;
    if len == 0 && flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0 {
        return count(Counter::SegmentBare);
    }
    // Anybody can send a segment, with any address and anything in it.
    if direction == direction::INGRESS && reserve_reached() {
        return count(Counter::SegmentReserved);
    }
    if !describe(access, scratch, &Datagram { len: 0, ..*datagram }, direction, 0) {
        return count(Counter::Malformed);
    }
    let begins = flags & tcp::SYN;
    let always = flags & (tcp::ACK | tcp::RST);
    // All pieces but the last are of one size, known to the verifier, which else would follow every sum of what they might have been.
    let mut at = 0;
    let mut pieces = 1;
    while pieces < PIECES && len - at > CAPTURE as u32 {
        // SAFETY: CAPTURE bytes into a place of CAPTURE + 16.
        if !unsafe { access.load(payload + at, scratch.window.bytes.as_mut_ptr(), CAPTURE as u32) } {
            return count(Counter::Malformed);
        }
        let first = sequence.wrapping_add(if at == 0 { 0 } else { at + (begins != 0) as u32 });
        let reason = always | if at == 0 { begins } else { 0 };
        if !piece(scratch, first, acknowledged, reason, CAPTURE as u32) {
            return;
        }
        at += CAPTURE as u32;
        pieces += 1;
    }
    let left = len - at;
    let captured = if left == 0 {
        0
    } else {
        match load(access, scratch, payload + at, left) {
            Some(captured) => captured,
            None => return count(Counter::Malformed),
        }
    };
    let first = sequence.wrapping_add(if at == 0 { 0 } else { at + (begins != 0) as u32 });
    let is_last = left <= CAPTURE as u32;
    let reason = always | if at == 0 { begins } else { 0 } | if is_last { flags & tcp::FIN } else { 0 };
    if !piece(scratch, first, acknowledged, reason, captured) {
        return;
    }
    count(Counter::Segment);
    if !is_last {
        count(Counter::SegmentCut);
    }
}

/// Puts what was loaded into the ring; false, and counted, where there is no room.
#[inline(always)]
fn piece(scratch: &mut Scratch, first: u32, acknowledged: u32, reason: u8, captured: u32) -> bool {
    let header = &mut scratch.header;
    header.kind = kind::SEGMENT;
    header.token = (first as u64) << 32 | acknowledged as u64;
    header.wire_len = captured as u16;
    header.captured_len = captured as u16;
    header.reason = reason;
    let room = put(scratch, captured);
    if !room {
        count(Counter::RingFull);
    }
    room
}
