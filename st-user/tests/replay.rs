//! A capture gives the events of its calls, whatever form it has and wherever it ends.

mod samples;

use std::{collections::HashSet, sync::Arc};

use ipnet::IpNet;
use samples::*;
use serde_json::Value;
use sipst::{
    capture::CaptureError,
    output::Format,
    replay::{Options, Progress, ReplayError, Summary, replay},
};
use st_core::{Action, Policy, Rules};

struct Replayed {
    events: Vec<Value>,
    summary: Summary,
    result: Result<(), ReplayError>,
}

impl Replayed {
    /// The names of the events in order.
    fn names(&self) -> Vec<&str> {
        self.events.iter().filter_map(|event| event["event"].as_str()).collect()
    }

    #[track_caller]
    fn event(&self, name: &str) -> &Value {
        self.events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("{name}: {:?}", self.names()))
    }
}

fn replay_with(file: &[u8], servers: &[&str], action: Action) -> Replayed {
    let temp = Temp::new(file);
    let servers: Vec<IpNet> = servers.iter().filter_map(|net| net.parse().ok()).collect();
    let policy = Policy { default: Rules { action, ..Rules::default() }, ..Policy::default() };
    let options = Options { servers, policy: Arc::new(policy), format: Format::Json, progress: Progress::default() };
    let mut out = Vec::new();
    let mut summary = Summary::default();
    let result = replay(temp.path(), &options, &mut out, &mut summary);
    let events = String::from_utf8_lossy(&out).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Replayed { events, summary, result }
}

fn replay_file(file: &[u8]) -> Replayed {
    replay_with(file, &[], Action::Alert)
}

#[test]
fn a_call_that_nobody_refreshes_gives_its_events_at_the_captures_own_time() {
    let replayed = replay_file(&Pcap::default().file(&call(200)));
    replayed.result.as_ref().unwrap();
    let names = replayed.names();
    let expected = [
        "session_started",
        "timer_negotiated",
        "refresh_due",
        "refresh_overdue",
        "session_expiring",
        "session_expired",
        "session_ended",
    ];
    assert_eq!(names.iter().copied().filter(|name| expected.contains(name)).collect::<Vec<_>>(), expected, "{names:?}");
    for event in &replayed.events {
        assert_eq!(event["server"], "192.0.2.1:5060");
        assert_eq!(event["peer"], "198.51.100.2:5060");
        assert_eq!(event["call_id"], "sample");
        assert_eq!(event["local_tag"], "server");
        assert_eq!(event["remote_tag"], "peer");
    }
    assert_eq!(replayed.event("timer_negotiated")["time"], "2023-11-14T22:13:21.000000Z");
    // The interval runs from the 2xx at one second.
    assert_eq!(replayed.event("session_expired")["time"], "2023-11-14T22:14:51.000000Z");
    assert_eq!(replayed.event("session_ended")["time"], "2023-11-14T22:16:40.000000Z");
    assert_eq!((replayed.summary.packets, replayed.summary.messages, replayed.summary.sessions), (6, 6, 1));
}

#[test]
fn no_timer_runs_past_the_last_packet() {
    let replayed = replay_file(&Pcap::default().file(&call(200)[..4]));
    assert_eq!(replayed.names(), ["session_started", "timer_negotiated"]);
}

#[test]
fn any_packet_moves_the_time() {
    let mut frames = call(200)[..4].to_vec();
    frames.push((at(95), ethernet(&ipv4(PEER, SERVER, (9, 9), b"not SIP"), &[])));
    let replayed = replay_file(&Pcap::default().file(&frames));
    assert_eq!(replayed.names().last(), Some(&"session_expired"));
}

#[test]
fn every_form_of_capture_gives_the_same_events() {
    let frames = call(200);
    let expected = replay_file(&Pcap::default().file(&frames)).events;
    assert!(!expected.is_empty());
    let unwrap = |frame: &[u8]| frame[14..].to_vec();
    let map = |change: &dyn Fn(Vec<u8>) -> Vec<u8>| -> Frames {
        frames.iter().map(|(time, frame)| (*time, change(unwrap(frame)))).collect()
    };
    let file = |link, change: &dyn Fn(Vec<u8>) -> Vec<u8>| Pcap { link, ..Pcap::default() }.file(&map(change));
    let mut ng = Pcapng::new(true);
    ng.interface(ETHERNET, Some(9));
    ng.interface(SLL2, Some(6));
    for (index, (time, frame)) in frames.iter().enumerate() {
        // Every other packet was seen on another interface.
        match index % 2 {
            0 => ng.packet(0, time * 1000, frame),
            _ => ng.packet(1, *time, &sll2(&unwrap(frame))),
        }
    }
    for file in [
        Pcap { big_endian: true, nanoseconds: true, link: ETHERNET }.file(&frames),
        file(RAW, &|ip| ip),
        file(SLL, &|ip| sll(&ip)),
        file(SLL2, &|ip| sll2(&ip)),
        file(LOOPBACK, &|ip| [vec![2, 0, 0, 0], ip].concat()),
        file(ETHERNET, &|ip| ethernet(&ip, &[(0x8100, 100)])),
        file(ETHERNET, &|ip| pppoe(&ip)),
        ng.file(),
    ] {
        assert_eq!(replay_file(&file).events, expected);
    }
    let fragmented: Vec<_> = frames
        .iter()
        .flat_map(|(time, frame)| fragments(&unwrap(frame), 160).into_iter().map(|part| (*time, ethernet(&part, &[]))))
        .collect();
    let replayed = replay_file(&Pcap::default().file(&fragmented));
    assert_eq!(replayed.events, expected);
    assert_eq!((replayed.summary.reassembled, replayed.summary.incomplete), (6, 0));
}

#[test]
fn without_networks_the_side_without_timers_is_the_server() {
    let replayed = replay_file(&Pcap::default().file(&call(10)));
    assert_eq!(replayed.summary.sides.len(), 1);
    assert!(replayed.summary.sides[0].starts_with("server 192.0.2.1, peer 198.51.100.2: it never offered timers"));
}

#[test]
fn networks_decide_against_the_timers() {
    let replayed = replay_with(&Pcap::default().file(&call(10)), &["198.51.100.0/24"], Action::Alert);
    replayed.result.as_ref().unwrap();
    assert_eq!(replayed.event("session_started")["server"], "198.51.100.2:5060");
    assert!(replayed.summary.sides.is_empty());
    let file = Pcap::default().file(&call(10));
    let replayed = replay_with(&file, &["0.0.0.0/0"], Action::Alert);
    assert!(replayed.events.is_empty());
    assert_eq!((replayed.summary.both, replayed.summary.neither), (6, 0));
    let replayed = replay_with(&file, &["203.0.113.0/24", "2001:db8::/32"], Action::Alert);
    assert_eq!((replayed.summary.both, replayed.summary.neither), (0, 6));
}

#[test]
fn a_capture_that_is_cut_off_gives_the_events_up_to_there() {
    let file = Pcap::default().file(&call(200));
    let replayed = replay_file(&file[..file.len() - 1]);
    assert_eq!(replayed.names().first(), Some(&"session_started"));
    let Err(ReplayError::Capture { source: CaptureError::Truncated { packets: 5 }, .. }) = replayed.result else {
        panic!("{:?}", replayed.result);
    };
}

#[test]
fn what_is_no_capture_gives_one_error_and_no_event() {
    for (file, expected) in [
        (&b""[..], "the file is empty"),
        (b"garbage, a good deal longer than any header is", "neither pcap nor pcapng"),
        (&Pcap::default().file(&[])[..20], "the file ends in the middle of a record"),
    ] {
        let replayed = replay_file(file);
        assert!(replayed.events.is_empty());
        let error = format!("{:#}", anyhow::Error::from(replayed.result.unwrap_err()));
        assert!(error.contains(expected), "{error}");
    }
    let replayed = replay_file(&Pcap { link: 147, ..Pcap::default() }.file(&call(10)));
    assert!(matches!(replayed.result, Err(ReplayError::Link { link: 147, .. })), "{:?}", replayed.result);
    replay_file(&Pcap::default().file(&[])).result.unwrap();
}

#[test]
fn time_never_goes_back() {
    let mut frames = call(200);
    frames[3].0 = EPOCH;
    let replayed = replay_file(&Pcap::default().file(&frames));
    let times: Vec<_> = replayed.events.iter().filter_map(|event| event["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(replayed.summary.backwards, 1);
}

#[test]
fn nothing_is_sent_where_the_action_is_refresh() {
    let replayed = replay_with(&Pcap::default().file(&call(200)), &[], Action::Refresh);
    replayed.result.as_ref().unwrap();
    let names: HashSet<_> = replayed.names().into_iter().collect();
    assert!(!names.contains("refresh_sent") && !names.contains("refresh_succeeded"), "{names:?}");
    assert!(names.contains("session_expired"), "{names:?}");
}

/// The sample call with an UPDATE of sipst's own at 46 s and, where `answered`, its 200.
fn refreshed(answered: bool) -> Frames {
    let mut frames = call(100);
    let branch = format!("{}00000000000000aa", String::from_utf8_lossy(&st_ebpf::abi::BRANCH_PREFIX));
    let branch = branch.strip_prefix("z9hG4bK").unwrap_or(&branch);
    let expires = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    let update = sip("UPDATE sip:p@198.51.100.2 SIP/2.0", "2 UPDATE", branch, true, expires);
    let ok = sip("SIP/2.0 200 OK", "2 UPDATE", branch, true, "Session-Expires: 90;refresher=uac\r\n");
    let mut more = vec![(at(46), ethernet(&ipv4(SERVER, PEER, (5060, 5060), &update), &[]))];
    if answered {
        more.push((at(46), ethernet(&ipv4(PEER, SERVER, (5060, 5060), &ok), &[])));
    }
    frames.splice(4..4, more);
    frames
}

#[test]
fn a_refresh_of_sipsts_own_is_recognised_in_a_capture_from_the_peers_end() {
    let replayed = replay_file(&Pcap::default().file(&refreshed(true)));
    replayed.result.as_ref().unwrap();
    assert_eq!(replayed.event("refresh_sent")["by"], "sipst");
    assert_eq!(replayed.event("session_refreshed")["by"], "sipst");
    replayed.event("refresh_succeeded");
    // The server is still the side without timers, whatever sipst has said in its name.
    assert_eq!(replayed.event("session_started")["server"], "192.0.2.1:5060");
    assert!(!replayed.summary.on_host);
}

#[test]
fn a_capture_from_the_host_itself_is_told_to_be_partial() {
    let replayed = replay_file(&Pcap::default().file(&refreshed(false)));
    replayed.result.as_ref().unwrap();
    replayed.event("capture_loss");
    assert!(replayed.summary.on_host);
    assert!(replayed.summary.to_string().contains("partial capture: taken on the host itself"));
}

/// The same call over one TCP connection of the server's, each message in pieces of `size` bytes, with what the capture lacks left out.
fn over_tcp(size: usize, lacks: impl Fn(usize) -> bool) -> Frames {
    let mut next = [1_000_u32, u32::MAX - 100];
    let mut frames = Frames::new();
    for (time, frame) in call(200) {
        // Behind Ethernet, IPv4 and UDP.
        let (is_out, message) = (frame[26..30] == SERVER, &frame[42..]);
        let text = String::from_utf8_lossy(message).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
        let number = &mut next[usize::from(!is_out)];
        for piece in text.as_bytes().chunks(size) {
            let (from, to, ports) =
                if is_out { (SERVER, PEER, (40_000, 5060)) } else { (PEER, SERVER, (5060, 40_000)) };
            let mut ip = Vec::new();
            let builder = etherparse::PacketBuilder::ipv4(from, to, 64).tcp(ports.0, ports.1, *number, 1_000).ack(1);
            builder.write(&mut ip, piece).expect("memory takes it");
            *number = number.wrapping_add(piece.len() as u32);
            frames.push((time, ethernet(&ip, &[])));
        }
    }
    let kept = frames.into_iter().enumerate().filter(|(at, _)| !lacks(*at));
    kept.map(|(_, frame)| frame).collect()
}

#[test]
fn a_call_over_tcp_gives_the_same_events() {
    let by_udp = replay_file(&Pcap::default().file(&call(200)));
    for size in [1, 100, 5_000] {
        let replayed = replay_file(&Pcap::default().file(&over_tcp(size, |_| false)));
        replayed.result.as_ref().unwrap();
        assert_eq!(replayed.names(), by_udp.names(), "{size}");
        let Summary { messages, tcp, gaps, opaque, sessions, .. } = replayed.summary;
        assert_eq!((messages, tcp, gaps, opaque, sessions), (6, 6, 0, 0, 1));
        assert_eq!(replayed.event("refresh_overdue")["reason"], "over_tcp");
    }
}

#[test]
fn what_a_capture_lacks_of_a_connection_costs_no_more_than_its_message() {
    // The 180 is the second of both directions together.
    let frames = over_tcp(5_000, |at| at == 1);
    let replayed = replay_file(&Pcap::default().file(&frames));
    let Summary { messages, gaps, .. } = replayed.summary;
    assert_eq!((messages, gaps), (5, 0), "what is missing at a direction's beginning is not known to be");
    let frames = over_tcp(5_000, |at| at == 3);
    let replayed = replay_file(&Pcap::default().file(&frames));
    let Summary { messages, gaps, .. } = replayed.summary;
    assert_eq!((messages, gaps), (5, 1));
    assert!(replayed.summary.to_string().contains("parts of TCP connections that the capture lacks: 1"));
}
