//! Reassembly: whatever comes on a connection, cut anyhow, has the same messages; whatever comes on many, nothing grows.

use std::net::SocketAddr;

use st_core::{
    Direction, Packet, Time, Transport,
    stream::{MAX_AHEAD_BYTES, MAX_HEADER, MAX_STREAMED, StreamLimits, Streams, Tcp},
};

use crate::input::Input;

/// One byte says how it is cut, the rest are the bytes of one direction; then all of it as decisions about many.
pub fn stream(data: &[u8]) {
    let mut input = Input::new(data);
    let size = usize::from(input.byte()) + 1;
    let bytes = input.rest();
    let whole = messages(bytes.chunks(4_096));
    assert_eq!(whole, messages(bytes.chunks(size)), "cut every {size} bytes");
    anything(Input::new(data));
}

fn packet(direction: Direction, port: u8, bytes: &[u8]) -> Packet<'_> {
    Packet {
        direction,
        server: SocketAddr::new([192, 0, 2, 1].into(), 5060),
        peer: SocketAddr::new([198, 51, 100, 1].into(), 1_024 + u16::from(port)),
        transport: Transport::Tcp,
        interface: 2,
        tos: 0,
        ttl: 64,
        cookie: 0,
        truncated: false,
        bytes,
    }
}

/// What is found in a direction whose beginning was seen.
fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, bool)> {
    let (mut streams, mut found, now) = (Streams::default(), Vec::new(), Time::from_micros(0));
    let mut tcp = Tcp { sequence: u32::MAX - 300, syn: true, ..Tcp::default() };
    streams.handle_segment(now, &packet(Direction::Egress, 0, b""), tcp, &mut |_| {});
    tcp = Tcp { sequence: tcp.sequence.wrapping_add(1), syn: false, ..tcp };
    for piece in pieces {
        streams.handle_segment(now, &packet(Direction::Egress, 0, piece), tcp, &mut |packet| {
            assert!(packet.bytes.len() <= MAX_STREAMED);
            found.push((packet.bytes.to_vec(), packet.truncated));
        });
        tcp.sequence = tcp.sequence.wrapping_add(piece.len() as u32);
        assert!(streams.held() <= MAX_STREAMED.max(MAX_HEADER));
    }
    assert_eq!(streams.timeout(), None);
    found
}

/// Segments of any kind on a few connections.
fn anything(mut input: Input<'_>) {
    const LIMITS: StreamLimits = StreamLimits { connections: 4, bytes: 1_000 };
    let (mut streams, mut now) = (Streams::new(LIMITS), Time::from_micros(0));
    while !input.is_empty() {
        let direction = if input.flag() { Direction::Egress } else { Direction::Ingress };
        let port = input.byte() % 8;
        let flags = input.byte();
        let sequence = match flags >> 5 {
            // Near to each other, far off, at the end of the scale.
            0..=5 => u32::from(input.byte()),
            6 => input.word(),
            _ => u32::MAX - u32::from(input.byte()),
        };
        let [syn, ack, fin, rst] = [1, 2, 4, 8].map(|bit| flags & bit != 0);
        let tcp = Tcp { sequence, syn: syn && !ack, ack, fin: fin && syn, rst: rst && fin };
        now = now + std::time::Duration::from_millis(u64::from(flags >> 4) * 100);
        let bytes = input.bytes();
        let mut check = |packet: &Packet<'_>| assert!(packet.bytes.len() <= MAX_STREAMED);
        streams.handle_segment(now, &packet(direction, port, bytes), tcp, &mut check);
        assert!(streams.connections() <= LIMITS.connections && streams.held() <= LIMITS.bytes);
        if flags & 16 != 0 {
            streams.handle_timeout(now, &mut check);
        }
        assert!(streams.timeout().is_none_or(|at| at > now));
    }
    now = now + std::time::Duration::from_secs(3_600);
    streams.handle_timeout(now, &mut |_| {});
    assert_eq!((streams.connections(), streams.held(), streams.timeout()), (0, 0, None));
    const { assert!(MAX_AHEAD_BYTES < MAX_STREAMED + MAX_HEADER) };
}
