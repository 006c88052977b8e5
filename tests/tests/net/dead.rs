//! A call whose server has forgotten it, or stands still, is not kept alive: the peer's timer ends it. `alarm` has
//! the server that is started again on its port.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use st_tests::{
    Host, Lab, Play, Sipp, Sipst, Tap, Wire,
    agent::{Agent, Profile},
};

use crate::plan::{INTERVAL_S, Plan, SOON, config};

/// Long enough for looks at a queue that lie more than a second apart.
const LONG_S: u32 = 16;

/// A call of SIPp's after its first refresh.
struct Real {
    sipp: Sipp,
    peer: Agent,
    sipst: Sipst,
    tap: Tap,
    lab: Lab,
}

impl Real {
    fn start(interval_s: u32) -> Self {
        let lab = Lab::new().unwrap();
        let sipst = Sipst::start(&lab.server, &config("auto", &["action: refresh", "min_se: 2s"])).unwrap();
        let tap = Tap::start(&lab.peer, "eth0").unwrap();
        let target: SocketAddr = (lab.wire.b.v4, 5060).into();
        let peer = Agent::start(&lab.peer, target, Profile::strict_peer(interval_s, "uac")).unwrap();
        let play = Play::server_calls(lab.wire.a.v4, target, Duration::from_secs(90));
        let sipp = Sipp::start(&lab.server, play).unwrap();
        peer.refreshed(1, SOON + Duration::from_secs(interval_s.into())).unwrap();
        Self { sipp, peer, sipst, tap, lab }
    }
}

/// sipst says why it refreshes no more, sends no more, and the peer's timer ends the call.
fn is_let_go(sipst: &Sipst, peer: &Agent, reason: &str) {
    let failed = sipst.event("refresh_failed", 2 * SOON).unwrap();
    let why = failed["reason"].as_str().unwrap_or_default();
    assert_eq!(why.split(':').next(), Some(reason), "{peer}\n{}", sipst.report());
    let sent = peer.refreshes().len();
    let (by_peer, ended) = peer.ended(2 * SOON).unwrap();
    assert!(by_peer && ended.contains("Session timeout"), "{peer}\n{}", sipst.report());
    assert_eq!((peer.refreshes().len(), sent), (1, 1), "{peer}\n{}", sipst.report());
}

/// Whether the server's host has answered with ICMP: destination unreachable, port unreachable (RFC 792).
fn port_unreachable(tap: &Tap) -> bool {
    // Ethernet and an IPv4 header without options before it.
    tap.frames().iter().any(|frame| {
        frame.bytes.get(12..15) == Some(&[8, 0, 0x45])
            && frame.bytes.get(23) == Some(&1)
            && frame.bytes.get(34..36) == Some(&[3, 3])
    })
}

#[test]
fn a_server_that_was_killed_is_not_kept_in_its_call() {
    let mut call = Real::start(INTERVAL_S);
    call.sipp.crash().unwrap();
    is_let_go(&call.sipst, &call.peer, "server_gone");
    assert!(!call.lab.server.listens(5060));
}

#[test]
fn a_server_whose_port_is_unreachable_is_not_kept_in_its_call() {
    let call = Plan::default().start();
    call.refreshed(1);
    // The process lives on; its socket is closed.
    drop(call.server);
    call.peer.request("INFO");
    is_let_go(&call.sipst, &call.peer, "server_gone");
    assert!(port_unreachable(&call.tap), "{}", call.peer);
}

#[test]
fn a_server_that_stands_still_with_requests_unread_is_not_kept_in_its_call() {
    let call = Real::start(LONG_S);
    call.sipp.signal(Signal::STOP).unwrap();
    call.peer.request("INFO");
    is_let_go(&call.sipst, &call.peer, "server_hangs");
    assert!(!port_unreachable(&call.tap), "the socket is still there");
}

#[test]
fn a_server_whose_container_was_replaced_is_not_kept_in_its_old_call() {
    let mut call = Real::start(INTERVAL_S);
    call.sipp.crash().unwrap();
    // The same address and port, in a network namespace of its own behind the host that sipst runs on.
    let container = Host::new("container").unwrap();
    let inner = Wire::between(&call.lab.server, &container).unwrap();
    let (host, own, far) = (&call.lab.server, call.lab.wire.a.v4, call.lab.wire.b.v4);
    host.run("ip", &["address", "del", &format!("{own}/24"), "dev", "eth0"]).unwrap();
    host.run("ip", &["route", "add", &format!("{far}/32"), "dev", "eth0"]).unwrap();
    host.run("ip", &["route", "add", &format!("{own}/32"), "dev", &inner.a.interface]).unwrap();
    for switch in ["ip_forward", "conf/all/proxy_arp"] {
        host.enter(move || std::fs::write(format!("/proc/sys/net/ipv4/{switch}"), "1")).unwrap();
    }
    container.run("ip", &["address", "add", &format!("{own}/32"), "dev", &inner.b.interface]).unwrap();
    let by = inner.a.v4.to_string();
    container.run("ip", &["route", "add", "default", "via", &by, "src", &own.to_string()]).unwrap();
    let again = Agent::start(&container, (own, 5060).into(), Profile::plain_server()).unwrap();
    is_let_go(&call.sipst, &call.peer, "server_gone");
    // And it is a server again: new calls reach it.
    let other = Agent::start(&call.lab.peer, (far, 5070).into(), Profile::strict_peer(INTERVAL_S, "uac")).unwrap();
    other.call(again.address());
    again.established(SOON).unwrap();
}
