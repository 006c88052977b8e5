//! Whatever comes, it passes as it is, but for a number in a CSeq: random bytes, mutilated messages, hostile headers.

use st_ebpf::{
    abi::{Counter, Shift},
    cseq::{RANGES, Range, State},
};

use crate::{
    frame::{Frame, checksum_is_right},
    tester::{Lent, PEER, Program, SERVER, Tester, Verdict, request, response},
};

/// Where the UDP checksum is in a frame without tags or options.
const CHECKSUM: usize = 14 + 20 + 6;

/// A small generator, so that a failure names a seed that repeats it (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn armed() -> Lent {
    let mut tester = Tester::new();
    let state = State { known: true, number: 2, delta: 1 };
    let mut ranges = [Range::default(); RANGES];
    ranges[0] = Range { below: 3, delta: 0 };
    tester.arm(SERVER, "call-1@host", "srv", Shift { word: state.to_word(), ranges, ..Shift::default() });
    tester
}

/// Whether `after` is `before` but for one number, digits and blanks that stand together, and the UDP checksum at
/// `checksum`. Returns whether anything differs.
fn only_a_number_differs(before: &[u8], after: &[u8], checksum: usize) -> bool {
    assert_eq!(before.len(), after.len());
    let differs = |at: &usize| before[*at] != after[*at] && !(checksum..checksum + 2).contains(at);
    let places: Vec<usize> = (0..before.len()).filter(differs).collect();
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return before != after };
    let number = |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii_digit() || *byte == b' ');
    assert!(number(&before[*first..=*last]) && number(&after[*first..=*last]), "{first} to {last}");
    true
}

#[test]
fn mutilated_messages_pass_with_no_more_than_a_number_changed() {
    let mut tester = armed();
    let mut before = (0, 0);
    let messages =
        [request("BYE", " 3 BYE"), request("INVITE", "\r\n 3 INVITE"), response("200 OK", "z9hG4bK7", " 4 BYE")];
    for seed in 1..=3000_u64 {
        let mut random = Random(seed);
        let mut bytes = messages[random.below(messages.len())].clone().into_bytes();
        for _ in 0..random.below(12) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at + 1),
                2 => bytes.insert(at, b"\r\n \t;:,<>\"\\="[random.below(12)]),
                _ => {
                    bytes.remove(at);
                    if bytes.is_empty() {
                        bytes.push(b'x');
                    }
                }
            }
        }
        let outgoing = Frame::new(SERVER, PEER).with(&bytes);
        let run = tester.run(Program::Egress, &outgoing);
        assert_eq!(run.verdict, Verdict::Pass, "seed {seed}");
        let shifted = tester.counter(Counter::ShiftedOut);
        assert_eq!(only_a_number_differs(&outgoing, &run.out, CHECKSUM), shifted > before.0, "seed {seed}");
        assert!(checksum_is_right(&run.out), "seed {seed}");
        before.0 = shifted;
        for program in [Program::IngressTc, Program::IngressXdp] {
            let incoming = Frame::new(PEER, SERVER).with(&bytes);
            let run = tester.run(program, &incoming);
            assert_eq!(run.verdict, Verdict::Pass, "{program:?} seed {seed}");
            let shifted = tester.counter(Counter::ShiftedIn);
            assert_eq!(only_a_number_differs(&incoming, &run.out, CHECKSUM), shifted > before.1, "seed {seed}");
            assert!(checksum_is_right(&run.out), "{program:?} seed {seed}");
            before.1 = shifted;
        }
    }
    assert!(before.0 > 100 && before.1 > 100, "numbers were shifted: {before:?}");
}

#[test]
fn random_frames_pass_with_no_more_than_a_number_changed() {
    let mut tester = armed();
    for seed in 1..=3000_u64 {
        let mut random = Random(seed);
        let mut frame = Frame::new(PEER, SERVER).with(request("BYE", " 3 BYE").as_bytes());
        // BPF_PROG_TEST_RUN makes no skb of less than an IPv6 header.
        frame.truncate(54 + random.below(frame.len() - 54));
        for _ in 0..random.below(8) {
            let at = 12 + random.below(frame.len() - 12);
            frame[at] = random.next() as u8;
        }
        for program in [Program::IngressTc, Program::IngressXdp, Program::Egress] {
            let run = tester.run(program, &frame);
            assert_eq!(run.verdict, Verdict::Pass, "{program:?} seed {seed}");
            only_a_number_differs(&frame, &run.out, CHECKSUM);
        }
    }
}
