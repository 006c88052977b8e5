//! Whole messages: the oddities of the wire, and bytes at random.

use proptest::prelude::*;

use super::*;

const INVITE: &[u8] = b"INVITE sip:bob@192.0.2.2 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n\
    Record-Route: <sip:p1.example.net;lr>, <sip:p2.example.net>\r\n\
    From: \"A, B;tag=no\" <sip:alice@example.org;tag=no>;tag=a1\r\n\
    To: <sip:bob@example.net>\r\n\
    Call-ID: c1@192.0.2.1\r\n\
    CSeq:  7 INVITE\r\n\
    Contact: <sip:alice@192.0.2.1:5060;transport=udp>\r\n\
    Supported: replaces, timer\r\n\
    Allow: INVITE, ACK, BYE\r\n\
    Allow: UPDATE\r\n\
    Session-Expires: 1800;refresher=uas\r\n\
    Min-SE: 90\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 5\r\n\
    \r\n\
    v=0\r\n";

fn scan(bytes: &[u8]) -> Message<'_> {
    Message::scan(bytes, false).unwrap()
}

/// A request with these header lines and nothing else.
fn with(lines: &str) -> Vec<u8> {
    format!("OPTIONS sip:a SIP/2.0\r\n{lines}\r\n\r\n").into_bytes()
}

/// A reading of everything, so that random bytes meet every accessor.
fn read_all(m: &Message<'_>) -> usize {
    let lines: usize =
        HeaderName::ALL.iter().map(|&name| m.lines(name).chain(m.values(name)).map(<[u8]>::len).sum::<usize>()).sum();
    let parties = [m.from(), m.to()].into_iter().flatten().map(|p| p.uri.len() + p.tag.map_or(0, <[u8]>::len));
    let routes = m.routes().chain(m.record_routes()).filter(|route| has_lr(route));
    let tokens = m.top_via().and_then(|via| via.our_token()).is_some();
    let flags = [
        tokens,
        m.supports(b"timer"),
        m.requires(b"timer"),
        m.allows(b"UPDATE").is_some(),
        m.session_expires().is_some(),
        m.min_se().is_some(),
        m.retry_after().is_some(),
        m.rack().is_some(),
        m.reliable(),
        m.is_sdp(),
        m.contact().is_some(),
        m.cseq().is_some(),
        m.call_id().is_some(),
        m.headers_complete(),
        matches!(m.body(), Body::Cut),
    ];
    lines
        + parties.sum::<usize>()
        + routes.count()
        + m.values(HeaderName::Via).count()
        + m.challenges().count()
        + flags.iter().filter(|&&f| f).count()
}

#[test]
fn reads_a_plain_invite() {
    let m = scan(INVITE);
    assert_eq!(
        m.start(),
        Start::Request { method: MethodName::Invite, method_text: b"INVITE", uri: b"sip:bob@192.0.2.2" }
    );
    assert_eq!(m.call_id(), Some(&b"c1@192.0.2.1"[..]));
    let from = m.from().unwrap();
    assert_eq!(from.name_addr, b"\"A, B;tag=no\" <sip:alice@example.org;tag=no>");
    assert_eq!((from.uri, from.host()), (&b"sip:alice@example.org;tag=no"[..], &b"example.org"[..]));
    assert_eq!(from.tag, Some(&b"a1"[..]));
    assert_eq!(m.to().unwrap().tag, None);
    let layout = Layout { spaces: 2, digits: 1 };
    assert_eq!(m.cseq(), Some(CSeq { number: 7, method: MethodName::Invite, layout }));
    let via = m.top_via().unwrap();
    assert_eq!(
        (via.transport, via.sent_by, via.branch),
        (Transport::Udp, &b"192.0.2.1:5060"[..], Some(&b"z9hG4bK1"[..]))
    );
    assert_eq!(m.contact().unwrap().uri, b"sip:alice@192.0.2.1:5060;transport=udp");
    let routes: Vec<_> = m.record_routes().map(|route| (route_uri(route), has_lr(route))).collect();
    assert_eq!(routes, [(&b"sip:p1.example.net;lr"[..], true), (b"sip:p2.example.net", false)]);
    assert!(m.supports(b"timer") && !m.requires(b"timer"));
    assert_eq!((m.allows(b"UPDATE"), m.allows(b"PRACK")), (Some(true), Some(false)));
    assert_eq!(m.session_expires(), Some(Ok(SessionExpires { interval_s: 1800, refresher: Some(Role::Uas) })));
    assert_eq!(m.min_se(), Some(90));
    assert!(m.is_sdp());
    assert_eq!(m.body(), Body::Whole(b"v=0\r\n"));
}

#[test]
fn r2_compact_names_folds_case_and_blanks_read_alike() {
    let bytes = b"\r\n\r\nSIP/2.0 200\nv : SIP / 2.0 / TCP\r\n [2001:db8::1]:5060 ;\r\n branch = z9hG4bKx , SIP/2.0/UDP h\n\
        F:\xe9ric <sip:e@[2001:db8::2]>\r\n ;\r\n TAG = f1\nt:sip:b@h;tag=t1\nI:\n\tc2\nx\t:\t90 ; foo=\"refresher=uas\";Refresher = UAC\n\
        k:\nK: TIMER\nCseq:0009\r\n  INVITE\nl:0\n\nrest";
    let m = scan(bytes);
    assert_eq!(m.start(), Start::Response { status: 200, reason: b"" });
    let via = m.top_via().unwrap();
    assert_eq!((via.transport, via.sent_by), (Transport::Tcp, &b"[2001:db8::1]:5060"[..]));
    assert_eq!((via.branch, m.values(HeaderName::Via).count()), (Some(&b"z9hG4bKx"[..]), 2));
    let from = m.from().unwrap();
    assert_eq!((from.host(), from.tag), (&b"2001:db8::2"[..], Some(&b"f1"[..])));
    let to = m.to().unwrap();
    assert_eq!((to.name_addr, to.uri, to.tag), (&b"sip:b@h"[..], &b"sip:b@h"[..], Some(&b"t1"[..])));
    assert_eq!(m.call_id(), Some(&b"c2"[..]));
    assert_eq!(m.session_expires(), Some(Ok(SessionExpires { interval_s: 90, refresher: Some(Role::Uac) })));
    assert!(m.supports(b"timer"));
    let layout = Layout { spaces: 0, digits: 4 };
    assert_eq!(m.cseq(), Some(CSeq { number: 9, method: MethodName::Invite, layout }));
    assert_eq!(m.body(), Body::None);
}

#[test]
fn what_is_missing_reads_as_none() {
    let m = Message::scan(b"BYE sip:a SIP/2.0", false).unwrap();
    assert_eq!((m.call_id(), m.from(), m.to(), m.cseq(), m.top_via()), (None, None, None, None, None));
    assert_eq!(
        (m.values(HeaderName::Via).count(), m.allows(b"UPDATE"), m.session_expires(), m.min_se()),
        (0, None, None, None)
    );
    assert_eq!((m.contact(), m.rack(), m.retry_after(), m.content_type()), (None, None, None, None));
    assert_eq!(m.body(), Body::None);
    let m = with("Call-ID:\r\nFrom:\r\nVia: ;branch=x\r\nContact: *\r\nAllow:\r\nno colon here\r\n: nothing");
    let m = scan(&m);
    assert_eq!((m.call_id(), m.from().unwrap().tag, m.top_via()), (None, None, None));
    assert_eq!((m.contact().unwrap().uri, m.allows(b"UPDATE")), (&b"*"[..], Some(false)));
    assert_eq!(scan(&with("Contact: <>")).contact(), None);
}

#[test]
fn first_lines_that_are_none_are_refused() {
    let cases: [(&[u8], ScanError); 12] = [
        (b"", ScanError::Empty),
        (b"\r\n\r\n", ScanError::Empty),
        (b"\0", ScanError::StartLine),
        (b"junk\r\nINVITE sip:a SIP/2.0\r\n", ScanError::StartLine),
        (b"INVITE sip:a\r\n", ScanError::StartLine),
        (b"INVITE  SIP/2.0\r\n", ScanError::StartLine),
        (b"INV\"TE sip:a SIP/2.0\r\n", ScanError::StartLine),
        (b"INVITE sip:a SIP/7.0\r\n", ScanError::Version),
        (b"SIP/2.00 200 OK\r\n", ScanError::Version),
        (b"SIP/2.0 099 x\r\n", ScanError::Status),
        (b"SIP/2.0 4294967301 x\r\n", ScanError::Status),
        (b"GET / HTTP/1.1\r\n", ScanError::StartLine),
    ];
    for (bytes, error) in cases {
        assert_eq!(Message::scan(bytes, false).unwrap_err(), error, "{}", bytes.escape_ascii());
    }
    assert_eq!(Message::scan(b"INVITE sip:a SIP/2.0", true).unwrap_err(), ScanError::StartLine);
}

#[test]
fn blanks_in_the_first_line_are_borne() {
    for line in ["INVITE  sip:a;x  SIP/2.0 \t\r\n\r\n", "INVITE sip:a;x sip/2.0\n\n"] {
        assert_eq!(scan(line.as_bytes()).request_uri(), Some(&b"sip:a;x"[..]));
    }
    assert_eq!(scan(b"INVITE sip:a; lr SIP/2.0\r\n\r\n").request_uri(), Some(&b"sip:a; lr"[..]));
}

#[test]
fn limits_refuse_the_whole_message() {
    assert_eq!(Message::scan(&vec![b'A'; MAX_MESSAGE + 1], false).unwrap_err(), ScanError::TooLong);
    let lines = |count: usize| with(&"v: SIP/2.0/UDP h\r\n".repeat(count));
    assert_eq!(scan(&lines(MAX_LINES)).values(HeaderName::Via).count(), MAX_LINES);
    assert_eq!(Message::scan(&lines(MAX_LINES + 1), false).unwrap_err(), ScanError::TooManyLines);
    let unknown = with(&"X-Anything: 1\r\n".repeat(MAX_LINES * 10));
    assert!(Message::scan(&unknown, false).is_ok(), "unknown headers do not count");
}

#[test]
fn lines_of_one_name_keep_their_order_however_many() {
    let lines: Vec<String> = (0..MAX_LINES / 2).map(|at| format!("v: SIP/2.0/UDP h{at}\r\nk: o{at}")).collect();
    let bytes = with(&lines.join("\r\n"));
    let m = scan(&bytes);
    for (name, text) in [(HeaderName::Via, "SIP/2.0/UDP h"), (HeaderName::Supported, "o")] {
        let wanted = (0..MAX_LINES / 2).map(|at| format!("{text}{at}").into_bytes());
        assert!(m.lines(name).map(<[u8]>::to_vec).eq(wanted));
    }
}

#[test]
fn cseq_numbers_that_are_illegal_are_none() {
    for bad in
        ["", "INVITE", "1", "1INVITE", "-1 INVITE", "2147483648 INVITE", "99999999999999999999 INVITE", "1.5 INVITE"]
    {
        assert_eq!(scan(&with(&format!("CSeq: {bad}"))).cseq(), None, "{bad}");
    }
    assert_eq!(scan(&with("CSeq: 2147483647 BYE")).cseq().unwrap().number, 0x7fff_ffff);
    assert_eq!(scan(&with("CSeq:0 BYE")).cseq().unwrap().layout, Layout { spaces: 0, digits: 1 });
    assert_eq!(scan(&with("CSeq:\t0 BYE")).cseq().unwrap().layout, Layout { spaces: 0, digits: 1 });
}

#[test]
fn the_spaces_before_a_value_are_counted_and_nothing_else_is_taken_for_one() {
    for (line, spaces) in [("m:<sip:a>", 0), ("Contact: <sip:a>", 1), ("m:   <sip:a>", 3), ("m: \t<sip:a>", 0)] {
        assert_eq!(scan(&with(line)).spaces_before(HeaderName::Contact), Some(spaces), "{line}");
    }
    assert_eq!(scan(&with("f: a")).spaces_before(HeaderName::Contact), None);
}

#[test]
fn a_via_without_its_protocol_transport_or_host_is_none() {
    for bad in ["XIP/2.0/UDP h", "SIP/2.0/ h", "SIP/2.0/UDP ;branch=x", "SIP/2.0", "SIP"] {
        assert_eq!(scan(&with(&format!("Via: {bad}"))).top_via(), None, "{bad}");
    }
}

#[test]
fn session_expires_that_cannot_be_trusted_is_a_fault() {
    let fault = |lines: &str| scan(&with(lines)).session_expires().unwrap().unwrap_err();
    assert_eq!(fault("Session-Expires: 90\r\nx: 90"), HeaderFault::Repeated);
    assert_eq!(fault("x: 90, 1800"), HeaderFault::Repeated);
    for seconds in ["", "4294967296", "-90", "90s", "0x5a", "90 90", ";refresher=uac"] {
        assert_eq!(fault(&format!("x: {seconds}")), HeaderFault::Seconds, "{seconds}");
    }
    assert_eq!(fault("x: 90;refresher=me"), HeaderFault::Refresher);
    assert_eq!(fault("x: 90;refresher=uac;refresher=uas"), HeaderFault::Refresher);
    assert_eq!(fault("x: 90;refresher"), HeaderFault::Refresher);
    let empty = SessionExpires { interval_s: 90, refresher: None };
    assert_eq!(scan(&with("x: 90;;a=b;c")).session_expires(), Some(Ok(empty)));
}

#[test]
fn r17_min_se_takes_parameters_and_the_greatest() {
    assert_eq!(scan(&with("Min-SE: 120 ;a=b\r\nMIN-se:90")).min_se(), Some(120));
    assert_eq!(scan(&with("Min-SE: soon")).min_se(), None);
}

#[test]
fn retry_after_bears_comments_and_overflow() {
    assert_eq!(scan(&with("Retry-After: 5 (later);duration=9")).retry_after(), Some(5));
    assert_eq!(scan(&with("Retry-After: 99999999999999999999")).retry_after(), Some(u32::MAX));
    assert_eq!(scan(&with("Retry-After: later")).retry_after(), None);
}

#[test]
fn bodies_whose_length_is_contradictory_are_cut() {
    let body = |length: &str, truncated| {
        let bytes = format!("BYE sip:a SIP/2.0\r\n{length}\r\nabc");
        match Message::scan(bytes.as_bytes(), truncated).unwrap().body() {
            Body::None => "none",
            Body::Cut => "cut",
            Body::Whole(b"abc") => "whole",
            Body::Whole(_) => "other",
        }
    };
    assert_eq!(body("", false), "whole");
    assert_eq!(body("", true), "cut");
    assert_eq!(body("l: 3\r\n", false), "whole");
    assert_eq!(body("l: 3\r\n", true), "whole");
    assert_eq!(body("l: 2\r\n", false), "other");
    assert_eq!(body("l: 0\r\n", false), "none");
    for length in ["4", "-3", "", "3, 3", "99999999999999999999", "3\r\nl: 2"] {
        assert_eq!(body(&format!("l: {length}\r\n"), false), "cut", "{length}");
    }
    assert_eq!(body("l: 3\r\nl: 03\r\n", false), "whole");
}

#[test]
fn only_plain_single_sdp_is_sdp() {
    assert!(scan(&with("c: Application/SDP ; charset=x")).is_sdp());
    for other in ["c: multipart/mixed;boundary=application/sdp", "c: application/sdpx", "X: y"] {
        assert!(!scan(&with(other)).is_sdp(), "{other}");
    }
    assert!(!scan(&with("c: application/sdp\r\ne: gzip")).is_sdp());
    assert!(!scan(&with("c: application/sdp\r\nc: text/plain")).is_sdp());
}

#[test]
fn a_cut_never_shortens_a_value() {
    for end in 0..INVITE.len() {
        let Ok(m) = Message::scan(&INVITE[..end], true) else { continue };
        assert!(m.session_expires().is_none_or(|se| se.unwrap().interval_s == 1800));
        assert!(m.min_se().is_none_or(|seconds| seconds == 90));
        assert!(m.cseq().is_none_or(|cseq| cseq.number == 7));
        assert!(m.from().is_none_or(|from| from.tag == Some(b"a1")));
        assert!(!matches!(m.body(), Body::Whole(body) if body != b"v=0\r\n"));
        assert_eq!(m.headers_complete(), end >= INVITE.len() - 5);
    }
}

#[test]
fn our_branches_are_told_from_others() {
    let token = |branch: &str| scan(&with(&format!("v: SIP/2.0/UDP h;branch={branch}"))).top_via().unwrap().our_token();
    assert_eq!(token("z9hG4bKsipst0123456789abcdef"), Some(0x0123_4567_89ab_cdef));
    for other in
        ["z9hG4bKsipst0123456789ABCDEF", "z9hG4bKsipst0123456789abcde", "z9hG4bKsipst0123456789abcdef0", "z9hG4bK1", ""]
    {
        assert_eq!(token(other), None, "{other}");
    }
}

#[test]
fn rack_and_reliable_provisionals_are_read() {
    let m = with("RAck:  776656\t1  INVITE");
    assert_eq!(scan(&m).rack(), Some(RAck { rseq: 776_656, number: 1, method: MethodName::Invite }));
    assert_eq!(scan(&with("RAck: 1 INVITE")).rack(), None);
    let response = |status| format!("SIP/2.0 {status} x\r\nRSeq: 9\r\nRequire: 100rel\r\n\r\n").into_bytes();
    assert!(scan(&response(183)).reliable());
    assert!(!scan(&response(200)).reliable());
}

#[test]
fn challenges_are_kept_whole_and_in_order() {
    let m = with(
        "Proxy-Authenticate: Digest realm=\"b\", nonce=\"2\"\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"1\"",
    );
    let found: Vec<_> = scan(&m).challenges().map(|c| (c.proxy, c.value.to_vec())).collect();
    assert_eq!(
        found,
        [(false, b"Digest realm=\"a\", nonce=\"1\"".to_vec()), (true, b"Digest realm=\"b\", nonce=\"2\"".to_vec()),]
    );
}

/// One header as its elements, and whether they may share a line.
#[derive(Clone, Debug)]
struct Header {
    name: HeaderName,
    elements: Vec<String>,
    list: bool,
}

/// How one line is written.
#[derive(Clone, Debug)]
struct Style {
    compact: bool,
    upper: u64,
    before: &'static str,
    after: &'static str,
    inside: &'static str,
    split: bool,
}

fn style() -> impl Strategy<Value = Style> {
    let blanks = || prop::sample::select(vec!["", " ", "\t", "  ", "\r\n ", " \r\n\t ", "\n  "]);
    (any::<bool>(), any::<u64>(), prop::sample::select(vec!["", " ", "\t "]), blanks(), blanks(), any::<bool>())
        .prop_map(|(compact, upper, before, after, inside, split)| Style {
            compact,
            upper,
            before,
            after,
            inside,
            split,
        })
}

fn write(headers: &[(Header, Style)], line_end: &str) -> Vec<u8> {
    let mut out = format!("INVITE sip:x@y SIP/2.0{line_end}").into_bytes();
    for (header, style) in headers {
        let mut name = match header.name.compact() {
            Some(compact) if style.compact => compact.to_vec(),
            _ => header.name.name().as_bytes().to_vec(),
        };
        for (at, b) in name.iter_mut().enumerate() {
            if style.upper >> (at % 64) & 1 == 1 {
                *b = if b.is_ascii_uppercase() { b.to_ascii_lowercase() } else { b.to_ascii_uppercase() };
            }
        }
        let lines: Vec<String> = if header.list && !style.split {
            vec![header.elements.join(&format!("{},{}", style.inside, style.inside))]
        } else {
            header.elements.clone()
        };
        for line in lines {
            let line = line.replace('~', style.inside);
            out.extend_from_slice(&name);
            out.extend_from_slice(format!("{}:{}{line}{line_end}", style.before, style.after).as_bytes());
        }
    }
    out.extend_from_slice(line_end.as_bytes());
    out
}

proptest! {
    #[test]
    fn r2_every_spelling_reads_back_the_same(
        call_id in "[a-z0-9.@-]{1,40}",
        tag in "[A-Za-z0-9.-]{1,20}",
        display in "(|\"[ -!#-Z^-~,;<]{0,12}\"|[A-Za-z ]{0,8})",
        number in 0..=0x7fff_ffff_u32,
        interval_s: u32,
        uac: bool,
        vias in prop::collection::vec("[a-z0-9]{1,12}", 1..5),
        routes in prop::collection::vec("[a-z0-9]{1,12}", 0..4),
        options in prop::collection::hash_set("[a-z0-9]{2,8}", 0..4),
        styles in prop::collection::vec(style(), 9),
        order in Just((0..9_usize).collect::<Vec<_>>()).prop_shuffle(),
        bare_lf: bool,
    ) {
        let role = if uac { "uac" } else { "uas" };
        let display = display.replace('~', "-");
        let options: Vec<String> = options.into_iter().chain(["timer".to_owned()]).collect();
        let header = |name, elements, list| Header { name, elements, list };
        let headers = [
            header(HeaderName::CallId, vec![call_id.clone()], false),
            header(HeaderName::From, vec![format!("{display}~<sip:a@[2001:db8::1];tag=no>~;~tag~=~{tag}")], false),
            header(HeaderName::To, vec!["sip:b@h".to_owned()], false),
            header(HeaderName::CSeq, vec![format!("{number} ~INVITE")], false),
            header(HeaderName::SessionExpires, vec![format!("{interval_s}~;~refresher~=~{role}~;x=\"y;z\"")], false),
            header(HeaderName::Via, vias.iter().map(|b| format!("SIP~/~2.0~/~UDP h~;~branch=~{b}")).collect(), true),
            header(HeaderName::RecordRoute, routes.iter().map(|r| format!("\"a,b\"~<sip:u,v@{r};lr>")).collect(), true),
            header(HeaderName::Supported, options.clone(), true),
            header(HeaderName::ContentLength, vec!["0".to_owned()], false),
        ];
        let written: Vec<_> = order.iter().map(|&at| (headers[at].clone(), styles[at].clone())).collect();
        let bytes = write(&written, if bare_lf { "\n" } else { "\r\n" });
        let m = Message::scan(&bytes, false).unwrap();
        prop_assert_eq!(m.call_id(), Some(call_id.as_bytes()));
        let from = m.from().unwrap();
        prop_assert_eq!((from.tag, from.host()), (Some(tag.as_bytes()), &b"2001:db8::1"[..]));
        let cseq = m.cseq().unwrap();
        prop_assert_eq!((cseq.number, cseq.method), (number, MethodName::Invite));
        let refresher = Some(if uac { Role::Uac } else { Role::Uas });
        prop_assert_eq!(m.session_expires(), Some(Ok(SessionExpires { interval_s, refresher })));
        let found: Vec<_> = m.values(HeaderName::Via).map(|via| Via::parse(via).unwrap().branch.unwrap().to_vec()).collect();
        prop_assert_eq!(found, vias.iter().map(|b| b.clone().into_bytes()).collect::<Vec<_>>());
        prop_assert_eq!(m.values(HeaderName::Via).count(), vias.len());
        prop_assert_eq!(m.record_routes().filter(|route| has_lr(route)).count(), routes.len());
        for option in options {
            prop_assert!(m.supports(option.to_uppercase().as_bytes()));
        }
        prop_assert_eq!(m.body(), Body::None);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), truncated: bool) {
        if let Ok(m) = Message::scan(&bytes, truncated) {
            read_all(&m);
        }
    }

    #[test]
    fn any_header_bytes_are_survived(
        lines in prop::collection::vec(
            (prop::sample::select(HeaderName::ALL.to_vec()), "[ -~]{0,4}[\"<>;,=:/\\\\\\[\\]@?0-9a-z \t\r\n\u{e9}]{0,60}"),
            0..12,
        ),
        truncated: bool,
    ) {
        let text: Vec<String> = lines.iter().map(|(name, value)| format!("{}:{value}", name.name())).collect();
        if let Ok(m) = Message::scan(&with(&text.join("\r\n")), truncated) {
            read_all(&m);
        }
    }

    #[test]
    fn mutations_and_cuts_are_survived(
        changes in prop::collection::vec((0..INVITE.len(), any::<u8>()), 0..8),
        end in 0..=INVITE.len(),
        truncated: bool,
    ) {
        let mut bytes = INVITE.to_vec();
        for (at, b) in changes {
            bytes[at] = b;
        }
        if let Ok(m) = Message::scan(&bytes[..end], truncated) {
            read_all(&m);
        }
    }
}
