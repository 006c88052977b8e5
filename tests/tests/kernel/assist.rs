//! INVITEs of marked peers': the server's is made to list `timer` in Supported, the peer's to do so instead of demanding it; byte for
//! byte, with whole checksums, and only where nothing is in doubt.

use proptest::prelude::*;
use st_ebpf::{
    abi::{ASSIST_BYTES, CAPTURE, Counter, SILENT_NS, assist, kind},
    timers::{ITEM, LINE, ONLY, SUPPORTED},
};

use crate::{
    ack::now,
    agrees,
    frame::{Frame, checksum_is_right},
    tester::{INGRESS, Lent, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict, request},
};

const ENDS: [(&str, &str); 2] = [(SERVER, PEER), (SERVER_V6, PEER_V6)];
const BODY: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nSupported: x\r\nRequire: timer\r\n\r\n";

/// An INVITE that is to make a dialog, with these further header lines, each with its end.
fn invite(more: &str) -> String {
    with_body(more, BODY)
}

fn with_body(more: &str, body: &str) -> String {
    format!(
        "INVITE sip:callee@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK77\r\nMax-Forwards: 70\r\n\
         From: <sip:caller@192.0.2.1>;tag=caller\r\nTo: <sip:callee@example.org>\r\nCall-ID: call-1@host\r\n\
         CSeq: 1 INVITE\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A tester whose peers are marked, with a daemon that lives.
fn marked() -> Lent {
    let mut tester = Tester::new();
    mark(&mut tester);
    tester
}

fn mark(tester: &mut Tester) {
    tester.reset();
    tester.assist("0.0.0.0/0", true);
    tester.assist("2001:db8::/32", true);
    tester.beat(now());
}

/// Runs it as the server's or the peer's: what came out, and what the record says was done. The record has what went in.
fn run(tester: &mut Tester, program: Program, frame: &[u8], text: &[u8]) -> (Vec<u8>, u8) {
    let run = tester.run(program, frame);
    assert_eq!((run.verdict, run.records.len()), (Verdict::Pass, 1), "{}", String::from_utf8_lossy(text));
    let record = &run.records[0];
    assert_eq!((record.header.kind, record.header.wire_len as usize), (kind::MESSAGE, text.len()));
    assert_eq!(record.bytes, &text[..text.len().min(CAPTURE)]);
    (run.out, record.header.reason)
}

/// The counter that goes with what was done.
fn counter(program: Program, done: u8) -> Option<Counter> {
    Some(match done {
        assist::DONE if program == Program::Egress => Counter::AssistedOut,
        assist::DONE => Counter::AssistedIn,
        assist::OWN => Counter::AssistOwn,
        assist::UNCLEAR => Counter::AssistUnclear,
        assist::OTHERS => Counter::AssistOthers,
        assist::TOO_LONG => Counter::AssistTooLong,
        assist::RELAYED => Counter::AssistRelayed,
        assist::ASLEEP => Counter::AssistAsleep,
        _ => return None,
    })
}

const ALL: [Counter; 8] = [
    Counter::AssistedOut,
    Counter::AssistedIn,
    Counter::AssistOwn,
    Counter::AssistUnclear,
    Counter::AssistOthers,
    Counter::AssistTooLong,
    Counter::AssistRelayed,
    Counter::AssistAsleep,
];

/// The same with what is expected of it: another text, or the same and why.
fn gives(tester: &mut Tester, program: Program, frame: &Frame, text: &str, expected: Result<&str, u8>) {
    let before = ALL.map(|counter| tester.counter(counter));
    let (out, done) = run(tester, program, &frame.with(text.as_bytes()), text.as_bytes());
    let (to, why) = match expected {
        Ok(to) => (to, assist::DONE),
        Err(why) => (text, why),
    };
    assert_eq!(done, why, "{program:?} {text}");
    let is_same = out == frame.with(to.as_bytes());
    assert!(is_same, "{program:?}\n{text}\nbecame\n{}", String::from_utf8_lossy(&out));
    assert!(checksum_is_right(&out));
    let counted = counter(program, done);
    for (counter, before) in ALL.iter().zip(before) {
        assert_eq!(tester.counter(*counter) - before, u64::from(counted == Some(*counter)), "{counter:?} {text}");
    }
}

/// With `timer` put where it belongs, before `before`.
fn put(text: &str, what: &[u8], before: &str) -> String {
    let at = text.find(before).unwrap();
    format!("{}{}{}", &text[..at], std::str::from_utf8(what).unwrap(), &text[at..])
}

#[test]
fn the_servers_invite_lists_timer_when_it_leaves() {
    let mut tester = marked();
    for (server, peer) in ENDS {
        // Each at an even and at an odd place.
        for odd in ["", "Zz: y\r\n", "Zz: yz\r\n"] {
            for body in ["", "v=0\r\n", "odd"] {
                let frame = Frame::new(server, peer);
                let text = with_body(odd, body);
                let to = put(&text, &LINE, &format!("\r\n{body}")[..]);
                let to = if body.is_empty() {
                    format!("{}{}\r\n", &text[..text.len() - 2], "Supported: timer\r\n")
                } else {
                    to
                };
                gives(&mut tester, Program::Egress, &frame, &text, Ok(&to));
                for empty in ["Supported:\r\n", "k: \r\n", "SUPPORTED :\t\r\n"] {
                    let text = with_body(&format!("{odd}{empty}Allow: INVITE\r\n"), body);
                    let colon = text.find(empty).unwrap() + empty.find(':').unwrap() + 1;
                    let to = format!("{}{}{}", &text[..colon], std::str::from_utf8(&ONLY).unwrap(), &text[colon..]);
                    gives(&mut tester, Program::Egress, &frame, &text, Ok(&to));
                }
                for list in
                    ["Supported: 100rel", "k:replaces,100rel", "SUPPORTED :  x-timer , timers,\ttime", "K: gruu"]
                {
                    for end in ["\r\n", "  \t\r\n"] {
                        let text = with_body(&format!("{odd}{list}{end}Allow: INVITE\r\n"), body);
                        let to = put(&text, &ITEM, &format!("{end}Allow"));
                        gives(&mut tester, Program::Egress, &frame, &text, Ok(&to));
                    }
                }
            }
        }
    }
}

#[test]
fn the_frame_may_have_tags_options_extension_headers_and_no_checksum() {
    let mut tester = marked();
    let text = invite("");
    let to = put(&text, &LINE, "\r\nv=0");
    let demanding = invite("Require: timer\r\n");
    let softened = demanding.replacen("Require:", "k:      ", 1);
    for (server, peer) in ENDS {
        let frames = |from, to| {
            [
                Frame::new(from, to).tags(&[7]),
                Frame::new(from, to).tags(&[7, 8]),
                Frame { extras: true, ..Frame::new(from, to) },
                Frame { extras: true, ..Frame::new(from, to).tags(&[7]) },
            ]
        };
        for frame in frames(server, peer) {
            gives(&mut tester, Program::Egress, &frame, &text, Ok(&to));
        }
        for (frame, program) in frames(peer, server).iter().flat_map(|frame| INGRESS.map(|program| (frame, program))) {
            gives(&mut tester, program, frame, &demanding, Ok(&softened));
        }
    }
    let none = |from, to| Frame::new(from, to).no_checksum();
    gives(&mut tester, Program::Egress, &none(SERVER, PEER), &text, Ok(&to));
    for program in INGRESS {
        gives(&mut tester, program, &none(PEER, SERVER), &demanding, Ok(&softened));
    }
}

#[test]
fn an_invite_of_the_servers_that_leaves_any_doubt_is_let_be() {
    let mut tester = marked();
    let frame = Frame::new(SERVER, PEER);
    let fits = ASSIST_BYTES - LINE.len() - invite("Zz: \r\n").len();
    let padded = |by: usize| invite(&format!("Zz: {}\r\n", "x".repeat(fits + by)));
    gives(&mut tester, Program::Egress, &frame, &padded(0), Ok(&put(&padded(0), &LINE, "\r\nv=0")));
    let bare = invite("").replace("\r\n", "\n");
    for (text, why) in [
        (padded(1), assist::TOO_LONG),
        (invite("Supported: timer\r\n"), assist::OWN),
        (invite("k: 100rel , TIMER\r\n"), assist::OWN),
        (invite("Session-Expires: 1800\r\n"), assist::OWN),
        (invite("x:1800\r\n"), assist::OWN),
        (invite("Supported: 100rel\r\nMin-SE: 90\r\n"), assist::OWN),
        (invite("Supported: 100rel\r\nk: gruu\r\n"), assist::UNCLEAR),
        (invite("Supported: 100rel\r\nSupported: gruu\r\n"), assist::UNCLEAR),
        (invite("Supported: 100rel,\r\n gruu\r\n"), assist::UNCLEAR),
        (invite("Supported: 100rel\r\n\t\r\n"), assist::UNCLEAR),
        (invite("Supported: 100rel,\r\n"), assist::UNCLEAR),
        (invite("Supported: 100rel gruu\r\n"), assist::UNCLEAR),
        (invite("Supported: \"100rel\"\r\n"), assist::UNCLEAR),
        (invite("Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\n"), assist::RELAYED),
        (invite("").replace("bK77\r\n", "bK77, SIP/2.0/UDP 192.0.2.9\r\n"), assist::RELAYED),
        (invite("").replace("bK77\r\n", "bK77\r\n , SIP/2.0/UDP 192.0.2.9\r\n"), assist::RELAYED),
        (bare, assist::UNCLEAR),
        (invite("")[..200].to_owned(), assist::UNCLEAR),
    ] {
        gives(&mut tester, Program::Egress, &frame, &text, Err(why));
    }
}

#[test]
fn the_peers_demand_becomes_an_offer_in_the_same_place() {
    let mut tester = marked();
    for (server, peer) in ENDS {
        for program in INGRESS {
            let frame = Frame::new(peer, server);
            for odd in ["", "Zz: y\r\n"] {
                for list in ["Require: timer", "require:timer", "REQUIRE:\t Timer  "] {
                    for more in ["", "Supported: timer\r\nSession-Expires: 1800\r\n"] {
                        let text = invite(&format!("{odd}{list}\r\n{more}"));
                        let name = &list[..SUPPORTED.len()];
                        let to = text.replacen(name, std::str::from_utf8(&SUPPORTED).unwrap(), 1);
                        gives(&mut tester, program, &frame, &text, Ok(&to));
                    }
                }
            }
            // The last line of all.
            let text = invite("").split("Content-Length").next().unwrap().to_owned() + "Require:timer\r\n\r\n";
            gives(&mut tester, program, &frame, &text, Ok(&text.replace("Require:", "k:      ")));
        }
    }
}

#[test]
fn an_invite_of_the_peers_that_leaves_any_doubt_is_let_be() {
    let mut tester = marked();
    let frame = Frame::new(PEER, SERVER);
    for program in INGRESS {
        for (text, why) in [
            (invite(""), 0),
            (invite("Require: 100rel\r\n"), 0),
            (invite("Proxy-Require: timer\r\n"), 0),
            (invite("Supported: timer\r\nSession-Expires: 1800\r\n"), 0),
            (invite("Require: timer, 100rel\r\n"), assist::OTHERS),
            (invite("Require: 100rel,timer\r\n"), assist::OTHERS),
            (invite("Require: 100rel\r\nRequire: timer\r\n"), assist::UNCLEAR),
            (invite("Require: timer\r\nRequire: timer\r\n"), assist::UNCLEAR),
            (invite("Require : timer\r\n"), assist::UNCLEAR),
            (invite("Require: timer;x\r\n"), assist::UNCLEAR),
            (invite("Require:\r\n timer\r\n"), assist::UNCLEAR),
            (invite("Require: timer\r\n ,x\r\n"), assist::UNCLEAR),
        ] {
            gives(&mut tester, program, &frame, &text, Err(why));
        }
    }
}

#[test]
fn only_an_invite_that_is_to_make_a_dialog_is_changed() {
    let mut tester = marked();
    let inside = |text: String| text.replace("To: <sip:callee@example.org>", "To: <sip:callee@example.org>;tag=x");
    let of = |method: &str, text: String| text.replace("INVITE", method);
    let (plain, demanding) = (invite(""), invite("Require: timer\r\n"));
    for (text, program, (from, to)) in [
        (inside(plain.clone()), Program::Egress, (SERVER, PEER)),
        (inside(demanding.clone()), Program::IngressTc, (PEER, SERVER)),
        (inside(demanding.clone()), Program::IngressXdp, (PEER, SERVER)),
        (of("CANCEL", plain), Program::Egress, (SERVER, PEER)),
        (of("ACK", demanding.clone()), Program::IngressTc, (PEER, SERVER)),
        (of("CANCEL", demanding.clone()), Program::IngressXdp, (PEER, SERVER)),
    ] {
        gives(&mut tester, program, &Frame::new(from, to), &text, Err(0));
    }
    // What is not sampled either.
    let plain = invite("");
    for (program, frame, text) in [
        (Program::Egress, Frame::new(SERVER, PEER).tcp(), &plain),
        (Program::Egress, Frame::new(SERVER, PEER).fragment(0x0010), &plain),
        (Program::Egress, Frame::new("192.0.2.1:5062", PEER), &plain),
        (Program::IngressXdp, Frame::new(PEER, SERVER).tcp(), &demanding),
        (Program::IngressXdp, Frame::new(PEER, "192.0.2.1:5062"), &demanding),
        (Program::IngressTc, Frame::new(PEER, SERVER), &of("OPTIONS", demanding.clone())),
        (Program::Egress, Frame::new(SERVER, PEER), &of("REGISTER", plain.clone())),
    ] {
        mark(&mut tester);
        let frame = frame.with(text.as_bytes());
        let run = tester.run(program, &frame);
        assert_eq!((run.verdict, run.out == frame), (Verdict::Pass, true), "{program:?} {text}");
        assert!(ALL.iter().all(|counter| tester.counter(*counter) == 0));
    }
    // A request of sipst's own has a tag in To; a response is none.
    let own = request("INVITE", " 3 INVITE");
    gives(&mut tester, Program::Egress, &Frame::new(SERVER, PEER), &own, Err(0));
}

#[test]
fn without_a_daemon_that_lives_and_keeps_up_nothing_is_changed() {
    let mut tester = Tester::new();
    let (plain, demanding) = (invite(""), invite("Require: timer\r\n"));
    let (added, softened) = (put(&plain, &LINE, "\r\nv=0"), demanding.replacen("Require:", "k:      ", 1));
    for (age, lives) in [(None, false), (Some(2 * SILENT_NS), false), (Some(SILENT_NS / 2), true)] {
        mark(&mut tester);
        tester.beat(age.map_or(0, |age| now() - age));
        let expected = |to| if lives { Ok(to) } else { Err(assist::ASLEEP) };
        let frame = Frame::new(SERVER, PEER);
        gives(&mut tester, Program::Egress, &frame, &plain, expected(added.as_str()));
        for program in INGRESS {
            gives(&mut tester, program, &Frame::new(PEER, SERVER), &demanding, expected(softened.as_str()));
        }
    }
    // The ring's last quarter has been reached: a peer's INVITE is not even sampled.
    mark(&mut tester);
    let filler =
        request("INFO", " 3 INFO").replace("Content-Length", &format!("Zz: {}\r\nContent-Length", "x".repeat(3_000)));
    let filler = Frame::new(SERVER, PEER).with(filler.as_bytes());
    for _ in 0..1_050 {
        tester.run_keeping(Program::Egress, &filler);
    }
    let frame = Frame::new(SERVER, PEER).with(plain.as_bytes());
    assert_eq!(tester.run_keeping(Program::Egress, &frame), (Verdict::Pass, frame));
    assert_eq!(tester.counter(Counter::AssistAsleep), 1, "{:?}", tester.counters());
    let frame = Frame::new(PEER, SERVER).with(demanding.as_bytes());
    for program in INGRESS {
        assert_eq!(tester.run_keeping(program, &frame), (Verdict::Pass, frame.clone()));
    }
    assert_eq!((tester.counter(Counter::RingReserved), tester.counter(Counter::AssistedIn)), (2, 0));
}

#[test]
fn the_longest_prefix_says_whether_a_peer_is_marked() {
    let mut tester = Tester::new();
    let plain = invite("");
    let added = put(&plain, &LINE, "\r\nv=0");
    for (networks, peer, changed) in [
        (&[][..], PEER, false),
        (&[("198.51.100.7/32", true)], PEER, true),
        (&[("198.51.100.8/32", true)], PEER, false),
        (&[("198.51.0.0/16", true), ("198.51.100.0/24", false)], PEER, false),
        (&[("198.51.0.0/16", false), ("198.51.100.0/24", true)], PEER, true),
        (&[("198.51.0.0/16", true), ("198.51.101.0/24", false)], PEER, true),
        (&[("2001:db8::/32", true), ("2001:db8:1::7/128", false)], PEER_V6, false),
        (&[("::/0", true), ("0.0.0.0/0", false)], PEER, false),
        (&[("::/0", true), ("0.0.0.0/0", false)], PEER_V6, true),
    ] {
        tester.reset();
        tester.beat(now());
        for (network, on) in networks {
            tester.assist(network, *on);
        }
        let server = if peer == PEER { SERVER } else { SERVER_V6 };
        let expected = if changed { Ok(added.as_str()) } else { Err(0) };
        gives(&mut tester, Program::Egress, &Frame::new(server, peer), &plain, expected);
    }
}

#[test]
fn copies_are_changed_alike() {
    let mut tester = marked();
    for (program, (from, to), text) in [
        (Program::Egress, (SERVER, PEER), invite("")),
        (Program::Egress, (SERVER_V6, PEER_V6), invite("Supported: 100rel\r\n")),
        (Program::IngressTc, (PEER, SERVER), invite("Require: timer\r\n")),
        (Program::IngressXdp, (PEER_V6, SERVER_V6), invite("Require: timer\r\n")),
    ] {
        let frame = Frame::new(from, to).with(text.as_bytes());
        let copies: Vec<_> = (0..7).map(|_| run(&mut tester, program, &frame, text.as_bytes())).collect();
        assert!(copies.iter().all(|copy| *copy == copies[0] && copy.1 == assist::DONE && copy.0 != frame));
    }
}

/// What a list is in the eyes of whoever reads it slowly: its tags, or `None` where that is not certain.
fn tags(value: &str) -> Option<Vec<String>> {
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
    };
    if value.trim_matches([' ', '\t']).is_empty() {
        return Some(Vec::new());
    }
    let tags: Vec<_> = value.split(',').map(|tag| tag.trim_matches([' ', '\t']).to_ascii_lowercase()).collect();
    tags.iter().all(|tag| token(tag)).then_some(tags)
}

/// The header's lines, folded ones together, and the rest.
fn unfolded(text: &str) -> (Vec<String>, usize) {
    let end = text.find("\r\n\r\n").unwrap() + 2;
    let mut lines: Vec<String> = Vec::new();
    for line in text[..end].split_inclusive("\r\n") {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    (lines, end)
}

/// Lines of that name: where each begins, what is before its colon, and its value.
fn of<'a>(lines: &'a [String], names: &[&str]) -> Vec<(usize, &'a str, &'a str)> {
    let mut at = 0;
    let mut found = Vec::new();
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && names.iter().any(|known| name.trim_end_matches([' ', '\t']).eq_ignore_ascii_case(known))
        {
            found.push((at, name, value.strip_suffix("\r\n").unwrap()));
        }
        at += line.len();
    }
    found
}

/// What is to become of an INVITE of the server's, by another way than the programs'.
fn offered(text: &str) -> Result<String, u8> {
    let (lines, end) = unfolded(text);
    let vias = of(&lines, &["via", "v"]);
    if vias.len() > 1 || vias.iter().any(|(_, _, value)| value.contains(',')) {
        return Err(assist::RELAYED);
    }
    let lists = of(&lines, &["supported", "k"]);
    let first = lists.first().map(|(_, _, value)| tags(value));
    let lists_timer = matches!(&first, Some(Some(tags)) if tags.iter().any(|tag| tag == "timer"));
    if !of(&lines, &["session-expires", "x", "min-se"]).is_empty() || lists_timer {
        return Err(assist::OWN);
    }
    match (lists.as_slice(), first) {
        ([], _) => Ok(format!("{}Supported: timer\r\n{}", &text[..end], &text[end..])),
        ([(at, name, value)], Some(Some(tags))) if !value.contains('\n') && tags.is_empty() => {
            let colon = at + name.len() + 1;
            Ok(format!("{} timer{}", &text[..colon], &text[colon..]))
        }
        ([(at, name, value)], Some(Some(_))) if !value.contains('\n') => {
            let last = at + name.len() + 1 + value.trim_end_matches([' ', '\t']).len();
            Ok(format!("{},  timer{}", &text[..last], &text[last..]))
        }
        _ => Err(assist::UNCLEAR),
    }
}

/// The same with one of the peer's.
fn softened(text: &str) -> Result<String, u8> {
    let (lines, _) = unfolded(text);
    let lists = of(&lines, &["require"]);
    match lists.as_slice() {
        [] => Err(0),
        [(at, name, value)] if !value.contains('\n') && name.len() == "Require".len() => match tags(value) {
            Some(tags) if tags == ["timer"] => Ok(format!("{}k:      {}", &text[..*at], &text[at + 8..])),
            Some(tags) if tags.iter().any(|tag| tag == "timer") => Err(assist::OTHERS),
            Some(_) => Err(0),
            None => Err(assist::UNCLEAR),
        },
        _ => Err(assist::UNCLEAR),
    }
}

/// A header line that matters, or nearly does.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "Supported",
        "supported",
        "k",
        "K",
        "Supported ",
        "k\t",
        "Supporte",
        "Supportedx",
        "Require",
        "REQUIRE",
        "Require ",
        "Requires",
        "Proxy-Require",
        "Session-Expires",
        "x",
        "X",
        "Session-ID",
        "Min-SE",
        "min-se",
        "Min-SEx",
        "Via",
        "v",
        "Allow",
        "Kk",
        "X-timer",
    ]);
    let tag = prop::sample::select(vec![
        "timer",
        "TIMER",
        "timers",
        "xtimer",
        "100rel",
        "gruu",
        "a!b",
        "",
        "\"timer\"",
        "ti mer",
        "t;q",
    ]);
    let between = prop::sample::select(vec![",", ", ", " ,", "\t,\t", ",\r\n ", " "]);
    let before = prop::sample::select(vec!["", " ", "\t", "  ", "\r\n "]);
    let after = prop::sample::select(vec!["", "", "", " ", "\t ", "\r\n\t"]);
    (name, prop::collection::vec((tag, between), 0..4), before, after).prop_map(|(name, tags, before, after)| {
        let mut value = String::new();
        for (index, (tag, between)) in tags.iter().enumerate() {
            value.push_str(tag);
            if index + 1 < tags.len() {
                value.push_str(between);
            }
        }
        format!("{name}:{before}{value}{after}\r\n")
    })
}

#[test]
fn the_programs_do_what_a_slow_reader_of_the_same_header_does() {
    let often = [Counter::AssistedOut, Counter::AssistedIn, Counter::AssistOwn, Counter::AssistUnclear];
    let strategy = (prop::collection::vec(line(), 0..4), 0..3_usize, any::<bool>(), "[a-z\r\n]{0,40}");
    agrees::run(&strategy, &often, |tester, (lines, ends, pad, body)| {
        mark(tester);
        // A third of them demand or list what is wanted and nothing else.
        let lines = match ends {
            0 => lines.concat(),
            1 => format!("{}Require: timer\r\n", if pad { "Zz: y\r\n" } else { "" }),
            _ => lines.into_iter().take(1).collect(),
        };
        let text = with_body(&lines, &body);
        let (server, peer) = ENDS[usize::from(pad)];
        for (program, frame, expected) in [
            (Program::Egress, Frame::new(server, peer), offered(&text)),
            (Program::IngressTc, Frame::new(peer, server), softened(&text)),
            (Program::IngressXdp, Frame::new(peer, server), softened(&text)),
        ] {
            let (out, done) = run(tester, program, &frame.with(text.as_bytes()), text.as_bytes());
            let (to, why) = expected.map_or_else(|why| (text.clone(), why), |to| (to, assist::DONE));
            // Of a list that is not clear it is not clear either whether it has `timer`.
            let own = |why| if why == assist::OWN { assist::UNCLEAR } else { why };
            prop_assert_eq!(own(done), own(why), "{:?} {}", program, &text);
            prop_assert!(out == frame.with(to.as_bytes()), "{:?} {}", program, &text);
        }
        Ok(())
    });
}
