//! Headers and messages that are wrong on purpose: each is refused or read in the one way that is stated here, is counted,
//! and leaves a call that is up as it was.

use crate::sim::{Call, Sim, manners, sdp, text};
use st_core::{
    Action,
    EventKind::*,
    Side,
    engine::limits::MAX_IDENTIFIER,
    message::{MAX_LINES, MAX_MESSAGE, Message, MethodName, ScanError},
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";

fn up() -> (Sim, Call) {
    let mut sim = Sim::new(Action::Refresh);
    let call = sim.call("a", Side::Server, UAC_90);
    (sim, call)
}

/// The call that is up is refreshed in time and can be ended.
fn assert_undisturbed(mut sim: Sim, mut call: Call, what: &str) {
    sim.secs(46);
    assert_eq!(sim.methods(), [MethodName::Update], "{what}");
    sim.hang_up(&mut call);
    assert_eq!(sim.count(SessionEnded), 1, "{what}");
    sim.assert_numbers();
}

#[test]
fn r2_a_session_expires_that_cannot_be_read_is_a_fault_and_changes_nothing() {
    for value in [
        "",
        " ",
        "-1",
        "+90",
        "90.5",
        "0x5a",
        "9 0",
        "4294967296",
        "18446744073709551706",
        "9999999999999999999999999999999999999999",
        "ninety",
        ";refresher=uac",
        "90;refresher",
        "90;refresher=",
        "90;refresher=uax",
        "90;refresher=\"uac\"",
        "90;refresher=uac;refresher=uas",
        "90;refresher=uac uas",
        "90, 1800",
        "90\r\nSession-Expires: 90",
        "90\r\nx: 1800;refresher=uac",
    ] {
        let mut sim = Sim::new(Action::Refresh);
        sim.call("a", Side::Server, &format!("Session-Expires: {value}\r\n"));
        assert_eq!(sim.reasons(NegotiationFault), ["session_expires_malformed"], "{value}");
        sim.secs(200);
        assert_eq!((sim.ours().len(), sim.count(SessionExpired)), (0, 0), "{value}");

        let (mut sim, mut call) = up();
        let asked = sim.request(&mut call, Side::Server, "UPDATE", "", "");
        sim.respond(&call, Side::Server, &asked, "UPDATE", 200, &format!("Session-Expires: {value}\r\n"));
        assert_eq!(sim.reasons(NegotiationFault), ["session_expires_malformed"], "{value}");
        assert_undisturbed(sim, call, value);
    }
}

#[test]
fn r42_an_interval_that_is_too_short_or_too_long_to_be_true_is_survived() {
    for (value, interval, faults) in [
        ("0;refresher=uac", 0, &["interval_below_floor"][..]),
        ("1;refresher=uac", 1, &["interval_below_floor"]),
        ("00000000000000000000000090;refresher=uac", 90, &[]),
        ("2147483647;refresher=uac", i32::MAX as u32, &[]),
        ("2147483648;refresher=UAC;x=\"y;refresher=uas\"", 1 << 31, &[]),
        ("4294967295;refresher=uac;refresher=uac", u32::MAX, &[]),
    ] {
        let mut sim = Sim::new(Action::Refresh);
        let mut call = sim.call("a", Side::Server, &format!("Session-Expires: {value}\r\n"));
        assert_eq!(sim.last(TimerNegotiated).interval_s, Some(interval), "{value}");
        assert_eq!(sim.reasons(NegotiationFault), faults, "{value}");
        sim.secs(40);
        assert_eq!(sim.ours().len(), 0, "{value}");
        sim.hang_up(&mut call);
        assert_eq!(sim.count(SessionEnded), 1, "{value}");
    }
}

#[test]
fn a_min_se_that_cannot_be_read_is_none_and_a_huge_one_is_asked_for_once() {
    for (value, asked_for) in [
        ("", "90"),
        ("-1", "90"),
        ("4294967296", "90"),
        ("9999999999999999999999999999999999999999", "90"),
        ("120;x=1", "120"),
        ("100, 120", "120"),
        ("4294967295", "4294967295"),
    ] {
        let (mut sim, mut call) = up();
        let asked = sim.request(&mut call, Side::Peer, "UPDATE", &format!("Min-SE: {value}\r\n"), "");
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "");
        sim.secs(60);
        assert!(
            sim.ours()[0].text.contains(&format!("\r\nMin-SE: {asked_for}\r\n")),
            "{value}: {}",
            sim.ours()[0].text
        );
    }
}

#[test]
fn r25_a_cseq_that_is_none_names_no_transaction_and_is_counted() {
    for value in [
        "",
        " ",
        "BYE",
        "-1 BYE",
        "+9 BYE",
        "9BYE",
        "9",
        "9 ",
        "0x9 BYE",
        "2147483648 BYE",
        "4294967296 BYE",
        "4294967305 BYE",
        "18446744073709551625 BYE",
        "9999999999999999999999999999999999999999 BYE",
        "9 INFO",
    ] {
        let (mut sim, call) = up();
        let bye = call.request(Side::Peer, "BYE", 999, "z9hG4bKbye", true, "", "");
        sim.wire(Side::Peer, bye.replace(" 999 BYE", &format!(" {value}")).into_bytes());
        assert_eq!(sim.engine.stats().unidentified, 1, "{value}");
        assert_undisturbed(sim, call, value);
    }
}

#[test]
fn r25_a_cseq_is_read_up_to_the_highest_number_however_it_is_written() {
    for value in ["0 BYE", "2147483647 BYE", "00000000000000000000000000000000000000000000000009 BYE", "9\t\r\n  BYE"] {
        let (mut sim, call) = up();
        let bye = call.request(Side::Peer, "BYE", 999, "z9hG4bKbye", true, "", "");
        sim.wire(Side::Peer, bye.replace(" 999 BYE", &format!(" {value}")).into_bytes());
        sim.respond(&call, Side::Peer, &(999, "z9hG4bKbye".into()), "BYE", 200, "");
        assert_eq!((sim.engine.stats().unidentified, sim.count(SessionEnded)), (0, 1), "{value}");
    }
}

/// An UPDATE of the peer's in the call, with more header lines.
fn update(call: &Call, extra: &str) -> Vec<u8> {
    call.request(Side::Peer, "UPDATE", 900, "z9hG4bKhuge", true, extra, "").into_bytes()
}

#[test]
fn messages_of_any_size_and_any_number_of_headers_are_read_or_refused_whole() {
    let call = Call::new("a", Side::Server);
    let many = |line: &str, count: usize| line.repeat(count);
    let cases: [(&str, String, Option<ScanError>); 8] = [
        ("one huge header", format!("X-Huge: {}\r\n", many("y", MAX_MESSAGE - 700)), None),
        ("a longer message than a datagram holds", many("X-Many: y\r\n", 10_000), Some(ScanError::TooLong)),
        ("thousands of header lines that nobody reads", many("Y:\r\n", 10_000), None),
        ("thousands of header lines that somebody reads", many("k:\r\n", 10_000), Some(ScanError::TooManyLines)),
        ("as many of these as there may be", many("k:\r\n", MAX_LINES - 7), None),
        ("ten thousand Vias in one line", format!("Via: {}\r\n", many("a,", 10_000)), None),
        ("ten thousand routes in one line", format!("Route: {}\r\n", many("<a>,", 10_000)), None),
        ("quotes and brackets that never close", format!("Contact: {}\r\n", many("\"<", 20_000)), None),
    ];
    for (what, extra, error) in cases {
        let bytes = update(&call, &extra);
        assert_eq!(Message::scan(&bytes, false).err(), error, "{what}");
        let (mut sim, call) = up();
        let before = sim.engine.stats();
        for _ in 0..3 {
            sim.wire(Side::Peer, bytes.clone());
        }
        let stats = sim.engine.stats();
        let refused = if error.is_some() { 3 } else { 0 };
        assert_eq!(stats.unparsable - before.unparsable, refused, "{what}");
        assert_eq!(stats.messages - before.messages, 3 - refused, "{what}");
        assert_undisturbed(sim, call, what);
    }
}

#[test]
fn a_header_folded_ten_thousand_times_is_one_header() {
    let call = Call::new("a", Side::Server);
    let folds = "\r\n ".repeat(10_000);
    for (line, folded) in [
        ("Call-ID: a@example", format!("Call-ID:{folds}a@example")),
        ("CSeq: 900 UPDATE", format!("CSeq: 900{folds}UPDATE")),
        (";tag=a-remote", format!(";{folds}tag=a-remote")),
        ("Max-Forwards: 70", format!("Max-Forwards: 70\r\nSubject:{folds}x")),
    ] {
        let plain = String::from_utf8(update(&call, "")).unwrap();
        assert!(plain.contains(line));
        let bytes = plain.replace(line, &folded).into_bytes();
        let message = Message::scan(&bytes, false).unwrap();
        let known = Message::scan(plain.as_bytes(), false).unwrap();
        assert_eq!(message.call_id(), known.call_id());
        assert_eq!(message.cseq().map(|cseq| cseq.number), Some(900));
        assert_eq!(message.from().and_then(|from| from.tag), Some(&b"a-remote"[..]));
        let (mut sim, call) = up();
        sim.wire(Side::Peer, bytes);
        assert_eq!((sim.engine.stats().unidentified, sim.engine.stats().unknown_dialog), (0, 0), "{line}");
        assert_undisturbed(sim, call, line);
    }
}

#[test]
fn a_message_that_is_nothing_but_folds_or_colons_is_survived() {
    for (start, rest) in [
        ("OPTIONS sip:a SIP/2.0\r\n", " \r\n".repeat(20_000)),
        ("OPTIONS sip:a SIP/2.0\r\n", ":\r\n".repeat(20_000)),
        ("SIP/2.0 200\r\n", "Via:,".repeat(13_000)),
        ("", "\r\n".repeat(32_000)),
    ] {
        let (mut sim, call) = up();
        sim.wire(Side::Peer, format!("{start}{rest}").into_bytes());
        let stats = sim.engine.stats();
        assert_eq!(stats.unidentified + stats.unparsable, 1, "{start}{}", &rest[..4]);
        assert_undisturbed(sim, call, start);
    }
}

#[test]
fn identifiers_that_are_alike_are_not_the_same_dialog() {
    let mut sim = Sim::new(Action::Refresh);
    let calls = [
        ("ab", "c", "d"),
        ("a", "bc", "d"),
        ("a", "b", "cd"),
        ("abc", "d", "d"),
        ("abcd", "a", "a"),
        ("a\0", "c", "d"),
        ("a", "\0c", "d"),
        ("A", "bc", "d"),
        ("a%62", "c", "d"),
    ];
    for (call_id, local, remote) in calls {
        let (local, remote) = (local.into(), remote.into());
        let mut call = Call { call_id: call_id.into(), local, remote, ..Call::new("", Side::Server) };
        sim.establish(&mut call, UAC_90, true);
    }
    assert_eq!(sim.engine.stats().sessions, calls.len());
    // What is said in one of them concerns no other.
    let mut one = Call { local: "bc".into(), remote: "d".into(), call_id: "a".into(), ..Call::new("", Side::Server) };
    one.number = 5;
    sim.hang_up(&mut one);
    assert_eq!((sim.engine.stats().sessions, sim.count(SessionEnded)), (calls.len() - 1, 1));
}

#[test]
fn an_identifier_is_tracked_up_to_the_limit_and_not_beyond() {
    for (length, sessions) in [(MAX_IDENTIFIER, 1), (MAX_IDENTIFIER + 1, 0)] {
        let long = "x".repeat(length);
        let short = || Call::new("a", Side::Server);
        let (call_id, local, remote) = (long.clone(), long.clone(), long);
        for mut call in [Call { call_id, ..short() }, Call { local, ..short() }, Call { remote, ..short() }] {
            let mut sim = Sim::new(Action::Refresh);
            sim.establish(&mut call, UAC_90, true);
            let stats = sim.engine.stats();
            assert_eq!(stats.sessions, sessions, "{length}");
            assert_eq!(stats.unidentified > 0, sessions == 0, "{length}");
        }
    }
}

#[test]
fn parameters_of_an_address_that_are_repeated_or_hidden_make_no_other_dialog() {
    for (party, known) in [
        (";tag=a-remote;tag=other", true),
        (";TAG = a-remote", true),
        (";x=\";tag=other\";tag=a-remote", true),
        (";tag=other;tag=a-remote", false),
        (";tag=", false),
        (";tagx=a-remote", false),
    ] {
        let (mut sim, call) = up();
        let text = String::from_utf8(update(&call, "")).unwrap();
        sim.wire(Side::Peer, text.replace(";tag=a-remote", party).into_bytes());
        let asked = (900, "z9hG4bKhuge".into());
        sim.respond(&call, Side::Peer, &asked, "UPDATE", 200, "");
        assert_eq!(sim.engine.stats().unknown_request == 0, known, "{party}: whose answer this is");
        assert_eq!(sim.engine.stats().sessions, 1, "{party}");
    }
}

#[test]
fn a_flood_from_everywhere_leaves_a_call_as_it_was() {
    let (mut sim, call) = up();
    for number in 0..20_000 {
        let mut stranger = Call::new(&format!("s{number}"), Side::Peer);
        match number % 4 {
            0 => sim.invite(&mut stranger, &manners(Side::Peer, true), &sdp(Side::Peer)),
            1 => _ = sim.request(&mut stranger, Side::Peer, "UPDATE", UAC_90, ""),
            2 => {
                let via = format!("SIP/2.0/UDP {};branch=z9hG4bK{number}", text::SERVER);
                let ok = stranger.response(Side::Peer, 200, "INVITE", 1, &via, UAC_90, "");
                sim.wire(Side::Peer, ok.into_bytes());
            }
            _ => sim.wire(Side::Peer, format!("SIP/2.0 {number}\r\n").into_bytes()),
        }
    }
    let stats = sim.engine.stats();
    assert_eq!((stats.sessions, stats.pending, stats.evicted_pending, stats.refused_sessions), (1, 0, 0, 0));
    assert_undisturbed(sim, call, "flood");
}
