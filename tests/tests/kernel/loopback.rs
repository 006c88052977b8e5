//! Over the loopback every packet crosses both sides: it is looked at on one.

use st_ebpf::abi::{Counter, direction};

use crate::{
    frame::Frame,
    tester::{INGRESS, PEER, Program, SERVER, Tester, Verdict, request},
};

/// As the loopback has it: no addresses.
fn looped(from: &str, to: &str) -> Vec<u8> {
    let mut frame = Frame::new(from, to).with(request("BYE", " 3 BYE").as_bytes());
    frame[..12].fill(0);
    frame
}

#[test]
fn each_packet_is_seen_once_on_the_side_of_the_end_with_the_sip_port() {
    let mut tester = Tester::new();
    let sides =
        [(Program::Egress, direction::EGRESS), (INGRESS[0], direction::INGRESS), (INGRESS[1], direction::INGRESS)];
    for (program, side) in sides {
        for (from, to, seen) in [(SERVER, PEER, direction::EGRESS), (PEER, SERVER, direction::INGRESS)] {
            let frame = looped(from, to);
            let run = tester.reset().run(program, &frame);
            assert_eq!((run.verdict, &run.out), (Verdict::Pass, &frame));
            let records = run.records;
            assert_eq!(records.len(), usize::from(side == seen), "{program:?} {from} {to}");
            assert!(records.iter().all(|record| record.header.direction == seen));
            assert_eq!(tester.counter(Counter::Seen), records.len() as u64);
        }
    }
}

#[test]
fn between_two_sip_ports_nobody_is_the_server_and_that_is_counted_once() {
    let mut tester = Tester::new();
    let frame = looped(SERVER, "198.51.100.7:5060");
    for (program, counted) in [(Program::Egress, 1), (INGRESS[0], 0), (INGRESS[1], 0)] {
        let run = tester.reset().run(program, &frame);
        assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 0));
        assert_eq!(tester.counter(Counter::Loopback), counted, "{program:?}");
    }
}
