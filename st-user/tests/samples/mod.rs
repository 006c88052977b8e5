//! Captures made by hand.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::unwrap_used, reason = "what cannot be made fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use etherparse::PacketBuilder;

/// LINKTYPE numbers.
pub(crate) const LOOPBACK: u16 = 0;
pub(crate) const ETHERNET: u16 = 1;
pub(crate) const RAW: u16 = 101;
pub(crate) const SLL: u16 = 113;
pub(crate) const SLL2: u16 = 276;

/// The server and the peer of every sample.
pub(crate) const SERVER: [u8; 4] = [192, 0, 2, 1];
pub(crate) const PEER: [u8; 4] = [198, 51, 100, 2];

/// 2023-11-14T22:13:20Z, in microseconds.
pub(crate) const EPOCH: u64 = 1_700_000_000_000_000;

/// The point of time so many seconds into the sample, in microseconds.
pub(crate) fn at(seconds: u64) -> u64 {
    EPOCH + seconds * 1_000_000
}

/// Frames and their times in microseconds.
pub(crate) type Frames = Vec<(u64, Vec<u8>)>;

/// A file that goes away.
pub(crate) struct Temp(PathBuf);

impl Temp {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("sipst-sample-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An IPv4 packet with a UDP datagram.
pub(crate) fn ipv4(source: [u8; 4], destination: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(source, destination, 64).udp(ports.0, ports.1).write(&mut bytes, payload).unwrap();
    bytes
}

/// An IPv6 packet with a UDP datagram from `::1` to `::2`.
pub(crate) fn ipv6(payload: &[u8]) -> Vec<u8> {
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    (source[15], destination[15]) = (1, 2);
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(source, destination, 64).udp(5060, 5060).write(&mut bytes, payload).unwrap();
    bytes
}

/// The packet behind an Ethernet header with these VLAN tags (EtherType and id) between.
pub(crate) fn ethernet(ip: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for (ether_type, id) in tags {
        frame.extend(ether_type.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(ether_type(ip));
    frame.extend(ip);
    frame
}

/// The packet in a PPPoE session frame.
pub(crate) fn pppoe(ip: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ip.len() + 2).unwrap().to_be_bytes();
    let protocol = if ip[0] >> 4 == 4 { [0x00, 0x21] } else { [0x00, 0x57] };
    [&[2; 12][..], &[0x88, 0x64, 0x11, 0, 0, 1], &length, &protocol, ip].concat()
}

/// The packet behind a Linux "cooked" header.
pub(crate) fn sll(ip: &[u8]) -> Vec<u8> {
    [&[0; 14], &ether_type(ip)[..], ip].concat()
}

/// The packet behind one of the second version.
pub(crate) fn sll2(ip: &[u8]) -> Vec<u8> {
    [&ether_type(ip)[..], &[0; 18], ip].concat()
}

fn ether_type(ip: &[u8]) -> [u8; 2] {
    if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] }
}

/// An IPv4 packet with a UDP datagram, in fragments of `size` bytes of payload, a multiple of eight.
pub(crate) fn fragments(whole: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = whole.split_at(20);
    let chunks: Vec<_> = payload.chunks(size).collect();
    let fragment = |(index, chunk): (usize, &&[u8])| {
        let mut header = header.to_vec();
        let length = u16::try_from(20 + chunk.len()).unwrap();
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..6].copy_from_slice(&77_u16.to_be_bytes());
        let more = if index + 1 < chunks.len() { 0x2000 } else { 0 };
        let offset = more | u16::try_from(index * size / 8).unwrap();
        header[6..8].copy_from_slice(&offset.to_be_bytes());
        [&header, *chunk].concat()
    };
    chunks.iter().enumerate().map(fragment).collect()
}

/// How a pcap file is written.
#[derive(Clone, Copy)]
pub(crate) struct Pcap {
    pub(crate) big_endian: bool,
    pub(crate) nanoseconds: bool,
    pub(crate) link: u16,
}

impl Default for Pcap {
    fn default() -> Self {
        Self { big_endian: false, nanoseconds: false, link: ETHERNET }
    }
}

impl Pcap {
    /// A file of frames and their times in microseconds.
    pub(crate) fn file(self, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let magic = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut file = Vec::new();
        self.u32(&mut file, magic);
        self.u16(&mut file, 2);
        self.u16(&mut file, 4);
        [0, 0, 65_535, u32::from(self.link)].iter().for_each(|field| self.u32(&mut file, *field));
        for (time, frame) in frames {
            let fraction = time % 1_000_000 * if self.nanoseconds { 1000 } else { 1 };
            for field in [time / 1_000_000, fraction, frame.len() as u64, frame.len() as u64] {
                self.u32(&mut file, u32::try_from(field).unwrap());
            }
            file.extend(frame);
        }
        file
    }

    fn u32(self, file: &mut Vec<u8>, value: u32) {
        file.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u16(self, file: &mut Vec<u8>, value: u16) {
        file.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }
}

/// A pcapng file, written block by block.
pub(crate) struct Pcapng {
    big_endian: bool,
    file: Vec<u8>,
}

impl Pcapng {
    pub(crate) fn new(big_endian: bool) -> Self {
        let mut this = Self { big_endian, file: Vec::new() };
        this.section();
        this
    }

    /// Begins a section.
    pub(crate) fn section(&mut self) {
        let body = [&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body);
    }

    /// Describes an interface; `resolution` is `if_tsresol`.
    pub(crate) fn interface(&mut self, link: u16, resolution: Option<u8>) {
        let mut body = [&self.u16(link)[..], &self.u16(0), &self.u32(0)].concat();
        if let Some(resolution) = resolution {
            body.extend([&self.u16(9)[..], &self.u16(1), &[resolution, 0, 0, 0]].concat());
            body.extend(self.u32(0));
        }
        self.block(1, &body);
    }

    /// A packet of an interface, with its time in the interface's own units.
    pub(crate) fn packet(&mut self, interface: u32, stamp: u64, frame: &[u8]) {
        let (high, low) = ((stamp >> 32) as u32, stamp as u32);
        let length = u32::try_from(frame.len()).unwrap();
        let mut body: Vec<u8> = [interface, high, low, length, length].iter().flat_map(|f| self.u32(*f)).collect();
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body);
    }

    /// A packet without a time.
    pub(crate) fn simple(&mut self, frame: &[u8]) {
        let mut body = self.u32(u32::try_from(frame.len()).unwrap()).to_vec();
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(3, &body);
    }

    pub(crate) fn file(self) -> Vec<u8> {
        self.file
    }

    pub(crate) fn block(&mut self, kind: u32, body: &[u8]) {
        let length = self.u32(u32::try_from(body.len() + 12).unwrap());
        let block = [&self.u32(kind)[..], &length, body, &length].concat();
        self.file.extend(block);
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// A SIP message of the sample call, which the server makes and to whose INVITE the peer answers with `2xx`. `start` is
/// the first line, `more` are header lines that end with CRLF.
pub(crate) fn sip(start: &str, cseq: &str, branch: &str, to_tag: bool, more: &str) -> Vec<u8> {
    let tag = if to_tag { ";tag=peer" } else { "" };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{branch}\r\nFrom: <sip:s@192.0.2.1>;tag=server\r\n\
         To: <sip:p@198.51.100.2>{tag}\r\nCall-ID: sample\r\nCSeq: {cseq}\r\n{more}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// One call: the server (no timers) invites, the peer says `Session-Expires: 90;refresher=uac`, the server hangs up after
/// `bye` seconds. Ethernet frames and their times.
pub(crate) fn call(bye: u64) -> Frames {
    let contact = |who: [u8; 4]| format!("Contact: <sip:x@{}.{}.{}.{}>\r\n", who[0], who[1], who[2], who[3]);
    let expires = format!("{}Require: timer\r\nSession-Expires: 90;refresher=uac\r\n", contact(PEER));
    let out = |seconds, message: Vec<u8>| (at(seconds), ethernet(&ipv4(SERVER, PEER, (5060, 5060), &message), &[]));
    let back = |seconds, message: Vec<u8>| (at(seconds), ethernet(&ipv4(PEER, SERVER, (5060, 5060), &message), &[]));
    let uri = "sip:p@198.51.100.2";
    vec![
        out(0, sip(&format!("INVITE {uri} SIP/2.0"), "1 INVITE", "1", false, &contact(SERVER))),
        back(0, sip("SIP/2.0 180 Ringing", "1 INVITE", "1", true, &contact(PEER))),
        back(1, sip("SIP/2.0 200 OK", "1 INVITE", "1", true, &expires)),
        out(1, sip(&format!("ACK {uri} SIP/2.0"), "1 ACK", "2", true, "")),
        out(bye, sip(&format!("BYE {uri} SIP/2.0"), "2 BYE", "3", true, "")),
        back(bye, sip("SIP/2.0 200 OK", "2 BYE", "3", true, "")),
    ]
}
