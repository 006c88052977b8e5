//! What the kernel makes of headers, well and badly written.

use super::*;
use proptest::prelude::*;
use std::{
    format,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};

#[test]
fn what_begins_as_sip_is_known_by_nine_bytes() {
    let begins = |text: &str| {
        let window = window(text.as_bytes());
        begins_as_sip(window.word(0), window.byte(8))
    };
    for method in [
        "INVITE",
        "ACK",
        "BYE",
        "CANCEL",
        "UPDATE",
        "PRACK",
        "INFO",
        "OPTIONS",
        "REGISTER",
        "SUBSCRIBE",
        "MESSAGE",
        "PUBLISH",
        "NOTIFY",
        "REFER",
    ] {
        assert!(begins(&format!("{method} sip:a SIP/2.0\r\n")), "{method}");
        if method != "SUBSCRIBE" {
            assert!(!begins(&format!("{method}X sip:a SIP/2.0\r\n")), "{method}X");
            assert!(!begins(&format!("{method}\tsip:a SIP/2.0\r\n")), "{method} and a tab");
        }
        assert!(!begins(method.get(..method.len() - 1).unwrap()), "{method}, cut");
    }
    assert!(begins("SIP/2.0 200 OK\r\n"));
    for other in ["", "SIP/2.0", "SIP/3.0 200", "\r\nBYE sip:a", "invite sip:a", "GET / HTTP/1.1", "FOO sip:a SIP/2.0"]
    {
        assert!(!begins(other), "{other}");
    }
}

fn window(message: &[u8]) -> Window {
    let mut window = Window { bytes: [0; CAPTURE + 16] };
    let len = message.len().min(CAPTURE);
    window.bytes[..len].copy_from_slice(&message[..len]);
    window
}

fn scan(message: &[u8], want: u32) -> (Scan, Window) {
    let window = window(message);
    let mut scan = Scan::default();
    scan.begin(message.len() as u32, want);
    for _ in 0..MAX_STEPS {
        if scan.step(&window) {
            return (scan, window);
        }
    }
    panic!("the scan did not end");
}

fn found(window: &Window, span: Span) -> String {
    let bytes = &window.bytes[span.at as usize..(span.at + span.len) as usize];
    String::from_utf8_lossy(bytes).into_owned()
}

const ALL: u32 = part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ;

#[test]
fn reads_a_plain_request() {
    let message = b"BYE sip:bob@192.0.2.4 SIP/2.0\r\nVia: SIP/2.0/UDP pc33:5060;rport;branch=z9hG4bKnashds8\r\n\
        Max-Forwards: 70\r\nFrom: Bob <sip:bob@biloxi.example;x=1>;tag=a6c85cf\r\nTo: <sip:alice@atlanta.example>;tag=1928\r\n\
        Call-ID: a84b4c76e66710@pc33\r\nCSeq: 231 BYE\r\nContent-Length: 0\r\n\r\n";
    let (scan, window) = scan(message, ALL);
    assert_eq!(start(&window), Start::Request(method::BYE));
    assert_eq!(scan.found, ALL);
    assert_eq!(found(&window, scan.branch), "z9hG4bKnashds8");
    assert_eq!(found(&window, scan.from_tag), "a6c85cf");
    assert_eq!(found(&window, scan.to_tag), "1928");
    assert_eq!(found(&window, scan.call_id), "a84b4c76e66710@pc33");
    assert_eq!(found(&window, scan.cseq), "231");
    assert_eq!((scan.number, scan.cseq_spaces, scan.method), (231, 1, method::BYE));
}

#[test]
fn reads_compact_names_any_case_blanks_before_the_colon_and_bare_line_feeds() {
    let message = b"OPTIONS sip:a SIP/2.0\nv :SIP/2.0/UDP h;BRANCH = z9hG4bK1\nF\t: <sip:a>;Tag=f\nt:<sip:b>;TAG=t\n\
        I:c@h\nCseq:9 OPTIONS\n\n";
    let (scan, window) = scan(message, ALL);
    assert_eq!(scan.found, ALL);
    assert_eq!(found(&window, scan.branch), "z9hG4bK1");
    assert_eq!((found(&window, scan.from_tag), found(&window, scan.to_tag)), ("f".into(), "t".into()));
    assert_eq!(found(&window, scan.call_id), "c@h");
    assert_eq!((scan.number, scan.cseq_spaces), (9, 0));
}

#[test]
fn a_parameter_may_be_folded_anywhere() {
    for fold in ["\r\n ", "\n\t", " \r\n  "] {
        for parameter in [";@tag=x1", "@;tag=x1", ";tag@=x1", ";tag=@x1", ";tag@=@x1", ";a=b@;@tag=x1"] {
            let parameter = parameter.replace('@', fold);
            let message = format!(
                "BYE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h{}\r\nFrom: <sip:a>{parameter}\r\nTo: <sip:b>{parameter}\r\nCall-ID: c\r\n\
                 CSeq: 1 BYE\r\n\r\n",
                parameter.replace("tag", "branch")
            );
            let (scan, window) = scan(message.as_bytes(), ALL);
            assert_eq!(scan.found, ALL, "{message:?}");
            for span in [scan.branch, scan.from_tag, scan.to_tag] {
                assert_eq!(found(&window, span), "x1", "{message:?}");
            }
        }
    }
    // What follows a line that is not folded is another header.
    let (scan, _) =
        scan(b"BYE sip:a SIP/2.0\r\nTo: <sip:b>;\r\nFrom: <sip:a>;tag=\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n\r\n", ALL);
    assert_eq!(scan.found, part::CALL_ID | part::CSEQ);
}

#[test]
fn follows_folded_lines_and_counts_no_fold_as_room() {
    let message = b"BYE sip:a SIP/2.0\r\nFrom: \"A\r\n B\" <sip:a\r\n >\r\n ;tag=f\r\nTo: <sip:b>\r\n\t;tag=t\r\n\
        Call-ID:\r\n c@h\r\nVia: SIP/2.0/UDP h\r\n ;branch=z9hG4bKx\r\nCSeq:\r\n  7\r\n BYE\r\n\r\n";
    let (scan, window) = scan(message, ALL);
    assert_eq!(scan.found, ALL);
    assert_eq!((found(&window, scan.from_tag), found(&window, scan.to_tag)), ("f".into(), "t".into()));
    assert_eq!(found(&window, scan.call_id), "c@h");
    assert_eq!(found(&window, scan.branch), "z9hG4bKx");
    assert_eq!((scan.number, scan.cseq_spaces, scan.method), (7, 1, method::BYE));
}

#[test]
fn a_tag_in_a_name_or_in_the_uri_is_not_the_tag() {
    let message = b"BYE sip:a SIP/2.0\r\nFrom: \"x;tag=no\\\";tag=no\" <sip:a;tag=no>;foo=1;tag=yes;x=2\r\n\
        To: sip:b;stag=no;tagx=no;tag=yes2\r\n\r\n";
    let (scan, window) = scan(message, ALL);
    assert_eq!((found(&window, scan.from_tag), found(&window, scan.to_tag)), ("yes".into(), "yes2".into()));
}

#[test]
fn only_the_topmost_via_counts() {
    for vias in [
        "Via: SIP/2.0/UDP a, SIP/2.0/UDP b;branch=z9hG4bKb\r\n",
        "Via: SIP/2.0/UDP a\r\nVia: SIP/2.0/UDP b;branch=z9hG4bKb\r\n",
    ] {
        let (scan, _) = scan(format!("SIP/2.0 200 OK\r\n{vias}CSeq: 1 BYE\r\n\r\n").as_bytes(), ALL);
        assert_eq!((scan.branch.len, scan.found & part::VIA), (0, 0), "{vias}");
    }
}

#[test]
fn finds_the_number_of_the_invite_in_rack() {
    for (rack, number, spaces) in [
        ("RAck: 776656 12 INVITE", 12, 0),
        ("rack :1   9 INVITE", 9, 2),
        ("RAck: 1\t9 INVITE", 9, 0),
        ("RAck:  1 \t 9 INVITE", 9, 1),
        ("RAck:\r\n 1 9\r\n\tINVITE", 9, 0),
        ("RAck: 1\r\n  9 INVITE", 9, 1),
        ("RAck: 1\n\t9 INVITE", 9, 0),
        ("RAck: 1   \r\n 9 INVITE", 9, 0),
    ] {
        let (scan, window) =
            scan(format!("PRACK sip:a SIP/2.0\r\n{rack}\r\nCSeq: 13 PRACK\r\n\r\n").as_bytes(), ALL | part::RACK);
        assert_eq!((scan.quoted_number, scan.quoted_spaces), (number, spaces), "{rack}");
        assert_eq!(found(&window, scan.quoted), number.to_string(), "{rack}");
        assert_eq!((scan.number, scan.found & part::RACK), (13, part::RACK), "{rack}");
    }
    for rack in ["RAck: 1", "RAck: x 9 INVITE", "RAck: 1 x INVITE", "RAck: 1 12345678901 INVITE", "RAck: 1\r\n9 INVITE"]
    {
        let (scan, _) = scan(format!("PRACK sip:a SIP/2.0\r\n{rack}\r\n\r\n").as_bytes(), part::RACK);
        assert_eq!(scan.found, 0, "{rack}");
    }
}

#[test]
fn finds_the_id_of_an_event() {
    for event in ["Event: refer;id=93809", "o: refer ;x=1; ID = 93809;y", "EVENT:refer;idx=4;id=93809"] {
        let (scan, window) = scan(format!("NOTIFY sip:a SIP/2.0\r\n{event}\r\n\r\n").as_bytes(), part::EVENT);
        assert_eq!((scan.found, scan.quoted_number), (part::EVENT, 93_809), "{event}");
        assert_eq!(found(&window, scan.quoted), "93809", "{event}");
    }
    for event in [
        "Event: refer",
        "Event: refer;id",
        "Event: presence;idx=4",
        "Event: refer;id=abc",
        "Event: refer;id=12abc",
        "Event: presence;id=4",
        "Event: refers;id=4",
    ] {
        let (scan, _) = scan(format!("NOTIFY sip:a SIP/2.0\r\n{event}\r\n\r\n").as_bytes(), part::EVENT);
        assert_eq!(scan.found, 0, "{event}");
    }
}

#[test]
fn the_body_is_not_read() {
    let (scan, _) = scan(b"BYE sip:a SIP/2.0\r\nTo: <sip:b>\r\n\r\nCSeq: 1 BYE\r\nTo: <sip:b>;tag=x\r\n", ALL);
    assert_eq!(scan.found, 0);
}

#[test]
fn tells_our_branches_from_others() {
    let check = |branch: &str| {
        let (scan, window) =
            scan(format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch={branch};rport\r\n\r\n").as_bytes(), part::VIA);
        (has_our_prefix(&window, scan.branch), our_token(&window, scan.branch))
    };
    assert_eq!(check("z9hG4bKsipst0123456789abcdef"), (true, Some(0x0123_4567_89ab_cdef)));
    assert_eq!(check("z9hG4bKsipst0123456789abcdeF"), (true, None));
    assert_eq!(check("z9hG4bKsipst0123456789abcdef0"), (true, None));
    assert_eq!(check("z9hG4bKsipst"), (true, None));
    assert_eq!(check("z9hG4bKsips"), (false, None));
    assert_eq!(check("z9hG4bKnashds8"), (false, None));
}

#[test]
fn hexadecimal_takes_each_byte_at_each_place_for_what_it_is() {
    for place in 0..8 {
        for byte in 0..=255_u8 {
            let mut bytes = *b"0123abcd";
            bytes[place] = byte;
            let valid = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert_eq!(hexadecimal(u64::from_le_bytes(bytes)).is_some(), valid, "{place} {byte}");
        }
    }
}

#[test]
fn tells_methods_apart() {
    for (text, expected) in [
        ("INVITE sip:a SIP/2.0", Start::Request(method::INVITE)),
        ("INVITED sip:a SIP/2.0", Start::Request(method::OTHER)),
        ("REGISTER sip:a SIP/2.0", Start::Request(method::REGISTER)),
        ("SUBSCRIBE sip:a SIP/2.0", Start::Request(method::SUBSCRIBE)),
        ("REFER sip:a SIP/2.0", Start::Request(method::OTHER)),
        ("SIP/2.0 200 OK", Start::Response),
        ("SIP/2.1 200 OK", Start::Request(method::OTHER)),
        ("\r\n\r\n", Start::KeepAlive),
        ("\x01\x01\0\0", Start::KeepAlive),
        ("", Start::KeepAlive),
        ("\u{80}", Start::NotSip),
    ] {
        assert_eq!(start(&window(text.as_bytes())), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn hexadecimal_reads_what_format_writes_and_nothing_else(value: u32, bytes: [u8; 8]) {
        let word = |text: &str| u64::from_le_bytes(text.as_bytes().try_into().unwrap());
        prop_assert_eq!(hexadecimal(word(&format!("{value:08x}"))), Some(value as u64));
        let valid = bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        prop_assert_eq!(hexadecimal(u64::from_le_bytes(bytes)).is_some(), valid);
    }

    #[test]
    fn ends_on_any_bytes_and_stays_inside(message in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let (scan, _) = scan(&message, ALL | part::RACK | part::EVENT);
        for span in [scan.call_id, scan.from_tag, scan.to_tag, scan.branch, scan.cseq, scan.quoted] {
            prop_assert!((span.at + span.len) as usize <= message.len());
        }
    }

    #[test]
    fn ends_on_sip_like_bytes(parts in proptest::collection::vec(prop_oneof![
        Just("Via:"), Just("v"), Just(":"), Just(" "), Just("\t"), Just("\r\n"), Just("\n"), Just("From"), Just("\""), Just("<"),
        Just(">"), Just(";tag="), Just(";"), Just("branch="), Just(","), Just("CSeq: "), Just("12"), Just("BYE"), Just("RAck: 1 "), Just("Event: refer;id="), Just("\\"), Just("i:x"),
    ], 0..300)) {
        let message: Vec<u8> = parts.concat().into_bytes();
        let (scan, _) = scan(&message, ALL | part::RACK | part::EVENT);
        for span in [scan.call_id, scan.from_tag, scan.to_tag, scan.branch, scan.cseq, scan.quoted] {
            prop_assert!((span.at + span.len) as usize <= message.len());
        }
    }
}

#[test]
fn nothing_but_a_requests_first_line_is_one() {
    let is = |text: &[u8]| {
        let window = window(text);
        let mut line = FirstLine::default();
        for _ in 0..LINE_STEPS {
            if line.step(&window) {
                break;
            }
        }
        line.is_requests(&window)
    };
    let long = |len: usize| format!("INVITE sip:{}@b SIP/2.0\r\n", "a".repeat(len)).into_bytes();
    for text in
        [&b"BYE sip:a@192.0.2.1 SIP/2.0\r\nVia: x\r\n"[..], b"FOO sip:a@192.0.2.1 SIP/2.0\nVia: x\n", &long(900)]
    {
        assert!(is(text), "{}", String::from_utf8_lossy(text));
    }
    for text in [
        &b"Via: SIP/2.0/TCP 192.0.2.1\r\n"[..],
        b"CSeq: 10 BYE\r\nContent-Length: 0\r\n",
        b"SIP/2.0 200 OK\r\n",
        b" SIP/2.0\r\nVia: x\r\n",
        b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n",
        b"BYE sip:a@192.0.2.1 SIP/2.0",
        b"\r\n\r\n",
        b"\n",
        b"",
        &long(2_000),
    ] {
        assert!(!is(text), "{}", String::from_utf8_lossy(text));
    }
}
