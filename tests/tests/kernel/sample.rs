//! What goes into the ring, what stays in the kernel, and what each record says.

use st_ebpf::abi::{Counter, RING_BYTES, direction, flags, kind, mapped};

use crate::{
    frame::Frame,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

struct Case {
    description: &'static str,
    message: String,
    /// The one counter beside `Seen` that goes up; `Sampled` means a record with the message's own bytes.
    counter: Counter,
}

fn case(description: &'static str, message: impl Into<String>, counter: Counter) -> Case {
    Case { description, message: message.into(), counter }
}

fn outside(method: &str) -> String {
    request(method, " 1 X").replace(";tag=peer", "")
}

fn cases() -> Vec<Case> {
    use Counter::{KeepAlive, NotSip, OutsideRequest, OutsideResponse, Sampled};
    vec![
        case("an initial INVITE", outside("INVITE"), Sampled),
        case("a re-INVITE", request("INVITE", " 2 INVITE"), Sampled),
        case("an ACK", request("ACK", " 1 ACK"), Sampled),
        case("a BYE", request("BYE", " 3 BYE"), Sampled),
        case("an UPDATE", request("UPDATE", " 3 UPDATE"), Sampled),
        case("a PRACK", request("PRACK", " 3 PRACK"), Sampled),
        case("a CANCEL, which has no To tag", outside("CANCEL"), Sampled),
        case("an INFO inside a dialog", request("INFO", " 3 INFO"), Sampled),
        case("an OPTIONS inside a dialog: it uses up a number too", request("OPTIONS", " 3 OPTIONS"), Sampled),
        case("a NOTIFY inside a dialog", request("NOTIFY", " 3 NOTIFY"), Sampled),
        case("a method nobody knows inside a dialog", request("FROB", " 3 FROB"), Sampled),
        case("an OPTIONS ping", outside("OPTIONS"), OutsideRequest),
        case("a REGISTER", outside("REGISTER"), OutsideRequest),
        case("a SUBSCRIBE", outside("SUBSCRIBE"), OutsideRequest),
        case("a MESSAGE", outside("MESSAGE"), OutsideRequest),
        case("a PUBLISH", outside("PUBLISH"), OutsideRequest),
        case("a 200 to an INVITE", response("200 OK", "z9hG4bK1", " 1 INVITE"), Sampled),
        case("a 180 to an INVITE", response("180 Ringing", "z9hG4bK1", " 1 INVITE"), Sampled),
        case("a 481 to a BYE", response("481 Gone", "z9hG4bK1", " 1 BYE"), Sampled),
        case("a 200 to an UPDATE", response("200 OK", "z9hG4bK1", " 1 UPDATE"), Sampled),
        case("a 200 to a REGISTER", response("200 OK", "z9hG4bK1", " 1 REGISTER"), OutsideResponse),
        case("a 200 to an OPTIONS", response("200 OK", "z9hG4bK1", " 1 OPTIONS"), OutsideResponse),
        case("a 202 to a SUBSCRIBE", response("202 Accepted", "z9hG4bK1", " 1 SUBSCRIBE"), OutsideResponse),
        case("a keep-alive of line ends", "\r\n\r\n", KeepAlive),
        case("a keep-alive of nothing", "", KeepAlive),
        case("a STUN request", "\0\u{1}\0\0!\u{12}abcdefghijkl", KeepAlive),
        case("something else", "\u{7f}\u{7f}\u{7f}", NotSip),
    ]
}

#[test]
fn dialog_messages_reach_the_ring_and_the_rest_is_counted() {
    let mut tester = Tester::new();
    for program in [Program::IngressXdp, Program::IngressTc, Program::Egress] {
        for case in cases() {
            let what = format!("{program:?}: {}", case.description);
            tester.reset();
            let (from, to) = if program == Program::Egress { (SERVER, PEER) } else { (PEER, SERVER) };
            let frame = Frame::new(from, to).with(case.message.as_bytes());
            let run = tester.run(program, &frame);
            assert_eq!(run.verdict, Verdict::Pass, "{what}");
            assert_eq!(run.out, frame, "{what}");
            assert_eq!(tester.counters(), [(Counter::Seen, 1), (case.counter, 1)], "{what}");
            let bytes: Vec<_> = run.records.iter().map(|record| record.bytes.as_slice()).collect();
            let expected = if case.counter == Counter::Sampled { vec![case.message.as_bytes()] } else { vec![] };
            assert_eq!(bytes, expected, "{what}");
        }
    }
}

#[test]
fn a_record_tells_who_and_where() {
    let mut tester = Tester::new();
    for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
        for extras in [false, true] {
            for tags in [&[][..], &[100], &[200, 100]] {
                for program in [Program::IngressXdp, Program::IngressTc, Program::Egress] {
                    let what = format!("{program:?} {server} extras {extras} tags {tags:?}");
                    tester.reset();
                    let egress = program == Program::Egress;
                    let mut frame = if egress { Frame::new(server, peer) } else { Frame::new(peer, server) }.tags(tags);
                    frame.extras = extras;
                    let message = request("BYE", " 3 BYE");
                    let input = frame.with(message.as_bytes());
                    let run = tester.run(program, &input);
                    assert_eq!(run.out, input, "{what}");
                    let [record] = run.records.as_slice() else { panic!("{what}: {:?}", run.records) };
                    let header = record.header;
                    let (server, peer): (std::net::SocketAddr, std::net::SocketAddr) =
                        (server.parse().unwrap(), peer.parse().unwrap());
                    assert_eq!(header.server, mapped(server.ip()), "{what}");
                    assert_eq!(header.peer, mapped(peer.ip()), "{what}");
                    assert_eq!(u16::from_be_bytes(header.server_port), server.port(), "{what}");
                    assert_eq!(u16::from_be_bytes(header.peer_port), peer.port(), "{what}");
                    assert_eq!(header.direction, if egress { direction::EGRESS } else { direction::INGRESS }, "{what}");
                    assert_eq!((header.kind, header.token, header.reason), (kind::MESSAGE, 0, 0), "{what}");
                    assert_eq!((header.tos, header.ttl), (0x68, 61), "{what}");
                    assert_eq!(header.flags, if program == Program::IngressXdp { flags::XDP } else { 0 }, "{what}");
                    assert_eq!(header.wire_len as usize, message.len(), "{what}");
                    assert_eq!(header.cookie != 0, egress, "{what}: the socket's cookie goes with what it sent");
                    assert!(header.time_ns > 0, "{what}");
                    assert_eq!(record.bytes, message.as_bytes(), "{what}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_sip_is_not_even_counted() {
    let mut tester = Tester::new();
    let bye = request("BYE", " 3 BYE");
    let rtp = Frame::new("192.0.2.1:40000", "198.51.100.7:40002");
    let arp = [&[0xff; 12][..], &[0x08, 0x06], &[0; 46]].concat();
    let short = Frame::new(PEER, SERVER).with(bye.as_bytes());
    for program in [Program::IngressXdp, Program::IngressTc, Program::Egress] {
        for (description, frame) in [
            ("RTP", rtp.with(bye.as_bytes())),
            ("RTP over IPv6", Frame::new("[2001:db8::1]:40000", "[2001:db8::2]:40002").with(bye.as_bytes())),
            ("RTP with a tag", rtp.clone().tags(&[5]).with(bye.as_bytes())),
            ("ARP", arp.clone()),
            ("TCP of another port", rtp.clone().tcp().around(&[0; 40])),
            ("a header cut in IP", short[..30].to_vec()),
            ("a header cut in UDP", short[..38].to_vec()),
        ] {
            if program != Program::IngressXdp && description.contains("cut in IP") {
                // BPF_PROG_TEST_RUN makes no such skb.
                continue;
            }
            tester.reset();
            let run = tester.run(program, &frame);
            assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame), "{program:?}: {description}");
            assert_eq!(tester.counters(), [], "{program:?}: {description}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_counted_by_its_reason() {
    let mut tester = Tester::new();
    let bye = request("BYE", " 3 BYE");
    let plain = Frame::new(PEER, SERVER);
    let v6 = Frame::new(PEER_V6, SERVER_V6);
    let mut tcp = plain.clone().tcp().around(&[0; 40]);
    tcp[34..38].copy_from_slice(&[0x13, 0xc4, 0x13, 0xc4]);
    let mut long = plain.with(bye.as_bytes());
    long[38..40].copy_from_slice(&1400_u16.to_be_bytes());
    let mut short = plain.with(bye.as_bytes());
    short[38..40].copy_from_slice(&7_u16.to_be_bytes());
    for program in [Program::IngressXdp, Program::IngressTc, Program::Egress] {
        for (description, frame, counter) in [
            ("a last fragment", plain.clone().fragment(185).with(bye.as_bytes()), Counter::FragmentEarly),
            ("a fragment of IPv6", v6.clone().fragment(1).with(bye.as_bytes()), Counter::FragmentEarly),
            ("TCP without a header", tcp.clone(), Counter::Malformed),
            ("a UDP length beyond the packet", long.clone(), Counter::Malformed),
            ("a UDP length below its header's", short.clone(), Counter::Malformed),
        ] {
            tester.reset();
            let run = tester.run(program, &frame);
            assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame), "{program:?}: {description}");
            assert_eq!(tester.counters(), [(counter, 1)], "{program:?}: {description}");
        }
    }
}

#[test]
fn a_message_of_several_kilobytes_is_sampled_whole() {
    let mut tester = Tester::new();
    // BPF_PROG_TEST_RUN takes packets up to a page less its headroom.
    let mut message = outside("INVITE");
    message.push_str(&"x".repeat(3200 - message.len()));
    for program in [Program::IngressXdp, Program::IngressTc, Program::Egress] {
        tester.reset();
        let run = tester.run(program, &Frame::new(PEER, SERVER).with(message.as_bytes()));
        assert_eq!(run.records[0].bytes, message.as_bytes(), "{program:?}");
        assert_eq!(run.records[0].header.flags & flags::CUT, 0, "{program:?}");
    }
}

#[test]
fn a_full_ring_drops_the_newest_and_counts_it() {
    let mut tester = Tester::new();
    let frame = Frame::new(PEER, SERVER).with(request("BYE", " 3 BYE").as_bytes());
    let program = Program::IngressTc;
    let mut runs = 0;
    while tester.counter(Counter::RingFull) == 0 {
        tester.run_keeping(program, &frame);
        runs += 1;
        assert!(runs < RING_BYTES / 100, "the ring never fills");
    }
    let records = tester.drain();
    assert_eq!(records.len() as u64, tester.counter(Counter::Sampled));
    assert_eq!(tester.counter(Counter::RingFull), 1);
}

#[test]
fn the_rings_last_quarter_is_not_for_strangers() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        let stranger = Frame::new(PEER, SERVER).with(outside("INVITE").as_bytes());
        let known = Frame::new(PEER, SERVER).with(request("INVITE", " 2 INVITE").as_bytes());
        let mut runs = 0;
        while tester.counter(Counter::RingReserved) == 0 {
            tester.run_keeping(program, &stranger);
            runs += 1;
            assert!(runs < RING_BYTES / 100, "{program:?}: the reserve is never reached");
        }
        let before = tester.counter(Counter::Sampled);
        tester.run_keeping(program, &known);
        assert_eq!(tester.counter(Counter::Sampled), before + 1, "{program:?}");
        assert_eq!(tester.counter(Counter::RingFull), 0, "{program:?}");
    }
}
