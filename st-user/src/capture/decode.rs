//! From a frame to the UDP datagram or TCP segment in it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use etherparse::{
    EtherType, IpNumber, Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice, UdpSlice,
};
use st_core::{
    Time, Transport,
    reassembly::{Counts, Fragment, Id, Outcome, Reassembly},
    stream::Tcp,
};

use super::{Datagram, Decoded, Frame, Link, Segment};

/// Bytes of a Linux "cooked" header, and where the protocol stands in it.
const SLL: (usize, usize) = (16, 14);
const SLL2: (usize, usize) = (20, 0);
/// Bytes of the address family on a BSD loopback.
const FAMILY: usize = 4;

/// Decodes frames; keeps fragments until they are complete.
#[derive(Default)]
pub struct Decoder {
    fragments: Reassembly<()>,
}

/// What the IP header says about a packet.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    ttl: u8,
}

impl Decoder {
    /// How many datagrams were put together from fragments.
    pub fn reassembled(&self) -> u64 {
        self.fragments.counts().whole
    }

    /// How many datagrams lack fragments, those that wait for some included, or have such as cannot be used.
    pub fn incomplete(&self) -> u64 {
        let Counts { whole: _, incomplete, headless, overlapping, too_many, malformed: _, displaced } =
            self.fragments.counts();
        incomplete + headless + overlapping + too_many + displaced + self.fragments.waiting().0 as u64
    }

    /// What the frame is.
    pub fn decode<'a>(&mut self, frame: &Frame<'a>) -> Decoded<'a> {
        let packet = match frame.link {
            Link::Ethernet => LaxSlicedPacket::from_ethernet(frame.bytes).ok(),
            Link::Loopback => frame.bytes.get(FAMILY..).and_then(|ip| LaxSlicedPacket::from_ip(ip).ok()),
            Link::Raw => LaxSlicedPacket::from_ip(frame.bytes).ok(),
            Link::Sll => cooked(frame.bytes, SLL),
            Link::Sll2 => cooked(frame.bytes, SLL2),
            Link::Unknown(_) => return Decoded::UnknownLink,
        };
        match packet.map(|packet| pppoe(&packet).unwrap_or(packet)) {
            Some(packet) => self.packet(frame.time, packet),
            None => Decoded::Other,
        }
    }

    fn packet<'a>(&mut self, now: Time, packet: LaxSlicedPacket<'a>) -> Decoded<'a> {
        let Some(net) = packet.net else { return Decoded::Other };
        let Some(ip) = ip(&net) else { return Decoded::Other };
        let Some(payload) = net.ip_payload_ref() else { return Decoded::Other };
        if payload.fragmented {
            return self.fragment(now, &net, &ip);
        }
        match packet.transport {
            Some(TransportSlice::Udp(udp)) => Decoded::Udp(datagram(&ip, &udp, payload.incomplete, Cow::Borrowed)),
            Some(TransportSlice::Tcp(tcp)) => Decoded::Tcp(segment(&ip, &tcp)),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => {
                Decoded::Other
            }
        }
    }

    fn fragment<'a>(&mut self, now: Time, net: &LaxNetSlice<'a>, ip: &Ip) -> Decoded<'a> {
        let Some(fragment) = fragment(net, ip) else { return Decoded::Fragment };
        if fragment.id.protocol != IpNumber::UDP.0 {
            return Decoded::Other;
        }
        let Outcome::Whole((), whole) = self.fragments.add(now, &fragment, || ()) else { return Decoded::Fragment };
        match UdpSlice::from_slice_lax(&whole) {
            Ok(udp) => Decoded::Udp(datagram(ip, &udp, false, |payload| Cow::Owned(payload.to_vec()))),
            Err(_) => Decoded::Other,
        }
    }
}

/// The IP packet in a PPPoE session frame (RFC 2516, section 4; PPP protocol numbers from RFC 1332 and RFC 5072).
fn pppoe<'a>(packet: &LaxSlicedPacket<'a>) -> Option<LaxSlicedPacket<'a>> {
    const SESSION: EtherType = EtherType(0x8864);
    let payload = packet.ether_payload().filter(|payload| payload.ether_type == SESSION)?.payload;
    match payload.get(..8)? {
        [0x11, 0, _, _, _, _, 0x00, 0x21 | 0x57] => LaxSlicedPacket::from_ip(payload.get(8..)?).ok(),
        _ => None,
    }
}

fn cooked(bytes: &[u8], (length, protocol): (usize, usize)) -> Option<LaxSlicedPacket<'_>> {
    let ether_type = bytes.get(protocol..protocol + 2)?.try_into().ok().map(u16::from_be_bytes)?;
    Some(LaxSlicedPacket::from_ether_type(EtherType(ether_type), bytes.get(length..)?))
}

fn ip(net: &LaxNetSlice<'_>) -> Option<Ip> {
    match net {
        LaxNetSlice::Ipv4(slice) => {
            let header = slice.header();
            Some(Ip {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                tos: header.dcp().value() << 2 | header.ecn().value(),
                ttl: header.ttl(),
            })
        }
        LaxNetSlice::Ipv6(slice) => {
            let header = slice.header();
            Some(Ip {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                tos: header.traffic_class(),
                ttl: header.hop_limit(),
            })
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// `None` where the capture kept only a part of it.
fn fragment<'a>(net: &LaxNetSlice<'a>, ip: &Ip) -> Option<Fragment<'a>> {
    let (identification, offset, more, payload) = match net {
        LaxNetSlice::Ipv4(slice) => {
            let header = slice.header();
            let more = header.more_fragments();
            (header.identification().into(), header.fragments_offset(), more, slice.payload())
        }
        LaxNetSlice::Ipv6(slice) => {
            let header = slice.extensions().clone().into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(header) => Some(header),
                Ipv6ExtensionSlice::HopByHop(_)
                | Ipv6ExtensionSlice::Routing(_)
                | Ipv6ExtensionSlice::DestinationOptions(_)
                | Ipv6ExtensionSlice::Authentication(_) => None,
            })?;
            (header.identification(), header.fragment_offset(), header.more_fragments(), slice.payload())
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let id = Id { source: ip.source, destination: ip.destination, identification, protocol: payload.ip_number.0 };
    (!payload.incomplete).then_some(Fragment { id, offset: offset.value(), more, bytes: payload.payload })
}

fn datagram<'a, 'b>(
    ip: &Ip,
    udp: &UdpSlice<'b>,
    incomplete: bool,
    keep: impl FnOnce(&'b [u8]) -> Cow<'a, [u8]>,
) -> Datagram<'a> {
    Datagram {
        transport: Transport::Udp,
        source: SocketAddr::new(ip.source, udp.source_port()),
        destination: SocketAddr::new(ip.destination, udp.destination_port()),
        tos: ip.tos,
        ttl: ip.ttl,
        cut: incomplete || usize::from(udp.length()) > udp.slice().len(),
        payload: keep(udp.payload()),
    }
}

fn segment<'a>(ip: &Ip, tcp: &TcpSlice<'a>) -> Segment<'a> {
    let (sequence, syn, ack) = (tcp.sequence_number(), tcp.syn(), tcp.ack());
    Segment {
        source: SocketAddr::new(ip.source, tcp.source_port()),
        destination: SocketAddr::new(ip.destination, tcp.destination_port()),
        tos: ip.tos,
        ttl: ip.ttl,
        tcp: Tcp { sequence, syn, ack, fin: tcp.fin(), rst: tcp.rst() },
        payload: tcp.payload(),
    }
}
