//! Messages in the server's name: raw sockets that take whole IP packets, one for each of the server's addresses. What is longer than
//! the way to the peer takes leaves in fragments.

mod parts;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use rand::RngExt as _;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use st_core::{Refusal, Side};
use st_ebpf::abi::{ACK_BYTES, Ack, BRANCH_LEN, BRANCH_PREFIX, PEER_BRANCH_PREFIX, mapped};
use tracing::{debug, warn};

/// How many of the server's addresses have a socket at the same time; the one unused for longest gives way.
const MAX_SOCKETS: usize = 64;

/// The longest packet that is sent without a question, in bytes from the IP header on: most ways take as much (RFC 8200, section 5).
/// For a longer one, and where the interface takes less, the kernel is asked what the way takes.
const SURE: usize = 1280;

/// The longest packet, or fragment of one: the programs show no more of it, and nobody else sends longer ones on most links.
const MAX_PACKET: usize = 1500;

/// For a server whose own packets' TTL was not seen.
const DEFAULT_TTL: u8 = 64;

/// `IPPROTO_RAW`.
const RAW: i32 = libc::IPPROTO_RAW;

/// What a message leaves with.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// From: the server.
    pub server: SocketAddr,
    /// To: the next hop.
    pub peer: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit, 0 where it is not known.
    pub ttl: u8,
}

/// The raw sockets.
#[derive(Default)]
pub struct Injector {
    /// The one used last stands last.
    sockets: Vec<(IpAddr, Socket)>,
    /// Of what last left in fragments.
    identification: Option<u32>,
}

impl Injector {
    /// Whether the socket for an address is there.
    pub fn is_open(&self, server: IpAddr) -> bool {
        self.sockets.iter().any(|(address, _)| *address == server)
    }

    /// Makes sure of the socket for an address of the server's. [`Refusal::Translated`]: it is no address of this host.
    pub fn open(&mut self, server: IpAddr) -> Result<&Socket, Refusal> {
        if let Some(at) = self.sockets.iter().position(|(address, _)| *address == server) {
            let found = self.sockets.remove(at);
            self.sockets.push(found);
        } else {
            let socket = raw_socket(server).map_err(|error| refusal(server, &error))?;
            if self.sockets.len() >= MAX_SOCKETS {
                self.sockets.remove(0);
            }
            self.sockets.push((server, socket));
        }
        self.sockets.last().map(|(_, socket)| socket).ok_or(Refusal::Send)
    }

    /// Sends one message. It has left when st_egress says so, which goes by the first fragment, where there are several.
    pub fn send(&mut self, envelope: &Envelope, message: &[u8]) -> Result<(), Refusal> {
        let packet = packet(envelope, message)?;
        let server = envelope.server.ip();
        // The port of a raw socket's destination means nothing, and IPv6 refuses one that is not 0.
        let to = SocketAddr::new(envelope.peer.ip(), 0).into();
        if packet.len() <= SURE {
            match self.open(server)?.send_to(&packet, &to) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                sent => return sent.map(drop).map_err(|error| refusal(server, &error)),
            }
        }
        let mtu = parts::mtu(envelope.server, envelope.peer).unwrap_or_else(|error| {
            debug!(%server, peer = %envelope.peer, %error, "the kernel does not say how long a packet may be");
            MAX_PACKET
        });
        let parts = parts::parts(packet, mtu.min(MAX_PACKET), self.identification())?;
        let first = parts.first().ok_or(Refusal::TooLong)?;
        if parts.len() > 1 && !shows_branch(first, message) {
            return Err(Refusal::TooLong);
        }
        let socket = self.open(server)?;
        socket.send_to(first, &to).map_err(|error| refusal(server, &error))?;
        for part in &parts[1..] {
            if let Err(error) = socket.send_to(part, &to) {
                // As if it were lost on the way: copies follow.
                warn!(%server, peer = %envelope.peer, %error, "a message has left without its last fragments");
                break;
            }
        }
        Ok(())
    }

    /// The next identification of fragments: none is used twice while fragments of one may be on their way.
    fn identification(&mut self) -> u32 {
        let next = self.identification.map_or_else(|| rand::rng().random(), |last| last.wrapping_add(1));
        self.identification = Some(next);
        next
    }
}

/// An ACK as the kernel programs can send it: `message`, with `token` in its Via branch, to the 2xx of a re-INVITE that left
/// in the same envelope, in that side's name.
pub fn ready_ack(envelope: &Envelope, side: Side, token: u64, message: &[u8]) -> Result<Ack, Refusal> {
    let &Envelope { server, peer, .. } = envelope;
    let packet = match side {
        Side::Server => packet(envelope, message)?,
        Side::Peer => packet(&Envelope { server: peer, peer: server, ..*envelope }, message)?,
    };
    if packet.len() > MAX_PACKET {
        // The programs send it in one piece.
        return Err(Refusal::TooLong);
    }
    let header_len = packet.len() - message.len();
    let mut ack = Ack {
        token,
        server: mapped(server.ip()),
        peer: mapped(peer.ip()),
        server_port: server.port().to_be_bytes(),
        peer_port: peer.port().to_be_bytes(),
        orphan: 0,
        header_len: header_len.try_into().map_err(|_| Refusal::TooLong)?,
        len: message.len().try_into().map_err(|_| Refusal::TooLong)?,
        sum: message.chunks(2).map(word).sum(),
        checksum: packet[header_len - 2..header_len].try_into().map_err(|_| Refusal::TooLong)?,
        reserved: [0; 6],
        headers: [0; 48],
        message: [0; ACK_BYTES],
    };
    ack.headers.get_mut(..header_len).ok_or(Refusal::TooLong)?.copy_from_slice(&packet[..header_len]);
    ack.message.get_mut(..message.len()).ok_or(Refusal::TooLong)?.copy_from_slice(message);
    Ok(ack)
}

/// Two bytes, or the last one and a zero, as a word in memory.
fn word(bytes: &[u8]) -> u32 {
    u16::from_ne_bytes([bytes[0], bytes.get(1).copied().unwrap_or(0)]).into()
}

/// Whether the first fragment shows st_egress whose it is: a request of sipst's own whose branch it does not see would leave
/// uncommitted.
fn shows_branch(first: &[u8], message: &[u8]) -> bool {
    let branch = |prefix: [u8; 12]| message.windows(prefix.len()).position(|bytes| bytes == prefix);
    let ours = [BRANCH_PREFIX, PEER_BRANCH_PREFIX].into_iter().filter_map(branch).min();
    // A byte behind it ends it.
    let seen = first.len().saturating_sub(Ipv6Header::LEN + UdpHeader::LEN + 8);
    message.starts_with(b"SIP/2.0 ") || ours.is_none_or(|at| at + BRANCH_LEN < seen)
}

fn raw_socket(server: IpAddr) -> io::Result<Socket> {
    let domain = if server.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    socket.set_nonblocking(true)?;
    match domain {
        Domain::IPV4 => socket.set_header_included_v4(true)?,
        _ => socket.set_header_included_v6(true)?,
    }
    // What the peer answers never comes here: no room is wasted on it.
    sockopt::set_socket_recv_buffer_size(socket.as_fd(), 0)?;
    // Bound, so that rules of the kind `ip rule from ADDRESS` hold for it as they do for the server.
    socket.bind(&SocketAddr::new(server, 0).into())?;
    Ok(socket)
}

fn refusal(server: IpAddr, error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            debug!(%server, "no address of this host");
            Refusal::Translated
        }
        Some(libc::EMSGSIZE) => Refusal::TooLong,
        _ => {
            warn!(%server, %error, "cannot send in the server's name");
            Refusal::Send
        }
    }
}

/// The whole packet, however long, checksums and all.
fn packet(envelope: &Envelope, message: &[u8]) -> Result<Vec<u8>, Refusal> {
    let &Envelope { server, peer, tos, ttl } = envelope;
    let ttl = if ttl == 0 { DEFAULT_TTL } else { ttl };
    let length = UdpHeader::LEN + message.len();
    let mut packet = Vec::with_capacity(MAX_PACKET);
    match (server.ip(), peer.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let payload = u16::try_from(length).map_err(|_| Refusal::TooLong)?;
            let mut ip = Ipv4Header::new(payload, ttl, IpNumber::UDP, from.octets(), to.octets())
                .map_err(|_| Refusal::TooLong)?;
            (ip.dscp, ip.ecn) = ((tos >> 2).try_into().unwrap_or_default(), (tos & 3).try_into().unwrap_or_default());
            // An identification of 0 is filled in by the kernel.
            ip.header_checksum = ip.calc_header_checksum();
            let udp = UdpHeader::with_ipv4_checksum(server.port(), peer.port(), &ip, message);
            packet.extend_from_slice(&ip.to_bytes());
            packet.extend_from_slice(&udp.map_err(|_| Refusal::TooLong)?.to_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = Ipv6Header {
                traffic_class: tos,
                flow_label: etherparse::Ipv6FlowLabel::ZERO,
                payload_length: length.try_into().map_err(|_| Refusal::TooLong)?,
                next_header: IpNumber::UDP,
                hop_limit: ttl,
                source: from.octets(),
                destination: to.octets(),
            };
            let udp = UdpHeader::with_ipv6_checksum(server.port(), peer.port(), &ip, message);
            packet.extend_from_slice(&ip.to_bytes());
            packet.extend_from_slice(&udp.map_err(|_| Refusal::TooLong)?.to_bytes());
        }
        // The engine takes both from packets: they are of one family.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Err(Refusal::Send),
    }
    packet.extend_from_slice(message);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
    use st_core::Time;

    use super::*;
    use crate::capture::{Decoded, Decoder, Frame, Link};

    fn envelope(server: &str, peer: &str) -> Envelope {
        Envelope { server: server.parse().unwrap(), peer: peer.parse().unwrap(), tos: 0x61, ttl: 63 }
    }

    #[test]
    fn an_ipv4_packet_has_the_servers_marks_and_right_checksums() {
        for message in [&b"UPDATE"[..], b"odd", b""] {
            let bytes = packet(&envelope("192.0.2.1:5060", "198.51.100.2:5080"), message).unwrap();
            let headers = PacketHeaders::from_ip_slice(&bytes).unwrap();
            let Some(NetHeaders::Ipv4(ip, _)) = headers.net else { panic!() };
            let Some(TransportHeader::Udp(udp)) = headers.transport else { panic!() };
            assert_eq!((ip.dscp.value() << 2 | ip.ecn.value(), ip.time_to_live, ip.dont_fragment), (0x61, 63, true));
            assert_eq!((ip.source, ip.destination), ([192, 0, 2, 1], [198, 51, 100, 2]));
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((udp.source_port, udp.destination_port), (5060, 5080));
            assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, message).unwrap());
            assert_eq!(headers.payload.slice(), message);
            assert_eq!(usize::from(ip.total_len), bytes.len());
        }
    }

    #[test]
    fn an_ipv6_packet_has_the_servers_marks_and_right_checksums() {
        let bytes = packet(&envelope("[2001:db8::1]:5060", "[2001:db8::2]:5080"), b"odd").unwrap();
        let headers = PacketHeaders::from_ip_slice(&bytes).unwrap();
        let Some(NetHeaders::Ipv6(ip, _)) = headers.net else { panic!() };
        let Some(TransportHeader::Udp(udp)) = headers.transport else { panic!() };
        assert_eq!((ip.traffic_class, ip.hop_limit), (0x61, 63));
        assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, b"odd").unwrap());
        assert_eq!(headers.payload.slice(), b"odd");
    }

    #[test]
    fn a_ready_ack_is_the_packet_that_would_be_sent() {
        for (envelope, header_len) in [
            (envelope("192.0.2.1:5060", "198.51.100.2:5080"), 28),
            (envelope("[2001:db8::1]:5060", "[2001:db8::2]:5080"), 48),
        ] {
            for message in [&b"ACK"[..], b"ACK sip:b SIP/2.0"] {
                let ack = ready_ack(&envelope, Side::Server, 7, message).unwrap();
                let sent = [&ack.headers[..ack.header_len as usize], &ack.message[..ack.len as usize]].concat();
                assert_eq!(sent, packet(&envelope, message).unwrap());
                assert_eq!((ack.token, ack.header_len, ack.orphan), (7, header_len, 0));
                let PacketHeaders { transport: Some(TransportHeader::Udp(udp)), .. } =
                    PacketHeaders::from_ip_slice(&sent).unwrap()
                else {
                    panic!()
                };
                assert_eq!(ack.checksum, udp.checksum.to_be_bytes());
            }
            assert_eq!(ready_ack(&envelope, Side::Server, 7, &[b'x'; 1500]).unwrap_err(), Refusal::TooLong);
        }
    }

    #[test]
    fn a_ttl_that_was_not_seen_is_the_systems_usual_one() {
        let unknown = Envelope { ttl: 0, ..envelope("192.0.2.1:5060", "198.51.100.2:5080") };
        let bytes = packet(&unknown, b"x").unwrap();
        assert_eq!(bytes[8], DEFAULT_TTL);
    }

    #[test]
    fn what_ip_cannot_carry_is_refused() {
        let ipv4 = envelope("192.0.2.1:5060", "198.51.100.2:5080");
        assert_eq!(packet(&ipv4, &vec![b'x'; 65_507]).unwrap().len(), 65_535);
        assert_eq!(packet(&ipv4, &vec![b'x'; 65_508]), Err(Refusal::TooLong));
        let ipv6 = envelope("[2001:db8::1]:5060", "[2001:db8::2]:5080");
        assert_eq!(packet(&ipv6, &vec![b'x'; 65_527]).unwrap().len(), 65_575);
        assert_eq!(packet(&ipv6, &vec![b'x'; 65_528]), Err(Refusal::TooLong));
    }

    #[test]
    fn what_is_longer_than_the_way_takes_is_put_together_again_from_its_fragments() {
        let message: Vec<u8> = (0..5_000_u32).flat_map(|number| number.to_be_bytes()).take(6_001).collect();
        let way =
            [envelope("192.0.2.1:5060", "198.51.100.2:5080"), envelope("[2001:db8::1]:5060", "[2001:db8::2]:5080")];
        for (envelope, mtu) in way.iter().flat_map(|way| [1280, 1500, 1501, 1507].map(|mtu| (way, mtu))) {
            let whole = packet(envelope, &message).unwrap();
            let parts = parts::parts(whole, mtu, 0xffff).unwrap();
            assert!(parts.len() > 4 && parts.iter().all(|part| part.len() <= mtu));
            let mut decoder = Decoder::default();
            let mut decoded: Vec<_> = parts
                .iter()
                .rev()
                .map(|bytes| decoder.decode(&Frame { time: Time::from_micros(0), link: Link::Raw, bytes }))
                .collect();
            let Some(Decoded::Udp(datagram)) = decoded.pop() else { panic!("{envelope:?} {mtu}") };
            assert_eq!((datagram.source, datagram.destination), (envelope.server, envelope.peer));
            assert_eq!((datagram.tos, datagram.ttl, &datagram.payload[..]), (0x61, 63, &message[..]));
            assert!(decoded.iter().all(|decoded| *decoded == Decoded::Fragment));
            for part in &parts {
                if let Ok((ip, _)) = Ipv4Header::from_slice(part) {
                    assert_eq!((ip.header_checksum, ip.identification), (ip.calc_header_checksum(), 1));
                    assert!(!ip.dont_fragment);
                }
            }
            assert_eq!(parts::parts(packet(envelope, b"x").unwrap(), mtu, 7).unwrap().len(), 1);
        }
        let whole = packet(&way[0], &message).unwrap();
        assert_eq!(parts::parts(whole, 27, 7), Err(Refusal::TooLong));
    }

    #[test]
    fn a_first_fragment_that_does_not_show_whose_it_is_is_none_to_send() {
        let message = |pad: usize| {
            format!("INVITE sip:{}@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKsipst{:016x}\r\n", "x".repeat(pad), 7)
        };
        let first = [0; 1500];
        assert!(shows_branch(&first, message(1_300).as_bytes()));
        assert!(!shows_branch(&first, message(1_400).as_bytes()));
        assert!(shows_branch(&first, format!("SIP/2.0 200 OK\r\n{}", message(1_400)).as_bytes()));
        assert!(shows_branch(&first, &[b'x'; 9_000]), "the server's own");
    }

    #[test]
    fn a_long_message_arrives_over_the_loopback() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = std::net::UdpSocket::bind(any).unwrap();
            let peer = receiver.local_addr().unwrap();
            let envelope = Envelope { server: SocketAddr::new(peer.ip(), 5060), peer, tos: 0, ttl: 1 };
            assert!(parts::mtu(envelope.server, peer).unwrap() > 6_000);
            let mut injector = Injector::default();
            for length in [1_252, 1_253, 1_473, 6_001, 60_000] {
                let message = vec![b'm'; length];
                injector.send(&envelope, &message).unwrap();
                let mut buffer = vec![0; 65_536];
                let (length, from) = receiver.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from), (&message[..], envelope.server));
            }
        }
    }

    #[test]
    fn two_families_do_not_go_together() {
        assert_eq!(packet(&envelope("192.0.2.1:5060", "[2001:db8::2]:5080"), b"x"), Err(Refusal::Send));
    }

    #[test]
    fn an_address_that_is_not_this_hosts_is_refused() {
        let mut injector = Injector::default();
        assert_eq!(injector.open("192.0.2.99".parse().unwrap()).unwrap_err(), Refusal::Translated);
        injector.open("127.0.0.1".parse().unwrap()).unwrap();
        injector.open("::1".parse().unwrap()).unwrap();
    }

    #[test]
    fn there_are_never_more_sockets_than_the_limit() {
        let mut injector = Injector::default();
        let address = |last: u8| IpAddr::from([127, 0, 0, last]);
        for last in 1..=MAX_SOCKETS as u8 {
            injector.open(address(last)).unwrap();
        }
        injector.open(address(1)).unwrap();
        injector.open(address(200)).unwrap();
        assert_eq!(injector.sockets.len(), MAX_SOCKETS);
        let open = |address| injector.sockets.iter().any(|(one, _)| *one == address);
        assert!(open(address(1)) && open(address(200)) && !open(address(2)));
    }

    #[test]
    fn a_message_arrives_over_the_loopback() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = std::net::UdpSocket::bind(any).unwrap();
            let peer = receiver.local_addr().unwrap();
            let envelope = Envelope { server: SocketAddr::new(peer.ip(), 5060), peer, tos: 0, ttl: 1 };
            Injector::default().send(&envelope, b"OPTIONS").unwrap();
            let mut buffer = [0; 64];
            let (length, from) = receiver.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"OPTIONS"[..], envelope.server));
        }
    }
}
