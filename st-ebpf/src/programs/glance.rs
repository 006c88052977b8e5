//! What can be let by at first sight: most packets of most hosts, so this is all that RTP pays. It reads a plain header at constant
//! offsets (no tag, no option, no extension, no fragment) and calls nothing; what it is not sure of is for [`super::packet`].

use super::{
    access::Access,
    maps::{FLOW_PORTS, PORTS, any_port, bits_from},
};

/// EtherType, version, header length; then TOS. As four bytes stand in memory, like all below.
const IPV4: u32 = u32::from_ne_bytes([0x08, 0x00, 0x45, 0]);
const IPV4_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);

/// Of IPv4: no fragment, the protocol; not the time to live, nor that it must not be fragmented.
const UDP: u32 = u32::from_ne_bytes([0, 0, 0, 17]);
const TCP: u32 = u32::from_ne_bytes([0, 0, 0, 6]);
const PROTOCOL_MASK: u32 = u32::from_ne_bytes([0x3f, 0xff, 0, 0xff]);

/// EtherTypes behind which there may be SIP, with the first bytes of what follows left out.
const IPV4_TYPE: u32 = u32::from_ne_bytes([0x08, 0x00, 0, 0]);
const IPV6_TYPE: u32 = u32::from_ne_bytes([0x86, 0xdd, 0, 0]);
const VLAN_TYPE: u32 = u32::from_ne_bytes([0x81, 0x00, 0, 0]);
const QINQ_TYPE: u32 = u32::from_ne_bytes([0x88, 0xa8, 0, 0]);
const TYPE_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0, 0]);

/// Whose ports the watched media flows are told by.
#[derive(Clone, Copy)]
pub enum Way {
    /// The destination's: the packet comes in.
    In,
    /// The source's: it leaves.
    Out,
}

/// Whether a packet is nothing that sipst looks at. False where that takes a closer look.
#[inline(always)]
pub fn is_none_of_ours(access: &impl Access, way: Way) -> bool {
    let (data, end) = (access.data(), access.data_end());
    // Up to the ports behind a plain IPv4 header: also as long as the shortest frames are.
    if data + 38 > end {
        return false;
    }
    // SAFETY: inside the packet, as was just checked.
    let word = |at: usize| unsafe { ((data + at) as *const u32).read_unaligned() };
    let kind = word(12);
    if kind & IPV4_MASK == IPV4 {
        let protocol = word(20) & PROTOCOL_MASK;
        let sip = any_port() && protocol == UDP && begins_with_letters(data, end, 42);
        return (protocol == UDP || protocol == TCP) && !are_marked(word(34), way) && !sip;
    }
    if kind & TYPE_MASK == IPV6_TYPE && data + 58 <= end {
        // SAFETY: as above.
        let (protocol, ports) = unsafe { (*((data + 20) as *const u8), ((data + 54) as *const u32).read_unaligned()) };
        let sip = any_port() && protocol == 17 && begins_with_letters(data, end, 62);
        return (protocol == 17 || protocol == 6) && !are_marked(ports, way) && !sip;
    }
    !matches!(kind & TYPE_MASK, IPV4_TYPE | IPV6_TYPE | VLAN_TYPE | QINQ_TYPE)
}

/// Whether a payload begins as all that is SIP does, with two capital letters; RTP, RTCP, STUN and DTLS do not. What cannot be read here
/// may.
#[inline(always)]
fn begins_with_letters(data: usize, end: usize, at: usize) -> bool {
    if data + at + 2 > end {
        return true;
    }
    // SAFETY: inside the packet, as was just checked.
    let [a, b] = unsafe { *((data + at) as *const [u8; 2]) };
    a.wrapping_sub(b'A') < 26 && b.wrapping_sub(b'A') < 26
}

/// Whether one of two ports, as they stand in a header, carries SIP, or the server's has media that are watched.
#[inline(always)]
fn are_marked(ports: u32, way: Way) -> bool {
    let ports = u32::from_be(ports);
    let (source, destination) = (ports >> 16, ports & 0xffff);
    let servers = match way {
        Way::In => destination,
        Way::Out => source,
    };
    let sip = bits_from(&raw const PORTS, source) | bits_from(&raw const PORTS, destination);
    (sip | bits_from(&raw const FLOW_PORTS, servers)) & 1 == 1
}
