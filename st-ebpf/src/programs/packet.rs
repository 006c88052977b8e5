//! Ethernet with up to two VLAN tags, IPv4 with options, IPv6 with extension headers, UDP, TCP, and the ICMP errors that quote
//! UDP. Plain packets are read directly at constant offsets, so that what is no SIP costs next to nothing; the rest by a
//! helper, which also reads what is not in the linear part.

use st_ebpf::{
    abi::{Counter, SampleHeader, place},
    scan::begins_as_sip,
};

use super::{
    access::Access,
    maps::{OPAQUE_PORTS, PORTS, any_port, is_in},
};

/// How many extension headers are passed over (RFC 8200, section 4).
const MAX_EXTENSIONS: usize = 6;

mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const QINQ: u16 = 0x88a8;
}

mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMP6: u8 = 58;
    pub(super) const DESTINATION: u8 = 60;
}

/// Where the IP header is and what follows it.
#[derive(Clone, Copy)]
pub struct Ip {
    /// Offset of the IP header.
    pub at: u32,
    /// Offset of what it carries.
    pub next: u32,
    /// The protocol of that.
    pub protocol: u8,
    /// Version 6.
    pub v6: bool,
    /// It carries no more than the beginning of that: the first of several fragments.
    pub first: bool,
    /// Of a fragment: bits of [`place`]; else 0, as it is for one that has more between its header and the datagram.
    pub place: u16,
    /// Of a fragment: its datagram's.
    pub identification: u32,
}

/// A UDP datagram.
#[derive(Clone, Copy)]
pub struct Datagram {
    /// Its IP header.
    pub ip: Ip,
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Offset of the payload.
    pub payload: u32,
    /// Its length.
    pub len: u32,
}

/// The ports of a UDP datagram.
#[derive(Clone, Copy)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

impl Ports {
    /// As in the header.
    #[inline(always)]
    fn of([s0, s1, d0, d1]: [u8; 4]) -> Self {
        Self { source: u16::from_be_bytes([s0, s1]), destination: u16::from_be_bytes([d0, d1]) }
    }
}

/// What a packet is.
pub enum Packet {
    /// Nothing that sipst looks at.
    Other,
    /// Traffic of a SIP port that cannot be read, and why.
    Unread(Counter),
    /// A UDP datagram from or to a SIP port, or several as one packet.
    Sip(Datagram),
    /// The first fragment of one; its length is what is there.
    First(Datagram),
    /// The first fragment of one between other ports.
    Foreign(Ip),
    /// Another fragment of UDP, between whatever ports.
    Later(Ip),
    /// An ICMP error about one; its length is what is quoted.
    IcmpError(Datagram),
    /// A TCP segment from or to a port that is looked at.
    Segment(Ip),
}

/// The bytes at a constant offset, if they can be read directly.
#[inline(always)]
pub fn direct<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u8; N]> {
    if data + offset + N > end {
        return None;
    }
    // SAFETY: inside the packet, as was just checked.
    Some(unsafe { *((data + offset) as *const [u8; N]) })
}

/// The bytes at any offset.
#[inline(always)]
pub fn bytes<const N: usize>(access: &impl Access, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: N bytes of room.
    unsafe { access.load(offset, bytes.as_mut_ptr(), N as u32) }.then_some(bytes)
}

/// Whether this port carries SIP.
#[inline(always)]
pub fn carries_sip(port: u16) -> bool {
    is_in(&raw const PORTS, port) & !is_in(&raw const OPAQUE_PORTS, port)
}

/// Whether either port carries SIP; source and destination as in the header.
#[inline(always)]
fn is_sip([s0, s1, d0, d1]: [u8; 4]) -> bool {
    carries_sip(u16::from_be_bytes([s0, s1])) | carries_sip(u16::from_be_bytes([d0, d1]))
}

/// Whether UDP is looked at: between these ports, or for what it begins with.
#[inline(always)]
fn speaks_sip(access: &impl Access, ports: [u8; 4], payload: u32) -> bool {
    is_sip(ports)
        || any_port() && {
            let Some([a, b, c, d, e, f, g, h, ninth]) = bytes::<9>(access, payload) else { return false };
            begins_as_sip(u64::from_le_bytes([a, b, c, d, e, f, g, h]), ninth)
        }
}

/// Whether TCP of either port is looked at: SIP's, or one whose traffic cannot be read.
#[inline(always)]
fn is_looked_at([s0, s1, d0, d1]: [u8; 4]) -> bool {
    is_in(&raw const PORTS, u16::from_be_bytes([s0, s1])) | is_in(&raw const PORTS, u16::from_be_bytes([d0, d1]))
}

/// A plain packet's header.
#[inline(always)]
fn whole(next: u32, protocol: u8, v6: bool) -> Ip {
    Ip { at: 14, next, protocol, v6, first: false, place: 0, identification: 0 }
}

/// What a plain packet (no tag, no option, no extension, no fragment) is, or `None` where it is not plain.
#[inline(always)]
fn plain(access: &impl Access, no_sip: impl Fn(Ip, Ports)) -> Option<Packet> {
    let (data, end) = (access.data(), access.data_end());
    let (ip, ports) = match u16::from_be_bytes(direct::<2>(data, end, 12)?) {
        ethertype::IPV4 => {
            let [first] = direct::<1>(data, end, 14)?;
            let [f0, f1, _, protocol] = direct::<4>(data, end, 20)?;
            if first != 0x45 || (f0 & 0x3f) | f1 != 0 {
                return None;
            }
            match protocol {
                protocol::UDP | protocol::TCP => {}
                protocol::ICMP => return None,
                _ => return Some(Packet::Other),
            }
            (whole(34, protocol, false), direct::<4>(data, end, 34)?)
        }
        ethertype::IPV6 => {
            let [protocol] = direct::<1>(data, end, 20)?;
            if protocol != protocol::UDP && protocol != protocol::TCP {
                return None;
            }
            (whole(54, protocol, true), direct::<4>(data, end, 54)?)
        }
        ethertype::VLAN | ethertype::QINQ => return None,
        _ => return Some(Packet::Other),
    };
    if ip.protocol == protocol::TCP {
        return Some(if is_looked_at(ports) { Packet::Segment(ip) } else { Packet::Other });
    }
    if !any_port() && !is_sip(ports) {
        no_sip(ip, Ports::of(ports));
        return Some(Packet::Other);
    }
    Some(transport(access, ip, no_sip).unwrap_or_else(|packet| packet))
}

#[inline(always)]
fn network(access: &impl Access) -> Result<Ip, Packet> {
    let mut at = 12;
    let mut tags = 0;
    loop {
        let kind = u16::from_be_bytes(bytes::<2>(access, at).ok_or(Packet::Other)?);
        match kind {
            ethertype::VLAN | ethertype::QINQ if tags < 2 => {
                at += 4;
                tags += 1;
            }
            ethertype::IPV4 => return ipv4(access, at + 2),
            ethertype::IPV6 => return ipv6(access, at + 2),
            _ => return Err(Packet::Other),
        }
    }
}

#[inline(always)]
fn ipv4(access: &impl Access, at: u32) -> Result<Ip, Packet> {
    let [first, _, _, _, i0, i1, f0, f1, _, protocol] = bytes::<10>(access, at).ok_or(Packet::Other)?;
    let length = (first as u32 & 15) * 4;
    if first >> 4 != 4 || length < 20 {
        return Err(Packet::Other);
    }
    let place = u16::from_be_bytes([f0, f1]) & (place::MORE | place::OFFSET);
    let identification = u16::from_be_bytes([i0, i1]) as u32;
    Ok(Ip { at, next: at + length, protocol, v6: false, first: place == place::MORE, place, identification })
}

#[inline(always)]
fn ipv6(access: &impl Access, at: u32) -> Result<Ip, Packet> {
    let [mut protocol] = bytes::<1>(access, at + 6).ok_or(Packet::Other)?;
    let mut next = at + 40;
    let mut first = false;
    let mut place = 0;
    let mut identification = 0;
    let mut extensions = 0;
    while extensions < MAX_EXTENSIONS {
        match protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION | protocol::AUTHENTICATION => {
                let [following, length] = bytes::<2>(access, next).ok_or(Packet::Other)?;
                next += if protocol == protocol::AUTHENTICATION {
                    (length as u32 + 2) * 4
                } else {
                    (length as u32 + 1) * 8
                };
                protocol = following;
                // What follows the fragment header is no UDP header: it cannot be put together.
                place = 0;
            }
            protocol::FRAGMENT => {
                let [following, _, o0, o1, i0, i1, i2, i3] = bytes::<8>(access, next).ok_or(Packet::Other)?;
                let field = u16::from_be_bytes([o0, o1]);
                // Also the only one (RFC 6946), which is a whole packet.
                place = field >> 3 | (field & 1) * place::MORE;
                first = place == place::MORE;
                identification = u32::from_be_bytes([i0, i1, i2, i3]);
                next += 8;
                protocol = following;
                if place & place::OFFSET != 0 {
                    break;
                }
            }
            _ => break,
        }
        extensions += 1;
    }
    Ok(Ip { at, next, protocol, v6: true, first, place, identification })
}

/// A UDP datagram of which as much is there as the packet holds.
#[inline(always)]
fn beginning(access: &impl Access, ip: Ip, [s0, s1, d0, d1]: [u8; 4]) -> Datagram {
    let payload = ip.next + 8;
    let len = access.len();
    let len = if len > payload { len - payload } else { 0 };
    Datagram { ip, source: u16::from_be_bytes([s0, s1]), destination: u16::from_be_bytes([d0, d1]), payload, len }
}

/// Where an IP packet ends: a short frame is filled up behind it.
#[inline(always)]
pub fn end(access: &impl Access, ip: Ip) -> u32 {
    let len = access.len();
    let (field, header) = if ip.v6 { (4, 40) } else { (2, 0) };
    let Some(length) = bytes::<2>(access, ip.at + field) else { return len };
    let end = ip.at + header + u16::from_be_bytes(length) as u32;
    if end < len { end } else { len }
}

/// UDP or TCP from or to a SIP port, or an ICMP error about it.
#[inline(always)]
fn transport(access: &impl Access, ip: Ip, no_sip: impl Fn(Ip, Ports)) -> Result<Packet, Packet> {
    match ip.protocol {
        protocol::UDP => {
            let [s0, s1, d0, d1, l0, l1] = bytes::<6>(access, ip.next).ok_or(Packet::Other)?;
            let sip = speaks_sip(access, [s0, s1, d0, d1], ip.next + 8);
            if ip.first {
                if !sip {
                    return Ok(Packet::Foreign(ip));
                }
                let datagram = beginning(access, ip, [s0, s1, d0, d1]);
                let len = end(access, ip).saturating_sub(datagram.payload);
                return Ok(Packet::First(Datagram { len, ..datagram }));
            }
            if !sip {
                no_sip(ip, Ports::of([s0, s1, d0, d1]));
                return Ok(Packet::Other);
            }
            let length = u16::from_be_bytes([l0, l1]) as u32;
            if length < 8 || ip.next + length > access.len() {
                return Ok(Packet::Unread(Counter::Malformed));
            }
            Ok(Packet::Sip(Datagram { len: length - 8, ..beginning(access, ip, [s0, s1, d0, d1]) }))
        }
        protocol::TCP => {
            let ports = bytes::<4>(access, ip.next).ok_or(Packet::Other)?;
            Ok(match (is_looked_at(ports), ip.first) {
                (false, _) => Packet::Other,
                // TCP makes its segments as small as the way wants them.
                (true, true) => Packet::Unread(Counter::Fragment),
                (true, false) => Packet::Segment(ip),
            })
        }
        _ => Ok(Packet::Other),
    }
}

/// The datagram that an ICMP error quotes (RFC 792; RFC 4443, section 3).
#[inline(always)]
fn icmp_error(access: &impl Access, ip: Ip) -> Result<Packet, Packet> {
    let [kind] = bytes::<1>(access, ip.next).ok_or(Packet::Other)?;
    let quoted = match (ip.protocol, kind) {
        (protocol::ICMP, 3 | 11 | 12) => ipv4(access, ip.next + 8)?,
        (protocol::ICMP6, 1..=4) => ipv6(access, ip.next + 8)?,
        _ => return Ok(Packet::Other),
    };
    if quoted.protocol != protocol::UDP {
        return Ok(Packet::Other);
    }
    if quoted.place & place::OFFSET != 0 {
        return Ok(Packet::Unread(Counter::Fragment));
    }
    let ports = bytes::<4>(access, quoted.next).ok_or(Packet::Other)?;
    if !speaks_sip(access, ports, quoted.next + 8) {
        return Ok(Packet::Other);
    }
    Ok(Packet::IcmpError(beginning(access, quoted, ports)))
}

/// Tells what a packet is; `no_sip` gets the IP header and the ports of a UDP datagram between ports that carry none.
#[inline(always)]
pub fn read(access: &impl Access, no_sip: impl Fn(Ip, Ports)) -> Packet {
    if let Some(packet) = plain(access, &no_sip) {
        return packet;
    }
    let found = network(access).and_then(|ip| match ip.protocol {
        protocol::UDP if ip.place & place::OFFSET != 0 => Ok(Packet::Later(ip)),
        _ if ip.place & place::OFFSET != 0 => Ok(Packet::Other),
        protocol::ICMP | protocol::ICMP6 => icmp_error(access, ip),
        _ => transport(access, ip, no_sip),
    });
    match found {
        Ok(packet) | Err(packet) => packet,
    }
}

/// Writes an address to the record's header, IPv4 as IPv4-mapped IPv6.
#[inline(always)]
fn address(access: &impl Access, v6: bool, offset: u32, to: &mut [u8; 16]) -> bool {
    if v6 {
        // SAFETY: sixteen bytes of room.
        return unsafe { access.load(offset, to.as_mut_ptr(), 16) };
    }
    let Some([a, b, c, d]) = bytes::<4>(access, offset) else { return false };
    *to = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    true
}

/// Writes where a packet comes from, IPv4 as IPv4-mapped IPv6.
#[inline(always)]
pub fn source_address(access: &impl Access, ip: Ip, to: &mut [u8; 16]) -> bool {
    address(access, ip.v6, ip.at + if ip.v6 { 8 } else { 12 }, to)
}

/// Writes where it goes, likewise.
#[inline(always)]
pub fn destination_address(access: &impl Access, ip: Ip, to: &mut [u8; 16]) -> bool {
    address(access, ip.v6, ip.at + if ip.v6 { 24 } else { 16 }, to)
}

/// Writes source, destination, TOS and TTL of an IP header to the record's header.
#[inline(always)]
pub fn addresses(access: &impl Access, ip: Ip, egress: bool, header: &mut SampleHeader) -> bool {
    // All of it at once, in whole words, which the stack wants aligned.
    let mut words = [0_u64; 5];
    // SAFETY: as many bytes of room.
    if !unsafe { access.load(ip.at, words.as_mut_ptr().cast(), if ip.v6 { 40 } else { 20 }) } {
        return false;
    }
    let [first, second, third, fourth, fifth] = words;
    let [b0, b1, .., b7] = first.to_ne_bytes();
    let [b8, _, _, _, source @ ..] = second.to_ne_bytes();
    let [d0, d1, d2, d3, ..] = third.to_ne_bytes();
    let (source, destination) =
        if ip.v6 { ([second, third], [fourth, fifth]) } else { (mapped(source), mapped([d0, d1, d2, d3])) };
    header.tos = if ip.v6 { b0 << 4 | b1 >> 4 } else { b1 };
    header.ttl = if ip.v6 { b7 } else { b8 };
    let (server, peer) = if egress { (source, destination) } else { (destination, source) };
    // SAFETY: as many bytes, of which any will do.
    unsafe {
        header.server = core::mem::transmute::<[u64; 2], [u8; 16]>(server);
        header.peer = core::mem::transmute::<[u64; 2], [u8; 16]>(peer);
    }
    true
}

/// An IPv4 address as IPv4-mapped IPv6, in two words.
#[inline(always)]
const fn mapped([a, b, c, d]: [u8; 4]) -> [u64; 2] {
    [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
}
