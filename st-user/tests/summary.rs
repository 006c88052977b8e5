//! `sipst replay --summary`: what became of each call, and who broke which rule.

#![allow(clippy::unwrap_used, reason = "what cannot be started fails the test")]

mod samples;

use std::process::Command;

use samples::*;
use serde_json::{Value, json};

/// Standard output and standard error of a replay.
fn replay(frames: &Frames, args: &[&str]) -> (String, String) {
    let temp = Temp::new(&Pcap::default().file(frames));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipst"));
    let output = command.arg("replay").arg(temp.path()).args(args).env_remove("SIPST_LOG").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// The one call of a capture.
fn summary(frames: &Frames) -> Value {
    let (out, log) = replay(frames, &["--json", "--summary", "--server", "192.0.2.1"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (calls, events): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.get("summary").is_some());
    assert!(events.iter().all(|event| event.get("event").is_some()));
    assert!(!log.contains("had to refresh"), "with --json the text is not wanted: {log}");
    let [call] = &calls[..] else { panic!("{calls:?}") };
    call.clone()
}

/// A packet from the peer, or from the server.
fn packet(seconds: u64, by_peer: bool, message: &[u8]) -> (u64, Vec<u8>) {
    let (from, to) = if by_peer { (PEER, SERVER) } else { (SERVER, PEER) };
    (at(seconds), ethernet(&ipv4(from, to, (5060, 5060), message), &[]))
}

/// A request of the peer's inside the dialog.
fn peers(start: &str, cseq: &str, branch: &str, more: &str) -> Vec<u8> {
    let text = String::from_utf8(sip(start, cseq, branch, true, more)).unwrap();
    text.replace("From: <sip:s@192.0.2.1>;tag=server", "From: <sip:p@198.51.100.2>;tag=peer")
        .replace("To: <sip:p@198.51.100.2>;tag=peer", "To: <sip:s@192.0.2.1>;tag=server")
        .into_bytes()
}

/// An UPDATE with `branch` in the server's direction to the peer at `seconds`, and its 200.
fn update(seconds: u64, number: u32, branch: &str) -> Frames {
    let cseq = format!("{number} UPDATE");
    let expires = "Supported: timer\r\nRequire: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    vec![
        packet(seconds, false, &sip("UPDATE sip:p@198.51.100.2 SIP/2.0", &cseq, branch, true, expires)),
        packet(seconds, true, &sip("SIP/2.0 200 OK", &cseq, branch, true, expires)),
    ]
}

/// The sample call with these packets before its BYE.
fn with(bye: u64, more: Frames) -> Frames {
    let mut frames = call(bye);
    frames.splice(4..4, more);
    frames
}

fn sipsts_branch() -> String {
    let prefix = String::from_utf8_lossy(&st_ebpf::abi::BRANCH_PREFIX).into_owned();
    format!("{}00000000000000aa", prefix.strip_prefix("z9hG4bK").unwrap_or(&prefix))
}

#[test]
fn a_call_that_nobody_refreshes_tells_who_had_to_and_when_it_would_have_died() {
    let call = summary(&call(200));
    assert_eq!(call["verdict"], "outlived");
    assert_eq!(call["refreshers"], json!(["server"]));
    assert_eq!(call["refreshed"], json!({ "server": 0, "peer": 0, "sipst": 0 }));
    assert_eq!(call["failed"], json!({ "server": 1, "peer": 0, "sipst": 0 }));
    // A third of the interval before its end.
    assert_eq!(call["would_have_died"], "2023-11-14T22:14:21.000000Z");
    assert_eq!(call["ended"], "2023-11-14T22:16:40.000000Z");
    assert_eq!((&call["ended_by"], &call["interval_s"]), (&json!("server"), &json!(90)));
    assert_eq!(call["breaches"], json!([{ "by": "peer", "reason": "refresher_without_timer" }]));
    assert_eq!(call["call_id"], "sample");
}

#[test]
fn every_field_and_verdict_is_explained() {
    let text = include_str!("../../docs/summary.md");
    let call = summary(&call(200));
    for field in call.as_object().unwrap().keys() {
        assert!(text.contains(&format!("`{field}`")), "{field}");
    }
    for verdict in ["no_timer", "sound", "kept_alive", "outlived", "overdue", "lost"] {
        assert!(text.contains(&format!("| `{verdict}` |")), "{verdict}");
    }
}

#[test]
fn a_call_that_sipst_refreshed_was_kept_alive() {
    let call = summary(&with(100, update(46, 2, &sipsts_branch())));
    assert_eq!((&call["verdict"], &call["refreshed"]["sipst"]), (&json!("kept_alive"), &json!(1)));
    assert_eq!(call["would_have_died"], "2023-11-14T22:14:21.000000Z");
}

#[test]
fn a_call_whose_server_refreshes_is_sound() {
    let call = summary(&with(100, update(30, 2, "refresh")));
    assert_eq!((&call["verdict"], &call["refreshed"]["server"]), (&json!("sound"), &json!(1)));
    assert_eq!(call.get("would_have_died"), None);
}

#[test]
fn a_call_that_the_peer_hangs_up_while_a_refresh_is_overdue_is_lost() {
    let mut frames = call(61);
    frames.truncate(4);
    frames.push(packet(61, true, &peers("BYE sip:s@192.0.2.1 SIP/2.0", "9 BYE", "bye", "")));
    frames.push(packet(61, false, &peers("SIP/2.0 200 OK", "9 BYE", "bye", "")));
    let call = summary(&frames);
    assert_eq!((&call["verdict"], &call["ended_by"]), (&json!("lost"), &json!("peer")));
    assert_eq!(call["would_have_died"], "2023-11-14T22:14:21.000000Z");
}

#[test]
fn a_peer_that_hangs_up_earlier_is_blamed_only_if_it_says_so() {
    for (cause, verdict) in [("", "overdue"), ("Reason: SIP;cause=408;text=\"Session timeout\"\r\n", "lost")] {
        let mut frames = call(50);
        frames.truncate(4);
        frames.push(packet(50, true, &peers("BYE sip:s@192.0.2.1 SIP/2.0", "9 BYE", "bye", cause)));
        frames.push(packet(50, false, &peers("SIP/2.0 200 OK", "9 BYE", "bye", "")));
        assert_eq!(summary(&frames)["verdict"], verdict);
    }
}

#[test]
fn a_capture_that_ends_first_says_so() {
    let mut frames = call(200);
    frames.truncate(4);
    assert_eq!(summary(&frames)["verdict"], "sound");
    frames.push(packet(50, true, b"\r\n\r\n"));
    let call = summary(&frames);
    assert_eq!((&call["verdict"], call.get("ended")), (&json!("overdue"), None));
}

#[test]
fn people_read_it_after_the_events() {
    let (out, log) = replay(&call(200), &["--summary"]);
    assert!(out.contains("  breaches=peer:refresher_without_timer"), "{out}");
    assert!(out.contains("session_expired") && !out.contains("had to refresh"));
    for line in [
        "call sample (server 192.0.2.1:5060, peer 198.51.100.2:5060, default): its interval ran out, and nobody enforced that",
        "  had to refresh: server, within 90 s",
        "  did: nobody",
        "  failed: server (1)",
        "  could have died: 2023-11-14T22:14:21.000000Z",
        "  breach by the peer: refresher_without_timer",
        "  ended: 2023-11-14T22:16:40.000000Z by server",
    ] {
        assert!(log.lines().any(|found| found == line), "{line}\n{log}");
    }
    let (_, log) = replay(&call(200), &[]);
    assert!(!log.contains("had to refresh"), "only where it is asked for");
}
