//! A capture of the corpus, as tcpdump would have written it, with or without media in it.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use etherparse::PacketBuilder;
use st_core::Direction;

use crate::calls::{SERVER, Traffic};

/// Calls at a time.
const CALLS: usize = 10_000;

/// Between two messages.
const PACE: Duration = Duration::from_millis(1);

/// A packet of G.711: a header and 20 ms.
const RTP: [u8; 172] = {
    let mut packet = [0x55; 172];
    packet[0] = 0x80;
    packet[1] = 0x08;
    packet
};

/// Writes so many messages, and before each of them so many packets of media.
pub(crate) fn write(path: &Path, messages: usize, media: usize) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    // Microseconds, version 2.4, Ethernet.
    for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, 1] {
        file.write_all(&word.to_ne_bytes())?;
    }
    let mut traffic = Traffic::new(CALLS);
    let mut now = Duration::from_secs(1_700_000_000);
    let port = |address: SocketAddr, port| SocketAddr::new(address.ip(), port);
    for _ in 0..messages {
        let message = traffic.next();
        let (from, to) = match message.direction {
            Direction::Egress => (SERVER, message.peer),
            Direction::Ingress => (message.peer, SERVER),
        };
        for _ in 0..media {
            frame(&mut file, now, port(from, 20_000), port(to, 30_000), &RTP)?;
        }
        now += PACE;
        frame(&mut file, now, from, to, message.text.as_bytes())?;
    }
    file.flush()
}

fn frame(file: &mut impl io::Write, now: Duration, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (from, to) else { panic!("the corpus is of IPv4") };
    let mut bytes = Vec::with_capacity(64 + payload.len());
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(source.ip().octets(), destination.ip().octets(), 64)
        .udp(source.port(), destination.port())
        .write(&mut bytes, payload)
        .map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).expect("one packet");
    let second = u32::try_from(now.as_secs()).expect("a time before 2106");
    for word in [second, now.subsec_micros(), length, length] {
        file.write_all(&word.to_ne_bytes())?;
    }
    file.write_all(&bytes)
}
