//! All that a dialog's two sides send each other around sipst's requests: each number of the server's has one place on the wire,
//! whatever comes late, twice or at the same moment, and each answer comes back under it.

use st_ebpf::{
    abi::{Counter, Shift},
    cseq::{MAX_NUMBER, State},
    key::DialogKey,
};

use crate::{
    frame::{Frame, checksum_is_right},
    shift::known,
    tester::{INGRESS, Lent, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

/// A dialog that is armed.
struct Dialog {
    tester: Lent,
    key: DialogKey,
    token: u64,
}

/// The number in a frame's CSeq.
fn number(frame: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(frame).into_owned();
    text.split("CSeq:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

impl Dialog {
    fn new(state: State) -> Self {
        let mut tester = Tester::new();
        let key = tester.arm(SERVER, "call-1@host", "srv", Shift { word: state.to_word(), ..Shift::default() });
        Self { tester, key, token: 0 }
    }

    /// One whose server has written this number last.
    fn at(number: u32) -> Self {
        Self::new(State { known: true, number, delta: 0 })
    }

    /// A request of the server's leaves: its number on the wire.
    fn server(&mut self, method: &str, number: u32) -> u32 {
        let message = request(method, &format!("          {number} {method}"));
        let run = self.tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(message.as_bytes()));
        assert_eq!(run.verdict, Verdict::Pass, "{number} {method}");
        assert!(checksum_is_right(&run.out), "{number} {method}");
        self::number(&run.out)
    }

    /// A request of sipst's own leaves: its number.
    fn ours(&mut self) -> u32 {
        self.token += 1;
        let state = self.tester.state(self.key);
        self.tester.record(self.token, self.key, state, false);
        let message = request("UPDATE", &format!(" {} UPDATE", state.next_injected()))
            .replace("z9hG4bK77", &format!("z9hG4bKsipst{:016x}", self.token));
        let run = self.tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(message.as_bytes()));
        assert_eq!(run.verdict, Verdict::Pass, "{}", state.next_injected());
        self::number(&run.out)
    }

    /// The peer answers to a number on the wire: the one that the server reads.
    fn answer(&mut self, status: &str, method: &str, wire: u32) -> u32 {
        let message = response(status, "z9hG4bK77", &format!(" {wire} {method}"));
        let frame = Frame::new(PEER, SERVER).with(message.as_bytes());
        let [a, b] = INGRESS.map(|program| self.tester.run(program, &frame));
        assert_eq!((a.verdict, b.verdict, &a.out), (Verdict::Pass, Verdict::Pass, &b.out), "{status} {wire} {method}");
        assert!(checksum_is_right(&a.out), "{status} {wire} {method}");
        self::number(&a.out)
    }
}

#[test]
fn acks_late_and_repeated_have_the_number_of_their_invite() {
    let mut dialog = Dialog::at(2);
    assert_eq!(dialog.server("INVITE", 3), 3);
    assert_eq!(dialog.ours(), 4);
    assert_eq!(dialog.server("ACK", 3), 3, "the 2xx came after an injection");
    assert_eq!(dialog.server("INVITE", 4), 5);
    assert_eq!(dialog.ours(), 6);
    assert_eq!(dialog.ours(), 7);
    for _ in 0..3 {
        assert_eq!(dialog.server("ACK", 4), 5, "each copy of the 2xx gets its ACK");
        assert_eq!(dialog.server("ACK", 3), 3);
    }
    assert_eq!(dialog.server("BYE", 5), 8);
    assert_eq!(dialog.server("ACK", 4), 5, "after the BYE");
}

#[test]
fn a_cancel_has_the_number_of_its_invite_and_raises_nothing() {
    let mut dialog = Dialog::at(2);
    assert_eq!(dialog.ours(), 3);
    assert_eq!(dialog.server("INVITE", 3), 4);
    assert_eq!(dialog.answer("180 Ringing", "INVITE", 4), 3);
    assert_eq!(dialog.server("CANCEL", 3), 4);
    assert_eq!(dialog.answer("200 OK", "CANCEL", 4), 3);
    assert_eq!(dialog.answer("487 Request Terminated", "INVITE", 4), 3);
    assert_eq!(dialog.server("ACK", 3), 4);
    assert_eq!(dialog.ours(), 5);
    assert_eq!(dialog.server("CANCEL", 3), 4, "a copy that comes late");
    assert_eq!(dialog.server("BYE", 4), 6);
}

#[test]
fn every_method_of_the_servers_and_every_answer_keeps_its_place() {
    let methods = [
        "INFO",
        "UPDATE",
        "INVITE",
        "REFER",
        "NOTIFY",
        "SUBSCRIBE",
        "MESSAGE",
        "OPTIONS",
        "PUBLISH",
        "REGISTER",
        "X-OWN",
        "BYE",
    ];
    let mut dialog = Dialog::at(20);
    // Two numbers each, one of them sipst's: as many breakpoints as a dialog remembers.
    let mut wire = 21;
    for (own, method) in (21..).zip(methods) {
        if own < 24 {
            assert_eq!(dialog.ours(), wire, "before {method}");
            wire += 1;
        }
        assert_eq!(dialog.server(method, own), wire, "{method}");
        for status in [
            "100 Trying",
            "183 Session Progress",
            "200 OK",
            "302 Moved",
            "401 Unauthorized",
            "491 Pending",
            "500 No",
            "603 No",
        ] {
            assert_eq!(dialog.answer(status, method, wire), own, "{status} to {method}");
        }
        wire += 1;
    }
}

#[test]
fn copies_on_both_sides_of_a_breakpoint_and_the_answers_to_them_stay_where_they_were() {
    let mut dialog = Dialog::at(9);
    let mut sent = vec![];
    for (injections, numbers) in [(0, 10..12), (1, 12..13), (3, 13..16), (2, 16..18)] {
        for _ in 0..injections {
            dialog.ours();
        }
        sent.extend(numbers.map(|number| (number, dialog.server("INFO", number))));
        for (number, wire) in &sent {
            assert_eq!(dialog.server("INFO", *number), *wire, "a copy of {number}");
            assert_eq!(dialog.answer("200 OK", "INFO", *wire), *number, "the answer to {wire}");
        }
    }
    let wires: Vec<u32> = sent.iter().map(|(_, wire)| *wire).collect();
    assert_eq!(wires, [10, 11, 13, 17, 18, 19, 22, 23]);
}

#[test]
fn numbers_that_challenges_have_used_up_are_gaps_and_no_more() {
    let mut dialog = Dialog::at(2);
    // sipst's refresh is challenged, and sent again with the next number.
    assert_eq!((dialog.ours(), dialog.ours()), (3, 4));
    // So is the server's INFO: its second number is its own.
    assert_eq!(dialog.server("INFO", 3), 5);
    assert_eq!(dialog.answer("407 Proxy Authentication Required", "INFO", 5), 3);
    assert_eq!(dialog.server("INFO", 4), 6);
    assert_eq!(dialog.answer("200 OK", "INFO", 6), 4);
    // And its re-INVITE, whose failure has an ACK of its own.
    assert_eq!(dialog.ours(), 7);
    assert_eq!(dialog.server("INVITE", 5), 8);
    assert_eq!(dialog.answer("401 Unauthorized", "INVITE", 8), 5);
    assert_eq!(dialog.server("ACK", 5), 8);
    assert_eq!(dialog.server("INVITE", 6), 9);
    assert_eq!(dialog.answer("200 OK", "INVITE", 9), 6);
    assert_eq!(dialog.server("ACK", 6), 9);
    assert_eq!(dialog.server("BYE", 7), 10);
}

#[test]
fn an_invite_that_is_tried_again_with_a_new_tag_is_another_dialogs() {
    let mut tester = Tester::new();
    // 401 or 302 to the first: the server begins anew under another tag, and the call is up under that.
    let key = tester.arm(SERVER, "call-1@host", "srv2", known(2, 1));
    let tagged = |text: String| text.replace("tag=srv", "tag=srv2");
    let untagged = |text: String| text.replace(";tag=peer", "");
    for (description, server, wire) in [
        ("the first INVITE", untagged(request("INVITE", " 1 INVITE")), None),
        ("a copy of the second", untagged(tagged(request("INVITE", " 2 INVITE"))), None),
        ("the ACK to the 401, with a tag of the peer's", request("ACK", " 1 ACK"), None),
        ("the ACK to the 2xx", tagged(request("ACK", " 2 ACK")), None),
        ("a number of the first's that the dialog has too", request("BYE", " 3 BYE"), None),
        ("the dialog's", tagged(request("BYE", " 3 BYE")), Some(tagged(request("BYE", " 4 BYE")))),
    ] {
        let run = tester.run(Program::Egress, &Frame::new(SERVER, PEER).with(server.as_bytes()));
        let expected = Frame::new(SERVER, PEER).with(wire.unwrap_or(server).as_bytes());
        assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&expected), "{description}");
    }
    assert_eq!(tester.state(key).number, 3);
}

#[test]
fn a_server_that_begins_with_0() {
    let mut dialog = Dialog::at(0);
    assert_eq!((dialog.ours(), dialog.ours()), (1, 2));
    assert_eq!(dialog.server("ACK", 0), 0);
    assert_eq!(dialog.server("INFO", 1), 3);
    assert_eq!(dialog.answer("200 OK", "INFO", 3), 1);
    // One that has not yet sent anything.
    let mut dialog = Dialog::new(State::default());
    assert_eq!((dialog.ours(), dialog.ours()), (1, 2));
    assert_eq!(dialog.server("INFO", 0), 3);
    assert_eq!(dialog.answer("200 OK", "INFO", 3), 0);
    assert_eq!(dialog.ours(), 4);
    assert_eq!(dialog.server("INFO", 0), 3, "a copy");
    assert_eq!(dialog.server("BYE", 1), 5);
}

#[test]
fn numbers_near_two_to_the_31st_go_out_and_come_back() {
    let mut dialog = Dialog::at(MAX_NUMBER - 4);
    assert_eq!((dialog.ours(), dialog.ours()), (MAX_NUMBER - 3, MAX_NUMBER - 2));
    assert_eq!(dialog.server("INFO", MAX_NUMBER - 3), MAX_NUMBER - 1);
    assert_eq!(dialog.answer("200 OK", "INFO", MAX_NUMBER - 1), MAX_NUMBER - 3);
    // No refresh is sent that would leave the server less than this; were it so, its own numbers would still be its own.
    for more in 0..3 {
        let (own, wire) = (MAX_NUMBER - 2 + more, MAX_NUMBER + more);
        assert_eq!(dialog.server("INFO", own), wire);
        assert_eq!(dialog.answer("200 OK", "INFO", wire), own);
    }
    assert_eq!(dialog.server("INFO", MAX_NUMBER + 1), MAX_NUMBER + 1, "what no server may write stays");
}

#[test]
fn a_cseq_is_found_however_it_is_written() {
    let mut tester = Tester::new();
    let plain = request("BYE", " 3 BYE");
    let late = |cseq: &str| plain.replace("CSeq: 3 BYE", &format!("X-Padding: {}\r\nCSeq:{cseq}", "y".repeat(3_000)));
    for (description, server, wire) in [
        ("no blank", plain.replace("CSeq: ", "CSeq:"), plain.replace("CSeq: 3", "CSeq:4")),
        ("a tab", plain.replace("CSeq: ", "CSeq:\t"), plain.replace("CSeq: 3", "CSeq:\t4")),
        ("tabs and blanks", plain.replace(": 3 BYE", "\t : \t 3\tBYE"), plain.replace(": 3 BYE", "\t : \t 4\tBYE")),
        ("folded before", plain.replace("CSeq: 3", "CSeq:\r\n 3"), plain.replace("CSeq: 3", "CSeq:\r\n 4")),
        ("folded behind", plain.replace(": 3 BYE", ": 3\r\n\tBYE"), plain.replace(": 3 BYE", ": 4\r\n\tBYE")),
        ("folded thrice", plain.replace(": 3", ":\r\n \r\n\t\r\n 3"), plain.replace(": 3", ":\r\n \r\n\t\r\n 4")),
        ("any case", plain.replace("CSeq", "cSEQ"), plain.replace("CSeq", "cSEQ").replace(" 3 ", " 4 ")),
        ("bare line feeds", plain.replace("\r\n", "\n"), plain.replace("\r\n", "\n").replace(" 3 ", " 4 ")),
        (
            "twice: the first counts, whatever the second says",
            plain.replace("CSeq: 3 BYE", "CSeq: 3 BYE\r\nCSeq: 7 BYE"),
            plain.replace("CSeq: 3 BYE", "CSeq: 4 BYE\r\nCSeq: 7 BYE"),
        ),
        (
            "the first of two is none",
            plain.replace("CSeq: 3 BYE", "CSeq: x BYE\r\nCSeq: 3 BYE"),
            plain.replace("CSeq: 3 BYE", "CSeq: x BYE\r\nCSeq: 3 BYE"),
        ),
        ("behind 3,000 bytes of headers", late(" 3 BYE"), late(" 4 BYE")),
        ("there, with a digit more", late(" 9 BYE"), late("10 BYE")),
    ] {
        for (from, to) in [(SERVER, PEER), (SERVER_V6, PEER_V6)] {
            tester.reset();
            tester.arm(from, "call-1@host", "srv", known(2, 1));
            let run = tester.run(Program::Egress, &Frame::new(from, to).with(server.as_bytes()));
            let expected = Frame::new(from, to).with(wire.as_bytes());
            assert_eq!(run.verdict, Verdict::Pass, "{description}");
            assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&expected), "{description}");
            assert!(checksum_is_right(&run.out), "{description}");
            assert_eq!(tester.counter(Counter::ShiftedOut), u64::from(server != wire), "{description}");
        }
    }
}

#[test]
fn an_answer_that_begins_with_its_cseq_comes_back_too() {
    let mut tester = Tester::new();
    for program in INGRESS {
        tester.reset();
        tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
        let answer = |cseq: &str| {
            let text = response("200 OK", "z9hG4bK77", " 4 BYE").replace("CSeq: 4 BYE\r\n", "");
            text.replace("200 OK\r\n", &format!("200 OK\r\nCSeq:{cseq}\r\n"))
        };
        for (wire, own) in [("4 BYE", "3 BYE"), (" 4 BYE", " 3 BYE"), ("10 BYE", " 9 BYE")] {
            let run = tester.run(program, &Frame::new(PEER, SERVER).with(answer(wire).as_bytes()));
            assert_eq!(run.out, Frame::new(PEER, SERVER).with(answer(own).as_bytes()), "{program:?} {wire}");
        }
    }
}
