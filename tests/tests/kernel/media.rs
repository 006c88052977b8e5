//! When a media flow of the server's was last seen, each way: only those that are watched, and no packet changed.

use st_ebpf::abi::Counter;

use crate::{
    frame::Frame,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request},
};

const RTP: &str = "192.0.2.1:4000";
const RTP_V6: &str = "[2001:db8::1]:4000";
const REMOTE: &str = "198.51.100.7:6000";
const REMOTE_V6: &str = "[2001:db8:1::7]:6000";

/// An RTP packet of 20 ms of G.711.
fn rtp() -> Vec<u8> {
    [&[0x80, 0, 0, 1][..], &[0; 168]].concat()
}

/// A packet passes as it was, and is neither sampled nor counted as SIP.
#[track_caller]
fn passes(tester: &mut Tester, program: Program, frame: &[u8]) {
    let run = tester.run(program, frame);
    assert_eq!((run.verdict, &run.out[..]), (Verdict::Pass, frame), "{program:?}");
    assert!(run.records.is_empty());
    assert_eq!(tester.counter(Counter::Seen), 0);
}

#[test]
fn a_watched_flow_is_seen_whatever_frame_it_leaves_in() {
    let mut tester = Tester::new();
    for (flow, to) in [(RTP, REMOTE), (RTP_V6, REMOTE_V6)] {
        let plain = || Frame::new(flow, to);
        for (name, frame) in [
            ("plain", plain().with(&rtp())),
            ("empty", plain().with(b"")),
            ("one tag", plain().tags(&[7]).with(&rtp())),
            ("two tags", plain().tags(&[7, 8]).with(&rtp())),
            ("more headers", Frame { extras: true, ..plain() }.with(&rtp())),
        ] {
            tester.reset();
            tester.watch(flow);
            assert_eq!(tester.left(flow), Some(0));
            passes(&mut tester, Program::Egress, &frame);
            assert!(tester.left(flow).is_some_and(|at| at > 0), "{flow} {name}");
            assert_eq!(tester.came(flow), Some(0), "{flow} {name}: nothing came in");
        }
    }
}

#[test]
fn what_comes_in_for_a_watched_flow_is_seen_whatever_frame_it_comes_in() {
    let mut tester = Tester::new();
    for program in INGRESS {
        for (flow, from) in [(RTP, REMOTE), (RTP_V6, REMOTE_V6), (RTP, "203.0.113.9:4000")] {
            let plain = || Frame::new(from, flow);
            for (name, frame) in [
                ("plain", plain().with(&rtp())),
                ("two tags", plain().tags(&[7, 8]).with(&rtp())),
                ("more headers", Frame { extras: true, ..plain() }.with(&rtp())),
            ] {
                tester.reset();
                tester.watch(flow);
                passes(&mut tester, program, &frame);
                assert!(tester.came(flow).is_some_and(|at| at > 0), "{program:?} {flow} {name}");
                assert_eq!(tester.left(flow), Some(0), "{program:?} {flow} {name}: nothing left");
            }
        }
    }
}

#[test]
fn nothing_but_what_comes_in_for_the_flow_itself_counts() {
    let mut tester = Tester::new();
    tester.watch(RTP);
    for program in INGRESS {
        for (name, frame) in [
            ("another port", Frame::new(REMOTE, "192.0.2.1:4002").with(&rtp())),
            ("another address", Frame::new(REMOTE, "192.0.2.2:4000").with(&rtp())),
            ("the other family", Frame::new(REMOTE_V6, RTP_V6).with(&rtp())),
            ("from the same port", Frame::new("198.51.100.7:4000", "192.0.2.1:6000").with(&rtp())),
            ("TCP", Frame::new(REMOTE, RTP).tcp().with(&rtp())),
        ] {
            passes(&mut tester, program, &frame);
            assert_eq!(tester.came(RTP), Some(0), "{program:?} {name}");
        }
    }
    passes(&mut tester, Program::Egress, &Frame::new(REMOTE, RTP).with(&rtp()));
    assert_eq!(tester.came(RTP), Some(0), "that one leaves");
    tester.mark(4000, false);
    passes(&mut tester, INGRESS[0], &Frame::new(REMOTE, RTP).with(&rtp()));
    assert_eq!(tester.came(RTP), Some(0), "a port that is not marked is not looked up");
}

#[test]
fn the_later_packet_counts() {
    let mut tester = Tester::new();
    tester.watch(RTP);
    let frame = Frame::new(RTP, REMOTE).with(&rtp());
    passes(&mut tester, Program::Egress, &frame);
    let first = tester.left(RTP).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(tester.left(RTP), Some(first));
    passes(&mut tester, Program::Egress, &frame);
    assert!(tester.left(RTP).unwrap() > first);
}

#[test]
fn nothing_but_what_leaves_from_the_flow_itself_counts() {
    let mut tester = Tester::new();
    tester.watch(RTP);
    for (name, program, frame) in [
        ("another port", Program::Egress, Frame::new("192.0.2.1:4002", REMOTE).with(&rtp())),
        ("another address", Program::Egress, Frame::new("192.0.2.2:4000", REMOTE).with(&rtp())),
        ("the other family", Program::Egress, Frame::new(RTP_V6, REMOTE_V6).with(&rtp())),
        ("to the same port", Program::Egress, Frame::new("192.0.2.9:6000", "198.51.100.7:4000").with(&rtp())),
        ("TCP", Program::Egress, Frame::new(RTP, REMOTE).tcp().with(&rtp())),
        ("the peer's own", INGRESS[0], Frame::new(REMOTE, RTP).with(&rtp())),
        ("the peer's own", INGRESS[1], Frame::new(REMOTE, RTP).with(&rtp())),
        ("spoofed", INGRESS[0], Frame::new(RTP, REMOTE).with(&rtp())),
        ("spoofed", INGRESS[1], Frame::new(RTP, REMOTE).with(&rtp())),
    ] {
        passes(&mut tester, program, &frame);
        assert_eq!(tester.left(RTP), Some(0), "{name}");
    }
    assert_eq!(tester.left("192.0.2.2:4000"), None, "what is not watched makes no entry");
}

#[test]
fn a_port_that_is_not_marked_is_not_looked_up() {
    let mut tester = Tester::new();
    tester.watch(RTP);
    tester.mark(4000, false);
    passes(&mut tester, Program::Egress, &Frame::new(RTP, REMOTE).with(&rtp()));
    assert_eq!(tester.left(RTP), Some(0));
    tester.mark(4000, true);
    passes(&mut tester, Program::Egress, &Frame::new(RTP, REMOTE).with(&rtp()));
    assert_ne!(tester.left(RTP), Some(0));
}

#[test]
fn a_full_map_takes_no_more_and_what_is_in_it_goes_on_being_seen() {
    let mut tester = Tester::new();
    tester.watch(RTP);
    tester.fill_flows();
    assert!(tester.try_watch("192.0.2.1:4002").is_err(), "there is no room");
    passes(&mut tester, Program::Egress, &Frame::new("192.0.2.1:4002", REMOTE).with(&rtp()));
    assert_eq!(tester.left("192.0.2.1:4002"), None, "and so it is not judged");
    passes(&mut tester, Program::Egress, &Frame::new(RTP, REMOTE).with(&rtp()));
    assert_ne!(tester.left(RTP), Some(0));
}

#[test]
fn sip_on_a_watched_port_is_still_sip() {
    let mut tester = Tester::new();
    for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
        tester.reset();
        tester.watch(server);
        let run = tester.run(Program::Egress, &Frame::new(server, peer).with(request("INFO", " 2 INFO").as_bytes()));
        assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 1));
        assert_eq!(tester.left(server), Some(0));
    }
}
