//! An IP packet in fragments, none of which is longer than the way to the peer takes.

use std::{io, net::SocketAddr, os::fd::AsFd as _};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};
use rustix::net::sockopt;
use socket2::{Domain, Socket, Type};
use st_core::Refusal;

/// Length of IPv6's fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: usize = 8;

/// How long a packet to the peer may be, from the IP header on, as the kernel knows it: by the interface and by what routers have said.
pub(super) fn mtu(server: SocketAddr, peer: SocketAddr) -> io::Result<usize> {
    let domain = if peer.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    // Connecting a UDP socket sends nothing.
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.bind(&SocketAddr::new(server.ip(), 0).into())?;
    socket.connect(&peer.into())?;
    let mtu = if peer.is_ipv4() { sockopt::ip_mtu(socket.as_fd())? } else { sockopt::ipv6_mtu(socket.as_fd())? };
    Ok(mtu.try_into().unwrap_or(usize::MAX))
}

/// The packet as it is where it is no longer than `mtu`, else in fragments.
pub(super) fn parts(packet: Vec<u8>, mtu: usize, identification: u32) -> Result<Vec<Vec<u8>>, Refusal> {
    if packet.len() <= mtu {
        return Ok(vec![packet]);
    }
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let (header, overhead) = if v6 { (Ipv6Header::LEN, FRAGMENT_HEADER) } else { (Ipv4Header::MIN_LEN, 0) };
    // In units of eight bytes.
    let room = mtu.saturating_sub(header + overhead) / 8 * 8;
    if room == 0 {
        return Err(Refusal::TooLong);
    }
    let (head, carried) = packet.split_at_checked(header).ok_or(Refusal::TooLong)?;
    let count = carried.len().div_ceil(room);
    let part = |(index, bytes): (usize, &[u8])| -> Result<Vec<u8>, Refusal> {
        let offset = u16::try_from(index * room / 8).map_err(|_| Refusal::TooLong)?;
        let more = index + 1 < count;
        let headers = if v6 {
            ipv6(head, bytes.len(), offset, more, identification)
        } else {
            ipv4(head, bytes.len(), offset, more, identification)
        };
        Ok([headers.ok_or(Refusal::TooLong)?.as_slice(), bytes].concat())
    };
    carried.chunks(room).enumerate().map(part).collect()
}

fn ipv4(head: &[u8], length: usize, offset: u16, more: bool, identification: u32) -> Option<Vec<u8>> {
    let (mut ip, _) = Ipv4Header::from_slice(head).ok()?;
    ip.set_payload_len(length).ok()?;
    // Not 0, which the kernel would fill in, for each part anew.
    ip.identification = (identification % 0xffff) as u16 + 1;
    ip.dont_fragment = false;
    ip.more_fragments = more;
    ip.fragment_offset = offset.try_into().ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    Some(ip.to_bytes().to_vec())
}

fn ipv6(head: &[u8], length: usize, offset: u16, more: bool, identification: u32) -> Option<Vec<u8>> {
    let (mut ip, _) = Ipv6Header::from_slice(head).ok()?;
    let following = std::mem::replace(&mut ip.next_header, IpNumber::IPV6_FRAGMENTATION_HEADER);
    ip.payload_length = (FRAGMENT_HEADER + length).try_into().ok()?;
    let [o0, o1] = (offset << 3 | u16::from(more)).to_be_bytes();
    let mut headers = ip.to_bytes().to_vec();
    headers.extend_from_slice(&[following.0, 0, o0, o1]);
    headers.extend_from_slice(&identification.to_be_bytes());
    Some(headers)
}
