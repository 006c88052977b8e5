//! Numbers that other headers quote: RAck in the server's PRACK, `refer;id` in its SUBSCRIBE and in the peer's NOTIFY.

use st_ebpf::{
    abi::{Counter, Shift},
    cseq::State,
};

use crate::{
    frame::{Frame, checksum_is_right},
    shift::known,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request},
};

/// A request of the server's with one more header, on the line before CSeq or on the line after it: the windows around the two
/// numbers overlap.
fn quoting(method: &str, cseq: &str, header: &str, first: bool) -> String {
    let at = if first { "CSeq:" } else { "Content-Length:" };
    request(method, cseq).replace(at, &format!("{header}\r\n{at}"))
}

/// Sends it over both families, as it is and at another offset: what leaves must be `wire`, whole. Returns how often a number was
/// shifted, a request lengthened, and a number left as it was for want of room, each time.
fn leaves_as(tester: &mut Tester, state: (u32, u32), server: &str, wire: &str) -> [u64; 3] {
    let mut counts = vec![];
    for (from, to) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
        for padding in ["", "x"] {
            for checksum in [true, false] {
                let pad = |text: &str| text.replace("Max-Forwards: 70", &format!("Max-Forwards: 70{padding}"));
                let frame = |text: &str| {
                    let mut frame = Frame::new(from, to);
                    frame.checksum = checksum;
                    frame.with(pad(text).as_bytes())
                };
                tester.reset();
                tester.arm(from, "call-1@host", "srv", known(state.0, state.1));
                let run = tester.run(Program::Egress, &frame(server));
                assert_eq!(run.verdict, Verdict::Pass, "{server}");
                assert_eq!(
                    String::from_utf8_lossy(&run.out),
                    String::from_utf8_lossy(&frame(wire)),
                    "{from} {padding}"
                );
                assert_eq!(run.out, frame(wire), "{from} {padding}");
                assert!(checksum_is_right(&run.out), "{from} {padding} {server}");
                assert_eq!(run.records[0].bytes, pad(server).as_bytes(), "the sample is as the server wrote it");
                let counters = [Counter::ShiftedOut, Counter::Lengthened, Counter::ShiftNoRoom];
                counts.push(counters.map(|counter| tester.counter(counter)));
            }
        }
    }
    assert!(counts.iter().all(|one| *one == counts[0]), "{counts:?}");
    counts[0]
}

#[test]
fn a_pracks_rack_goes_where_its_invite_went() {
    let mut tester = Tester::new();
    for (state, rack, cseq, wire_rack, wire_cseq, counts) in [
        ((4, 4), "RAck: 77 3 INVITE", " 5 PRACK", "RAck: 77 3 INVITE", " 9 PRACK", [1, 0, 0]),
        ((3, 4), "RAck: 77 4 INVITE", " 5 PRACK", "RAck: 77 8 INVITE", " 9 PRACK", [2, 0, 0]),
        ((98, 7), "RAck: 77  99 INVITE", " 100 PRACK", "RAck: 77 106 INVITE", " 107 PRACK", [2, 0, 0]),
        // One blank must stay between the two numbers: four more come before the second.
        ((98, 7), "RAck: 77 99 INVITE", " 100 PRACK", "RAck: 77    106 INVITE", " 107 PRACK", [2, 1, 0]),
        ((98, 7), "rack:1\t99\tINVITE", " 100 PRACK", "rack:1\t   106\tINVITE", " 107 PRACK", [2, 1, 0]),
        ((8, 90_000), "RAck: 1 9 INVITE", "     10 PRACK", "RAck: 1 90009 INVITE", "  90010 PRACK", [2, 1, 0]),
        // Both numbers.
        ((7, 1), "RAck: 1 8 INVITE", "9 PRACK", "RAck: 1 9 INVITE", "   10 PRACK", [2, 1, 0]),
        ((8, 90), "RAck: 1 9 INVITE", "10 PRACK", "RAck: 1    99 INVITE", "   100 PRACK", [2, 2, 0]),
        // Not even with four more: each number by itself.
        ((8, 999_990), "RAck: 1 9 INVITE", "   10 PRACK", "RAck: 1 9 INVITE", "  1000000 PRACK", [1, 1, 1]),
        ((0, 803_747), "RAck: 7  1 INVITE", "2 PRACK", "RAck: 7 803748 INVITE", "2 PRACK", [1, 1, 1]),
        // Folded, in each place.
        ((98, 7), "RAck:\r\n 77 99 INVITE", " 100 PRACK", "RAck:\r\n 77    106 INVITE", " 107 PRACK", [2, 1, 0]),
        ((98, 7), "RAck: 77\r\n 99 INVITE", " 100 PRACK", "RAck: 77\r\n    106 INVITE", " 107 PRACK", [2, 1, 0]),
        ((98, 7), "RAck: 77\r\n  99\r\n INVITE", " 100 PRACK", "RAck: 77\r\n 106\r\n INVITE", " 107 PRACK", [2, 0, 0]),
        // Of nobody's making.
        ((98, 7), "RAck: 99 INVITE", " 100 PRACK", "RAck: 99 INVITE", " 107 PRACK", [1, 0, 0]),
        ((98, 7), "RAck: 77 4000000000 INVITE", " 100 PRACK", "RAck: 77 4000000000 INVITE", " 107 PRACK", [1, 0, 0]),
        ((98, 7), "RAck: 77 99x INVITE", " 100 PRACK", "RAck: 77 99x INVITE", " 107 PRACK", [1, 0, 0]),
        ((98, 7), "RAck:\r\nX: 77 99 INVITE", " 100 PRACK", "RAck:\r\nX: 77 99 INVITE", " 107 PRACK", [1, 0, 0]),
    ] {
        for first in [true, false] {
            let (server, wire) = (quoting("PRACK", cseq, rack, first), quoting("PRACK", wire_cseq, wire_rack, first));
            assert_eq!(leaves_as(&mut tester, state, &server, &wire), counts, "{rack} first {first}");
        }
    }
}

#[test]
fn a_rack_in_anything_but_a_prack_stays() {
    let mut tester = Tester::new();
    let message = |cseq: &str| quoting("INFO", cseq, "RAck: 77 99 INVITE", true);
    assert_eq!(leaves_as(&mut tester, (98, 7), &message(" 100 INFO"), &message(" 107 INFO")), [1, 0, 0]);
}

#[test]
fn f25_a_subscribe_to_what_came_of_a_refer_names_the_number_that_the_peer_knows() {
    let mut tester = Tester::new();
    for (state, event, cseq, wire_event, wire_cseq, counts) in [
        ((97, 7), "Event: refer;id=98", " 120 SUBSCRIBE", "Event: refer;id=105   ", " 127 SUBSCRIBE", [2, 1, 0]),
        ((197, 7), "Event: refer;id=198", " 220 SUBSCRIBE", "Event: refer;id=205", " 227 SUBSCRIBE", [2, 0, 0]),
        ((97, 7), "Event: refer;id=97", " 120 SUBSCRIBE", "Event: refer;id=97", " 127 SUBSCRIBE", [1, 0, 0]),
        (
            (97, 7),
            "o:refer ; x=1 ; id = 99;y",
            " 120 SUBSCRIBE",
            "o:refer ; x=1 ; id = 106   ;y",
            " 127 SUBSCRIBE",
            [2, 1, 0],
        ),
        (
            (97, 7),
            "EVENT: refer\r\n ;id=99\r\n ;y=1",
            " 120 SUBSCRIBE",
            "EVENT: refer\r\n ;id=106   \r\n ;y=1",
            " 127 SUBSCRIBE",
            [2, 1, 0],
        ),
        // Both numbers, and not even with four more blanks.
        ((7, 2), "Event: refer;id=8", "9 SUBSCRIBE", "Event: refer;id=10   ", "   11 SUBSCRIBE", [2, 2, 0]),
        ((7, 999_999), "Event: refer;id=8", "     9 SUBSCRIBE", "Event: refer;id=8", "   1000008 SUBSCRIBE", [1, 1, 1]),
        // Other packages have ids of other kinds; other parameters have other names.
        ((97, 7), "Event: refer", " 120 SUBSCRIBE", "Event: refer", " 127 SUBSCRIBE", [1, 0, 0]),
        ((97, 7), "Event: presence;id=99", " 120 SUBSCRIBE", "Event: presence;id=99", " 127 SUBSCRIBE", [1, 0, 0]),
        ((97, 7), "Event: refer;idx=99", " 120 SUBSCRIBE", "Event: refer;idx=99", " 127 SUBSCRIBE", [1, 0, 0]),
        ((97, 7), "Event: refer;id=99a", " 120 SUBSCRIBE", "Event: refer;id=99a", " 127 SUBSCRIBE", [1, 0, 0]),
    ] {
        for first in [true, false] {
            // A subscription's end is a SUBSCRIBE too.
            let message = |cseq, event| quoting("SUBSCRIBE", cseq, event, first).replace("Max", "Expires: 0\r\nMax");
            let (server, wire) = (message(cseq, event), message(wire_cseq, wire_event));
            assert_eq!(leaves_as(&mut tester, state, &server, &wire), counts, "{event} first {first}");
        }
    }
}

#[test]
fn f25_a_refer_with_the_number_0_is_named_too() {
    let mut tester = Tester::new();
    let lifted = Shift { word: State { known: true, number: 0, delta: 12 }.to_word(), ..Shift::default() };
    for program in INGRESS {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", lifted);
        let frame = |event| Frame::new(PEER, SERVER).with(notify(event).as_bytes());
        let run = tester.run(program, &frame("Event: refer;id=12"));
        assert_eq!(run.out, frame("Event: refer;id=0 "), "{program:?}");
    }
}

/// A NOTIFY of one side's in the server's dialog.
fn notify(event: &str) -> String {
    format!(
        "NOTIFY sip:server@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5070;branch=z9hG4bKn\r\n\
         From: <sip:peer@198.51.100.7>;tag=peer\r\nTo: <sip:server@192.0.2.1>;tag=srv\r\nCall-ID: call-1@host\r\n\
         CSeq: 106 NOTIFY\r\n{event}\r\nSubscription-State: active\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn f25_a_notify_about_a_refer_names_the_servers_own_number() {
    for program in INGRESS {
        let mut tester = Tester::new();
        for (wire, own) in [
            ("Event: refer;id=105", "Event: refer;id=98 "),
            ("o: refer;id=106;x=1", "o: refer;id=99 ;x=1"),
            ("Event: refer;id=97", "Event: refer;id=97"),
            ("Event: refer;id=0000000105", "Event: refer;id=98        "),
            ("Event: refer", "Event: refer"),
            ("Event: presence;id=105", "Event: presence;id=105"),
            ("Event: refer;id=100", "Event: refer;id=100"),
        ] {
            tester.reset();
            tester.arm(SERVER, "call-1@host", "srv", known(97, 7));
            let run = tester.run(program, &Frame::new(PEER, SERVER).with(notify(wire).as_bytes()));
            let expected = Frame::new(PEER, SERVER).with(notify(own).as_bytes());
            assert_eq!(run.verdict, Verdict::Pass, "{program:?} {wire}");
            assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&expected), "{program:?} {wire}");
            assert!(checksum_is_right(&run.out), "{program:?} {wire}");
            assert_eq!(run.records[0].bytes, notify(wire).as_bytes(), "{program:?} {wire}: the sample is as it came");
        }
    }
}

#[test]
fn f25_what_the_peer_refers_to_keeps_the_peers_numbers() {
    let mut tester = Tester::new();
    // The server's NOTIFY about the peer's REFER quotes the peer's number, and so does the peer's SUBSCRIBE.
    let event = "Event: refer;id=198";
    let notify = |cseq: &str| quoting("NOTIFY", cseq, event, true);
    assert_eq!(leaves_as(&mut tester, (97, 7), &notify(" 120 NOTIFY"), &notify(" 127 NOTIFY")), [1, 0, 0]);
    let from_peer = quoting("SUBSCRIBE", " 200 SUBSCRIBE", event, true)
        .replace("tag=srv", "tag=x")
        .replace("tag=peer", "tag=srv")
        .replace("tag=x", "tag=peer");
    for program in INGRESS {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(97, 7));
        let frame = Frame::new(PEER, SERVER).with(from_peer.as_bytes());
        assert_eq!(tester.run(program, &frame).out, frame, "{program:?}");
    }
}
