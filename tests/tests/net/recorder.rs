//! The flight recorder: what sipst did to the packets of a call, in a capture that says why.

use st_tests::{Host, Sipst};

use crate::plan::{Plan, SOON};

const FILE: &str = "/run/state/recorder/flight-00000001.pcapng";

/// Comment and packet of each enhanced packet block, read by the rules of pcapng and nothing of sipst's.
pub(crate) fn packets(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    const ENHANCED_PACKET: u32 = 6;
    const COMMENT: u16 = 1;
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap());
    let (mut packets, mut at) = (Vec::new(), 0);
    while at < file.len() {
        let (kind, length) = (word(at), word(at + 4) as usize);
        assert_eq!(word(at + length - 4) as usize, length, "block at {at}");
        if kind == ENHANCED_PACKET {
            let captured = word(at + 20) as usize;
            let packet = file[at + 28..at + 28 + captured].to_vec();
            let mut option = at + 28 + captured.next_multiple_of(4);
            let mut comment = String::new();
            while option < at + length - 4 && half(option) != 0 {
                let len = usize::from(half(option + 2));
                if half(option) == COMMENT {
                    comment = String::from_utf8(file[option + 4..option + 4 + len].to_vec()).unwrap();
                }
                option += 4 + len.next_multiple_of(4);
            }
            packets.push((comment, packet));
        }
        at += length;
    }
    packets
}

/// The SIP message in an IPv4 packet.
fn message(packet: &[u8]) -> &[u8] {
    assert_eq!(packet[0], 0x45);
    &packet[28..]
}

fn cseq(message: &[u8]) -> String {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("CSeq:")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

fn replay(host: &Host) -> (Option<i32>, String) {
    let (code, out, log) = Sipst::command(host, &["replay", "--json", FILE]).unwrap();
    (code, format!("{out}\n{log}"))
}

#[test]
fn a_recorder_has_what_was_sent_taken_and_rewritten_with_both_numbers_and_nothing_else() {
    for attach in ["tc", "xdp"] {
        let plan = Plan { attach, ..Plan::default() };
        let mut call = plan.start_with(|config| format!("{config}recorder: {{ size: 1MiB, files: 2 }}\n"));
        call.refreshed(1);
        call.sipst.event("refresh_succeeded", SOON).unwrap();
        call.server_hangs_up();
        assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
        let refreshes = call.sipst.count("refresh_sent");
        let kept = packets(&call.lab.server.read(FILE).unwrap());
        let comments: Vec<&str> = kept.iter().map(|(comment, _)| comment.as_str()).collect();
        let call_id = call.sipst.event("session_started", SOON).unwrap()["call_id"].as_str().unwrap().to_owned();
        assert!(comments.iter().all(|comment| comment.contains(&format!("call {call_id}"))), "{comments:#?}");
        let (own, rest) = kept.split_at(2 * refreshes);
        for pair in own.chunks(2) {
            assert!(pair[0].0.starts_with("sent refresh UPDATE in the server's name"), "{comments:#?}");
            assert!(pair[1].0.starts_with("took answer 200 to UPDATE"), "{comments:#?}");
        }
        let [before, after, answer_before, answer_after] = rest else { panic!("{comments:#?}") };
        // What the server said and heard, and what was on the wire, byte for byte.
        let [said, wire] = [before, after].map(|(_, packet)| cseq(message(packet)));
        assert_ne!(said, wire);
        assert!(before.0.starts_with(&format!("rewritten: CSeq {said} -> {wire}: as it was, BYE")), "{comments:#?}");
        assert!(after.0.starts_with(&format!("rewritten: CSeq {said} -> {wire}: as it is, BYE")), "{comments:#?}");
        let answers = [answer_before, answer_after].map(|(_, packet)| cseq(message(packet)));
        assert_eq!(answers, [wire.clone(), said.clone()]);
        assert!(answer_before.0.starts_with(&format!("rewritten: CSeq {wire} -> {said}: as it was, 200 to BYE")));
        let sent = call.server.sent().last().unwrap().to_bytes(": ");
        assert_eq!(message(&before.1), sent, "{}", call.story());
        let arrived = call.tap.datagrams().unwrap();
        let on_wire = |packet: &[u8]| arrived.iter().any(|datagram| datagram.payload == message(packet));
        assert!(on_wire(&after.1) && on_wire(&answer_before.1) && on_wire(&own[0].1) && on_wire(&own[1].1));
        let (code, said) = replay(&call.lab.server);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn without_a_recorder_nothing_is_kept_and_a_reload_makes_none() {
    let mut call = Plan::default().start();
    call.refreshed(1);
    let host = &call.lab.server;
    let file = String::from_utf8(host.read("/run/sipst.yaml").unwrap()).unwrap();
    host.file("sipst.yaml", format!("{file}recorder: {{}}\n")).unwrap();
    let (code, printed, said) = Sipst::command(host, &["reload"]).unwrap();
    assert_eq!(code, Some(1), "{printed}{said}");
    assert!(said.contains("`recorder` (the programs were loaded for it)"), "{said}");
    call.server_hangs_up();
    assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
    let kept = call.lab.server.list("/run/state");
    assert!(!kept.is_empty() && !kept.iter().any(|name| name == "recorder"), "{kept:?}");
}
