//! Whatever comes, it passes as it is: random bytes, mutilated messages, hostile headers.

use st_ebpf::{abi::Shift, cseq::State};

use crate::{
    frame::Frame,
    tester::{PEER, Program, SERVER, Tester, Verdict, request, response},
};

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

fn armed() -> Tester {
    let mut tester = Tester::new();
    let state = State { known: true, number: 2, delta: 0 };
    tester.arm(SERVER, "call-1@host", "srv", Shift { word: state.to_word(), ..Shift::default() });
    tester
}

#[test]
fn mutilated_messages_pass_untouched() {
    let mut tester = armed();
    let messages =
        [request("BYE", " 3 BYE"), request("INVITE", "\r\n 3 INVITE"), response("200 OK", "z9hG4bK7", " 3 BYE")];
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
        assert_eq!((run.verdict, run.out), (Verdict::Pass, outgoing), "seed {seed}");
        for program in [Program::IngressTc, Program::IngressXdp] {
            let incoming = Frame::new(PEER, SERVER).with(&bytes);
            let run = tester.run(program, &incoming);
            assert_eq!((run.verdict, run.out), (Verdict::Pass, incoming), "{program:?} seed {seed}");
        }
    }
}

#[test]
fn random_frames_pass_untouched() {
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
            assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame), "{program:?} seed {seed}");
        }
    }
}
