//! What network cards and the kernel do for one another: checksums that are computed later than the programs run, several datagrams as one
//! packet, and tunnels.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use serde_json::Value;
use st_tests::{Family, Host, Lab, Sipst, Wire, agent::Profile};

use crate::plan::{INTERVAL_S, Plan, SOON, config};

/// `UDP_SEGMENT` and `UDP_GRO` of linux/udp.h.
const SEGMENT: i32 = 103;
const GRO: i32 = 104;

/// A laboratory with a router between the two hosts: what leaves it on the peer's side has whole checksums, whatever came in.
fn routed(checksums_later: bool) -> (Lab, Host) {
    let (server, router, peer) =
        (Host::new("server").unwrap(), Host::new("router").unwrap(), Host::new("peer").unwrap());
    let (near, far) = (Wire::between(&server, &router).unwrap(), Wire::between(&router, &peer).unwrap());
    router.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    for (host, by) in [(&server, near.b.v4), (&peer, far.a.v4)] {
        host.run("ip", &["route", "add", "default", "via", &by.to_string()]).unwrap();
    }
    if checksums_later {
        for (host, end) in [(&server, &near.a), (&router, &near.b)] {
            host.run("ethtool", &["-K", &end.interface, "tx", "on"]).unwrap();
        }
    }
    (Lab { server, peer, wire: Wire { a: near.a, b: far.b } }, router)
}

fn lives_behind_a_router(checksums_later: bool, attach: &'static str) {
    let (lab, _router) = routed(checksums_later);
    let call = Plan { attach, ..Plan::default() }.start_in(lab, |config| config);
    call.refreshed(2);
    // A number that is shifted out, and back in the answer to it.
    call.server.request("INFO");
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.server_hangs_up();
}

#[test]
fn checksums_are_right_where_the_card_is_to_compute_them() {
    lives_behind_a_router(true, "tc");
}

#[test]
fn checksums_are_right_where_they_are_whole_before() {
    lives_behind_a_router(false, "tc");
}

#[test]
fn checksums_are_right_by_xdp_where_those_that_come_in_are_not_whole() {
    lives_behind_a_router(true, "xdp");
}

/// Three messages of one length.
fn three() -> Vec<String> {
    let message = |number: u32| {
        format!(
            "BYE sip:peer@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{number}\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:c@d>;tag=2\r\nCall-ID: joined-{number}\r\nCSeq: {number} BYE\r\nContent-Length: 0\r\n\r\n"
        )
    };
    (3..6).map(message).collect()
}

fn set(socket: &UdpSocket, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel reads four bytes.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, option, (&raw const value).cast(), size_of::<i32>() as u32)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn counted(host: &Host, counter: &str) -> u64 {
    let (code, printed, said) = Sipst::command(host, &["status", "--json", "--state-dir", "/run/state"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str::<Value>(&printed).unwrap()["counters"][counter].as_u64().unwrap_or(0)
}

/// Sends three messages in one system call, which one packet carries to the other end of the wire, and reads them there.
fn sent_as_one(from: &Host, own: SocketAddr, to: &Host, target: SocketAddr, together: bool) -> String {
    let messages = three();
    let (segment, all) = (messages[0].len() as i32, messages.concat());
    let length = all.len();
    let reader = to.enter(move || UdpSocket::bind(target)).unwrap();
    reader.set_read_timeout(Some(SOON)).unwrap();
    if together {
        set(&reader, GRO, 1).unwrap();
    }
    from.enter(move || {
        let socket = UdpSocket::bind(own)?;
        set(&socket, SEGMENT, segment)?;
        socket.send_to(all.as_bytes(), target)
    })
    .unwrap();
    let (mut read, mut buffer) = (Vec::new(), vec![0; 65_536]);
    while read.len() < length {
        let more = reader.recv(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..more]);
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn datagrams_that_are_one_packet_pass_as_they_are_and_are_read_one_by_one() {
    let lab = offloading();
    let (server, peer) = (SocketAddr::new(lab.wire.a.v4.into(), 5060), SocketAddr::new(lab.wire.b.v4.into(), 5060));
    let both = |together| {
        let out = sent_as_one(&lab.server, server, &lab.peer, peer, together);
        (out, sent_as_one(&lab.peer, peer, &lab.server, server, together))
    };
    let whole = three().concat();
    // The control: they arrive without sipst.
    assert_eq!(both(false), (whole.clone(), whole.clone()));
    let mut sipst = Sipst::start(&lab.server, &config("tc", &["action: refresh"])).unwrap();
    assert_eq!(counted(&lab.server, "sampled"), 0);
    assert_eq!(both(false), (whole.clone(), whole.clone()));
    let read = |packets| ["joined", "sampled"].map(|counter| counted(&lab.server, counter)) == [packets, 3 * packets];
    assert!(read(2), "{}", sipst.report());
    assert_eq!(both(true), (whole.clone(), whole));
    assert!(read(4), "{}", sipst.report());
    assert_eq!(sipst.count("capture_loss"), 0);
    assert!(sipst.stop().unwrap().success());
}

/// A laboratory whose hosts let the kernel part what they send at once.
fn offloading() -> Lab {
    let lab = Lab::new().unwrap();
    for host in [&lab.server, &lab.peer] {
        host.run("ethtool", &["-K", "eth0", "tx", "on"]).unwrap();
    }
    lab
}

fn followed_and_let_be(family: Family) {
    let peer = Profile { together: true, ..Profile::strict_peer(INTERVAL_S, "uac") };
    let server = Profile { together: true, ..Profile::plain_server() };
    let call = Plan { family, attach: "tc", peer, server, ..Plan::default() }.start_in(offloading(), |config| config);
    call.sipst.event("timer_negotiated", SOON).unwrap();
    call.server.reinvite();
    assert_eq!(call.server.answered("INVITE", SOON).unwrap(), 200, "{}", call.story());
    call.sipst.event("session_refreshed", SOON).unwrap();
    let overdue = call.sipst.event("refresh_overdue", SOON).unwrap();
    assert_eq!(overdue["reason"], "joined", "{}", call.story());
    // Nobody refreshes it any more.
    let (by_peer, _) = call.peer.ended(SOON).unwrap();
    assert!(by_peer, "{}", call.story());
    call.sipst.event("session_ended", SOON).unwrap();
    assert!(call.peer.faults().is_empty() && call.server.faults().is_empty(), "{}", call.story());
    assert_eq!(call.peer.refreshes().len(), 1, "the server's own: {}", call.story());
    assert_eq!(call.sipst.count("capture_loss"), 0);
    let [joined, committed] = ["joined", "committed"].map(|counter| counted(&call.lab.server, counter));
    assert!(joined >= 8 && committed == 0, "{joined}, {committed}: {}", call.story());
}

#[test]
fn a_call_whose_messages_come_with_others_as_one_packet_is_followed_and_let_be() {
    followed_and_let_be(Family::V4);
}

#[test]
fn a_call_whose_messages_come_with_others_as_one_packet_is_followed_and_let_be_over_ipv6() {
    followed_and_let_be(Family::V6);
}

/// The control of the above too: what the peer sends so of its own accord keeps no call from being refreshed.
#[test]
fn an_answer_that_comes_with_others_as_one_packet_is_heard_and_the_server_hears_it_too() {
    let plan = Plan::peer_calls();
    let peer = Profile { together: true, ..plan.peer.clone() };
    let call = Plan { attach: "tc", peer, ..plan }.start_in(offloading(), |config| config);
    call.refreshed(2);
    call.sipst.event("refresh_succeeded", SOON).unwrap();
    assert!(counted(&call.lab.server, "joined_answer") >= 1, "{}", call.story());
    call.peer.bye();
    assert_eq!(call.peer.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    call.sipst.event("session_ended", SOON).unwrap();
    assert_eq!(call.sipst.count("refresh_failed"), 0, "{}", call.story());
    assert!(call.peer.faults().is_empty() && !call.server.faults().is_empty(), "{}", call.story());
}

#[test]
fn by_xdp_an_answer_never_comes_with_others_and_the_server_hears_none() {
    let plan = Plan::peer_calls();
    let peer = Profile { together: true, ..plan.peer.clone() };
    let call = Plan { attach: "xdp", peer, ..plan }.start_in(offloading(), |config| config);
    call.refreshed(2);
    assert_eq!(counted(&call.lab.server, "joined"), 0, "{}", call.story());
    assert!(call.peer.faults().is_empty() && call.server.faults().is_empty(), "{}", call.story());
}

/// A laboratory whose two hosts talk through a VXLAN: addresses of their own, on an interface `tunnel`.
fn tunnelled() -> Lab {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.wire.a.clone(), lab.wire.b.clone());
    let (mut near, mut far) = (a.clone(), b.clone());
    for (host, end, other) in [(&lab.server, &mut near, &b), (&lab.peer, &mut far, &a)] {
        let (local, remote) = (end.v4.to_string(), other.v4.to_string());
        host.run(
            "ip",
            &[
                "link", "add", "tunnel", "type", "vxlan", "id", "7", "local", &local, "remote", &remote, "dstport",
                "4789", "udpcsum", "dev", "eth0",
            ],
        )
        .unwrap();
        let [.., last] = end.v4.octets();
        end.v4 = [10, 77, 0, last].into();
        end.interface = "tunnel".into();
        host.run("ip", &["address", "add", &format!("{}/24", end.v4), "dev", "tunnel"]).unwrap();
        host.run("ip", &["link", "set", "tunnel", "up"]).unwrap();
    }
    Lab { wire: Wire { a: near, b: far }, ..lab }
}

#[test]
fn a_call_through_a_vxlan_is_kept_up_from_the_tunnels_own_interface() {
    let call =
        Plan { attach: "tc", ..Plan::default() }.start_in(tunnelled(), |config| config.replace("eth0", "tunnel"));
    call.refreshed(2);
    call.server.request("INFO");
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.server_hangs_up();
}

#[test]
fn the_interface_under_a_vxlan_shows_nothing_of_its_calls_and_lets_them_by() {
    let peer = Profile { timer: None, ..Profile::strict_peer(0, "uac") };
    let lab = tunnelled();
    let call = Plan { attach: "tc", peer, ..Plan::default() }.start_in(lab, |config| config);
    call.server.request("INFO");
    assert_eq!(call.server.answered("INFO", SOON).unwrap(), 200, "{}", call.story());
    call.server.bye();
    assert_eq!(call.server.answered("BYE", SOON).unwrap(), 200, "{}", call.story());
    assert!(call.sipst.events().iter().all(|event| event["event"] != "session_started"), "{}", call.story());
    call.clean();
}
