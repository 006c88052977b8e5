//! Calls over TCP with real stacks: seen, alerts in time, and never anything sent in them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use st_tests::{Family, Host, Lab, Play, Sipp, Sipst, Tap};

use crate::plan::{INTERVAL_S, SOON, config};

/// Whatever sipst may do in a call.
const RULES: [&str; 5] = ["action: refresh", "min_se: 2s", "keepalive: 15s", "respond: on-reject", "on_expired: bye"];

const HOLD: Duration = Duration::from_secs(40);

/// A call of the server's between two SIPp, whose peer hangs up where nobody refreshes; sipst looks at these ports.
fn call(family: Family, tcp: bool, ports: &str) -> (Lab, Sipst, Tap, Sipp, Sipp) {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &format!("{}ports: {ports}\n", config("auto", &RULES))).unwrap();
    let tap = Tap::start(&lab.peer, "eth0").unwrap();
    let (own, other) = (lab.wire.a.ip(family), lab.wire.b.ip(family));
    let by = |play: Play| if tcp { play.by_tcp() } else { play };
    let peer = Sipp::start(&lab.peer, by(Play::peer_is_called(other, INTERVAL_S))).unwrap();
    let server = Sipp::start(&lab.server, by(Play::server_calls(own, (other, 5060).into(), HOLD))).unwrap();
    (lab, sipst, tap, server, peer)
}

fn status(host: &Host) -> Value {
    let (_, out, said) = Sipst::command(host, &["status", "--json"]).unwrap();
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{said}"))
}

fn is_watched_and_left_alone(family: Family) {
    let (lab, sipst, tap, _server, _peer) = call(family, true, "[5060]");
    sipst.event("timer_negotiated", SOON).unwrap();
    let overdue = sipst.event("refresh_overdue", SOON).unwrap();
    assert_eq!((&overdue["by"], &overdue["reason"]), (&"server".into(), &"over_tcp".into()), "{overdue}");
    sipst.event("session_expiring", SOON).unwrap();
    let ended = sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["by"], "peer", "{ended}");
    let status = status(&lab.server);
    let tcp = &status["daemon"]["tcp"];
    assert!(tcp["messages"].as_u64() >= Some(5), "{tcp}");
    assert_eq!((&tcp["gaps"], &tcp["lost"], &tcp["unknown"]), (&0.into(), &0.into(), &0.into()), "{tcp}");
    assert_eq!((sipst.count("refresh_sent"), sipst.count("bye_sent")), (0, 0), "{}", sipst.report());
    // Whatever sipst sends is a datagram.
    assert!(tap.datagrams().unwrap().is_empty(), "{}", sipst.report());
}

/// Where the port is not among those of SIP.
fn is_not_seen() {
    let (lab, sipst, tap, _server, mut peer) = call(Family::V4, true, "[5070]");
    assert!(!peer.ended_well(SOON).unwrap() && peer.wrote(&lab.peer, "BYE").is_some());
    assert!(sipst.events().is_empty() && tap.datagrams().unwrap().is_empty(), "{}", sipst.report());
    let status = status(&lab.server);
    assert_eq!((&status["daemon"]["tcp"]["messages"], &status["counters"]["segment"]), (&0.into(), &Value::Null));
}

#[test]
fn a_call_over_tcp_raises_its_alerts_in_time_and_nothing_is_sent_in_it() {
    let seen = [Family::V4, Family::V6].map(|family| thread::spawn(move || is_watched_and_left_alone(family)));
    let runs = seen.into_iter().chain([thread::spawn(is_not_seen)]);
    // The same call by UDP lives on.
    let (_lab, sipst, tap, _server, _peer) = call(Family::V4, false, "[5060]");
    sipst.event_count("refresh_succeeded", 2, SOON).unwrap();
    assert_eq!((sipst.count("refresh_overdue"), sipst.count("session_ended")), (0, 0), "{}", sipst.report());
    assert!(!tap.datagrams().unwrap().is_empty());
    for run in runs {
        run.join().unwrap();
    }
}

/// A connection from the server's host to the peer's port 5060, both ends.
fn connection(lab: &Lab, family: Family) -> [TcpStream; 2] {
    let other = SocketAddr::from((lab.wire.b.ip(family), 5060));
    let listener = lab.peer.enter(move || TcpListener::bind(other).unwrap());
    let ends = [lab.server.enter(move || TcpStream::connect(other).unwrap()), listener.accept().unwrap().0];
    for end in &ends {
        end.set_nodelay(true).unwrap();
    }
    ends
}

/// Writes these pieces at one end, each in a segment of its own, and reads them at the other.
fn carry(from: &mut TcpStream, to: &mut TcpStream, pieces: &[&[u8]]) {
    for piece in pieces {
        from.write_all(piece).unwrap();
        let mut came = vec![0; piece.len()];
        to.read_exact(&mut came).unwrap();
        assert!(came == *piece);
    }
}

/// Messages of one call: what a request or an answer has in its header.
fn message(start: &str, branch: u32, to_tag: &str, number: &str, more: &str) -> String {
    format!(
        "{start}\r\nVia: SIP/2.0/TCP 10.0.0.1;branch=z9hG4bK{branch}\r\nFrom: <sip:a@10.0.0.1>;tag=1\r\nTo: <sip:b@10.0.0.2>{to_tag}\r\n\
         Call-ID: cut\r\nCSeq: {number}\r\nContact: <sip:x@10.0.0.2;transport=tcp>\r\n{more}Content-Length: 4\r\n\r\nbody"
    )
}

fn is_read_however_it_is_cut(family: Family) {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", &RULES)).unwrap();
    let [mut server, mut peer] = connection(&lab, family);
    // One message over many segments, behind a keep-alive.
    let invite = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    let invite = message("INVITE sip:b@10.0.0.2 SIP/2.0", 1, "", "1 INVITE", invite);
    let pieces: Vec<_> = [&b"\r\n\r\n"[..]].into_iter().chain(invite.as_bytes().chunks(20)).collect();
    carry(&mut server, &mut peer, &pieces);
    // Two in one segment.
    let answer = |start: &str, more: &str| message(start, 1, ";tag=2", "1 INVITE", more);
    let both = answer("SIP/2.0 180 Ringing", "")
        + &answer("SIP/2.0 200 OK", "Require: timer\r\nSession-Expires: 90;refresher=uac\r\n");
    carry(&mut peer, &mut server, &[both.as_bytes()]);
    let ack = message("ACK sip:x@10.0.0.2 SIP/2.0", 2, ";tag=2", "1 ACK", "");
    carry(&mut server, &mut peer, &[ack.as_bytes()]);
    let negotiated = sipst.event("timer_negotiated", SOON).unwrap();
    assert_eq!((&negotiated["call_id"], &negotiated["interval_s"]), (&"cut".into(), &90.into()), "{negotiated}");
    // The connection is lost, and the call goes on over another one.
    drop((server, peer));
    let [mut server, mut peer] = connection(&lab, family);
    let bye = message("BYE sip:x@10.0.0.2 SIP/2.0", 3, ";tag=2", "2 BYE", "");
    carry(&mut server, &mut peer, &[&bye.as_bytes()[..100], &bye.as_bytes()[100..]]);
    let ok = message("SIP/2.0 200 OK", 3, ";tag=2", "2 BYE", "");
    carry(&mut peer, &mut server, &[ok.as_bytes()]);
    let ended = sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["by"], "server", "{ended}");
    let status = status(&lab.server);
    let (tcp, segments) = (&status["daemon"]["tcp"], &status["counters"]["segment"]);
    assert_eq!((&tcp["messages"], &tcp["gaps"], &tcp["lost"]), (&6.into(), &0.into(), &0.into()), "{tcp}");
    assert!(segments.as_u64() >= Some(pieces.len() as u64 + 5), "{status:#}");
}

#[test]
fn messages_are_read_however_segments_cut_them_and_a_call_goes_on_over_another_connection() {
    let other = thread::spawn(|| is_read_however_it_is_cut(Family::V6));
    is_read_however_it_is_cut(Family::V4);
    other.join().unwrap();
}

/// Sends it all from the server's host to the peer's port, and waits until it has arrived.
fn send(lab: &Lab, port: u16, bytes: Vec<u8>) {
    let (own, other) = (lab.wire.a.v4, SocketAddr::from((lab.wire.b.v4, port)));
    let (length, listener) = (bytes.len(), lab.peer.enter(move || TcpListener::bind(other).unwrap()));
    let arrived = thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), own);
        let mut all = vec![0; length];
        stream.read_exact(&mut all).unwrap();
        all
    });
    let sent = bytes.clone();
    lab.server.enter(move || TcpStream::connect(other).unwrap().write_all(&sent).unwrap());
    assert!(arrived.join().unwrap() == bytes);
}

/// Waits until it says what is wanted.
fn says(lab: &Lab, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + SOON;
    loop {
        let status = status(&lab.server);
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < until, "{status:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn segments_that_offloads_hand_over_as_one_are_seen_whole_and_what_cannot_be_read_is_named() {
    let lab = Lab::new().unwrap();
    let _sipst = Sipst::start(&lab.server, &config("auto", &RULES)).unwrap();
    let body = "v".repeat(40_000);
    let message = format!(
        "MESSAGE sip:b@c SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\n\
         Call-ID: c\r\nCSeq: 1 MESSAGE\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    send(&lab, 5060, message.repeat(25).into_bytes());
    let status = says(&lab, |status| status["daemon"]["tcp"]["messages"] == 25);
    let (tcp, counted) = (&status["daemon"]["tcp"], &status["counters"]);
    assert_eq!((&tcp["gaps"], &tcp["lost"]), (&0.into(), &0.into()), "{tcp}");
    assert!(counted["segment_cut"].is_null() && counted["ring_full"].is_null(), "{counted}");
    assert!(counted["segment"].as_u64() < Some(25 * 40_000 / 1_448), "no segment was larger than a packet: {counted}");

    // TLS and WebSocket on a port of SIP's, and a port where there is nothing else.
    send(&lab, 5060, [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 400]].concat());
    send(&lab, 5060, b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".to_vec());
    send(&lab, 5061, vec![22, 3, 1]);
    let status =
        says(&lab, |status| status["counters"]["opaque_connection"] == 1 && status["daemon"]["tcp"]["websocket"] == 1);
    assert_eq!(status["daemon"]["tcp"]["tls"], 1, "{status:#}");
    let unseen: Vec<_> = status["transports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["transport"].as_str().is_some_and(|name| name.starts_with("TLS, WS, WSS on")))
        .map(|row| (row["seen"] == false, row["here"] == true, row["counted"][0]["count"].as_u64()))
        .collect();
    assert_eq!(unseen, [(true, true, Some(2)), (true, true, Some(1))], "{status:#}");
    let (_, shown, _) = Sipst::command(&lab.server, &["status"]).unwrap();
    assert!(shown.contains("; 2 connections UNSEEN") && shown.contains("; 1 connections UNSEEN"), "{shown}");
}
