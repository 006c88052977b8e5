//! When sipst must not act: it says so, and nothing of its own is on the wire.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use st_tests::{
    Host, Lab, Play, Sipp, Sipst, Tap, Wire,
    agent::{Agent, Profile},
};

use crate::plan::{INTERVAL_S, Plan, SOON, config};

/// No datagram at the peer's end is a request of sipst's.
fn nothing_of_ours(tap: &Tap) {
    for datagram in tap.datagrams().unwrap() {
        let text = String::from_utf8_lossy(&datagram.payload).into_owned();
        assert!(!text.contains("branch=z9hG4bKsipst"), "{text}");
    }
}

#[test]
fn with_action_alert_the_expiry_is_announced_and_nothing_is_sent() {
    let call = Plan { rules: vec!["action: alert"], ..Plan::default() }.start();
    let overdue = call.sipst.event("refresh_overdue", SOON).unwrap();
    assert_eq!(overdue["by"], "server", "{overdue}");
    let expiring = call.sipst.event("session_expiring", SOON).unwrap();
    assert!(expiring["deadline"].is_string(), "{expiring}");
    assert!(call.peer.ended(SOON).unwrap().0, "{}", call.story());
    let ended = call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(ended["by"], "peer", "{ended}");
    assert_eq!(call.sipst.count("refresh_sent"), 0);
    nothing_of_ours(&call.tap);
    call.clean();
}

#[test]
fn with_action_observe_every_byte_is_as_the_server_sent_it() {
    let call = Plan { rules: vec!["action: observe"], ..Plan::default() }.start();
    call.server.request("INFO");
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200);
    assert!(call.peer.ended(SOON).unwrap().0);
    call.sipst.event("session_ended", SOON).unwrap();
    let sent: Vec<_> = call.server.sent().iter().map(|message| message.to_bytes(": ")).collect();
    let arrived = call.tap.wait(sent.len() + call.peer.sent().len(), SOON).unwrap().into_iter();
    let arrived = arrived.filter(|datagram| datagram.from == call.server.address());
    let mut arrived: Vec<_> = arrived.map(|datagram| datagram.payload).collect();
    arrived.dedup();
    assert_eq!(arrived, sent, "{}", call.story());
    for kind in ["refresh_sent", "refresh_overdue", "session_expiring", "session_expired"] {
        assert_eq!(call.sipst.count(kind), 0, "{}", call.story());
    }
    nothing_of_ours(&call.tap);
    call.clean();
}

#[test]
fn an_interval_below_the_floor_is_reported_and_not_acted_upon() {
    let call = Plan { rules: vec!["action: refresh", "min_se: 90s"], ..Plan::default() }
        .start_with(|config| config.replace("interval_floor: 2s", "interval_floor: 90s"));
    let fault = call.sipst.event("negotiation_fault", SOON).unwrap();
    assert!(fault["reason"].as_str().is_some_and(|reason| reason.starts_with("interval_below_floor")), "{fault}");
    assert!(call.peer.ended(SOON).unwrap().0, "{}", call.story());
    assert_eq!(call.sipst.count("refresh_sent"), 0);
    nothing_of_ours(&call.tap);
}

#[test]
fn a_server_that_crashed_and_was_started_again_is_not_kept_in_its_old_call() {
    let lab = Lab::new().unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", &["action: refresh", "min_se: 2s"])).unwrap();
    let (own, target) = (lab.wire.a.v4, (lab.wire.b.v4, 5060).into());
    let peer = Agent::start(&lab.peer, target, Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let hold = Duration::from_secs(60);
    let mut server = Sipp::start(&lab.server, Play::server_calls(own, target, hold)).unwrap();
    peer.refreshed(2, 2 * SOON).unwrap();
    server.crash().unwrap();
    let _again = Agent::start(&lab.server, (own, 5060).into(), Profile::plain_server()).unwrap();
    let failed = sipst.event("refresh_failed", SOON).unwrap();
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.starts_with("server_gone")), "{failed}");
    let sent = peer.refreshes().len();
    let (by_peer, reason) = peer.ended(SOON).unwrap();
    assert!(by_peer && reason.contains("Session timeout"), "{peer}\n{}", sipst.report());
    assert_eq!(peer.refreshes().len(), sent, "{peer}\n{}", sipst.report());
}

#[test]
fn a_webhook_is_told_of_the_alert() {
    let lab = Lab::new().unwrap();
    let listener = lab.server.enter(|| TcpListener::bind("127.0.0.1:9000")).unwrap();
    let hook = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(2 * SOON)).unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&request).contains("\"event\"") {
            let len = stream.read(&mut buffer).unwrap();
            assert!(len > 0, "{}", String::from_utf8_lossy(&request));
            request.extend(&buffer[..len]);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    let alerts = "alerts:\n  - webhook: { url: \"http://127.0.0.1:9000/sipst\", timeout: 2s }\n";
    let _sipst = Sipst::start(&lab.server, &format!("{}{alerts}", config("auto", &["action: alert"]))).unwrap();
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let server = Agent::start(&lab.server, (lab.wire.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    let request = hook.join().unwrap();
    assert!(request.starts_with("POST /sipst HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("refresh_overdue"), "{request}");
}

#[test]
fn a_route_that_leaves_by_an_unattached_interface_is_no_route_for_a_refresh() {
    let lab = Lab::new().unwrap();
    let other = Wire::between(&lab.server, &lab.peer).unwrap();
    let sipst = Sipst::start(&lab.server, &config("auto", &["action: refresh", "min_se: 2s"])).unwrap();
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let server = Agent::start(&lab.server, (lab.wire.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    server.established(SOON).unwrap();
    let (to, by) = (lab.wire.b.v4.to_string(), other.b.v4.to_string());
    lab.server.run("ip", &["route", "add", &format!("{to}/32"), "via", &by, "dev", &other.a.interface]).unwrap();
    let failed = sipst.event("refresh_failed", SOON).unwrap();
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.starts_with("route_unattached")), "{failed}");
    assert!(peer.refreshes().is_empty(), "{peer}");
}

#[test]
fn a_host_that_only_forwards_a_call_is_no_end_of_it() {
    let (server_host, router, peer_host) =
        (Host::new("server").unwrap(), Host::new("router").unwrap(), Host::new("peer").unwrap());
    let near = Wire::between(&server_host, &router).unwrap();
    let far = Wire::between(&router, &peer_host).unwrap();
    router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    server_host.run("ip", &["route", "add", "default", "via", &near.b.v4.to_string()]).unwrap();
    peer_host.run("ip", &["route", "add", "default", "via", &far.a.v4.to_string()]).unwrap();
    let config = config("auto", &["action: refresh", "min_se: 2s"]).replace("eth0", &far.a.interface);
    let sipst = Sipst::start(&router, &config).unwrap();
    let tap = Tap::start(&peer_host, &far.b.interface).unwrap();
    let peer = Agent::start(&peer_host, (far.b.v4, 5060).into(), Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    let server = Agent::start(&server_host, (near.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    server.established(SOON).unwrap();
    let failed = sipst.event("refresh_failed", SOON).unwrap();
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.starts_with("address_translated")), "{failed}");
    assert!(peer.ended(SOON).unwrap().0, "{peer}");
    nothing_of_ours(&tap);
}
