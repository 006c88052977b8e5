//! `sipst replay --html`: the page says what the summary of the same capture says, and obeys nobody.

#![allow(clippy::unwrap_used, reason = "what cannot be started fails the test")]

mod samples;

use std::{fs, path::PathBuf, process::Command};

use roxmltree::{Document, Node, ParsingOptions};
use samples::*;
use serde_json::Value;

/// A place for a page, which goes away with the capture beside it.
struct Page {
    capture: Temp,
    path: PathBuf,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Page {
    fn of(capture: &[u8]) -> Self {
        let capture = Temp::new(capture);
        let path = capture.path().with_extension("html");
        Self { capture, path }
    }

    /// Replays it: exit code, stdout, stderr and the page.
    fn replay(&self, args: &[&str]) -> (Option<i32>, String, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sipst"));
        command.arg("replay").arg(self.capture.path()).arg("--html").arg(&self.path).args(args);
        let output = command.env_remove("SIPST_LOG").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let page = fs::read_to_string(&self.path).unwrap_or_default();
        (output.status.code(), text(&output.stdout), text(&output.stderr), page)
    }
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}\n{page:.2000}"))
}

fn has_class(node: Node<'_, '_>, class: &str) -> bool {
    node.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
}

fn count(node: Node<'_, '_>, name: &str, class: &str) -> usize {
    node.descendants().filter(|node| node.has_tag_name(name) && has_class(*node, class)).count()
}

fn all_text(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect()
}

/// The frames of a call as another call, which begins so many seconds later.
fn as_another(frames: &Frames, call_id: &[u8], later: u64) -> Frames {
    let renamed = |frame: &Vec<u8>| {
        let quad = |at: usize| -> [u8; 4] { frame[at..at + 4].try_into().unwrap() };
        let payload = &frame[42..];
        let name = b"Call-ID: sample";
        let found = payload.windows(name.len()).position(|part| part == name);
        let payload = match found {
            Some(at) => [&payload[..at], b"Call-ID: ", call_id, &payload[at + name.len()..]].concat(),
            None => payload.to_vec(),
        };
        ethernet(&ipv4(quad(26), quad(30), (5060, 5060), &payload), &[])
    };
    frames.iter().map(|(time, frame)| (time + later * 1_000_000, renamed(frame))).collect()
}

fn packet(seconds: u64, by_peer: bool, message: &[u8]) -> (u64, Vec<u8>) {
    let (from, to) = if by_peer { (PEER, SERVER) } else { (SERVER, PEER) };
    (at(seconds), ethernet(&ipv4(from, to, (5060, 5060), message), &[]))
}

/// An UPDATE of the server's with this branch at `seconds`, and its 200.
fn update(seconds: u64, branch: &str) -> Frames {
    let expires = "Supported: timer\r\nRequire: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    vec![
        packet(seconds, false, &sip("UPDATE sip:p@198.51.100.2 SIP/2.0", "2 UPDATE", branch, true, expires)),
        packet(seconds, true, &sip("SIP/2.0 200 OK", "2 UPDATE", branch, true, expires)),
    ]
}

fn with(bye: u64, more: Frames) -> Frames {
    let mut frames = call(bye);
    frames.splice(4..4, more);
    frames
}

/// One that the peer hangs up when its deadline has come.
fn lost() -> Frames {
    let swapped = |start: &str| {
        let text = String::from_utf8(sip(start, "9 BYE", "bye", true, "")).unwrap();
        text.replace("From: <sip:s@192.0.2.1>;tag=server", "From: <sip:p@198.51.100.2>;tag=peer")
            .replace("To: <sip:p@198.51.100.2>;tag=peer", "To: <sip:s@192.0.2.1>;tag=server")
            .into_bytes()
    };
    let mut frames = call(61);
    frames.truncate(4);
    frames.push(packet(61, true, &swapped("BYE sip:s@192.0.2.1 SIP/2.0")));
    frames.push(packet(61, false, &swapped("SIP/2.0 200 OK")));
    frames
}

/// An UPDATE that sipst sent.
fn sipsts() -> Frames {
    let prefix = String::from_utf8_lossy(&st_ebpf::abi::BRANCH_PREFIX).into_owned();
    update(46, &format!("{}00000000000000aa", prefix.strip_prefix("z9hG4bK").unwrap_or(&prefix)))
}

/// Calls of every kind, one after the other, and one that does not end.
fn several() -> Frames {
    let mut open = call(500);
    open.truncate(4);
    let calls = [call(200), with(100, sipsts()), with(100, update(30, "refresh")), lost(), open];
    let named =
        calls.iter().zip(0_u64..).map(|(frames, at)| as_another(frames, format!("call-{at}").as_bytes(), at * 300));
    let mut frames: Frames = named.flatten().collect();
    frames.sort_by_key(|(time, _)| *time);
    frames
}

fn seconds(time: &Value) -> f64 {
    let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn lanes_marks_and_tables_say_what_the_summary_says() {
    let page = Page::of(&Pcap::default().file(&several()));
    let (code, out, log, text) = page.replay(&["--json", "--summary", "--server", "192.0.2.1"]);
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (calls, events): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.get("summary").is_some());
    assert_eq!(calls.len(), 5);
    let document = parse(&text);
    let articles: Vec<Node<'_, '_>> = document.descendants().filter(|node| node.has_tag_name("article")).collect();
    assert_eq!(articles.len(), calls.len());
    let rows =
        document.descendants().filter(|node| node.attribute("href").is_some_and(|href| href.starts_with("#call-")));
    assert_eq!(rows.count(), calls.len());
    for (article, call) in articles.into_iter().zip(&calls) {
        let said = all_text(article);
        assert_eq!(article.attribute("data-verdict"), call["verdict"].as_str());
        assert!(said.contains(call["call_id"].as_str().unwrap()), "{said}");
        let of_call = events.iter().filter(|event| event["call_id"] == call["call_id"]);
        let lane = article.descendants().find(|node| node.has_tag_name("svg")).unwrap();
        for who in ["server", "peer", "sipst"] {
            let refreshes = call["refreshed"][who].as_u64().unwrap();
            assert_eq!(count(lane, "circle", who) as u64, refreshes, "{who} {call}");
        }
        // What is no alert has a word in the tables, not a mark of its own.
        let quiet = [
            "session_started",
            "timer_negotiated",
            "session_refreshed",
            "refresh_due",
            "refresh_sent",
            "refresh_succeeded",
            "session_ended",
        ];
        let alerts = of_call.clone().filter(|event| !quiet.contains(&event["event"].as_str().unwrap())).count();
        assert_eq!(count(lane, "circle", "fault"), alerts, "{call}");
        for event in of_call {
            assert!(said.contains(event["event"].as_str().unwrap()), "{event}\n{said}");
        }
        let deaths: Vec<_> =
            lane.children().filter(|node| node.has_tag_name("line") && has_class(*node, "death")).collect();
        assert_eq!(deaths.len(), usize::from(call.get("would_have_died").is_some()), "{call}");
        if let ([death], Some(ended)) = (&deaths[..], call.get("ended")) {
            let (from, died, ended) = (seconds(&call["started"]), seconds(&call["would_have_died"]), seconds(ended));
            let expected = 2.0 + 96.0 * (died - from) / (died.max(ended) - from);
            let place: f64 = death.attribute("x1").unwrap().strip_suffix('%').unwrap().parse().unwrap();
            assert!((place - expected).abs() < 0.01, "{place} {expected}");
        }
        assert_eq!(
            count(lane, "rect", "se"),
            1 + call["refreshed"]["sipst"].as_u64().unwrap() as usize
                + call["refreshed"]["server"].as_u64().unwrap() as usize
        );
        assert_eq!(count(lane, "line", "end"), usize::from(call.get("ended").is_some()));
        assert!(
            lane.children()
                .any(|node| node.has_tag_name("desc") && node.text().is_some_and(|text| text.contains("Verdict")))
        );
    }
    // Without either, the page is the same and nothing else is printed but the events.
    let (_, _, log, again) = page.replay(&["--server", "192.0.2.1"]);
    assert!(again == text && !log.contains("had to refresh"), "{log}");
    // The same calls under rules that have no timer.
    let rules = Temp::new(b"interfaces: [eth0]\ndefault: { interval_floor: 100s }\n");
    let (code, _, log, ruled) = page.replay(&["-c", rules.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{log}");
    assert_ne!(ruled, text);
    parse(&ruled);
}

#[test]
fn nothing_from_the_wire_is_obeyed_by_whoever_reads_the_page() {
    let hostile: [&[u8]; 9] = [
        b"<script>alert(1)</script>",
        b"\"><img/src=x/onerror=alert(1)>",
        b"'onmouseover='alert(1)",
        b"]]>--></style></svg><script>alert(2)</script>",
        b"&lt;script&gt;&#x3c;",
        b"\x01\x02\x1b[2J\x7f\xc2\x9b",
        b"\xff\xfe\xef\xbf\xbe\xef\xbf\xbf",
        "\u{202e}gnp.exe\u{2066}".as_bytes(),
        b"javascript:alert(1)",
    ];
    let mut frames = Frames::new();
    for (call_id, at) in hostile.iter().zip(0..) {
        frames.extend(as_another(&call(200), call_id, at * 10));
    }
    let long = vec![b'<'; 250];
    frames.extend(as_another(&call(200), &long, 95));
    frames.sort_by_key(|(time, _)| *time);
    let page = Page::of(&Pcap::default().file(&frames));
    let (code, _, log, text) = page.replay(&["--server", "192.0.2.1"]);
    assert_eq!(code, Some(0), "{log}");
    let document = parse(&text);
    let known = [
        "a", "article", "body", "caption", "circle", "code", "desc", "details", "div", "footer", "h1", "h2", "h3",
        "head", "header", "html", "li", "line", "main", "meta", "p", "rect", "span", "style", "summary", "svg",
        "table", "tbody", "td", "text", "th", "thead", "time", "title", "tr", "ul",
    ];
    for node in document.descendants().filter(Node::is_element) {
        assert!(known.contains(&node.tag_name().name()), "{}", node.tag_name().name());
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on") && attribute.name() != "src", "{}", attribute.name());
            assert!(attribute.name() != "href" || attribute.value().starts_with('#'), "{}", attribute.value());
        }
    }
    assert!(
        text.chars()
            .all(|c| c == '\n' || !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    );
    let names: Vec<String> =
        document.descendants().filter(|node| node.has_tag_name("h3")).map(|node| all_text(node)).collect();
    assert_eq!(names.len(), hostile.len() + 1, "{names:?}");
    assert_eq!(names[0], "<script>alert(1)</script>");
    assert!(names.iter().all(|name| name.chars().count() <= 205), "a text of the wire is cut");
    assert!(
        !text.contains("http://") && !text.contains("https://") && !text.contains("@import") && !text.contains("url(")
    );
    assert!(text.len() < 200_000, "{}", text.len());
}

#[test]
fn of_very_many_calls_the_worst_are_shown_and_the_rest_is_counted() {
    let mut frames: Frames = (0..520)
        .flat_map(|at| as_another(&with(100, update(30, "refresh")), format!("sound-{at}").as_bytes(), at))
        .collect();
    frames.extend(as_another(&lost(), b"the-lost-one", 600));
    frames.sort_by_key(|(time, _)| *time);
    let page = Page::of(&Pcap::default().file(&frames));
    let (code, _, log, text) = page.replay(&["--server", "192.0.2.1"]);
    assert_eq!(code, Some(0), "{log}");
    let document = parse(&text);
    assert_eq!(document.descendants().filter(|node| node.has_tag_name("article")).count(), 500);
    let said = all_text(document.root_element());
    assert!(said.contains("521 calls") && said.contains("1 lost, 520 sound"), "{said:.1000}");
    assert!(said.contains("Only 500 calls are shown, the worst. Left out: 21 sound."), "{said:.1000}");
    assert!(said.contains("the-lost-one"));
    assert!(text.len() < 5_000_000, "{}", text.len());
}

#[test]
fn a_capture_without_calls_or_without_its_end_has_a_page_that_says_so() {
    let empty = Page::of(&Pcap::default().file(&Frames::new()));
    let (code, _, log, text) = empty.replay(&[]);
    assert_eq!(code, Some(0), "{log}");
    assert!(all_text(parse(&text).root_element()).contains("No session began in this capture."));
    let mut file = Pcap::default().file(&call(200));
    file.truncate(file.len() - 7);
    let cut = Page::of(&file);
    let (code, _, log, text) = cut.replay(&["--server", "192.0.2.1"]);
    assert_eq!(code, Some(1), "{log}");
    let said = all_text(parse(&text).root_element());
    assert!(said.contains("could not be read to its end") && said.contains("1 call"), "{said}");
}

#[test]
fn a_page_that_cannot_be_written_is_said_before_the_capture_is_read() {
    let capture = Temp::new(&Pcap::default().file(&call(200)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipst"));
    let output =
        command.arg("replay").arg(capture.path()).args(["--html", "/no/such/directory/page.html"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("/no/such/directory/page.html"), "{said}");
}

#[test]
fn the_capture_is_never_written_over_and_an_earlier_page_is() {
    let bytes = Pcap::default().file(&call(200));
    let capture = Temp::new(&bytes);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipst"));
    let output = command.arg("replay").arg(capture.path()).arg("--html").arg(capture.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("is the capture itself"), "{said}");
    assert_eq!(fs::read(capture.path()).unwrap(), bytes);
    let page = Page::of(&bytes);
    fs::write(&page.path, "x".repeat(1_000_000)).unwrap();
    let (code, _, log, text) = page.replay(&["--server", "192.0.2.1"]);
    assert_eq!(code, Some(0), "{log}");
    parse(&text);
}
