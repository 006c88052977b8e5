//! What the daemon's flight recorder is shown: each message that is rewritten, before and after, and nothing where there is none.

use st_ebpf::abi::{Counter, RING_STRANGERS, SampleHeader, kind};

use crate::{
    frame::Frame,
    shift::known,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

/// Kinds and messages of what stood in the ring, with the numbers of the copies.
fn shown(records: &[crate::tester::Record]) -> Vec<(u8, u64, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    records.iter().map(|record| (record.header.kind, record.header.token, text(&record.bytes))).collect()
}

const fn numbers(before: u64, after: u64) -> u64 {
    before << 32 | after
}

#[test]
fn a_message_that_is_rewritten_is_shown_before_and_after_and_only_to_a_recorder() {
    for recording in [false, true] {
        let mut tester = if recording { Tester::recording() } else { Tester::new() };
        for (server, peer) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
            tester.reset();
            tester.arm(server, "call-1@host", "srv", known(5, 2));
            let (own, wire) = (request("BYE", " 6 BYE"), request("BYE", " 8 BYE"));
            let run = tester.run(Program::Egress, &Frame::new(server, peer).with(own.as_bytes()));
            assert_eq!((run.verdict, &run.out), (Verdict::Pass, &Frame::new(server, peer).with(wire.as_bytes())));
            let mut expected = vec![(kind::MESSAGE, 0, own.clone())];
            if recording {
                expected.push((kind::BEFORE, numbers(6, 8), own.clone()));
                expected.push((kind::REWRITTEN, numbers(6, 8), wire.clone()));
            }
            assert_eq!(shown(&run.records), expected);
            for program in INGRESS {
                let (wire, own) =
                    (response("200 OK", "z9hG4bK77", " 8 BYE"), response("200 OK", "z9hG4bK77", " 6 BYE"));
                let run = tester.run(program, &Frame::new(peer, server).with(wire.as_bytes()));
                let mut expected = vec![(kind::MESSAGE, 0, wire.clone())];
                if recording {
                    expected.push((kind::BEFORE, numbers(8, 6), wire.clone()));
                    expected.push((kind::REWRITTEN, numbers(8, 6), own.clone()));
                }
                assert_eq!(shown(&run.records), expected, "{program:?}");
            }
            // What keeps its number is nobody's to show.
            let run =
                tester.run(Program::Egress, &Frame::new(server, peer).with(request("INFO", " 4 INFO").as_bytes()));
            assert_eq!(run.records.len(), 1);
        }
    }
}

#[test]
fn a_request_that_is_lengthened_is_shown_with_its_new_length() {
    let mut tester = Tester::recording();
    tester.arm(SERVER, "call-1@host", "srv", known(8, 95));
    let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(request("BYE", " 9 BYE").as_bytes()));
    let [_, before, after] = &run.records[..] else { panic!("{:?}", run.records) };
    assert_eq!((before.header.kind, after.header.kind), (kind::BEFORE, kind::REWRITTEN));
    assert_eq!(after.bytes.len(), before.bytes.len() + 4);
    assert_eq!(usize::from(after.header.wire_len), after.bytes.len());
    let text = String::from_utf8(after.bytes.clone()).unwrap();
    assert!(text.contains("CSeq:   104 BYE\r\n"), "{text}");
    assert!(run.out.ends_with(&after.bytes));
}

#[test]
fn copies_leave_the_last_quarter_of_the_ring_to_messages() {
    let mut tester = Tester::recording();
    tester.arm(SERVER, "call-1@host", "srv", known(5, 2));
    let frame = Frame::new(SERVER, PEER).with(request("BYE", " 6 BYE").as_bytes());
    // A record is at least so long.
    let most = RING_STRANGERS as usize / size_of::<SampleHeader>();
    let mut packets = 0;
    while tester.counter(Counter::Unrecorded) == 0 {
        assert_eq!(tester.run_keeping(Program::Egress, &frame).0, Verdict::Pass);
        packets += 1;
        assert!(packets < most);
    }
    for _ in 0..10 {
        tester.run_keeping(Program::Egress, &frame);
        packets += 1;
    }
    // Each was sampled and rewritten all the same.
    assert_eq!(tester.counter(Counter::Sampled), packets as u64);
    assert_eq!(tester.counter(Counter::ShiftedOut), packets as u64);
    assert_eq!(tester.counter(Counter::RingFull), 0);
}
