//! Streams of messages, cut and mixed up.

use proptest::prelude::*;

use super::*;

const SERVER: &str = "192.0.2.1:5060";
const PEER: &str = "198.51.100.7:40000";

fn message(method: &str, number: usize, body: usize) -> Vec<u8> {
    let body = "v".repeat(body);
    format!(
        "{method} sip:b@c SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK{number}\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:b@c>;tag=2\r\nCall-ID: c\r\nCSeq: {number} {method}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn packet(direction: Direction, bytes: &[u8]) -> Packet<'_> {
    Packet {
        direction,
        server: SERVER.parse().unwrap(),
        peer: PEER.parse().unwrap(),
        transport: Transport::Tcp,
        interface: 2,
        tos: 0x60,
        ttl: 64,
        cookie: 7,
        truncated: false,
        bytes,
    }
}

/// A side that sends, and what was found in it.
struct Wire {
    streams: Streams,
    now: Time,
    found: Vec<(Vec<u8>, bool)>,
}

impl Wire {
    fn new() -> Self {
        Self { streams: Streams::default(), now: Time::from_micros(0), found: Vec::new() }
    }

    fn tcp(&mut self, direction: Direction, tcp: Tcp, bytes: &[u8]) {
        let Self { streams, now, found } = self;
        streams.handle_segment(*now, &packet(direction, bytes), tcp, &mut |packet| {
            found.push((packet.bytes.to_vec(), packet.truncated));
        });
    }

    fn syn(&mut self, first: u32) {
        self.tcp(Direction::Egress, Tcp { sequence: first.wrapping_sub(1), syn: true, ..Tcp::default() }, b"");
    }

    fn send(&mut self, sequence: u32, bytes: &[u8]) {
        self.tcp(Direction::Egress, Tcp { sequence, ack: true, ..Tcp::default() }, bytes);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        let Self { streams, now, found } = self;
        streams.handle_timeout(*now, &mut |packet| found.push((packet.bytes.to_vec(), packet.truncated)));
    }

    fn whole(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.found)
            .into_iter()
            .map(|(bytes, truncated)| {
                assert!(!truncated, "{}", bytes.escape_ascii());
                bytes
            })
            .collect()
    }
}

#[test]
fn several_messages_in_one_segment_and_one_over_many_are_the_same() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let both = [a.clone(), b.clone()].concat();
    let mut wire = Wire::new();
    wire.syn(1_000);
    wire.send(1_000, &both);
    assert_eq!(wire.whole(), [a.clone(), b.clone()]);
    for (at, byte) in both.iter().enumerate() {
        wire.send(1_000 + (both.len() + at) as u32, &[*byte]);
    }
    assert_eq!(wire.whole(), [a, b]);
    assert_eq!(wire.streams.held(), 0);
}

#[test]
fn empty_lines_between_messages_are_no_messages() {
    let (a, b) = (message("INVITE", 1, 0), message("BYE", 2, 0));
    for blank in [&b"\r\n\r\n"[..], b"\r\n", b"\n", b"\r\n\r\n\r\n\r\n"] {
        let all = [blank, &a, blank, &b, blank].concat();
        let mut wire = Wire::new();
        wire.syn(0);
        wire.send(0, &all);
        assert_eq!(wire.whole(), [a.clone(), b.clone()]);
        assert_eq!(wire.streams.held(), 0);
    }
}

#[test]
fn a_connection_joined_in_the_middle_of_a_message_is_read_from_the_next_one_on() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    for from in 1..a.len() {
        let mut wire = Wire::new();
        wire.send(5, &a[from..]);
        wire.send(5 + (a.len() - from) as u32, &b);
        assert_eq!(wire.whole(), std::slice::from_ref(&b), "from {from}");
    }
    // At a message's beginning nothing is lost.
    let mut wire = Wire::new();
    wire.send(5, &a);
    assert_eq!(wire.whole(), [a]);
}

#[test]
fn what_begins_like_a_message_inside_another_one_is_passed_over() {
    let fragment = b"SIP/2.0 200 OK\r\n";
    let b = message("BYE", 2, 0);
    let mut wire = Wire::new();
    // Joined at a NOTIFY's body (RFC 3420).
    wire.send(0, &[&fragment[..], &b].concat());
    assert_eq!(wire.whole(), std::slice::from_ref(&b));
    // The same that does not end its line.
    let mut wire = Wire::new();
    wire.send(0, &[&fragment[..14], &b].concat());
    assert_eq!(wire.whole(), std::slice::from_ref(&b));
    let mut wire = Wire::new();
    wire.send(0, &[&b"{}SIP/2.0 200 OK\r\n"[..], &b[b"BYE sip:b@c SIP/2.0\r\n".len()..]].concat());
    assert!(wire.whole()[0].starts_with(b"SIP/2.0 200 OK"));
}

#[test]
fn what_was_there_before_is_not_read_again_and_what_comes_first_counts() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let mut wire = Wire::new();
    wire.syn(0);
    wire.send(0, &a);
    wire.send(0, &a);
    wire.send(100, &[&a[100..], &b[..10]].concat());
    // A probe that asks whether the other end is still there repeats a byte.
    wire.send(a.len() as u32 + 9, b"x");
    wire.send(a.len() as u32 - 50, &[&a[a.len() - 50..], &b].concat());
    assert_eq!(wire.whole(), [a, b]);
    assert_eq!(wire.streams.stats().repeated, 2);
}

#[test]
fn numbers_go_round_the_end_of_their_scale() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let both = [a.clone(), b.clone()].concat();
    let first = u32::MAX - 100;
    let mut wire = Wire::new();
    wire.syn(first);
    for at in (0..both.len()).step_by(50).rev() {
        wire.send(first.wrapping_add(at as u32), &both[at..both.len().min(at + 50)]);
    }
    assert_eq!(wire.whole(), [a, b]);
    assert_eq!(wire.streams.timeout(), None);
}

#[test]
fn what_is_missing_is_waited_for_and_then_gone_over() {
    let (a, b, c) = (message("INVITE", 1, 300), message("INFO", 2, 0), message("BYE", 3, 0));
    let all = [a.clone(), b.clone(), c.clone()].concat();
    let at = a.len() + 20;
    for is_late in [true, false] {
        let mut wire = Wire::new();
        wire.syn(0);
        wire.send(0, &all[..at]);
        wire.send(at as u32 + 30, &all[at + 30..]);
        assert_eq!(wire.whole(), std::slice::from_ref(&a));
        assert_eq!(wire.streams.timeout(), Some(wire.now + GAP_PATIENCE));
        wire.wait(GAP_PATIENCE - Duration::from_micros(1));
        // A copy of something else does not begin the time anew.
        wire.send(0, &all[..at]);
        assert_eq!(wire.whole(), Vec::<Vec<u8>>::new());
        if is_late {
            wire.send(at as u32, &all[at..at + 30]);
            assert_eq!(wire.whole(), [b.clone(), c.clone()]);
        } else {
            wire.wait(Duration::from_micros(1));
            assert_eq!(wire.whole(), std::slice::from_ref(&c));
            let StreamStats { gaps, missing_bytes, lost, .. } = wire.streams.stats();
            assert_eq!((gaps, missing_bytes, lost), (1, 30, 1));
        }
        // Whose connection that was is told once.
        let peers = if is_late { vec![] } else { vec![PEER.parse::<SocketAddr>().unwrap().ip()] };
        let missed = wire.streams.missed();
        assert_eq!((missed.peers.into_iter().collect::<Vec<_>>(), missed.others), (peers, false));
        assert_eq!(wire.streams.missed(), Missed::default());
        assert_eq!((wire.streams.timeout(), wire.streams.held()), (None, 0));
    }
}

#[test]
fn a_gap_within_a_body_costs_no_more_than_that_body() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let all = [a.clone(), b.clone()].concat();
    let hole = a.len() - 100;
    let mut wire = Wire::new();
    wire.syn(0);
    wire.send(0, &all[..hole]);
    wire.send(hole as u32 + 50, &all[hole + 50..]);
    wire.wait(GAP_PATIENCE);
    assert_eq!(wire.found, [(a[..hole].to_vec(), true), (b, false)]);
    assert_eq!(wire.streams.stats().lost, 0);
}

#[test]
fn too_much_that_waits_for_what_is_missing_goes_over_it_at_once() {
    let each = message("INFO", 1, 0);
    for (piece, pieces) in [(1, MAX_AHEAD + 1), (4_096, MAX_AHEAD_BYTES / 4_096 + 1)] {
        let mut wire = Wire::new();
        wire.syn(0);
        for number in 0..pieces {
            let bytes: Vec<u8> = each.iter().copied().cycle().take(piece).collect();
            wire.send(10 + (number * (piece + 1)) as u32, &bytes);
            assert!(wire.streams.held() <= MAX_AHEAD_BYTES + MAX_HEADER);
        }
        assert!(wire.streams.stats().gaps > 0);
    }
}

#[test]
fn of_a_message_that_is_too_long_the_header_is_told_and_the_rest_passed_over() {
    let b = message("BYE", 2, 0);
    for body in [MAX_STREAMED - 200, MAX_STREAMED, 3 << 20] {
        let a = message("MESSAGE", 1, body);
        let header = a.len() - body;
        let is_long = a.len() > MAX_STREAMED;
        let mut wire = Wire::new();
        wire.syn(0);
        let mut at = 0;
        for piece in [&a[..], &b].concat().chunks(1_400) {
            wire.send(at, piece);
            at += piece.len() as u32;
            assert!(!is_long || wire.streams.held() <= header);
        }
        let expected = if is_long { (a[..header].to_vec(), true) } else { (a, false) };
        assert_eq!(wire.found, [expected, (b.clone(), false)]);
    }
}

#[test]
fn a_header_or_a_line_without_end_is_not_kept() {
    let b = message("BYE", 2, 0);
    let endless = [
        [&b"INVITE sip:b@c SIP/2.0\r\n"[..], &b"X: yz\r\n".repeat(10_000)].concat(),
        [&b"INVITE sip:"[..], &b"x".repeat(50_000), b"\r\n"].concat(),
        b"\x01".repeat(50_000),
    ];
    for mut endless in endless {
        endless.extend_from_slice(b"\r\n\r\n");
        let mut wire = Wire::new();
        wire.syn(0);
        let mut at = 0;
        for piece in [&endless[..], &b].concat().chunks(100) {
            wire.send(at, piece);
            at += piece.len() as u32;
            assert!(wire.streams.held() <= MAX_HEADER, "{}", wire.streams.held());
        }
        assert_eq!(wire.whole(), std::slice::from_ref(&b));
        assert_eq!(wire.streams.stats().lost, 1);
    }
}

#[test]
fn a_length_that_says_nothing_or_two_things_costs_that_message_alone() {
    let (a, b) = (String::from_utf8(message("INVITE", 1, 3)).unwrap(), message("BYE", 2, 0));
    for length in ["x", "-3", "99999999999", "3\r\nContent-Length: 4", "3\r\nl: 5"] {
        let a = a.replace("Content-Length: 3", &format!("Content-Length: {length}"));
        let mut wire = Wire::new();
        wire.syn(0);
        wire.send(0, &[a.as_bytes(), b"\r\n", &b].concat());
        assert_eq!(wire.whole(), std::slice::from_ref(&b), "{length}");
    }
    // Without one there is no body (RFC 3261, section 18.3 demands one).
    let bare = message("INFO", 1, 0);
    let bare = String::from_utf8(bare).unwrap().replace("Content-Length: 0\r\n", "").into_bytes();
    let mut wire = Wire::new();
    wire.syn(0);
    wire.send(0, &[&bare[..], &b].concat());
    assert_eq!(wire.whole(), [bare, b]);
}

#[test]
fn a_new_connection_between_the_same_ends_begins_anew_and_an_old_one_is_over() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let mut wire = Wire::new();
    wire.syn(0);
    wire.send(0, &a[..200]);
    // The same SYN again is no new connection.
    wire.syn(0);
    wire.send(200, &a[200..]);
    assert_eq!(wire.whole(), std::slice::from_ref(&a));
    wire.send(a.len() as u32, &b[..20]);
    wire.syn(77_000_000);
    assert_eq!((wire.streams.connections(), wire.streams.held()), (1, 0));
    wire.send(77_000_000, &b);
    assert_eq!(wire.whole(), std::slice::from_ref(&b));
    wire.tcp(Direction::Egress, Tcp { sequence: 77_000_000 + b.len() as u32, rst: true, ..Tcp::default() }, b"");
    assert_eq!(wire.streams.connections(), 0);
    // Without its SYN seen, by how far off its numbers are.
    wire.send(5, &a[..100]);
    wire.send(2_000_000_000, &b);
    assert_eq!(wire.whole(), [b]);
}

#[test]
fn a_connection_that_both_sides_have_ended_is_gone_once_all_of_it_was_seen() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let mut wire = Wire::new();
    wire.syn(0);
    let fin = |sequence| Tcp { sequence, fin: true, ack: true, ..Tcp::default() };
    wire.tcp(Direction::Ingress, fin(9), b"");
    wire.tcp(Direction::Egress, fin(a.len() as u32), &b);
    assert_eq!((wire.streams.connections(), wire.whole().len()), (1, 0));
    wire.send(0, &a);
    assert_eq!(wire.whole(), [a, b]);
    assert_eq!((wire.streams.connections(), wire.streams.held()), (0, 0));
}

#[test]
fn a_missing_part_is_gone_over_at_the_end_too() {
    let (a, b) = (message("INVITE", 1, 300), message("BYE", 2, 0));
    let mut wire = Wire::new();
    wire.syn(0);
    wire.send(a.len() as u32, &b);
    wire.tcp(Direction::Egress, Tcp { sequence: (a.len() + b.len()) as u32, fin: true, ..Tcp::default() }, b"");
    wire.wait(GAP_PATIENCE);
    assert_eq!(wire.whole(), [b]);
}

#[test]
fn what_cannot_be_read_is_named_and_counted_once_a_connection() {
    let hello = [&[22_u8, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 300]].concat();
    let upgrade = b"GET /ws HTTP/1.1\r\nHost: a\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n";
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let other = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let noise = b"\x80\x01\x02\n".repeat(UNREADABLE as usize / 4);
    let cases: [(&[u8], [u64; 3]); 5] =
        [(&hello, [1, 0, 0]), (upgrade, [0, 1, 0]), (switch, [0, 1, 0]), (&noise, [0, 0, 1]), (other, [0, 0, 0])];
    for (bytes, expected) in cases {
        for (joined, piece) in [(false, 5_000), (false, 1), (true, 5_000), (true, 1)] {
            let mut wire = Wire::new();
            if !joined {
                wire.syn(0);
            }
            for (at, bytes) in bytes.chunks(piece).enumerate() {
                wire.send((at * piece) as u32, bytes);
            }
            let StreamStats { tls, websocket, unknown, messages, .. } = wire.streams.stats();
            assert_eq!(([tls, websocket, unknown], messages), (expected, 0), "{}", bytes.escape_ascii());
            // More of it is not counted again, and holds nothing up.
            for at in 0..10 {
                wire.send((bytes.len() + at * 1_000) as u32, &[0x99; 1_000]);
            }
            let StreamStats { tls, websocket, unknown, .. } = wire.streams.stats();
            assert_eq!([tls, websocket, unknown], expected);
            assert!(wire.streams.held() <= MAX_HEADER);
        }
    }
}

#[test]
fn no_more_connections_and_bytes_are_kept_than_the_limits_allow() {
    let part = &message("INVITE", 1, 3_000)[..2_000];
    let limits = StreamLimits { connections: 10, bytes: 9_000 };
    let mut streams = Streams::new(limits);
    for port in 0..100_u16 {
        let peer = SocketAddr::new([198, 51, 100, 7].into(), 1_000 + port);
        let packet = Packet { peer, ..packet(Direction::Ingress, part) };
        streams.handle_segment(Time::from_micros(0), &packet, Tcp::default(), &mut |_| {});
        assert!(streams.connections() <= limits.connections && streams.held() <= limits.bytes);
    }
    assert_eq!((streams.connections(), streams.held(), streams.stats().evicted), (4, 8_000, 96));
    // With each of these half a message went.
    let peers = BTreeSet::from([[198, 51, 100, 7].into()]);
    assert_eq!(streams.missed(), Missed { peers, others: false });
    // Empty ones keep nothing but a place.
    for port in 0..100_u16 {
        let peer = SocketAddr::new([198, 51, 100, 8].into(), 1_000 + port);
        let packet = Packet { peer, ..packet(Direction::Ingress, b"") };
        streams.handle_segment(Time::from_micros(0), &packet, Tcp { syn: true, ..Tcp::default() }, &mut |_| {});
        // An end of what is not known makes no place.
        streams.handle_segment(Time::from_micros(0), &packet, Tcp { fin: true, ..Tcp::default() }, &mut |_| {});
    }
    assert_eq!((streams.connections(), streams.held()), (10, 0));
    streams.handle_timeout(Time::from_micros(0) + IDLE, &mut |_| {});
    assert_eq!(streams.connections(), 0);
}

#[test]
fn of_more_peers_than_are_remembered_it_is_told_that_there_were_others() {
    let part = &message("INVITE", 1, 3_000)[..2_000];
    let mut streams = Streams::new(StreamLimits { connections: 1, bytes: 9_000 });
    for host in 0..=MAX_MISSED + 1 {
        let peer = SocketAddr::new([198, 51, 100, host as u8].into(), 5060);
        let packet = Packet { peer, ..packet(Direction::Ingress, part) };
        streams.handle_segment(Time::from_micros(0), &packet, Tcp::default(), &mut |_| {});
    }
    let Missed { peers, others } = streams.missed();
    assert_eq!((peers.len(), others), (MAX_MISSED, true));
}

#[test]
fn a_message_comes_with_what_its_segment_came_with() {
    let a = message("INVITE", 1, 0);
    let mut seen = Vec::new();
    let mut streams = Streams::default();
    streams.handle_segment(Time::from_micros(0), &packet(Direction::Egress, &a), Tcp::default(), &mut |packet| {
        let Packet { direction, server, peer, transport, interface, tos, ttl, cookie, .. } = *packet;
        seen.push((direction, server.to_string(), peer.to_string(), transport, interface, tos, ttl, cookie));
    });
    let expected = (Direction::Egress, SERVER.into(), PEER.into(), Transport::Tcp, 2, 0x60, 64, 7);
    assert_eq!(seen, [expected]);
}

/// Where the pieces of a stream begin and end, in the order in which they come; each byte is in one at least. They are fewer than may wait.
fn pieces(length: usize) -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..length, 1..400_usize), 0..MAX_AHEAD / 2).prop_flat_map(move |extra| {
        let mut cuts: Vec<usize> = extra.iter().map(|(at, _)| *at).chain([0, length]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut all: Vec<(usize, usize)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
        // Some of it twice, cut otherwise.
        all.extend(extra.iter().map(|(at, more)| (*at, length.min(at + more))));
        Just(all).prop_shuffle()
    })
}

proptest! {
    #[test]
    fn a_stream_cut_and_mixed_up_anyhow_has_the_same_messages(
        (bodies, first, pieces) in (proptest::collection::vec(0..700_usize, 1..12), any::<u32>()).prop_flat_map(
            |(bodies, first)| {
                let length = bodies.iter().enumerate().map(|(at, body)| message("INFO", at, *body).len()).sum();
                (Just(bodies), Just(first), pieces(length))
            }
        )
    ) {
        let sent: Vec<Vec<u8>> = bodies.iter().enumerate().map(|(at, body)| message("INFO", at, *body)).collect();
        let all = sent.concat();
        let mut wire = Wire::new();
        wire.syn(first);
        for (from, to) in pieces {
            wire.send(first.wrapping_add(from as u32), &all[from..to]);
        }
        prop_assert_eq!(wire.whole(), sent);
        prop_assert_eq!((wire.streams.held(), wire.streams.timeout()), (0, None));
    }
}
