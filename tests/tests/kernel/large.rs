//! Messages in jumbo frames, which the XDP program meets in several buffers: BPF_PROG_TEST_RUN lays what is behind the first 3.5 KiB or
//! so into further pages, as drivers do. (For TC programs it makes no packets as long: those are looked at on a wire.)

use st_ebpf::abi::{CAPTURE, Counter, flags};

use crate::{
    frame::{Frame, checksum_is_right},
    shift::known,
    tester::{PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request, response},
};

/// What a jumbo frame carries at most, less some headers.
const JUMBO: usize = 8_900;

/// The message with a header of so many bytes more in front of a line.
fn padded(message: &str, line: &str, by: usize) -> String {
    let name = "X-Padding: ";
    let padding = "x".repeat(by - name.len() - 2);
    message.replace(&format!("\r\n{line}"), &format!("\r\n{name}{padding}\r\n{line}"))
}

#[test]
fn a_message_of_a_jumbo_frame_is_read_whole() {
    let mut tester = Tester::new();
    for (peer, server) in [(PEER, SERVER), (PEER_V6, SERVER_V6)] {
        for len in [3_000, 3_500, 4_096, 4_097, 7_000, JUMBO] {
            tester.reset();
            let bye = request("BYE", " 3 BYE");
            let message = padded(&bye, "Content-Length", len - bye.len());
            assert_eq!(message.len(), len);
            let frame = Frame::new(peer, server).with(message.as_bytes());
            let run = tester.run(Program::IngressXdp, &frame);
            assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 1), "{server} {len}");
            assert_eq!(String::from_utf8_lossy(&run.records[0].bytes), message, "{server} {len}");
            assert_eq!(run.out, frame, "{server} {len}");
            assert_eq!(tester.counters(), [(Counter::Seen, 1), (Counter::Sampled, 1)], "{server} {len}");
        }
    }
}

#[test]
fn of_a_message_that_is_longer_than_what_is_captured_the_beginning_is_and_that_is_counted() {
    let mut tester = Tester::new();
    let bye = request("BYE", " 3 BYE");
    let message = padded(&bye, "Content-Length", 20_000);
    let run = tester.run(Program::IngressXdp, &Frame::new(PEER, SERVER).with(message.as_bytes()));
    let [record] = run.records.as_slice() else { panic!("{:?}", run.records) };
    assert_eq!(record.bytes, &message.as_bytes()[..CAPTURE]);
    assert_eq!(usize::from(record.header.wire_len), message.len());
    assert_eq!(record.header.flags & flags::CUT, flags::CUT);
    assert_eq!(tester.counter(Counter::Cut), 1);
}

#[test]
fn a_number_behind_the_first_buffer_is_shifted_back_and_the_checksum_with_it() {
    let mut tester = Tester::new();
    tester.arm(SERVER, "call-1@host", "srv", known(2, 1));
    // Around the end of the first buffer too, so that some number lies in two.
    for by in (3_100..3_400).chain([6_000, 6_001]) {
        let frame = |cseq| {
            let answer = padded(&response("200 OK", "z9hG4bK77", cseq), "CSeq", by);
            Frame::new(PEER, SERVER).with(answer.as_bytes())
        };
        let run = tester.run(Program::IngressXdp, &frame(" 4 BYE"));
        assert!(run.out == frame(" 3 BYE"), "{by}");
        assert!(checksum_is_right(&run.out), "{by}");
        assert_eq!(run.records.len(), 1, "{by}");
    }
    assert_eq!(tester.counter(Counter::ShiftedIn), 302);
}
