//! The last number of the server's in each dialog is kept, ring or no ring, for whoever follows its numbers later.

use st_ebpf::{
    abi::{Counter, Latest, Shift},
    cseq::State,
    key::DialogKey,
};

use crate::{
    frame::Frame,
    tester::{HASH_KEY, PEER, Program, SERVER, Tester, request, response},
};

fn key() -> DialogKey {
    DialogKey::new(HASH_KEY, b"call-1@host", b"srv").unwrap()
}

fn sends(tester: &mut Tester, message: &str) -> Vec<u8> {
    tester.run_keeping(Program::Egress, &Frame::new(SERVER, PEER).with(message.as_bytes())).1
}

fn asks(tester: &mut Tester, method: &str, number: u32) -> Vec<u8> {
    sends(tester, &request(method, &format!(" {number} {method}")))
}

#[test]
fn every_request_of_the_servers_that_uses_up_a_number_is_kept_and_no_other() {
    let mut tester = Tester::new();
    for method in
        ["INVITE", "UPDATE", "INFO", "PRACK", "REFER", "NOTIFY", "SUBSCRIBE", "OPTIONS", "MESSAGE", "BYE", "X"]
    {
        tester.reset();
        asks(&mut tester, method, 7);
        assert_eq!(tester.latest(key()), Some(7), "{method}");
    }
    let outside = |method: &str| request(method, &format!(" 7 {method}")).replace(";tag=peer", "");
    for message in [
        request("ACK", " 7 ACK"),
        request("CANCEL", " 7 CANCEL"),
        outside("INVITE"),
        outside("CANCEL"),
        outside("OPTIONS"),
        response("200 OK", "z9hG4bK1", " 7 INVITE"),
        request("INFO", " 4294967296 INFO"),
        request("UPDATE", " 7 UPDATE").replace("z9hG4bK77", "z9hG4bKsipst00000000000000ab"),
    ] {
        tester.reset();
        sends(&mut tester, &message);
        assert_eq!(tester.latest(key()), None, "{message}");
    }
    for program in [Program::IngressTc, Program::IngressXdp] {
        tester.run(program, &Frame::new(PEER, SERVER).with(request("INFO", " 7 INFO").as_bytes()));
        assert_eq!(tester.latest(key()), None, "{program:?}: anybody can send what looks like the peer's");
    }
}

#[test]
fn it_is_the_highest_and_that_of_this_dialog() {
    let mut tester = Tester::new();
    for (number, latest) in [(7, 7), (9, 9), (8, 9), (9, 9), (10, 10)] {
        asks(&mut tester, "INFO", number);
        assert_eq!(tester.latest(key()), Some(latest));
    }
    // Another dialog's that meets it in the map goes for it.
    tester.note(key().map, Latest { check: !key().check, number: 77 });
    assert_eq!(tester.latest(key()), None);
    asks(&mut tester, "INFO", 11);
    assert_eq!(tester.latest(key()), Some(11));
}

#[test]
fn a_full_ring_costs_the_sample_and_not_the_number() {
    let mut tester = Tester::new();
    while tester.counter(Counter::RingFull) == 0 {
        asks(&mut tester, "INFO", 7);
    }
    assert_eq!(tester.latest(key()), Some(7));
    asks(&mut tester, "INFO", 8);
    assert_eq!((tester.counter(Counter::RingFull), tester.latest(key())), (2, Some(8)));
}

#[test]
fn with_an_entry_the_numbers_are_kept_as_the_server_writes_them() {
    let mut tester = Tester::new();
    let state = State { known: true, number: 7, delta: 2 };
    let entry = tester.arm(SERVER, "call-1@host", "srv", Shift { word: state.to_word(), ..Shift::default() });
    let out = asks(&mut tester, "INFO", 8);
    assert!(
        String::from_utf8_lossy(&out).contains("CSeq: 10 INFO")
            || String::from_utf8_lossy(&out).contains("CSeq:10 INFO")
    );
    assert_eq!((tester.latest(key()), tester.state(entry).number), (Some(8), 8));
}
