//! What the kernel programs cost a packet, by BPF_PROG_TEST_RUN: the median of nine runs each, beside a program that does
//! nothing in the same minute. A repeated run goes on with the packet that the run before left, and a ring that is full costs less
//! than one that is not: so each figure looks at the counters afterwards.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "a bench that cannot run says so and ends")]

mod empty;
#[path = "../../tests/kernel/frame.rs"]
#[allow(dead_code, reason = "the kernel tests use the rest")]
mod frame;
mod place;
#[path = "../../tests/kernel/tester.rs"]
#[allow(dead_code, reason = "the kernel tests use the rest")]
mod tester;

use std::os::fd::{AsRawFd as _, RawFd};

use st_ebpf::{
    abi::{Counter, RING_STRANGERS, SampleHeader, Shift, names},
    cseq::{RANGES, Range, State},
};
use st_tests::figure::{Target, tell};

use empty::Empty;
use frame::Frame;
use tester::{Lent, PEER, Program, SERVER, Tester, request};

/// Runs of which the median counts.
const RUNS: usize = 9;

/// Packets of a run.
const REPEAT: u32 = 20_000;

/// Of one in which each packet costs next to nothing.
const REPEAT_FINELY: u32 = 500_000;

const PROGRAMS: [Program; 3] = [Program::IngressXdp, Program::IngressTc, Program::Egress];

struct Bench {
    tester: Lent,
    /// As XDP, and as TC.
    empty: [Empty; 2],
}

/// The medians of figures that are taken in turns.
fn medians<const N: usize>(mut take: impl FnMut() -> [f64; N]) -> [f64; N] {
    let rounds: [[f64; N]; RUNS] = std::array::from_fn(|_| take());
    std::array::from_fn(|figure| {
        let mut values = rounds.map(|round| round[figure]);
        values.sort_by(f64::total_cmp);
        values[RUNS / 2]
    })
}

fn name(program: Program) -> &'static str {
    match program {
        Program::IngressXdp => names::INGRESS_XDP,
        Program::IngressTc => names::INGRESS_TC,
        Program::Egress => names::EGRESS,
    }
}

/// The frame as a program meets it: ingress sees what the peer sends.
fn facing(program: Program) -> Frame {
    if program == Program::Egress { Frame::new(SERVER, PEER) } else { Frame::new(PEER, SERVER) }
}

impl Bench {
    fn fd(&self, program: Program) -> RawFd {
        self.tester.fd(program).as_raw_fd()
    }

    /// The program of that type that does nothing.
    fn empty_like(&self, program: Program) -> RawFd {
        self.empty[usize::from(program != Program::IngressXdp)].fd()
    }

    /// Nanoseconds of a packet, and of one in the empty program: they take turns.
    fn both(&self, program: Program, frame: &[u8], repeat: u32) -> (f64, f64) {
        let (fd, empty) = (self.fd(program), self.empty_like(program));
        let [here, empty] = medians(|| [empty::run(fd, frame, repeat), empty::run(empty, frame, repeat)]);
        (here, empty)
    }

    /// A packet that is let by at first sight: as a ratio to the empty program's.
    fn passed_by(&mut self, what: &str, frame: impl Fn(Program) -> Vec<u8>) {
        for program in PROGRAMS {
            self.tester.reset();
            let (frame, fd, empty) = (frame(program), self.fd(program), self.empty_like(program));
            let run = |fd| empty::run(fd, &frame, REPEAT_FINELY);
            let [here, empty] = medians(|| [run(fd), run(empty)]);
            assert!(self.tester.drain().is_empty() && self.tester.counters().is_empty(), "{what}: it was looked at");
            let name = format!("kernel/{what}/{}", name(program));
            tell(&name, here / empty, "x an empty program", Target::AtMost(1.4));
            tell(&format!("{name}: over the empty program"), here - empty, "ns", Target::None);
        }
    }

    /// A message that is looked at and turned away: over the empty program's time.
    fn turned_away(&mut self, method: &str) {
        let message = format!(
            "{method} sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5070;branch=z9hG4bK77\r\n\
             Max-Forwards: 70\r\nFrom: <sip:peer@198.51.100.7>;tag=peer\r\nTo: <sip:192.0.2.1>\r\n\
             Call-ID: call-1@host\r\nCSeq: 4 {method}\r\nContent-Length: 0\r\n\r\n"
        );
        for program in PROGRAMS {
            self.tester.reset();
            let frame = facing(program).with(message.as_bytes());
            let (here, empty) = self.both(program, &frame, REPEAT);
            assert_eq!(self.tester.counter(Counter::OutsideRequest), RUNS as u64 * u64::from(REPEAT), "{method}");
            tell(&format!("kernel/{method} turned away/{}", name(program)), here - empty, "ns", Target::AtMost(150.0));
        }
    }

    /// A message into the ring, in batches that have room there.
    fn sampled(&mut self, what: &str, message: &str, target: Target) {
        let record = (size_of::<SampleHeader>() + message.len() + 16) as u64;
        let batch = u32::try_from(RING_STRANGERS / record / 2).unwrap();
        for program in PROGRAMS {
            self.tester.reset();
            let frame = facing(program).with(message.as_bytes());
            let (fd, empty) = (self.fd(program), self.empty_like(program));
            let [here, empty] = medians(|| {
                let here = empty::run(fd, &frame, batch);
                assert_eq!(self.tester.drain().len(), batch as usize, "{what}: the ring lost some");
                [here, empty::run(empty, &frame, batch)]
            });
            assert_eq!(self.tester.counter(Counter::RingFull), 0, "{what}");
            tell(&format!("kernel/{what} into the ring/{}", name(program)), here - empty, "ns", target);
        }
    }

    /// A request through the shift of its numbers, and the same of a dialog without one on a host that has some.
    fn shifted(&mut self) {
        const FIRST: u32 = 10_000_000;
        // Enough blanks to be of 500 bytes; each run's request has the number that the run before left on the wire.
        let message = request("BYE", &format!(" {FIRST} BYE"))
            .replace("Content-Length: 0", &format!("Subject: {}\r\nContent-Length: 0", "x".repeat(200)));
        let mut ranges = [Range::default(); RANGES];
        ranges[0] = Range { below: FIRST, delta: 0 };
        let state = State { known: true, number: FIRST - 1, delta: 1 };
        let entry = Shift { word: state.to_word(), ranges, ..Shift::default() };
        let record = (size_of::<SampleHeader>() + message.len() + 16) as u64;
        let batch = u32::try_from(RING_STRANGERS / record / 2).unwrap();
        let frame = facing(Program::Egress).with(message.as_bytes());
        let elsewhere = message.replace("call-1@host", "call-2@host");
        let elsewhere = facing(Program::Egress).with(elsewhere.as_bytes());
        let far = Frame::new("192.0.2.99:5060", PEER).with(message.as_bytes());

        let fd = self.fd(Program::Egress);
        self.tester.reset();
        let [here, elsewhere, far] = medians(|| {
            [&frame, &elsewhere, &far].map(|frame| {
                self.tester.arm(SERVER, "call-1@host", "srv", entry);
                let time = empty::run(fd, frame, batch);
                assert_eq!(self.tester.drain().len(), batch as usize, "the ring lost some");
                time
            })
        });
        assert_eq!(self.tester.counter(Counter::ShiftedOut), RUNS as u64 * u64::from(batch));
        tell("kernel/BYE of 500 bytes: its number shifted", here - far, "ns", Target::AtMost(2_000.0));
        tell("kernel/BYE of 500 bytes: another dialog on that host", elsewhere - far, "ns", Target::AtMost(1_000.0));
        tell("kernel/BYE of 500 bytes: a host without shifts, sampled", far, "ns", Target::None);
    }
}

/// An INVITE of 900 bytes with its session description.
fn invite() -> String {
    let head = "INVITE sip:15551234567@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5070;branch=z9hG4bK77\r\n\
        Max-Forwards: 70\r\nFrom: <sip:peer@198.51.100.7>;tag=peer\r\nTo: <sip:15551234567@192.0.2.1>\r\n\
        Call-ID: 3f2b9c4e-7a1d-4e8b-9c5f-6d0a1b2c3d4e@198.51.100.7\r\nCSeq: 4711 INVITE\r\n\
        Contact: <sip:peer@198.51.100.7:5070>\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
        Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\nContent-Type: application/sdp\r\n";
    let length = 900 - head.len() - "Content-Length: 400\r\n\r\n".len();
    let sdp = "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{sdp}{}", "a=x\r\n".repeat(200).split_at(length - sdp.len()).0)
}

fn main() {
    let mut bench = Bench { tester: Tester::new(), empty: [Empty::xdp(), Empty::tc()] };
    let rtp = |program: Program| {
        let mut frame = facing(program);
        frame.from.set_port(40_000);
        frame.to.set_port(40_002);
        frame
    };
    bench.passed_by("RTP", |program| rtp(program).with(&[0x80; 172]));
    bench.passed_by("another port's UDP", |program| rtp(program).with(&[7; 900]));
    bench.passed_by("TCP", |program| rtp(program).tcp().around(&[0; 60]));
    bench.passed_by("ARP", |_| {
        let mut arp = vec![0xff; 12];
        arp.extend_from_slice(&[8, 6]);
        arp.extend_from_slice(&[1; 46]);
        arp
    });
    // The price of `any_port`.
    let mut any = Bench { tester: Tester::any_port(), empty: [Empty::xdp(), Empty::tc()] };
    any.passed_by("RTP, any port looked at", |program| rtp(program).with(&[0x80; 172]));
    any.passed_by("another port's UDP, any port looked at", |program| rtp(program).with(&[7; 900]));
    bench.turned_away("OPTIONS");
    bench.turned_away("REGISTER");
    let invite = invite();
    assert_eq!(invite.len(), 900);
    bench.sampled("INVITE of 900 bytes", &invite, Target::AtMost(600.0));
    bench.shifted();
    place::run([&bench.empty[0], &bench.empty[1]]);
}
