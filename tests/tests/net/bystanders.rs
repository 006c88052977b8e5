//! What is not ours passes: a user's own programs still run and still have the last word, other traffic is untouched,
//! and the server never hears of what befell a request that it did not send.

use std::{
    cell::Cell,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use st_tests::{
    Family, Frame, Host, Lab, Sipst,
    agent::{Agent, Profile},
};

use crate::{
    foreign::Hook,
    plan::{Call, Plan, SOON, config},
};

/// Long enough for a datagram that is not dropped.
const A_MOMENT: Duration = Duration::from_secs(1);

/// A call of a user whose program drops everything for a while: what it drops is dropped, and then all goes on.
fn the_user_has_the_last_word(drop_all: impl FnOnce(&Host), undo: impl FnOnce(&Host)) {
    let call = Plan::unhurried();
    drop_all(&call.lab.server);
    call.server.request("INFO");
    call.server.answered("INFO", A_MOMENT).unwrap_err();
    undo(&call.lab.server);
    let status = call.server.answered("INFO", SOON);
    assert!(matches!(status, Ok(200)), "{status:?}\n{}", call.story());
    call.server_hangs_up();
}

/// In one direction, by a filter of the kind that there was before TCX.
fn a_clsact_filter_drops(direction: &str) {
    // Classic BPF: return 2, which is TC_ACT_SHOT.
    let filter = ["dev", "eth0", direction, "pref", "7", "bpf", "direct-action", "bytecode", "1,6 0 0 2,"];
    the_user_has_the_last_word(
        |host| {
            host.run("tc", &["qdisc", "add", "dev", "eth0", "clsact"]).unwrap();
            host.run("tc", &[&["filter", "add"], &filter[..]].concat()).unwrap();
        },
        |host| {
            host.run("tc", &["filter", "del", "dev", "eth0", direction]).unwrap();
        },
    );
}

fn a_tcx_program_drops(hook: Hook) {
    let link = Cell::new(None);
    the_user_has_the_last_word(|host| link.set(Some(hook.attach(host))), |_| drop(link.take()));
}

#[test]
fn a_users_clsact_filter_on_ingress_behind_ours_still_drops() {
    a_clsact_filter_drops("ingress");
}

#[test]
fn a_users_clsact_filter_on_egress_behind_ours_still_drops() {
    a_clsact_filter_drops("egress");
}

#[test]
fn a_users_tcx_program_on_ingress_behind_ours_still_drops() {
    a_tcx_program_drops(Hook::DropIngress);
}

#[test]
fn a_users_tcx_program_on_egress_behind_ours_still_drops() {
    a_tcx_program_drops(Hook::DropEgress);
}

#[test]
fn a_users_tcx_program_that_was_there_first_keeps_its_place() {
    let lab = Lab::new().unwrap();
    let link = Hook::DropEgress.attach(&lab.server);
    let mut sipst = Sipst::start(&lab.server, &config("tc", &["action: alert"])).unwrap();
    let peer = Agent::start(&lab.peer, (lab.wire.b.v4, 5060).into(), Profile::strict_peer(60, "uac")).unwrap();
    let server = Agent::start(&lab.server, (lab.wire.a.v4, 5060).into(), Profile::plain_server()).unwrap();
    server.call(peer.address());
    server.established(A_MOMENT).unwrap_err();
    drop(link);
    server.established(SOON).unwrap();
    sipst.event("session_started", SOON).unwrap();
    assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
}

#[test]
fn what_is_not_sip_passes_byte_for_byte_on_any_port() {
    for attach in ["tc", "xdp"] {
        let lab = Lab::new().unwrap();
        let mut sipst = Sipst::start(&lab.server, &config(attach, &["action: refresh", "min_se: 2s"])).unwrap();
        for (family, port) in [(Family::V4, 5060), (Family::V6, 5060), (Family::V4, 40_000)] {
            let ends = [(&lab.server, &lab.wire.a), (&lab.peer, &lab.wire.b)].map(|(host, end)| {
                let address = SocketAddr::new(end.ip(family), port);
                let socket = host.enter(move || UdpSocket::bind(address)).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                (address, socket)
            });
            for (from, to) in [(0, 1), (1, 0)] {
                for payload in payloads() {
                    let mut buffer = vec![0; 65_536];
                    ends[from].1.send_to(&payload, ends[to].0).unwrap();
                    let (len, source) = ends[to].1.recv_from(&mut buffer).unwrap();
                    assert_eq!((source, &buffer[..len]), (ends[from].0, &payload[..]), "{attach} {family:?} {port}");
                }
            }
        }
        assert!(sipst.stop().unwrap().success(), "{}", sipst.report());
    }
}

/// Nearly SIP, and nothing like it; the longest are fragmented on the way.
fn payloads() -> Vec<Vec<u8>> {
    let mut payloads: Vec<Vec<u8>> = [
        "",
        "\r\n\r\n",
        "\0",
        "INVITE",
        "INVITE sip:a SIP/2.0",
        "SIP/2.0 200 OK\r\n",
        "SIP/2.0 200 OK\r\nVia: x;branch=z9hG4bKsips\r\n\r\n",
        "SIP/2.0 200 OK\r\nCSeq: 4294967296 BYE\r\nCall-ID:\r\nTo: <>;tag=\r\n\r\n",
        "BYE sip:a SIP/2.0\r\nCSeq:\r\nCSeq: 1 BYE\r\nCall-ID: x\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    payloads.extend(
        [1, 2, 3, 63, 64, 65, 511, 1_471, 1_472, 4_096, 9_000]
            .map(|len: usize| (0..len).map(|place| u8::try_from(place * 31 % 251).unwrap()).collect::<Vec<_>>()),
    );
    payloads
}

#[test]
fn a_peer_that_is_gone_is_an_alert_and_no_icmp_error_of_ours_reaches_the_server() {
    for attach in ["tc", "xdp"] {
        let call = Plan { attach, ..Plan::default() }.start();
        call.refreshed(1);
        let Call { server, peer, sipst, tap, lab } = call;
        drop(peer);
        sipst.event("session_expired", 2 * SOON).unwrap();
        let unreachable = |frame: &Frame| frame.bytes.get(23) == Some(&1) && frame.bytes.get(34) == Some(&3);
        assert!(tap.frames().iter().any(unreachable), "the peer's host said nothing\n{}", sipst.report());
        let counters = String::from_utf8(lab.server.read("/proc/thread-self/net/snmp").unwrap()).unwrap();
        let icmp: Vec<Vec<_>> =
            counters.lines().filter(|line| line.starts_with("Icmp: ")).map(|line| line.split(' ').collect()).collect();
        let place = icmp[0].iter().position(|name| *name == "InDestUnreachs").unwrap();
        assert_eq!(icmp[1][place], "0", "{counters}\n{}", sipst.report());
        server.faultless().unwrap();
    }
}

#[test]
fn an_answer_with_our_branch_never_reaches_the_server_whether_the_daemon_lives_or_not() {
    for attach in ["tc", "xdp"] {
        let mut call = Plan { attach, peer: Profile::strict_peer(40, "uac"), ..Plan::default() }.start();
        let from = SocketAddr::new(call.lab.wire.b.v4.into(), 5070);
        let socket = call.lab.peer.enter(move || UdpSocket::bind(from)).unwrap();
        for (number, dead) in [(1, false), (2, true)] {
            if dead {
                call.sipst.kill().unwrap();
            }
            let to = call.server.address();
            let message = |start: &str, branch: &str| {
                format!(
                    "{start}\r\nVia: SIP/2.0/UDP {from};branch={branch}\r\nMax-Forwards: 70\r\nFrom: <sip:x@{from}>;tag=x\r\n\
                     To: <sip:server@{to}>\r\nCall-ID: stray{number}\r\nCSeq: {number} OPTIONS\r\nContent-Length: 0\r\n\r\n"
                )
            };
            // A token that is on nobody's record.
            let stray = message("SIP/2.0 200 OK", "z9hG4bKsipst0123456789abcdef");
            let mark = message(&format!("OPTIONS sip:server@{to} SIP/2.0"), &format!("z9hG4bKmark{number}"));
            for text in [stray, mark] {
                socket.send_to(text.as_bytes(), to).unwrap();
            }
            call.server.received(&["OPTIONS"], number, SOON).unwrap();
            call.server.faultless().unwrap();
        }
    }
}
