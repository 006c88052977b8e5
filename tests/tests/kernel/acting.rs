//! What is written into TCP connections: numbers, the status of answers to sipst, and its own requests that may not leave. Every copy
//! of a segment reads the same, however it is cut.

use std::net::SocketAddr;

use etherparse::{NetSlice, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice};
use st_ebpf::{
    abi::{Counter, Shift, flags, kind, refused},
    cseq::{Range, State},
    key::DialogKey,
    plan::{
        PATCHES,
        bits::{ANSWERS, NUMBERS},
    },
};

use crate::{
    frame::Frame,
    tester::{Lent, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

const TOKEN: u64 = 0xfeed_0000_0000_0001;

/// A connection, one way: its frames are as this says.
#[derive(Clone)]
struct Way {
    frame: Frame,
    options: bool,
    acknowledges: u32,
    program: Program,
}

impl Way {
    fn out() -> Self {
        Self { frame: Frame::new(SERVER, PEER).tcp(), options: false, acknowledges: 7, program: Program::Egress }
    }

    fn back() -> Self {
        Self { frame: Frame::new(PEER, SERVER).tcp(), program: Program::IngressTc, ..Self::out() }
    }

    fn ends(&self) -> (String, String) {
        let (from, to) = (self.frame.from.to_string(), self.frame.to.to_string());
        if self.program == Program::Egress { (from, to) } else { (to, from) }
    }

    fn segment(&self, sequence: u32, bytes: &[u8]) -> Vec<u8> {
        let Frame { from, to, .. } = self.frame;
        let mut tcp = TcpHeader::new(from.port(), to.port(), sequence, 0x7210);
        tcp.ack = true;
        tcp.psh = true;
        tcp.acknowledgment_number = self.acknowledges;
        if self.options {
            let options = [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(0x1020_3040, 9)];
            tcp.set_options(&options).unwrap();
        }
        tcp.checksum = match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                tcp.calc_checksum_ipv4_raw(from.ip().octets(), to.ip().octets(), bytes).unwrap()
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                tcp.calc_checksum_ipv6_raw(from.ip().octets(), to.ip().octets(), bytes).unwrap()
            }
            _ => panic!("mixed families"),
        };
        self.frame.around(&[&tcp.to_bytes()[..], bytes].concat())
    }

    /// Sends bytes of the connection; what they have become. All around them is as it was, but for the checksum, which is right.
    fn send(&self, tester: &mut Tester, sequence: u32, bytes: &[u8]) -> Vec<u8> {
        let frame = self.segment(sequence, bytes);
        let run = tester.run(self.program, &frame);
        assert_eq!((run.verdict, run.out.len()), (Verdict::Pass, frame.len()));
        let payload = frame.len() - bytes.len();
        let packet = SlicedPacket::from_ethernet(&run.out).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        let right = match packet.net {
            Some(NetSlice::Ipv4(ip)) => header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).unwrap(),
            Some(NetSlice::Ipv6(ip)) => header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).unwrap(),
            _ => panic!("no IP"),
        };
        assert_eq!(header.checksum, right, "the checksum is right");
        let checksum = payload - usize::from(header.data_offset() * 4) + 16;
        let (mut before, mut after) = (frame[..payload].to_vec(), run.out[..payload].to_vec());
        before[checksum..checksum + 2].fill(0);
        after[checksum..checksum + 2].fill(0);
        assert_eq!(before, after, "headers stay");
        run.out[payload..].to_vec()
    }

    fn says(&self, tester: &mut Tester, sequence: u32, text: &str) -> String {
        String::from_utf8(self.send(tester, sequence, text.as_bytes())).unwrap()
    }
}

/// Every way that a connection's frames may look.
fn ways(way: Way) -> Vec<Way> {
    let (server, peer) = (SERVER_V6.parse().unwrap(), PEER_V6.parse().unwrap());
    let (from, to) = if way.program == Program::Egress { (server, peer) } else { (peer, server) };
    let v6 = Way { frame: Frame { from, to, ..way.frame.clone() }, ..way.clone() };
    let mut tagged = Way { options: true, ..way.clone() };
    tagged.frame = tagged.frame.tags(&[5]);
    let extras = Way { frame: Frame { extras: true, ..way.frame.clone() }, ..way.clone() };
    vec![way, v6.clone(), Way { options: true, ..v6 }, tagged, extras]
}

/// Where numbers begin: also so that they go round within the message, and within the number.
const SEQUENCES: [u32; 4] = [1_000, u32::MAX - 40, 0u32.wrapping_sub(225), u32::MAX];

/// The server has sent up to 9, sipst three requests since: the server's 10 is 13 on the wire.
fn shifted(tester: &mut Tester, way: &Way) -> DialogKey {
    let (server, peer) = way.ends();
    tester.follow(&server, &peer, NUMBERS);
    let ranges = [Range { below: 10, delta: 0 }, Range::default(), Range::default(), Range::default()];
    let word = State { known: true, number: 9, delta: 3 }.to_word();
    tester.arm(&server, "call-1@host", "srv", Shift { word, ranges, ..Shift::default() })
}

fn over_tcp(message: String) -> String {
    message.replace("SIP/2.0/UDP", "SIP/2.0/TCP")
}

fn own(token: u64, method: &str, number: u32) -> String {
    over_tcp(request(method, &format!(" {number} {method}"))).replace("z9hG4bK77", &format!("z9hG4bKsipst{token:016x}"))
}

#[test]
fn the_servers_number_goes_up_however_its_copies_are_cut() {
    let mut tester = Tester::acting();
    for way in ways(Way::out()) {
        for first in SEQUENCES {
            tester.reset();
            shifted(&mut tester, &way);
            let bye = over_tcp(request("BYE", " 10 BYE"));
            let expected = bye.replace("CSeq: 10 BYE", "CSeq: 13 BYE");
            assert_eq!(way.says(&mut tester, first, &bye), expected);
            assert_eq!(way.says(&mut tester, first, &bye), expected, "a whole copy");
            for cut in 1..bye.len() {
                let (one, other) = bye.split_at(cut);
                let behind = first.wrapping_add(cut as u32);
                let other = way.says(&mut tester, behind, other);
                assert_eq!(way.says(&mut tester, first, one) + &other, expected, "cut at {cut}");
            }
            let number = bye.find("10 BYE").unwrap();
            for from in number - 3..number + 4 {
                for to in from + 1..number + 6 {
                    let piece = way.says(&mut tester, first.wrapping_add(from as u32), &bye[from..to]);
                    assert_eq!(piece, expected[from..to], "{from} to {to}");
                }
            }
            // Once, and once more by what is left of a first line that was cut: the same bytes.
            let [coming, leaving] = tester.plan(&way.ends().0, &way.ends().1).next;
            assert!(coming == 0 && (1..=2).contains(&leaving), "{coming} {leaving}");
            assert_eq!(tester.counter(Counter::PatchFailed) + tester.counter(Counter::PatchEvicted), 0);
        }
    }
}

#[test]
fn the_number_grows_into_the_blanks_before_it_and_no_further() {
    let mut tester = Tester::acting();
    let way = Way::out();
    for (cseq, expected) in [
        (" 97 INFO", Some(" 100 INFO".replacen(' ', "", 1))),
        ("  97 INFO", Some(" 100 INFO".into())),
        ("97 INFO", None),
    ] {
        tester.reset();
        shifted(&mut tester, &way);
        let info = over_tcp(request("INFO", cseq));
        let same = info.clone();
        let expected = expected.map_or(same, |after| info.replace(&format!("CSeq:{cseq}"), &format!("CSeq:{after}")));
        assert_eq!(way.says(&mut tester, 5, &info), expected, "{cseq}");
        assert_eq!(tester.counter(Counter::ShiftNoRoom), u64::from(cseq == "97 INFO"));
    }
}

#[test]
fn a_segment_with_more_behind_the_message_has_that_as_it_was() {
    let mut tester = Tester::acting();
    let way = Way::out();
    shifted(&mut tester, &way);
    let bye = over_tcp(request("BYE", " 10 BYE"));
    let long = bye.clone() + &"x".repeat(3_000);
    assert_eq!(way.says(&mut tester, 77, &long), long.replace("CSeq: 10", "CSeq: 13"));
    // The same number, far behind the beginning of another copy.
    let before = "y".repeat(2_500);
    let whole = before.clone() + &bye;
    let expected = before + &bye.replace("CSeq: 10", "CSeq: 13");
    assert_eq!(way.says(&mut tester, 77_u32.wrapping_sub(2_500), &whole), expected);
}

#[test]
fn both_numbers_of_a_prack_go_up() {
    let mut tester = Tester::acting();
    let way = Way::out();
    shifted(&mut tester, &way);
    let prack = over_tcp(request("PRACK", " 12 PRACK")).replace("Max-Forwards: 70", "RAck: 1 11 INVITE");
    let expected = prack.replace("CSeq: 12", "CSeq: 15").replace("RAck: 1 11", "RAck: 1 14");
    assert_eq!(way.says(&mut tester, 1, &prack), expected);
    for cut in 1..prack.len() {
        let tail = way.says(&mut tester, 1 + cut as u32, &prack[cut..]);
        assert_eq!(way.says(&mut tester, 1, &prack[..cut]) + &tail, expected, "cut at {cut}");
    }
}

#[test]
fn the_server_has_its_own_number_back_in_the_response_however_it_is_cut() {
    let mut tester = Tester::acting();
    for way in ways(Way::back()) {
        for first in SEQUENCES {
            tester.reset();
            shifted(&mut tester, &way);
            let ok = over_tcp(response("200 OK", "z9hG4bK77", " 13 BYE"));
            let expected = ok.replace("CSeq: 13", "CSeq: 10");
            assert_eq!(way.says(&mut tester, first, &ok), expected);
            for cut in 1..ok.len() {
                let tail = way.says(&mut tester, first.wrapping_add(cut as u32), &ok[cut..]);
                assert_eq!(way.says(&mut tester, first, &ok[..cut]) + &tail, expected, "cut at {cut}");
            }
        }
    }
}

#[test]
fn an_answer_to_sipst_becomes_a_100_whatever_its_token_and_however_it_is_cut() {
    let mut tester = Tester::acting();
    for way in ways(Way::back()) {
        for (status, branch) in [
            ("200 OK", format!("z9hG4bKsipst{TOKEN:016x}")),
            ("500 Server Internal Error", "z9hG4bKsipstffffffffffffffff".into()),
            ("481 Gone", "z9hG4bKsipst?".into()),
        ] {
            for numbers in [0, NUMBERS] {
                tester.reset();
                let (server, peer) = way.ends();
                tester.follow(&server, &peer, numbers);
                let answer = over_tcp(response(status, &branch, " 13 UPDATE"));
                let expected = answer.replacen(&status[..3], "100", 1);
                assert_eq!(way.says(&mut tester, 9, &answer), expected);
                for cut in 1..answer.len() {
                    let tail = way.says(&mut tester, 9 + cut as u32, &answer[cut..]);
                    assert_eq!(way.says(&mut tester, 9, &answer[..cut]) + &tail, expected, "cut at {cut}");
                }
                assert!(tester.counter(Counter::AnswerWritten) > 0);
            }
        }
    }
}

#[test]
fn what_is_nobodys_business_stays_as_it_is() {
    let mut tester = Tester::acting();
    let (out, back) = (Way::out(), Way::back());
    let bye = over_tcp(request("BYE", " 10 BYE"));
    let answer = over_tcp(response("200 OK", "z9hG4bKsipst0000000000000001", " 13 UPDATE"));
    let ok = over_tcp(response("200 OK", "z9hG4bK77", " 13 BYE"));

    // No plan for this connection.
    for (way, text) in [(&out, &bye), (&back, &answer)] {
        assert_eq!(&way.says(&mut tester, 5, text), text);
    }
    // Numbers are to be left alone.
    shifted(&mut tester, &out);
    tester.follow(SERVER, PEER, 0);
    for (way, text) in [(&out, &bye), (&back, &ok)] {
        assert_eq!(&way.says(&mut tester, 5, text), text);
    }
    // Another dialog, a request outside dialogs, a number from before, a message that does not begin the segment, what is no SIP.
    tester.reset();
    shifted(&mut tester, &out);
    for text in [
        bye.replace("call-1@", "call-2@"),
        bye.replace(";tag=peer", ""),
        over_tcp(request("BYE", " 9 BYE")),
        format!("x\r\n{bye}"),
        "\r\n\r\n".into(),
        "\0".into(),
        "x".into(),
    ] {
        assert_eq!(out.says(&mut tester, 5, &text), text);
    }
    // A request of the peer's with that number, and a response of the server's.
    let theirs = bye.replace("tag=srv", "tag=x").replace("tag=peer", "tag=srv");
    assert_eq!(back.says(&mut tester, 5, &theirs), theirs);
    assert_eq!(out.says(&mut tester, 500, &ok), ok);
    assert_eq!(tester.counter(Counter::Patched), 0);
}

#[test]
fn where_numbers_are_left_alone_from_now_on_the_answers_to_what_has_left_before_have_theirs_back() {
    let mut tester = Tester::acting();
    let (out, back) = (Way::out(), Way::back());
    shifted(&mut tester, &out);
    let info = over_tcp(request("INFO", " 10 INFO"));
    assert!(out.says(&mut tester, 1_000, &info).contains(" 13 INFO"));
    tester.follow(SERVER, PEER, ANSWERS);
    let answer = |number: u32| over_tcp(response("200 OK", "z9hG4bK77", &format!(" {number} INFO")));
    assert_eq!(back.says(&mut tester, 5_000, &answer(13)), answer(10));
    // Others' requests change nothing of that; the server's next one does: its 13 is its own.
    let own = own(TOKEN, "UPDATE", 10);
    out.says(&mut tester, 2_000, &own);
    out.says(&mut tester, 3_000, &over_tcp(request("OPTIONS", " 1 OPTIONS")).replace(";tag=peer", ""));
    assert_eq!(back.says(&mut tester, 6_000, &answer(13)), answer(10));
    let next = over_tcp(request("INFO", " 13 INFO"));
    assert_eq!(out.says(&mut tester, 4_000, &next), next);
    assert_eq!(back.says(&mut tester, 7_000, &answer(13)), answer(13));
}

#[test]
fn a_header_that_goes_on_in_the_next_segment_is_left_alone() {
    let mut tester = Tester::acting();
    let way = Way::out();
    let bye = over_tcp(request("BYE", " 10 BYE"));
    for cut in [bye.len() - 1, bye.len() - 3, bye.find("Content-Length").unwrap()] {
        tester.reset();
        let key = shifted(&mut tester, &way);
        // The last LF is missing only: what was seen is a whole header all the same.
        let (one, other) = bye.split_at(cut);
        let written = way.says(&mut tester, 50, one);
        assert_eq!(way.says(&mut tester, 50 + cut as u32, other), other);
        if cut == bye.len() - 1 {
            assert_eq!(written, one.replace("CSeq: 10", "CSeq: 13"));
        } else {
            assert_eq!((written.as_str(), tester.counter(Counter::StreamUnshifted)), (one, 1));
            assert_eq!(tester.state(key).number, 9, "and does not count");
        }
    }
}

#[test]
fn a_request_of_sipsts_own_commits_its_number_and_its_copies_stay() {
    let mut tester = Tester::acting();
    for way in ways(Way::out()) {
        tester.reset();
        let key = shifted(&mut tester, &way);
        tester.record(TOKEN, key, State { known: true, number: 9, delta: 3 }, false);
        let update = own(TOKEN, "UPDATE", 13);
        let run = tester.run(Program::Egress, &way.segment(40, update.as_bytes()));
        let own = run.records.iter().find(|record| record.header.kind == kind::INJECTED).unwrap();
        assert_eq!(
            (own.header.token, own.header.flags & flags::STREAM, &own.bytes[..]),
            (TOKEN, flags::STREAM, update.as_bytes())
        );
        assert_eq!(tester.state(key), State { known: true, number: 9, delta: 4 });
        assert_eq!(way.says(&mut tester, 40, &update), update);
        assert_eq!((tester.counter(Counter::Committed), tester.counter(Counter::Repeated)), (1, 1));
        let bye = over_tcp(request("BYE", " 10 BYE"));
        let behind = 40 + update.len() as u32;
        assert_eq!(way.says(&mut tester, behind, &bye), bye.replace("CSeq: 10", "CSeq: 14"));
    }
}

#[test]
fn a_request_of_sipsts_own_whose_number_is_stale_becomes_a_100_for_good() {
    let mut tester = Tester::acting();
    for way in ways(Way::out()) {
        for known in [true, false] {
            tester.reset();
            let key = shifted(&mut tester, &way);
            if known {
                tester.record(TOKEN, key, State { known: true, number: 8, delta: 3 }, false);
            }
            let update = own(TOKEN, "UPDATE", 12);
            let expected = format!("SIP/2.0 100 {}", &update[12..]);
            let run = tester.run(Program::Egress, &way.segment(40, update.as_bytes()));
            let told = run.records.iter().find(|record| record.header.kind == kind::REFUSED).unwrap();
            let reason = if known { refused::MOVED } else { refused::UNKNOWN_TOKEN };
            assert_eq!((told.header.token, told.header.reason), (TOKEN, reason));
            // What was refused once stays so, whatever is on record by then.
            tester.record(TOKEN, key, State { known: true, number: 9, delta: 3 }, false);
            for cut in 1..update.len() {
                let tail = way.says(&mut tester, 40 + cut as u32, &update[cut..]);
                assert_eq!(way.says(&mut tester, 40, &update[..cut]) + &tail, expected, "cut at {cut}");
            }
            assert_eq!(tester.state(key), State { known: true, number: 9, delta: 3 });
            assert_eq!((tester.counter(Counter::Refused), tester.counter(Counter::RequestWritten)), (1, 1));
        }
    }
}

#[test]
fn the_oldest_patch_goes_for_the_newest_and_that_counts_where_it_was_not_acknowledged() {
    let mut tester = Tester::acting();
    let (mut out, mut back) = (Way::out(), Way::back());
    shifted(&mut tester, &out);
    let mut sequence = 100_u32;
    let mut send = |tester: &mut Lent, out: &Way, number: u32| {
        let info = over_tcp(request("INFO", &format!(" {number} INFO")));
        let expected = info.replace(&format!(" {number} INFO"), &format!(" {} INFO", number + 3));
        assert_eq!(out.says(tester, sequence, &info), expected);
        sequence += info.len() as u32;
        sequence
    };
    for number in 0..PATCHES as u32 {
        back.acknowledges = send(&mut tester, &out, 10 + number);
        back.send(&mut tester, 1, b"");
    }
    send(&mut tester, &out, 20);
    assert_eq!(tester.counter(Counter::PatchEvicted), 0);
    for number in 0..PATCHES as u32 {
        send(&mut tester, &out, 30 + number);
    }
    assert_eq!(tester.counter(Counter::PatchEvicted), 1);
    out.acknowledges = 90;
    out.send(&mut tester, 1, b"");
    assert_eq!(tester.plan(SERVER, PEER).acknowledged[0], 90);
}

#[test]
fn without_the_programs_nothing_is_written() {
    let mut tester = Tester::new();
    let (out, back) = (Way::out(), Way::back());
    shifted(&mut tester, &out);
    let answer = over_tcp(response("200 OK", "z9hG4bKsipst0000000000000001", " 13 UPDATE"));
    for (way, text) in [(&out, over_tcp(request("BYE", " 10 BYE"))), (&back, answer)] {
        assert_eq!(way.says(&mut tester, 5, &text), text);
    }
}
