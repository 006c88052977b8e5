//! Datagrams that leave in short IP fragments, the last one first: what a network may make of any.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use socket2::{Domain, Protocol, Socket, Type};

/// How much of a datagram each fragment holds.
const SIZE: usize = 1_200;

/// A raw socket of the agent's host.
pub(super) struct Scatter {
    socket: Socket,
    identification: AtomicU32,
}

impl Scatter {
    pub(super) fn open(own: IpAddr) -> io::Result<Self> {
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(if own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }, Type::RAW, Some(raw))?;
        if own.is_ipv4() {
            socket.set_header_included_v4(true)?;
        } else {
            socket.set_header_included_v6(true)?;
        }
        Ok(Self { socket, identification: AtomicU32::new(1) })
    }

    pub(super) fn send(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let identification = self.identification.fetch_add(1, Ordering::Relaxed);
        let carried = carried(from, to, payload).map_err(io::Error::other)?;
        let parts: Vec<_> = carried.chunks(SIZE).collect();
        for (index, part) in parts.iter().enumerate().rev() {
            let (offset, more) = ((index * SIZE / 8) as u16, index + 1 < parts.len());
            let packet = packet(from.ip(), to.ip(), part, offset, more, identification).map_err(io::Error::other)?;
            self.socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into())?;
        }
        Ok(())
    }
}

/// The UDP datagram.
fn carried(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut udp = UdpHeader::without_ipv4_checksum(from.port(), to.port(), payload.len()).map_err(|e| text(&e))?;
    let checksum = match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => udp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload),
        (IpAddr::V6(a), IpAddr::V6(b)) => udp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload),
        _ => return Err("two families".into()),
    };
    udp.checksum = checksum.map_err(|e| text(&e))?;
    Ok([&udp.to_bytes()[..], payload].concat())
}

fn packet(
    from: IpAddr,
    to: IpAddr,
    part: &[u8],
    offset: u16,
    more: bool,
    identification: u32,
) -> Result<Vec<u8>, String> {
    match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let length = u16::try_from(part.len()).map_err(|error| error.to_string())?;
            let mut ip = Ipv4Header::new(length, 64, IpNumber::UDP, a.octets(), b.octets())
                .map_err(|error| error.to_string())?;
            ip.dont_fragment = false;
            ip.identification = identification as u16;
            ip.fragment_offset = offset.try_into().map_err(|_| "too far")?;
            ip.more_fragments = more;
            ip.header_checksum = ip.calc_header_checksum();
            Ok([&ip.to_bytes()[..], part].concat())
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let ip = Ipv6Header {
                payload_length: (8 + part.len()) as u16,
                next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                hop_limit: 64,
                source: a.octets(),
                destination: b.octets(),
                ..Ipv6Header::default()
            };
            let [o0, o1] = (offset << 3 | u16::from(more)).to_be_bytes();
            let id = identification.to_be_bytes();
            Ok([&ip.to_bytes()[..], &[IpNumber::UDP.0, 0, o0, o1], &id, part].concat())
        }
        _ => Err("two families".into()),
    }
}
