//! Frames, built layer by layer with right checksums.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, SlicedPacket, TransportSlice, UdpHeader, ip_number};

/// What a frame is made of.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) tags: Vec<u16>,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// IPv4: with four bytes of options. IPv6: with a hop-by-hop and a destination-options header.
    pub(crate) extras: bool,
    /// Flags and offset, as in IPv4. Any value but 0 adds a fragment header to IPv6.
    pub(crate) fragment: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) protocol: IpNumber,
    pub(crate) checksum: bool,
}

impl Frame {
    pub(crate) fn new(from: &str, to: &str) -> Self {
        Self {
            tags: vec![],
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            extras: false,
            fragment: 0,
            tos: 0x68,
            ttl: 61,
            protocol: ip_number::UDP,
            checksum: true,
        }
    }

    pub(crate) fn tags(mut self, tags: &[u16]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    pub(crate) fn fragment(mut self, fragment: u16) -> Self {
        self.fragment = fragment;
        self
    }

    pub(crate) fn tcp(mut self) -> Self {
        self.protocol = ip_number::TCP;
        self
    }

    pub(crate) fn no_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    /// A UDP datagram for what IP carries.
    pub(crate) fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.from.port(), self.to.port());
        let header = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) if self.checksum => UdpHeader::with_ipv4_checksum(
                from,
                to,
                &Ipv4Header::new(0, 9, ip_number::UDP, a.octets(), b.octets()).unwrap(),
                payload,
            )
            .unwrap(),
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let ip = Ipv6Header { source: a.octets(), destination: b.octets(), ..Ipv6Header::default() };
                UdpHeader::with_ipv6_checksum(from, to, &ip, payload).unwrap()
            }
            _ => UdpHeader::without_ipv4_checksum(from, to, payload.len()).unwrap(),
        };
        [&header.to_bytes()[..], payload].concat()
    }

    /// The frame's bytes around a UDP payload.
    pub(crate) fn with(&self, payload: &[u8]) -> Vec<u8> {
        self.around(&self.udp(payload))
    }

    /// The frame's bytes around what IP carries.
    pub(crate) fn around(&self, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (index, tag) in self.tags.iter().enumerate() {
            let kind: u16 = if index + 1 < self.tags.len() { 0x88a8 } else { 0x8100 };
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&tag.to_be_bytes());
        }
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                bytes.extend_from_slice(&[0x08, 0x00]);
                let mut header =
                    Ipv4Header::new(content.len() as u16, self.ttl, self.protocol, a.octets(), b.octets()).unwrap();
                if self.extras {
                    header.options = Ipv4Options::try_from([1, 1, 1, 0].as_slice()).unwrap();
                    header.total_len += 4;
                }
                header.header_checksum = header.calc_header_checksum();
                let mut header = header.to_bytes().to_vec();
                header[1] = self.tos;
                header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
                bytes.extend_from_slice(&header);
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                bytes.extend_from_slice(&[0x86, 0xdd]);
                let mut next = self.protocol.0;
                let mut extensions = vec![];
                if self.fragment != 0 {
                    let [o0, o1] = (self.fragment << 3 | self.fragment >> 13 & 1).to_be_bytes();
                    extensions.splice(0..0, [next, 0, o0, o1, 0, 0, 0, 9]);
                    next = 44;
                }
                if self.extras {
                    extensions.splice(0..0, [next, 0, 1, 4, 0, 0, 0, 0]);
                    extensions.splice(0..0, [60, 1, 1, 4, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0]);
                    next = 0;
                }
                let header = Ipv6Header {
                    traffic_class: self.tos,
                    hop_limit: self.ttl,
                    next_header: IpNumber(next),
                    payload_length: (extensions.len() + content.len()) as u16,
                    source: a.octets(),
                    destination: b.octets(),
                    ..Ipv6Header::default()
                };
                bytes.extend_from_slice(&header.to_bytes());
                bytes.extend_from_slice(&extensions);
            }
            _ => panic!("mixed families"),
        }
        bytes.extend_from_slice(content);
        bytes
    }
}

/// Whether the frame's UDP checksum is right (or, over IPv4, absent).
pub(crate) fn checksum_is_right(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    let header = udp.to_header();
    match packet.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            let computed = header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap();
            header.checksum == 0 || header.checksum == computed
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            header.checksum == header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap()
        }
        _ => panic!("no IP"),
    }
}
