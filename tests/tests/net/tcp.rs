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

/// A call of the server's between two SIPp, whose peer hangs up where nobody refreshes.
fn call(family: Family, tcp: bool) -> (Lab, Sipst, Tap, Sipp, Sipp) {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", &RULES)).unwrap();
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
    let (lab, sipst, tap, _server, _peer) = call(family, true);
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

#[test]
fn a_call_over_tcp_raises_its_alerts_in_time_and_nothing_is_sent_in_it() {
    let runs = [Family::V4, Family::V6].map(|family| thread::spawn(move || is_watched_and_left_alone(family)));
    // The same call by UDP lives on.
    let (_lab, sipst, tap, _server, _peer) = call(Family::V4, false);
    sipst.event_count("refresh_succeeded", 2, SOON).unwrap();
    assert_eq!((sipst.count("refresh_overdue"), sipst.count("session_ended")), (0, 0), "{}", sipst.report());
    assert!(!tap.datagrams().unwrap().is_empty());
    for run in runs {
        run.join().unwrap();
    }
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
    let unseen: Vec<u64> = status["transports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["transport"].as_str().is_some_and(|name| name.starts_with("TLS or WebSocket, a port")))
        .filter_map(|row| row["counted"].as_u64())
        .collect();
    assert_eq!(unseen, [2, 1], "{status:#}");
    let (_, shown, _) = Sipst::command(&lab.server, &["status"]).unwrap();
    assert!(shown.contains(": 2 connections UNSEEN") && shown.contains(": 1 connections UNSEEN"), "{shown}");
}
