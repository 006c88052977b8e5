//! Trouble at the host: floods, a daemon that stands still, a clock that is set, an interface that goes down, dead webhooks.
//! Calls are refreshed all the same.

use std::{
    net::{TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use st_tests::{Lab, Sipst, agent::Profile};

use crate::plan::{Plan, SOON};

/// A port of the server's host that is configured and where nobody listens.
const IDLE_PORT: u16 = 5070;

#[test]
fn a_flood_of_strangers_invites_keeps_no_call_from_being_refreshed() {
    let call = Plan::default().start_with(|config| format!("{config}ports: [5060, {IDLE_PORT}]\n"));
    let target = (call.lab.wire.a.v4, IDLE_PORT);
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let socket = call.lab.peer.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let flood = thread::spawn(move || {
        let mut sent = 0_u64;
        while !ended.load(Ordering::Relaxed) {
            let invite = format!(
                "INVITE sip:x@{0} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK{sent:x}\r\nMax-Forwards: 70\r\n\
                 From: <sip:a@a.example>;tag={sent:x}\r\nTo: <sip:x@{0}>\r\nCall-ID: flood-{sent:x}\r\nCSeq: 1 INVITE\r\n\
                 Contact: <sip:a@10.0.0.2>\r\nSession-Expires: 90\r\nContent-Length: 0\r\n\r\n",
                target.0
            );
            // Nobody listens there: what the kernel says to that is no concern of the flood's.
            let _ = socket.send_to(invite.as_bytes(), target);
            sent += 1;
            if sent.is_multiple_of(64) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        sent
    });
    call.refreshed(3);
    over.store(true, Ordering::Relaxed);
    let sent = flood.join().unwrap();
    assert!(sent > 10_000, "{sent} is no flood");
    call.server_hangs_up();
    for kind in ["refresh_failed", "session_expired"] {
        assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
    }
}

#[test]
fn a_daemon_that_stood_still_when_a_refresh_was_due_sends_it_when_it_goes_on() {
    let mut call = Plan { peer: Profile::strict_peer(40, "uac"), ..Plan::default() }.start();
    thread::sleep(Duration::from_secs(15));
    call.sipst.process().signal(Signal::STOP).unwrap();
    thread::sleep(Duration::from_secs(10));
    assert!(call.peer.refreshes().is_empty(), "{}", call.story());
    call.sipst.process().signal(Signal::CONT).unwrap();
    call.refreshed(1);
    call.server_hangs_up();
    assert_eq!(call.sipst.count("session_expired"), 0, "{}", call.story());
}

#[test]
fn an_interface_that_is_down_when_a_refresh_is_due_delays_it() {
    let call = Plan { peer: Profile::strict_peer(24, "uac"), ..Plan::default() }.start();
    call.refreshed(1);
    thread::sleep(Duration::from_secs(11));
    call.lab.server.run("ip", &["link", "set", "eth0", "down"]).unwrap();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(call.peer.refreshes().len(), 1, "{}", call.story());
    call.lab.server.run("ip", &["link", "set", "eth0", "up"]).unwrap();
    call.refreshed(2);
    call.sipst.event_count("refresh_succeeded", 2, SOON).unwrap();
    call.server_hangs_up();
}

#[test]
fn a_clock_that_is_set_forth_and_back_moves_no_refresh_and_events_follow_it() {
    let call = Plan::default().start_by(|host, config| Sipst::start_with_a_clock(host, config, "+0").unwrap());
    call.refreshed(1);
    let day = |event: &Value| event["time"].as_str().unwrap()[..10].to_owned();
    let today = day(&call.sipst.event("refresh_sent", SOON).unwrap());
    for (set, refreshes) in [("+40d", 3), ("-40d", 5)] {
        call.lab.server.file("clock", set).unwrap();
        call.refreshed(refreshes);
        call.sipst.event_count("refresh_succeeded", refreshes, SOON).unwrap();
        let events = call.sipst.events();
        let sent = events.iter().rev().find(|event| event["event"] == "refresh_sent").unwrap();
        assert_eq!(day(sent) > today, set.starts_with('+'), "{set}: {sent} {today}");
        assert_ne!(day(sent), today, "{set}");
    }
    call.server_hangs_up();
    for kind in ["refresh_failed", "refresh_overdue", "session_expiring", "session_expired"] {
        assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
    }
    let log = call.sipst.log();
    assert_eq!(log.matches("the host's clock was set").count(), 2, "{log}");
}

#[test]
fn webhooks_that_never_answer_or_are_not_there_hold_up_no_refresh_and_not_the_end() {
    // All that waits would take hours.
    const HOOKS: &str = "alerts:\n  - webhook: { url: \"http://127.0.0.1:9000/\", timeout: 1m }\n  \
                         - webhook: { url: \"http://127.0.0.1:9001/\", timeout: 1m }\nalert_rate: off\n";
    // More than wait for a webhook.
    const ALERTS: usize = 300;
    let lab = Lab::new().unwrap();
    // Takes the connection and says nothing.
    let _silent = lab.server.enter(|| TcpListener::bind("127.0.0.1:9000")).unwrap();
    let mut call = Plan::default().start_in(lab, |config| format!("{config}ports: [5060, {IDLE_PORT}]\n{HOOKS}"));
    let [server, peer] =
        [&call.lab.server, &call.lab.peer].map(|host| host.enter(|| UdpSocket::bind(("0.0.0.0", IDLE_PORT)).unwrap()));
    let (a, b) = (call.lab.wire.a.v4, call.lab.wire.b.v4);
    for number in 0..ALERTS {
        let names = |tag: &str| {
            format!(
                "Via: SIP/2.0/UDP {a}:{IDLE_PORT};branch=z9hG4bK{number}\r\nFrom: <sip:a@{a}>;tag=a\r\n\
                 To: <sip:b@{b}>{tag}\r\nCall-ID: short-{number}\r\nCSeq: 1 INVITE\r\nContact: <sip:x@{b}:{IDLE_PORT}>\r\n"
            )
        };
        let end = "Content-Length: 0\r\n\r\n";
        let invite = format!("INVITE sip:b@{b} SIP/2.0\r\n{}Max-Forwards: 70\r\n{end}", names(""));
        server.send_to(invite.as_bytes(), (b, IDLE_PORT)).unwrap();
        let ok = format!("SIP/2.0 200 OK\r\n{}Session-Expires: 1;refresher=uac\r\n{end}", names(";tag=b"));
        peer.send_to(ok.as_bytes(), (a, IDLE_PORT)).unwrap();
        if number % 16 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    call.sipst.event_count("negotiation_fault", ALERTS, SOON).unwrap();
    call.refreshed(3);
    call.server_hangs_up();
    assert!(call.sipst.stop().unwrap().success(), "{}", call.story());
    let log = call.sipst.log();
    for said in [
        "too many alerts are waiting: the newest are dropped",
        "alerts were not posted: too many at once",
        "an alert could not be posted: given up",
        "the last alerts could not be posted in time",
    ] {
        assert!(log.contains(said), "no {said:?} in {log}");
    }
}
